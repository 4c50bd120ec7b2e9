"""A run while luigid is killed, stopped and restarted: with a real luigid and the real command."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from chain import LUIGI, RunningCommand, environment, kill_group_on_exit, write_settings
from eventually import Value, eventually
from luigid import Luigid

from tasks.scheduler.resilient_scheduler import ResilientScheduler

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = f"{ROOT}:{ROOT / 'tests' / 'drivers'}"
SUPPORTED = "pause (wait after the chunk that is being scored); resume (continue)"
GONE, BACK = "does not answer", "answers again"


class Run(RunningCommand):
    """The real command on tasks that wait until the test releases them."""

    def release(self, *numbers: int) -> None:
        for number in numbers:
            (self.folder / f"go-{number}").touch()

    def wait_for(self, read: Callable[[], Value], accepts: Callable[[Value], object] = bool) -> Value:
        return eventually(read, accepts, self._check_runs, lambda: self.output)

    def _check_runs(self) -> None:
        assert self.process.poll() is None, self.output

    def wait_for_line(self, text: str) -> None:
        self.wait_for(lambda: text in self.output)

    def end(self) -> int:
        return self.process.wait(timeout=60)


@contextlib.contextmanager
def start_run(folder: Path, luigid: Luigid, tasks: int = 3, **core: str) -> Iterator[Run]:
    folder.mkdir()
    settings = {**luigid.settings["core"], "rpc_connect_timeout": "10", **core}
    write_settings(folder, {"core": settings})
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [LUIGI, "--module", "waiting_tasks", "Waiting", "--number", str(tasks)], cwd=folder,
            env=environment(PYTHONPATH=PROGRAMS), stdout=output, stderr=output, text=True, start_new_session=True,
        )  # fmt: skip
    with kill_group_on_exit(process):
        yield Run(folder, process)


def running_task(luigid: Luigid) -> dict[str, object]:
    """Returns what the page shows of the running task; an empty dict if no task runs."""
    tasks = luigid.call("task_list", status="RUNNING", upstream_status="", limit=False)
    return next(iter(tasks.values()), {})


def done_tasks(luigid: Luigid) -> list[object]:
    """Returns the parameters of the tasks that the page shows as done."""
    tasks = luigid.call("task_list", status="DONE", upstream_status="", limit=False)
    return [task["params"] for task in tasks.values()]


def test_a_run_continues_after_luigid_was_killed_and_logs_it_once(tmp_path: Path) -> None:
    with Luigid(tmp_path / "luigid") as luigid, start_run(tmp_path / "run", luigid) as run:
        run.wait_for(lambda: running_task(luigid).get("status_message"))
        luigid.kill()
        run.wait_for_line(GONE)
        run.release(1, 2, 3)
        assert run.end() == 0, run.output
    assert "3 ran successfully" in run.output
    assert (run.output.count(GONE), run.output.count(BACK)) == (1, 0)
    assert not {"Traceback", "Failed pinging", "Retrying"} & set(run.output.split("\n"))


def test_a_run_starts_without_luigid(tmp_path: Path) -> None:
    luigid = Luigid(tmp_path / "luigid")
    with start_run(tmp_path / "run", luigid, tasks=2) as run:
        run.release(1, 2)
        assert run.end() == 0, run.output
    assert run.output.count(GONE) == 1


@pytest.mark.parametrize("has_state", [True, False], ids=["with its state", "without its state"])
def test_a_restarted_luigid_receives_everything_and_decides_again(tmp_path: Path, has_state: bool) -> None:
    with Luigid(tmp_path / "luigid") as luigid, start_run(tmp_path / "run", luigid) as run:
        run.wait_for(lambda: running_task(luigid).get("status_message"))
        if has_state:
            luigid.process.terminate()
            luigid.process.wait()
        else:
            luigid.kill()
        run.wait_for_line(GONE)
        run.release(1)
        run.wait_for_line("has status   DONE")
        luigid.start()
        run.wait_for_line(BACK)
        # It knows what ended while it was away, what runs, its progress, and that it accepts messages.
        expected = {"params": {"number": "2"}, "accepts_messages": True, "resources": {"seat": 1}}
        run.wait_for(lambda: running_task(luigid), lambda task: expected.items() <= task.items())
        run.wait_for(lambda: running_task(luigid).get("status_message"))
        run.wait_for(lambda: done_tasks(luigid), lambda params: params == [{"number": "1"}])
        run.release(2, 3)
        assert run.end() == 0, run.output
        eventually(lambda: done_tasks(luigid), lambda params: len(params) == 3)
    assert "3 ran successfully" in run.output
    assert (run.output.count(GONE), run.output.count(BACK)) == (1, 1)


def test_a_luigid_restarted_between_two_requests_receives_the_tasks_again(tmp_path: Path) -> None:
    with Luigid(tmp_path / "luigid") as luigid:
        scheduler = ResilientScheduler(luigid.url)
        for number in (2, 1):
            deps = ["one"] if number == 2 else []
            scheduler.add_task(
                worker="w", task_id=("one", "two")[number - 1], status="PENDING", deps=deps, runnable=True,
                family="Waiting", params={"number": str(number)},
            )  # fmt: skip
        assert scheduler.get_work(worker="w", current_tasks=[])["task_id"] == "one"
        scheduler.add_task(worker="w", task_id="one", status="DONE", runnable=None, family="Waiting")
        luigid.kill()
        luigid.start()
        assert scheduler.get_work(worker="w", current_tasks=[])["task_id"] == "two"


def test_a_luigid_that_hangs_does_not_block_the_tasks(tmp_path: Path) -> None:
    with Luigid(tmp_path / "luigid") as luigid, start_run(tmp_path / "run", luigid) as run:
        run.wait_for(lambda: running_task(luigid).get("status_message"))
        luigid.suspend()
        run.wait_for_line(GONE)
        run.release(1, 2)
        run.wait_for(lambda: (run.folder / "done-2").exists())
        luigid.resume()
        run.wait_for_line(BACK)
        run.wait_for(lambda: running_task(luigid).get("params") == {"number": "3"})
        run.release(3)
        assert run.end() == 0, run.output
    assert (run.output.count(GONE), run.output.count(BACK)) == (1, 1)


def test_a_link_keeps_messages_and_resources_of_a_task(tmp_path: Path) -> None:
    with Luigid(tmp_path / "luigid") as luigid, start_run(tmp_path / "run", luigid, tasks=1) as run:
        # The link, the status and the progress arrive in requests of their own, in any order.
        expected = {
            "tracking_url": "http://reports.internal/1", "accepts_messages": True, "resources": {"seat": 1},
            "progress_percentage": 10,
        }  # fmt: skip
        run.wait_for(lambda: running_task(luigid), lambda task: expected.items() <= task.items())
        run.release(1)
        assert run.end() == 0


def test_a_message_from_the_page_is_carried_out_and_answered(tmp_path: Path) -> None:
    with Luigid(tmp_path / "luigid") as luigid, start_run(tmp_path / "run", luigid, tasks=1) as run:
        run.wait_for(lambda: running_task(luigid).get("status_message"))
        for content, answer in (
            ("run", f"unknown message. Supported messages: {SUPPORTED}."),
            ("resume", "not paused"),
            (" Pause\n", "paused; send resume to continue"),
            ("pause", "already paused; send resume to continue"),
        ):
            received = luigid.send_message("Waiting", content)
            run.wait_for(lambda received=received, answer=answer: received() == answer)
        run.release(1)
        run.wait_for(
            lambda: str(running_task(luigid).get("status_message")),
            lambda status: status.startswith("paused by a message, send resume"),
        )
        received = luigid.send_message("Waiting", "resume")
        assert run.end() == 0
        eventually(received, lambda answer: answer == "continuing")


def test_sigterm_ends_a_paused_run(tmp_path: Path) -> None:
    with Luigid(tmp_path / "luigid") as luigid, start_run(tmp_path / "run", luigid, tasks=1) as run:
        run.wait_for(lambda: running_task(luigid).get("status_message"))
        received = luigid.send_message("Waiting", "pause")
        run.wait_for(received)
        run.process.terminate()
        assert run.end() == 143
    assert not (run.folder / "done-1").exists()


def test_the_password_of_a_proxy_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    scheduler = ResilientScheduler("http://night:hunter2@127.0.0.1:1/luigi")
    assert scheduler.ping(worker="w") == {"rpc_messages": []}
    assert "luigid at http://127.0.0.1:1/luigi does not answer (no connection)" in caplog.text
    assert "hunter2" not in caplog.text


def test_an_unpickled_scheduler_only_reports() -> None:
    copy = pickle.loads(pickle.dumps(ResilientScheduler("http://127.0.0.1:1", process=os.getpid() + 1)))
    with pytest.raises(requests.ConnectionError):
        copy.add_scheduler_message_response("task", "message", "answer")
