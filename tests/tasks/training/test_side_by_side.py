"""Trainings in several processes through the real command: the same bits, kills, signals, messages and errors."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from chain import (
    LUIGI,
    SMALL,
    CommandResult,
    RunningCommand,
    Settings,
    environment,
    kill_group_on_exit,
    luigi,
    merge_settings,
    start_command,
    wait_until,
    write_settings,
)
from eventually import eventually
from luigid import Luigid
from toy_training import NETWORK, SETTINGS, VOCABULARY, messages

from models.settings import DeviceSettings
from models.training.folds import split_folds
from models.training.history import HISTORY, read_history
from tasks.training.plan import TrainingPlan
from tasks.training.side_by_side import available_memory, count_processes

FOLDS: Settings = {"training": {"held_out_folds": "2", "epochs": "2"}}
TWO = merge_settings(SMALL, FOLDS, {"training": {"processes": "2", "checkpoint_steps": "3"}})
# Checkpoints only at the end of an epoch, when a process ends, and when a message asks for one.
RARE = merge_settings(TWO, {"training": {"checkpoint_steps": "1000"}})
ENDLESS = merge_settings(RARE, {"training": {"epochs": "400", "patience": "400", "learning_rate": "0.001"}})
TRAINING = ("TrainModel",)


class Model(NamedTuple):
    """What must be equal for equal trainings."""

    weights_sha256: str
    unseen_scores: bytes
    epochs: list[tuple[int, float, float]]


def read_model(folder: Path) -> Model:
    (training,) = (folder / "artifacts" / "training").iterdir()
    description = json.loads((training / "model.json").read_text(encoding="utf-8"))
    epochs = [(epoch.steps, epoch.loss, epoch.validation_loss) for epoch in read_history(training / HISTORY)]
    return Model(description["weights_sha256"], (training / "unseen_scores.parquet").read_bytes(), epochs)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every stage before the training is done."""
    folder = tmp_path_factory.mktemp("prepared")
    write_settings(folder, merge_settings(SMALL, FOLDS))
    assert luigi(folder, "BuildVocabulary").code == 0
    return folder


