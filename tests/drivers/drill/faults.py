"""The faults beside SIGKILL: what each does to a run, at which moment, and what the run may answer.

A run is stopped (SIGSTOP) at the moment, the fault is put in place, and the run goes on; so it meets the fault exactly
there. The same command is then given again with the fault gone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from chain import merge_settings, write_settings
from drill.moments import Moment
from drill.scene import DRILLED, Ended, Stand, may_mount
from servers import admin_connection, free_port, wait_for_port

LEFT = 12_288  # bytes that a full disk still takes
TRAINING = Moment("TrainModel", "checkpoint write", 3, signal="SIGSTOP")
SCORING = Moment("ScoreBatch", "chunk, after the commit", 10, signal="SIGSTOP")
IN_A_CHUNK = Moment("ScoreBatch", "chunk, inside", 20, signal="SIGSTOP")
PUBLISHING = Moment("ScoreBatch", "publishing, inside", 1, signal="SIGSTOP")

Effect = Callable[[Stand], AbstractContextManager[None]]


@contextlib.contextmanager
def nothing(_: Stand) -> Iterator[None]:
    """No effect: the moment's signal is the fault."""
    yield


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        name: what, for the table.
        point: where the run begins.
        effect: puts it in place, and takes it away at the end.
        codes: exit codes that a run may end with under it.
        moment: when, or None for before the run.
        lasts: seconds after which it is gone while the run goes on, or None for as long as the run does.
        databases: on which it can be.
        mounted: needs a working folder that is a file system of its own.
        ready: what must be there before the run under it begins.
        variables: environment of that run.
    """

    name: str
    point: str
    effect: Effect
    codes: tuple[int, ...]
    moment: Moment | None = None
    lasts: float | None = None
    databases: tuple[str, ...] = ("sqlite", "postgresql")
    mounted: bool = False
    ready: Effect = nothing
    variables: dict[str, str] = field(default_factory=dict)


def under(fault: Fault, stand: Stand) -> Ended:
    """Runs the command under a fault, to its end."""
    with fault.ready(stand), contextlib.ExitStack() as placed:
        if fault.moment is None:
            placed.enter_context(fault.effect(stand))
            return stand.run(**fault.variables)
        run = stand.start(fault.moment, **fault.variables)
        if run.wait_for_moment():
            placed.enter_context(fault.effect(stand))
            run.signal(signal.SIGCONT)
            if fault.lasts is not None:
                time.sleep(fault.lasts)
                placed.close()
        return run.ended()


@contextlib.contextmanager
def postgresql_stopped(stand: Stand) -> Iterator[None]:
    """The server is down."""
    assert stand.ground.server is not None
    stand.ground.server.stop()
    try:
        yield
    finally:
        stand.ground.server.start()


@contextlib.contextmanager
def connections_cut(stand: Stand) -> Iterator[None]:
    """The server ends the run's connections, three times within two seconds."""
    assert stand.ground.server is not None
    cut = sa.text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'spamscore' AND datname = :name"
    )
    with admin_connection(stand.ground.server.url) as connection:
        for pause in (0.0, 0.7, 0.7):
            time.sleep(pause)
            connection.execute(cut, {"name": stand.url.database})
    yield


@contextlib.contextmanager
def disk_full(stand: Stand) -> Iterator[None]:
    """No room on the file system, or, where none may be mounted, no file may grow: RLIMIT_FSIZE of every process."""
    if stand.mounted:
        ballast = stand.folder / "ballast"
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(stand.folder).free - LEFT))
        try:
            yield
        finally:
            ballast.unlink()
    else:
        for pid in stand.processes():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (LEFT, resource.RLIM_INFINITY))
        yield


def read_only(name: str) -> Effect:
    """A folder below the working folder that nobody may write to; "." is the working folder itself."""

    @contextlib.contextmanager
    def effect(stand: Stand) -> Iterator[None]:
        folder = stand.folder / name
        if stand.mounted:
            _mount("--bind", folder, folder)
            _mount("-o", "remount,ro,bind", folder)
        else:
            folder.chmod(0o555)
        try:
            yield
        finally:
            if stand.mounted:
                subprocess.run(["umount", "--lazy", folder], check=True)
            else:
                folder.chmod(0o755)

    return effect


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


@contextlib.contextmanager
def clock_that_moves(stand: Stand) -> Iterator[None]:
    """The file in which libfaketime reads how far the clock is off."""
    (stand.base / "clock").write_text("+0\n")
    yield


@contextlib.contextmanager
def clock_set_back(stand: Stand) -> Iterator[None]:
    """The clock is set back by five hours in the middle of the run."""
    (stand.base / "clock").write_text("-5h\n")
    yield


def killed_in_the_future(moment: Moment) -> Effect:
    """A run whose clock is five hours ahead is killed; the one that comes after it has the clock of today."""

    @contextlib.contextmanager
    def effect(stand: Stand) -> Iterator[None]:
        kill = dataclasses.replace(moment, signal="SIGKILL")
        stand.run(kill, **_off_by("+5h"))
        yield

    return effect


def _off_by(much: str) -> dict[str, str]:
    """The environment of a process whose clock is off; a monotonic clock never is."""
    return {"LD_PRELOAD": str(_faketime()), "FAKETIME": much, "DONT_FAKE_MONOTONIC": "1"}


def _moving() -> dict[str, str]:
    where = {"FAKETIME_TIMESTAMP_FILE": "../clock", "FAKETIME_NO_CACHE": "1"}
    return {"LD_PRELOAD": str(_faketime()), "DONT_FAKE_MONOTONIC": "1", **where}


