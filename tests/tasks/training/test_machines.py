"""Tests of training with workers on several machines: here processes that listen on different ports of this one."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chain import (
    LUIGI,
    SMALL,
    CommandResult,
    RunningCommand,
    Settings,
    environment,
    luigi_cold,
    merge_settings,
    write_settings,
)
from eventually import eventually

# A plain RNN and no held-out folds, because every worker compiles each network for each of its shards.
TRAINING: Settings = merge_settings(
    {section: dict(values) for section, values in SMALL.items()},
    {
        "network": {"cell": "simple", "dropout": "0.3"},
        "training": {"epochs": "2", "shards": "2", "worker_timeout": "120"},
        "core": {"local_scheduler": "true"},
    },
)


class Worker(RunningCommand):
    """A started worker."""

    def wait(self) -> CommandResult:
        return CommandResult(self.process.wait(timeout=240), self.output)

    def has_said(self, text: str) -> bool:
        assert self.process.poll() is None or text in self.output, self.output
        return text in self.output


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stages before the training."""
    folder = tmp_path_factory.mktemp("prepared")
    write_settings(folder, TRAINING)
    done = luigi_cold(folder, "BuildVocabulary")
    assert done.code == 0, done.output
    return folder


@pytest.fixture
def machine(prepared: Path, tmp_path: Path) -> Callable[[int], Path]:
    """Returns the folder of a machine, which shares no files with the others."""

    def folder(number: int) -> Path:
        path = tmp_path / str(number)
        return path if path.exists() else Path(shutil.copytree(prepared, path))

    return folder


@contextlib.contextmanager
def running(processes: list[Worker]) -> Iterator[list[Worker]]:
    try:
        yield processes
    finally:
        for worker in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.process.pid, signal.SIGKILL)
            worker.process.wait()


def free_addresses(count: int) -> str:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{server.getsockname()[1]}" for server in servers]
    for server in servers:
        server.close()
    return ",".join(addresses)


def start(folder: Path, number: int, addresses: str, *arguments: str, **variables: str) -> Worker:
    selection = () if "TF_CONFIG" in variables else ("--training-workers", addresses, "--training-worker", str(number))
    with (folder / "output").open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [LUIGI, "--module", "pipeline", "TrainModel", *selection, *arguments],
            cwd=folder, env=environment(**variables), stdout=output, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
    return Worker(folder, process)


def start_all(machine: Callable[[int], Path], count: int, *arguments: str) -> list[Worker]:
    addresses = free_addresses(count)
    return [start(machine(number), number, addresses, *arguments) for number in range(count)]


def read_model(folder: Path) -> dict[str, object]:
    (path,) = folder.glob("artifacts/training/*/model.json")
    model = json.loads(path.read_text("utf-8"))
    return {key: model[key] for key in ("weights_sha256", "calibration", "best_epoch", "checkpoint")}


@pytest.fixture(scope="module")
def train_alone(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, object]]:
    """Returns the model that one machine trains with the arguments."""

    @functools.cache
    def train(*arguments: str) -> dict[str, object]:
        folder = Path(shutil.copytree(prepared, tmp_path_factory.mktemp("alone") / "0"))
        done = luigi_cold(folder, "TrainModel", *arguments)
        assert done.code == 0, done.output
        return read_model(folder)

    return train


@pytest.mark.parametrize(("count", "shards"), [(2, 2), pytest.param(3, 6, marks=pytest.mark.slow)])
def test_any_number_of_workers_gives_the_weights_of_one_to_the_bit(
    machine: Callable[[int], Path], train_alone: Callable[..., dict[str, object]], count: int, shards: int
) -> None:
    arguments = ("--training-shards", str(shards))
    with running(start_all(machine, count, *arguments)) as workers:
        done = [worker.wait() for worker in workers]
    assert [worker.code for worker in done] == [0] * count, "\n".join(worker.output for worker in done)
    assert read_model(machine(0)) == train_alone(*arguments)
    history = next(machine(0).glob("artifacts/training/*/history.csv")).read_text("ascii")
    assert len(history.splitlines()) == 3
    for number in range(1, count):
        # The chief alone writes; its address is named where the result is missing.
        assert list(machine(number).glob("artifacts/training/*")) == []


