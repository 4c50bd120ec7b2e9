"""Tests `spamscore watch` in Chromium: the graph of the chain, progress, messages to a task, and errors.

With SPAMSCORE_SCREENSHOTS=docs/images the tests also update the screenshots of the README.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chain import (
    DATE,
    SMALL,
    STAGES,
    RunningCommand,
    environment,
    kill_group_on_exit,
    merge_settings,
    query,
    write_settings,
)
from eventually import eventually
from page import Page, chromium

SPAMSCORE = Path(sys.executable).with_name("spamscore")
GREEN, RED, YELLOW = "#00DD00", "#DD0000", "#EEBB00"
# More epochs than the test waits for: training ends because it receives a message.
ENDLESS = {"training": {"epochs": "400", "patience": "400", "learning_rate": "0.001"}}


class WatchCommand(RunningCommand):
    """A running `spamscore watch` command."""

    def wait_for(self, read: Callable[[], Any], accepts: Callable[[Any], object] = bool) -> Any:
        return eventually(read, accepts, self._check_runs, lambda: self.output)

    def _check_runs(self) -> None:
        assert self.process.poll() is None, self.output

    @property
    def page(self) -> str:
        """The URL of the page."""
        return self.wait_for(lambda: re.search(r"watch it at (\S+)", self.output))[1]

    def wait_for_exit_code(self) -> int:
        """Waits until the run has ended, and returns its exit code."""
        return int(self.wait_for(lambda: re.search(r"the run ended with exit code (\d+)", self.output))[1])

    def tasks(self) -> dict[str, Any]:
        """Returns the stages as luigid shows them now, by name."""
        data = urllib.parse.urlencode({"data": json.dumps({"status": "", "upstream_status": "", "limit": False})})
        answer = json.loads(fetch(f"{urllib.parse.urljoin(self.page, '/api/task_list')}?{data}"))["response"]
        return {task["name"]: {"id": task_id, **task} for task_id, task in answer.items()}

    def wait_for_tasks(self, accepts: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Waits until luigid shows the expected state of the stages, and returns them."""
        return self.wait_for(self.tasks, accepts)

    def interrupt(self) -> int:
        """Sends ^C, waits for the end of the command, and returns its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=120)


def fetch(url: str, **headers: str) -> str:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        return answer.read().decode()


@contextlib.contextmanager
def watching(folder: Path, *arguments: str) -> Iterator[WatchCommand]:
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [SPAMSCORE, "watch", "--port", "0", *arguments], cwd=folder, env=environment(), stdout=output,
            stderr=output, text=True, start_new_session=True,
        )  # fmt: skip
    with kill_group_on_exit(process):
        yield WatchCommand(folder, process)


def take_screenshot(page: Page, name: str, **size: int) -> None:
    # Windows slide in: waits until the window has stopped.
    page.wait_for(
        "[...document.querySelectorAll('.modal.in .modal-dialog')]"
        ".every(dialog => dialog.getBoundingClientRect().top >= 29)"
    )
    if folder := os.environ.get("SPAMSCORE_SCREENSHOTS"):
        page.take_screenshot(Path(folder) / name, **size)


def read_graph(page: Page, command: WatchCommand) -> dict[str, str]:
    """Returns the colour of each stage in the graph of the chain."""
    score_batch = command.wait_for_tasks(lambda tasks: "ScoreBatch" in tasks)["ScoreBatch"]
    page.open(f"{command.page}#tab=graph&taskId={score_batch['id']}&visType=svg")
    page.wait_for(f"document.querySelectorAll('#graphPlaceholder .graph-node-a').length == {len(STAGES)}")
    return dict(
        page.value(
            "[...document.querySelectorAll('#graphPlaceholder .graph-node-a')].map(node => "
            "[node.textContent.trim(), node.parentNode.querySelector('circle').getAttribute('fill')])"
        )
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watch")
    write_settings(folder, merge_settings(SMALL, ENDLESS))
    return folder


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with chromium(tmp_path) as page:
        yield page


@pytest.mark.timeout(1200)
def test_the_page_shows_the_run_and_a_message_from_the_page_stops_training(folder: Path, page: Page) -> None:
    with watching(folder, "ScoreBatch", "--date", DATE) as command:
        command.wait_for_tasks(lambda tasks: (tasks.get("TrainModel", {}).get("progress_percentage") or 0) > 0.5)
        finished = dict.fromkeys(("CleanText", "BuildVocabulary"), GREEN)
        colours = command.wait_for(
            lambda: read_graph(page, command), lambda colours: finished.items() <= colours.items()
        )
        assert set(colours) == set(STAGES)
        assert colours["ScoreBatch"] == YELLOW
        assert len(set(colours.values())) == 3
        take_screenshot(page, "graph.png", height=1020)

        page.open(f"{command.page}#tab=workers")
        bar = "Number(document.querySelector('.worker-table .taskProgressBar').getAttribute('aria-valuenow'))"
        page.wait_for("document.querySelector('.worker-table .taskProgressBar') !== null")
        before = page.value(bar)
        page.click(".worker-table button.statusMessage")
        text = "document.querySelector('#statusMessageModal pre').textContent"
        page.wait_for(f"/^epoch \\d+\\/400, loss \\d\\.\\d{{3}}(, .+ left)?$/.test({text})")
        page.wait_for(f"{bar} > {before}")
        take_screenshot(page, "status.png", height=420)

        tasks = command.wait_for_tasks(lambda tasks: tasks["TrainModel"]["tracking_url"])
        history = command.wait_for(lambda: fetch(tasks["TrainModel"]["tracking_url"]))
        assert history.startswith("epoch,steps,loss")

        page.open(f"{command.page}#tab=workers")
        page.click(".worker-table button.schedulerMessage")
        page.click("#schedulerMessageInput")
        page.type("stop")
        page.click("#schedulerMessageAwaitResponse")
        page.click("#schedulerMessageButton")
        answer = "document.querySelector('#schedulerMessageResponse pre div').textContent"
        page.wait_for(f"/^stopping after epoch \\d+ of 400\\. The best epoch is kept\\.$/.test({answer})")
        take_screenshot(page, "message.png", height=420)

        assert command.wait_for_exit_code() == 0
        tasks = command.wait_for_tasks(lambda tasks: {task["status"] for task in tasks.values()} == {"DONE"})
        command.wait_for_tasks(lambda tasks: "(stopped by a message)" in tasks["TrainModel"]["status_message"])
        tasks = command.wait_for_tasks(lambda tasks: all(tasks[stage]["tracking_url"] for stage in STAGES))
        for stage in STAGES:
            assert fetch(tasks[stage]["tracking_url"]), stage
        assert command.interrupt() == 0
    [model] = (folder / "artifacts/training").glob("*/model.json")
    description = json.loads(model.read_text())
    assert description["stopped_after_epoch"] == description["epochs"] < 400
    assert query(folder, "select state from score_batches") == [("published",)]


def test_a_failed_stage_is_red_with_its_error_and_earlier_stages_are_still_shown(folder: Path, page: Page) -> None:
    arguments = ("ScoreBatch", "--date", DATE, "--training-seed", "8", "--devices-devices", "gpu:3")
    with watching(folder, *arguments) as command:
        assert command.wait_for_exit_code() == 30
        colours = command.wait_for(lambda: read_graph(page, command), lambda colours: RED in colours.values())
        assert {name for name, colour in colours.items() if colour == RED} == {"TrainModel"}
        assert colours["CleanText"] == GREEN  # done in the run before, not in this run
        # The status message of the earlier, successful run is deleted.
        command.wait_for_tasks(lambda tasks: tasks["TrainModel"]["status_message"] is None)
        page.open(f"{command.page}#tab=tasks&statuses=%5B%22FAILED%22%5D")
        page.click("#taskTable tbody tr:first-child td.details-control button.showError")
        text = "document.querySelector('#errorModal pre').textContent"
        page.wait_for(f"document.querySelector('#errorModal pre') && {text}.startsWith('[devices] devices = gpu:3: ')")
        window = "(document.querySelector('#errorModal.in .modal-dialog') || document.body)"
        page.wait_for(f"{window}.getBoundingClientRect().top >= 29")
        take_screenshot(page, "error.png", height=420)
        assert command.interrupt() == 30


@pytest.mark.slow
def test_an_interrupted_run_can_be_continued_by_the_next_run(tmp_path: Path) -> None:
    write_settings(tmp_path, merge_settings(SMALL, ENDLESS))
    with watching(tmp_path, "TrainModel") as command:
        command.wait_for(lambda: "epoch 2/400" in command.output)
        assert command.interrupt() == 130
        assert "run the same command again to continue from here" in command.output


def test_only_reports_are_served_and_only_to_this_machine(tmp_path: Path) -> None:
    from pipeline.watch.reports_server import serve_reports

    (tmp_path / "secret.json").write_text("{}")
    training, snapshot = tmp_path / "artifacts/training/f.partial", tmp_path / "artifacts/snapshots/f"
    for path, text in (
        (training / "history.csv", "epoch"), (snapshot / "manifest.json", "{}"), (snapshot / "messages.parquet", "PAR"),
    ):  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with serve_reports(tmp_path / "artifacts") as url:
        assert fetch(f"{url}/training/f/history.csv") == "epoch"
        assert fetch(f"{url}/snapshots/f/manifest.json") == "{}"
        for path, headers in (
            ("/snapshots/f/messages.parquet", {}), ("/snapshots/f/", {}), ("/", {}), ("/../secret.json", {}),
            ("/%2e%2e/secret.json", {}), ("/training/f/history.csv", {"Host": "reports.example"}),
        ):  # fmt: skip
            with pytest.raises(urllib.error.HTTPError) as refused:
                fetch(url + path, **headers)
            assert refused.value.code in (403, 404), path
            refused.value.close()


def test_a_port_in_use_is_reported_with_a_solution(tmp_path: Path) -> None:
    write_settings(tmp_path, {})
    with watching(tmp_path, "IngestCorpus") as first:
        port = str(urllib.parse.urlsplit(first.page).port)
        done = subprocess.run(
            [SPAMSCORE, "watch", "--port", port], cwd=tmp_path, env=environment(), capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert f"--port {port}: Address already in use" in done.stderr
        assert "--port 0 takes a free one" in done.stderr
        first.wait_for_exit_code()
        first.interrupt()