def _faketime() -> Path | None:
    return next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


@contextlib.contextmanager
def luigid(stand: Stand) -> Iterator[None]:
    """Luigi's scheduler on loopback, which the runs are told to use."""
    port = free_port()
    _use_scheduler(stand, port)
    log = stand.base / "luigid.log"
    command = [Path(sys.executable).with_name("luigid"), "--address", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as file:
        stand.scheduler = subprocess.Popen(
            [*command, "--state-path", stand.base / "luigid.state"], cwd=stand.base, stdout=file, stderr=file
        )
    try:
        wait_for_port(port, stand.scheduler, log)
        yield
    finally:
        stand.scheduler.kill()
        stand.scheduler.wait()
        write_settings(stand.folder, DRILLED)


@contextlib.contextmanager
def luigid_killed(stand: Stand) -> Iterator[None]:
    """Luigi's scheduler is killed."""
    assert stand.scheduler is not None
    stand.scheduler.kill()
    stand.scheduler.wait()
    yield


def _use_scheduler(stand: Stand, port: int) -> None:
    core = {
        "local_scheduler": "false", "default_scheduler_url": f"http://127.0.0.1:{port}",
        "rpc_retry_attempts": "2", "rpc_retry_wait": "1",
    }  # fmt: skip
    write_settings(stand.folder, merge_settings(DRILLED, {"core": core}))


def all_faults() -> list[Fault]:
    """Every fault there is to inject here."""
    mounts = may_mount()
    full = "disk full (tmpfs)" if mounts else "disk full (RLIMIT_FSIZE)"
    locked = "read-only (bind mount)" if mounts else "read-only (chmod)"
    alone = Moment("ScoreBatch", "chunk, inside", 20, whom="process")
    term = {"signal": "SIGTERM", "whom": "parent"}
    faults = [
        Fault("task's process killed alone in a chunk", "extracted", nothing, (30,), alone),
        Fault("SIGTERM in training", "nothing", nothing, (143,), Moment("TrainModel", "checkpoint write", 4, **term)),
        Fault("SIGTERM in a chunk", "extracted", nothing, (143,), Moment("ScoreBatch", "chunk, inside", 20, **term)),
        Fault("SIGTERM in export", "trained", nothing, (143,), Moment("ExportModel", "export write", 1, **term)),
        Fault(f"{full} in training", "nothing", disk_full, (30,), TRAINING, mounted=mounts),
        Fault(f"{full} in export", "trained", disk_full, (30,),
              Moment("ExportModel", "export write", 1, signal="SIGSTOP"), mounted=mounts),
        Fault(f"{full} in snapshot", "exported", disk_full, (30,),
              Moment("ExtractMessages", "table write", 1, signal="SIGSTOP"), mounted=mounts),
        Fault(f"{full} in database", "extracted", disk_full, (30,), SCORING, databases=("sqlite",), mounted=mounts),
        Fault("PostgreSQL stopped, started 1.5 s later", "extracted", postgresql_stopped, (0,), SCORING, 1.5,
              databases=("postgresql",)),
        Fault("PostgreSQL stopped in a chunk, started", "extracted", postgresql_stopped, (0,), IN_A_CHUNK, 1.0,
              databases=("postgresql",)),
        Fault("PostgreSQL stopped in publishing, started", "extracted", postgresql_stopped, (0,), PUBLISHING, 1.0,
              databases=("postgresql",)),
        Fault("PostgreSQL stopped for good", "extracted", postgresql_stopped, (30,), SCORING,
              databases=("postgresql",)),
        Fault("PostgreSQL down before the run", "extracted", postgresql_stopped, (35,), databases=("postgresql",)),
        Fault("connection cut between chunks", "extracted", connections_cut, (0,), SCORING, 0.0,
              databases=("postgresql",)),
        Fault("connection cut in a chunk", "extracted", connections_cut, (0,), IN_A_CHUNK, 0.0,
              databases=("postgresql",)),
        Fault("connection cut in publishing", "extracted", connections_cut, (0,), PUBLISHING, 0.0,
              databases=("postgresql",)),
        Fault("luigid killed in training", "nothing", luigid_killed, (0,), TRAINING, ready=luigid),
        Fault("luigid killed in scoring", "extracted", luigid_killed, (0,), SCORING, ready=luigid),
        Fault("luigid killed before the run", "extracted", luigid_killed, (0,), ready=luigid),
    ]  # fmt: skip
    if mounts or os.geteuid():
        faults += [
            Fault(f"{locked}: artifacts", "trained", read_only("artifacts"), (30, 35), mounted=mounts),
            Fault(f"{locked}: working folder", "extracted", read_only("."), (30, 35), databases=("sqlite",),
                  mounted=mounts),
        ]  # fmt: skip
    if _faketime():
        between, moving = "clock set back 5 h between runs", {"ready": clock_that_moves, "variables": _moving()}
        faults += [
            Fault(f"{between}, in training", "nothing", killed_in_the_future(TRAINING), (0,)),
            Fault(f"{between}, in scoring", "extracted", killed_in_the_future(SCORING), (0,)),
            Fault("clock set back 5 h in training", "nothing", clock_set_back, (0,), TRAINING, **moving),
            Fault("clock set back 5 h in scoring", "extracted", clock_set_back, (0,), SCORING, **moving),
        ]
    return faults


def left_out() -> list[str]:
    """What cannot be injected here, and why."""
    why = []
    if not _faketime():
        why.append("clock set back: not run, faketime is not here (apt-get install faketime)")
    if not may_mount() and not os.geteuid():
        why.append("read-only folder: not run, root may write everywhere and nothing may be mounted")
    return why