@pytest.mark.slow
def test_the_workers_of_tf_config_train_together(
    machine: Callable[[int], Path], train_alone: Callable[..., dict[str, object]]
) -> None:
    chief, other = free_addresses(2).split(",")
    cluster = {"chief": [chief], "worker": [other]}
    variables = [
        {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": 0}})}
        for kind in ("chief", "worker")
    ]
    started = [start(machine(number), number, "", **variables[number]) for number in range(2)]
    with running(started) as workers:
        assert [worker.wait().code for worker in workers] == [0, 0], workers[0].output + workers[1].output
    assert read_model(machine(0)) == train_alone("--training-shards", "2")


FOLDS = ("--training-held-out-folds", "2")


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_worker_ends_the_others_which_name_it_and_the_same_command_goes_on(
    machine: Callable[[int], Path], train_alone: Callable[..., dict[str, object]], killed: int
) -> None:
    with running(start_all(machine, 2, *FOLDS)) as workers:
        # The network of the first fold is trained, and that of the second one is in its middle.
        checkpoints = "artifacts/training/*/held_out/2/checkpoints/ckpt-*.index"
        eventually(lambda: list(machine(0).glob(checkpoints)), detail=lambda: workers[0].output)
        os.killpg(workers[killed].process.pid, signal.SIGKILL)
        left = workers[1 - killed].wait()
    assert left.code == 30, left.output
    assert f"TrainModel() failed: worker {killed} (127.0.0.1:" in left.last_line, left.output
    assert "Run the same command on all machines" in left.last_line
    with running(start_all(machine, 2, *FOLDS)) as workers:
        done = [worker.wait() for worker in workers]
    assert [worker.code for worker in done] == [0, 0], done[0].output + done[1].output
    assert "held-out fold 1/2" not in done[0].output  # it was finished
    assert "resuming training from" in done[0].output
    assert read_model(machine(0)) == train_alone("--training-shards", "2", *FOLDS)


@pytest.mark.slow
def test_sigterm_to_the_chief_ends_all_workers_with_its_exit_code_and_the_next_run_goes_on(
    machine: Callable[[int], Path], train_alone: Callable[..., dict[str, object]]
) -> None:
    with running(start_all(machine, 2)) as workers:
        eventually(lambda: workers[0].has_said("epoch 1/2: loss"), detail=lambda: workers[0].output)
        workers[0].process.terminate()
        done = [worker.wait() for worker in workers]
    assert [worker.code for worker in done] == [143, 143], done[0].output + done[1].output
    assert "worker 0 (127.0.0.1:" in done[1].last_line
    assert "ended by SIGTERM" in done[1].last_line
    with running(start_all(machine, 2)) as workers:
        done = [worker.wait() for worker in workers]
    assert [worker.code for worker in done] == [0, 0], done[0].output + done[1].output
    assert read_model(machine(0)) == train_alone("--training-shards", "2")


@pytest.mark.parametrize("number", [0, 1])
def test_a_worker_that_never_comes_is_named_within_the_timeout(machine: Callable[[int], Path], number: int) -> None:
    addresses = free_addresses(2)
    with running([start(machine(number), number, addresses, "--training-worker-timeout", "3")]) as (worker,):
        done = worker.wait()
    assert done.code == 30, done.output
    assert f"worker {1 - number} ({addresses.split(',')[1 - number]})" in done.last_line
    assert "[training] worker_timeout = 3 s" in done.last_line


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_sigterm_ends_a_worker_that_waits_for_another(machine: Callable[[int], Path], number: int) -> None:
    with running([start(machine(number), number, free_addresses(2))]) as (worker,):
        eventually(lambda: worker.has_said("running   TrainModel()"), detail=lambda: worker.output)
        worker.process.terminate()
        assert worker.wait().code == 143, worker.output


@pytest.mark.parametrize("is_ended", [False, True])
def test_a_worker_that_accepts_the_connection_and_says_nothing_is_named_and_sigterm_does_not_wait_for_it(
    machine: Callable[[int], Path], is_ended: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        timeout = ("--training-worker-timeout", "120" if is_ended else "3")
        with running([start(machine(0), 0, f"127.0.0.1:1,{address}", *timeout)]) as (chief,):
            connection, _ = silent.accept()
            with connection:
                if is_ended:
                    chief.process.terminate()
                done = chief.wait()
    assert done.code == (143 if is_ended else 30), done.output
    if not is_ended:
        assert f"worker 1 ({address}) did not answer within [training] worker_timeout = 3 s" in done.last_line


@pytest.mark.slow
def test_a_worker_that_stops_answering_before_the_first_step_is_named_within_the_timeout(
    machine: Callable[[int], Path],
) -> None:
    addresses = free_addresses(2)
    started = [
        start(machine(number), number, addresses, "--training-worker-timeout", timeout)
        for number, timeout in enumerate(("40", "120"))
    ]
    with running(started) as (chief, other):
        # The greeting has arrived; TensorFlow of the other machine never starts.
        eventually(lambda: find_training_processes(other), detail=lambda: other.output)
        os.killpg(other.process.pid, signal.SIGSTOP)
        done = chief.wait()
    assert done.code == 30, done.output
    assert "has no connection to 127.0.0.1:" in done.last_line
    assert "worker_timeout = 40 s" in done.last_line


def find_training_processes(worker: Worker) -> list[int]:
    """Returns the processes that a worker has spawned to train."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            same_session = os.getsid(int(path.name)) == worker.process.pid
            if same_session and b"multiprocessing.spawn" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
    return found


OTHER: list[tuple[str, tuple[str, ...], str]] = [
    ("settings", ("--training-seed", "9"), "model.settings.training.seed is 7 in worker 0 and 9 there"),
    ("corpus", (), "model.inputs is "),
]


@pytest.mark.parametrize(("difference", "arguments", "message"), OTHER, ids=[row[0] for row in OTHER])
def test_a_worker_that_would_train_another_model_is_refused_before_the_first_step(
    machine: Callable[[int], Path], difference: str, arguments: tuple[str, ...], message: str
) -> None:
    addresses = free_addresses(2)
    if difference == "corpus":
        rows = (Path(__file__).parents[3] / "pipeline/sample/corpus.csv").read_text("utf-8").splitlines(keepends=True)
        (machine(1) / "corpus.csv").write_text("".join(rows[:-30]), "utf-8")
        arguments = ("--corpus-source", "file", "--corpus-path", "corpus.csv")
    started = [start(machine(0), 0, addresses), start(machine(1), 1, addresses, *arguments)]
    with running(started) as workers:
        done = [worker.wait() for worker in workers]
    assert [worker.code for worker in done] == [30, 30], done[0].output + done[1].output
    for worker in done:
        assert f"worker 1 ({addresses.split(',')[1]}) does not train the same model: {message}" in worker.last_line
        assert "epoch 1/2" not in worker.output


BAD_ADDRESSES: list[tuple[str, tuple[str, ...], str]] = [
    ("no port", ("--training-workers", "one:2222,two"), "[training] workers = one:2222,two: expected host:port"),
    ("port 0", ("--training-workers", "one:0,two:1"), "expected host:port for each worker, received 'one:0'"),
    ("twice", ("--training-workers", "one:1,one:1"), "expected a different address for each worker"),
    ("number", ("--training-workers", "one:1,two:1", "--training-worker", "2"), "expected a number from 0 to 1"),
    ("number alone", ("--training-worker", "1"), "[training] worker = 1: expected 0"),
    ("shards", ("--training-workers", "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3,127.0.0.1:4"), "multiple of 4"),
]


@pytest.mark.parametrize(("_name", "arguments", "message"), BAD_ADDRESSES, ids=[row[0] for row in BAD_ADDRESSES])
def test_a_wrong_list_of_workers_is_one_line(
    machine: Callable[[int], Path], _name: str, arguments: tuple[str, ...], message: str
) -> None:
    done = luigi_cold(machine(0), "TrainModel", *arguments)
    assert done.code in (35, 40), done.output
    assert message in done.last_line


def test_a_host_that_does_not_exist_and_a_port_in_use_are_one_line(machine: Callable[[int], Path]) -> None:
    wrong = "127.0.0.1:1,no-such-host.invalid:2222"
    done = luigi_cold(machine(0), "TrainModel", "--training-workers", wrong, "--training-worker-timeout", "1")
    assert done.code == 30, done.output
    assert "worker 1 (no-such-host.invalid:2222): Name or service not known" in done.last_line
    with socket.create_server(("", 0)) as server:
        used = f"127.0.0.1:1,127.0.0.1:{server.getsockname()[1]}"
        done = luigi_cold(machine(1), "TrainModel", "--training-workers", used, "--training-worker", "1")
    assert "this machine cannot listen on port" in done.last_line