@pytest.fixture(scope="module")
def expected(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The model whose networks were trained one after the other in the process of the task."""
    folder = Path(shutil.copytree(prepared, tmp_path_factory.mktemp("expected"), dirs_exist_ok=True))
    done = luigi(folder, *TRAINING)
    assert done.code == 0, done.output
    assert "held-out fold 1/2: epoch" not in done.output
    return read_model(folder)


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    """A copy of the prepared folder, with the settings for two processes."""
    copy = Path(shutil.copytree(prepared, tmp_path / "two"))
    write_settings(copy, TWO)
    return copy


class Run(RunningCommand):
    """A running command that trains two networks at once."""

    def checkpoints(self, network: str) -> list[int]:
        """Returns the numbers of the checkpoints of a network: ``.`` is the final one."""
        paths = (self.folder / "artifacts" / "training").glob(f"*.partial/{network}/checkpoints/ckpt-*.index")
        return sorted(int(path.stem.removeprefix("ckpt-")) for path in paths)

    def wait_for_both(self) -> list[psutil.Process]:
        """Waits until both trainings have a checkpoint, and returns the processes of the run without the first."""
        wait_until(self.process, lambda: bool(self.checkpoints(".") and self.checkpoints("held_out/1")))
        return self.children()

    def signal_both(self, send: Callable[[Run, signal.Signals], None], number: signal.Signals) -> list[psutil.Process]:
        """Sends a signal while both trainings are held in their second epoch, so that it finds both unfinished.

        Returns the processes of the run without the first.
        """
        processes = self.wait_for_both()
        for process in training_processes(processes):
            process.suspend()
        send(self, number)
        time.sleep(2)  # the parent looks for signals every half second, and the second epoch takes no longer than that
        for process in training_processes(processes):
            process.resume()
        return processes

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def wait(self) -> CommandResult:
        code = self.process.wait(timeout=120)
        return CommandResult(code, self.output)


@contextlib.contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Run]:
    with (folder / "output").open("w") as output:
        process = start_command(folder, (*TRAINING, *arguments), output.fileno())
    with kill_group_on_exit(process):
        yield Run(folder, process)


def training_processes(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if "spawn_main" in " ".join(process.cmdline())]


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def wait_until_ended(processes: list[psutil.Process]) -> None:
    eventually(lambda: [process for process in processes if is_alive(process)], lambda alive: not alive)


def finish(folder: Path) -> tuple[Model, str]:
    """Runs the command again until the model is trained; returns the model and the output."""
    done = luigi(folder, *TRAINING)
    assert done.code == 0, done.output
    return read_model(folder), done.output


def test_two_processes_train_the_same_bits_as_one_after_the_other(folder: Path, expected: Model) -> None:
    model, output = finish(folder)
    assert model == expected
    for name in ("final network", "held-out fold 1/2", "held-out fold 2/2"):
        assert f"{name}: epoch 2/2: loss " in output
    (training,) = (folder / "artifacts" / "training").iterdir()
    assert sorted(path.name for path in (training / "held_out").iterdir()) == ["1.npy", "2.npy"]


@pytest.mark.slow
def test_training_processes_end_with_their_parent_and_the_next_run_ends_with_the_same_bits(
    folder: Path, expected: Model
) -> None:
    with running(folder) as run:
        processes = run.wait_for_both()
        assert len(training_processes(processes)) == 2
        (task,) = (process for process in processes if process.ppid() == run.process.pid)
        task.kill()
        wait_until_ended(processes)
        ended = run.wait()
    assert ended.code == 30
    assert "TrainModel() failed: its process was killed by SIGKILL, perhaps because memory ran out" in ended.last_line
    assert "Traceback" not in ended.output
    model, output = finish(folder)
    assert model == expected
    for name in ("final network", "held-out fold 1/2"):
        assert f"{name}: resuming training from ckpt-" in output


@pytest.mark.slow
def test_a_killed_training_process_is_one_line_and_the_next_run_continues(folder: Path, expected: Model) -> None:
    with running(folder) as run:
        processes = run.wait_for_both()
        training_processes(processes)[1].kill()
        ended = run.wait()
        wait_until_ended(processes)
    assert ended.code == 30
    assert re.fullmatch(
        r"spamscore: TrainModel\(\) failed: the training process of the (final network|held-out fold 1/2) ended with "
        r"signal 9, perhaps because memory ran out: see the system's log\. Run the same command again, it continues "
        r"from the latest checkpoints; \[training\] processes = 1 needs less memory\.",
        ended.last_line,
    )
    assert "Traceback" not in ended.output
    assert finish(folder)[0] == expected


def to_parent(run: Run, number: signal.Signals) -> None:
    run.process.send_signal(number)


def to_group(run: Run, number: signal.Signals) -> None:
    os.killpg(run.process.pid, number)


@pytest.mark.slow
@pytest.mark.parametrize("send", [to_parent, to_group])
def test_sigterm_ends_both_trainings_after_a_checkpoint_and_the_next_run_resumes_there(
    folder: Path, expected: Model, send: Callable[[Run, signal.Signals], None]
) -> None:
    write_settings(folder, RARE)
    with running(folder) as run:
        processes = run.signal_both(send, signal.SIGTERM)
        ended = run.wait()
        wait_until_ended(processes)
        last = {"final network": run.checkpoints(".")[-1], "held-out fold 1/2": run.checkpoints("held_out/1")[-1]}
    assert ended.code == 143
    assert ended.last_line == "spamscore: ended by SIGTERM; run the same command again to continue from here"
    assert "Traceback" not in ended.output
    model, output = finish(folder)
    assert model == expected
    for name, number in last.items():
        assert f"{name}: resuming training from ckpt-{number}: epoch " in output


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_signal_while_the_training_processes_start_ends_all(folder: Path, number: signal.Signals, code: int) -> None:
    with running(folder) as run:
        wait_until(run.process, lambda: len(training_processes(run.children())) == 2)
        processes = run.children()
        to_group(run, number)
        ended = run.wait()
        wait_until_ended(processes)
    assert ended.code == code
    assert "SpawnProcess" not in ended.output


@pytest.mark.slow
def test_an_interrupt_ends_both_trainings_after_a_checkpoint(folder: Path, expected: Model) -> None:
    write_settings(folder, RARE)
    with running(folder) as run:
        processes = run.signal_both(to_group, signal.SIGINT)
        ended = run.wait()
        wait_until_ended(processes)
        last = run.checkpoints(".")[-1]
    assert ended.code == -signal.SIGINT
    assert "SpawnProcess" not in ended.output
    model, output = finish(folder)
    assert model == expected
    assert f"final network: resuming training from ckpt-{last}: " in output


@pytest.mark.slow
def test_messages_from_luigis_page_reach_both_trainings(folder: Path, tmp_path: Path) -> None:
    with Luigid(tmp_path / "luigid") as luigid:
        write_settings(folder, merge_settings(ENDLESS, luigid.settings))
        with running(folder) as run:
            run.wait_for_both()

            def send(content: str) -> str:
                read = luigid.send_message("TrainModel", content)
                return str(eventually(read, check=lambda: check_runs(run)))

            written = require_match(r"written: ckpt-(\d+), ckpt-(\d+)", send("checkpoint"))
            numbers = {int(number) for number in written.groups()}
            assert numbers <= {*run.checkpoints("."), *run.checkpoints("held_out/1")}
            status = eventually(
                lambda: luigid.find_task("TrainModel")["status_message"], lambda text: ";" in (text or "")
            )
            training = r"epoch \d+/400, loss \d\.\d{3}"
            require_match(rf"final network, {training}; held-out fold 1/2, {training}, .+ left", status)
            stopped = require_match(
                r"stopping after epoch (\d+) of 400; all networks that are not finished are limited to that epoch\. .*",
                send("stop"),
            )
            ended = run.wait()
    assert ended.code == 0, ended.output
    last = int(stopped[1])
    # A network that had begun the next epoch when the message came finishes it.
    assert len(read_model(folder).epochs) in (last, last + 1)
    assert f"held-out fold 2/2: epoch {last}/400" in ended.output
    assert f"held-out fold 2/2: epoch {last + 1}/400" not in ended.output


def require_match(pattern: str, text: str) -> re.Match[str]:
    match = re.fullmatch(pattern, text)
    assert match, text
    return match


def check_runs(run: Run) -> None:
    assert run.process.poll() is None, run.output


def write_corpus(folder: Path, spam: int, ham: int) -> Settings:
    """Writes a corpus, and returns settings with which almost all of its messages are in the training part."""
    words = ("".join(letters) for letters in itertools.product("abcdefgh", repeat=4))
    lines = [f"spam,win {next(words)} prize" for _ in range(spam)] + [f"ham,see {next(words)} soon" for _ in range(ham)]
    (folder / "corpus.csv").write_text("\n".join(["label,text", *lines]) + "\n", encoding="utf-8")
    return {
        "corpus": {"source": "file", "path": str(folder / "corpus.csv")},
        "split": {"validation_share": "0.01", "test_share": "0.01"},
    }


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"devices": {"devices": "gpu:3"}},
            r"\[devices\] devices = gpu:3: device gpu:3 does not exist on this machine\. Available: cpu:0\. .*",
        ),
        (
            {"training": {"shards": "3"}, "devices": {"logical_cpus": "2"}},
            r"\[training\] shards = 3: expected a multiple of 2, because the training runs on 2 devices\. Set .*",
        ),
    ],
    ids=["device", "shards"],
)
@pytest.mark.parametrize("processes", ["1", "2"])
def test_an_expected_error_is_one_line(folder: Path, settings: Settings, line: str, processes: str) -> None:
    write_settings(folder, merge_settings(TWO, settings, {"training": {"processes": processes}}))
    require_one_line(luigi(folder, *TRAINING), line)


@pytest.mark.parametrize(
    ("spam", "line"),
    [
        (1, r"\[training\] held_out_folds = 2: expected at least 2 spam and 2 ham messages .* received 1 of one .*"),
        (4, r"the validation part has 0 spam and \d ham messages; at least one of each is needed\. .*"),
    ],
)
def test_a_corpus_with_few_messages_of_one_label_is_one_line(folder: Path, spam: int, line: str) -> None:
    write_settings(folder, merge_settings(TWO, write_corpus(folder, spam, 200)))
    require_one_line(luigi(folder, *TRAINING), line)


def require_one_line(done: CommandResult, line: str) -> None:
    assert done.code == 30, done.output
    assert "Traceback" not in done.output
    require_match(rf"spamscore: TrainModel\(\) failed: {line}", done.last_line)


def run_limited(folder: Path, limit: Callable[[], object], *arguments: str, **variables: str) -> CommandResult:
    """Runs the command in a new process that calls a function first."""
    done = subprocess.run(
        [LUIGI, "--module", "pipeline", *TRAINING, *arguments], cwd=folder, env=environment(**variables), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, preexec_fn=limit,
    )  # fmt: skip
    return CommandResult(done.returncode, done.stdout)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_next_run_continues(folder: Path, expected: Model) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))

    done = run_limited(folder, limit)
    require_one_line(
        done, r".*checkpoints.*: File too large\. Free disk space or grant write permission, and run again; .*"
    )
    assert finish(folder)[0] == expected


@pytest.mark.slow
def test_an_unexpected_error_shows_its_traceback(folder: Path) -> None:
    # Python imports this module at the start of every process.
    (folder / "sitecustomize.py").write_text(
        "import multiprocessing, sys\n"
        "if 'spawn_main' in ' '.join(sys.orig_argv):\n"
        "    import models.training.history as history\n"
        "    def write_history(*_): raise ZeroDivisionError('in a test')\n"
        "    history.write_history = write_history\n"
    )
    paths = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    done = run_limited(folder, lambda: None, PYTHONPATH=paths)
    assert done.code == 30, done.output
    assert 'sitecustomize.py", line 4, in write_history' in done.output
    assert "ZeroDivisionError: in a test" in done.last_line


@pytest.mark.parametrize(
    ("cores", "arguments", "expected_processes"),
    [
        pytest.param(1, (), 1, id="one core", marks=pytest.mark.slow),
        pytest.param(2, (), 2, id="two cores"),
        pytest.param(2, ("--workers", "2"), 1, id="two cores for two workers", marks=pytest.mark.slow),
    ],
)
def test_the_cores_of_a_luigi_worker_decide_how_many_networks_are_trained_at_once(
    folder: Path, cores: int, arguments: tuple[str, ...], expected_processes: int
) -> None:
    available = sorted(os.sched_getaffinity(0))
    if len(available) < cores:
        pytest.skip("skipped: this machine has one core")
    write_settings(folder, merge_settings(TWO, {"training": {"processes": "0", "epochs": "1"}}))
    done = run_limited(folder, lambda: os.sched_setaffinity(0, available[:cores]), *arguments)
    assert done.code == 0, done.output
    assert ("final network: epoch 1/1" in done.output) == (expected_processes > 1)


@pytest.mark.slow
def test_trainings_on_several_devices_run_one_after_the_other(folder: Path) -> None:
    two_devices = {"training": {"epochs": "1", "processes": "2"}, "devices": {"logical_cpus": "2"}}
    write_settings(folder, merge_settings(TWO, two_devices))
    done = luigi(folder, *TRAINING)
    assert done.code == 0, done.output
    ends = [line for line in done.output.splitlines() if ": epoch 1/1: loss " in line]
    names = [line.removeprefix("INFO: ").partition(": epoch")[0] for line in ends]
    assert names == ["final network", "held-out fold 1/2", "held-out fold 2/2"]


@pytest.mark.parametrize(
    ("settings", "devices", "cores", "expected_count"),
    [
        ({}, {}, 8, 3), ({}, {}, 2, 2), ({}, {}, 1, 1), ({"processes": 2}, {}, 1, 2), ({"processes": 9}, {}, 2, 3),
        ({}, {"logical_cpus": 2}, 8, 1), ({}, {"devices": "gpu:0,gpu:1"}, 8, 1), ({}, {"devices": "gpu:0"}, 8, 3),
        ({"held_out_folds": 0}, {}, 8, 1),
    ],
)  # fmt: skip
def test_as_many_networks_are_trained_at_once_as_are_set_or_cores_and_networks_allow(
    tmp_path: Path, settings: dict[str, Any], devices: dict[str, Any], cores: int, expected_count: int
) -> None:
    changed = dataclasses.replace(SETTINGS, **settings)
    training = messages(60, 0)
    plan = TrainingPlan(
        training, training, VOCABULARY, NETWORK, changed, split_folds(training, changed, tmp_path), tmp_path
    )
    assert count_processes(plan, DeviceSettings(**devices), cores) == expected_count


@pytest.mark.parametrize(
    ("limit", "used", "cached", "expected_bytes"),
    [
        (None, 0, 0, 4096 * 1024),
        ("max", 1000, 0, 4096 * 1024),
        ("3000000", 1_000_000, 0, 2_000_000),
        ("3000000", 1_000_000, 400_000, 2_400_000),
        ("3000000", 3_000_001, 0, 0),
        ("9000000000", 1_000_000, 0, 4096 * 1024),
    ],
    ids=["no container", "no limit", "a limit", "cached files", "above the limit", "a limit above the machine"],
)
def test_the_available_memory_is_that_of_the_machine_or_of_the_container(
    tmp_path: Path, limit: str | None, used: int, cached: int, expected_bytes: int
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal:  8192 kB\nMemFree:  1 kB\nMemAvailable:    4096 kB\n")
    cgroup = tmp_path / "sys" / "fs" / "cgroup"
    cgroup.mkdir(parents=True)
    if limit is not None:
        (cgroup / "memory.max").write_text(f"{limit}\n")
        (cgroup / "memory.current").write_text(f"{used}\n")
        (cgroup / "memory.stat").write_text(f"anon 5\nfile 7\ninactive_file {cached}\nactive_file 9\n")
    assert available_memory(tmp_path) == expected_bytes
