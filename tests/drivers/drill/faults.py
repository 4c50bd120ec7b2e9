"""Defines the faults other than SIGKILL: their effect, their moment, and the expected exit codes.

At the moment, the run is stopped (SIGSTOP), the fault is injected, and the run continues: so it meets the fault exactly
there. Later the fault is removed and the same command runs again.
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
from drill.baseline import DRILL_SETTINGS, can_mount
from drill.moments import Moment
from drill.workspace import RunResult, Workspace
from servers import admin_connection, free_port, wait_for_port

FREE_BYTES = 12_288  # free space of a full disk
TRAINING = Moment("TrainModel", "checkpoint write", 3, signal="SIGSTOP")
SCORING = Moment("ScoreBatch", "chunk, after the commit", 10, signal="SIGSTOP")
IN_A_CHUNK = Moment("ScoreBatch", "chunk, inside", 20, signal="SIGSTOP")
PUBLISHING = Moment("ScoreBatch", "publishing, inside", 1, signal="SIGSTOP")

Effect = Callable[[Workspace], AbstractContextManager[None]]


@contextlib.contextmanager
def no_effect(_: Workspace) -> Iterator[None]:
    """Does nothing: the signal of the moment is the fault."""
    yield


@dataclass(frozen=True)
class Fault:
    """A fault to inject into a run.

    Attributes:
        name: name in the table.
        point: starting point of the run.
        effect: injects the fault, and removes it at the end.
        codes: expected exit codes of the run with the fault.
        moment: when the fault is injected; None for before the run.
        duration: seconds until the fault is removed while the run continues; None for the end of the run.
        databases: kinds of database that it applies to.
        mounted: whether it needs a working folder that is a file system of its own.
        setup: what the run needs before it starts.
        variables: additional environment variables of the run.
    """

    name: str
    point: str
    effect: Effect
    codes: tuple[int, ...]
    moment: Moment | None = None
    duration: float | None = None
    databases: tuple[str, ...] = ("sqlite", "postgresql")
    mounted: bool = False
    setup: Effect = no_effect
    variables: dict[str, str] = field(default_factory=dict)


def run_with_fault(fault: Fault, workspace: Workspace) -> RunResult:
    """Runs the command with a fault until it ends."""
    with fault.setup(workspace), contextlib.ExitStack() as injected:
        if fault.moment is None:
            injected.enter_context(fault.effect(workspace))
            return workspace.run(**fault.variables)
        run = workspace.start(fault.moment, **fault.variables)
        if run.wait_for_moment():
            injected.enter_context(fault.effect(workspace))
            run.signal(signal.SIGCONT)
            if fault.duration is not None:
                time.sleep(fault.duration)
                injected.close()
        return run.wait()


@contextlib.contextmanager
def postgresql_stopped(workspace: Workspace) -> Iterator[None]:
    """Stops the PostgreSQL server."""
    assert workspace.server is not None
    workspace.server.stop()
    try:
        yield
    finally:
        workspace.server.start()


@contextlib.contextmanager
def connections_cut(workspace: Workspace) -> Iterator[None]:
    """Terminates the connections of the run on the server, three times within two seconds."""
    assert workspace.server is not None
    terminate = sa.text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'spamscore' AND datname = :name"
    )
    with admin_connection(workspace.server.url) as connection:
        for pause in (0.0, 0.7, 0.7):
            time.sleep(pause)
            connection.execute(terminate, {"name": workspace.url.database})
    yield


@contextlib.contextmanager
def disk_full(workspace: Workspace) -> Iterator[None]:
    """Fills the file system, or limits the file size of all processes (RLIMIT_FSIZE) where nothing can be mounted."""
    if workspace.mounted:
        ballast = workspace.folder / "ballast"
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(workspace.folder).free - FREE_BYTES))
        try:
            yield
        finally:
            ballast.unlink()
    else:
        for pid in workspace.list_processes():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (FREE_BYTES, resource.RLIM_INFINITY))
        yield


def read_only(name: str) -> Effect:
    """Makes a folder below the working folder read-only; "." is the working folder itself."""

    @contextlib.contextmanager
    def effect(workspace: Workspace) -> Iterator[None]:
        folder = workspace.folder / name
        if workspace.mounted:
            _mount("--bind", folder, folder)
            _mount("-o", "remount,ro,bind", folder)
        else:
            folder.chmod(0o555)
        try:
            yield
        finally:
            if workspace.mounted:
                subprocess.run(["umount", "--lazy", folder], check=True)
            else:
                folder.chmod(0o755)

    return effect


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


@contextlib.contextmanager
def adjustable_clock(workspace: Workspace) -> Iterator[None]:
    """Writes the file from which libfaketime reads the offset of the clock."""
    (workspace.base / "clock").write_text("+0\n")
    yield


@contextlib.contextmanager
def clock_set_back(workspace: Workspace) -> Iterator[None]:
    """Sets the clock back by five hours during the run."""
    (workspace.base / "clock").write_text("-5h\n")
    yield


def killed_in_the_future(moment: Moment) -> Effect:
    """Kills a run whose clock is five hours ahead; the next run has the correct clock."""

    @contextlib.contextmanager
    def effect(workspace: Workspace) -> Iterator[None]:
        kill = dataclasses.replace(moment, signal="SIGKILL")
        workspace.run(kill, **_shifted_clock("+5h"))
        yield

    return effect


def _shifted_clock(offset: str) -> dict[str, str]:
    """Returns the environment of a process with a shifted clock; its monotonic clock is not shifted."""
    return {"LD_PRELOAD": str(_faketime()), "FAKETIME": offset, "DONT_FAKE_MONOTONIC": "1"}


def _clock_from_file() -> dict[str, str]:
    """Returns the environment of a process that reads the offset of its clock from a file all the time."""
    file = {"FAKETIME_TIMESTAMP_FILE": "../clock", "FAKETIME_NO_CACHE": "1"}
    return {"LD_PRELOAD": str(_faketime()), "DONT_FAKE_MONOTONIC": "1", **file}


def _faketime() -> Path | None:
    return next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


@contextlib.contextmanager
def luigid(workspace: Workspace) -> Iterator[None]:
    """Starts luigid on loopback and makes the runs use it."""
    port = free_port()
    _use_scheduler(workspace, port)
    log = workspace.base / "luigid.log"
    command = [Path(sys.executable).with_name("luigid"), "--address", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as file:
        workspace.scheduler = subprocess.Popen(
            [*command, "--state-path", workspace.base / "luigid.state"], cwd=workspace.base, stdout=file, stderr=file
        )
    try:
        wait_for_port(port, workspace.scheduler, log)
        yield
    finally:
        workspace.scheduler.kill()
        workspace.scheduler.wait()
        write_settings(workspace.folder, DRILL_SETTINGS)


@contextlib.contextmanager
def luigid_killed(workspace: Workspace) -> Iterator[None]:
    """Kills luigid."""
    assert workspace.scheduler is not None
    workspace.scheduler.kill()
    workspace.scheduler.wait()
    yield


def _use_scheduler(workspace: Workspace, port: int) -> None:
    core = {
        "local_scheduler": "false", "default_scheduler_url": f"http://127.0.0.1:{port}",
        "rpc_retry_attempts": "2", "rpc_retry_wait": "1",
    }  # fmt: skip
    write_settings(workspace.folder, merge_settings(DRILL_SETTINGS, {"core": core}))


def all_faults() -> list[Fault]:
    """Returns all faults that can be injected on this machine."""
    mounts = can_mount()
    full = "disk full (tmpfs)" if mounts else "disk full (RLIMIT_FSIZE)"
    locked = "read-only (bind mount)" if mounts else "read-only (chmod)"
    process_only = Moment("ScoreBatch", "chunk, inside", 20, target="process")
    term = {"signal": "SIGTERM", "target": "parent"}
    faults = [
        Fault("task's process killed alone in a chunk", "extracted", no_effect, (30,), process_only),
        Fault("SIGTERM in training", "nothing", no_effect, (143,), Moment("TrainModel", "checkpoint write", 4, **term)),
        Fault("SIGTERM in a chunk", "extracted", no_effect, (143,), Moment("ScoreBatch", "chunk, inside", 20, **term)),
        Fault("SIGTERM in export", "trained", no_effect, (143,), Moment("ExportModel", "export write", 1, **term)),
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
        Fault("PostgreSQL stopped permanently", "extracted", postgresql_stopped, (30,), SCORING,
              databases=("postgresql",)),
        Fault("PostgreSQL down before the run", "extracted", postgresql_stopped, (35,), databases=("postgresql",)),
        Fault("connection cut between chunks", "extracted", connections_cut, (0,), SCORING, 0.0,
              databases=("postgresql",)),
        Fault("connection cut in a chunk", "extracted", connections_cut, (0,), IN_A_CHUNK, 0.0,
              databases=("postgresql",)),
        Fault("connection cut in publishing", "extracted", connections_cut, (0,), PUBLISHING, 0.0,
              databases=("postgresql",)),
        Fault("luigid killed in training", "nothing", luigid_killed, (0,), TRAINING, setup=luigid),
        Fault("luigid killed in scoring", "extracted", luigid_killed, (0,), SCORING, setup=luigid),
        Fault("luigid killed before the run", "extracted", luigid_killed, (0,), setup=luigid),
    ]  # fmt: skip
    if mounts or os.geteuid():
        faults += [
            Fault(f"{locked}: artifacts", "trained", read_only("artifacts"), (30, 35), mounted=mounts),
            Fault(f"{locked}: working folder", "extracted", read_only("."), (30, 35), databases=("sqlite",),
                  mounted=mounts),
        ]  # fmt: skip
    if _faketime():
        between = "clock set back 5 h between runs"
        adjustable = {"setup": adjustable_clock, "variables": _clock_from_file()}
        faults += [
            Fault(f"{between}, in training", "nothing", killed_in_the_future(TRAINING), (0,)),
            Fault(f"{between}, in scoring", "extracted", killed_in_the_future(SCORING), (0,)),
            Fault("clock set back 5 h in training", "nothing", clock_set_back, (0,), TRAINING, **adjustable),
            Fault("clock set back 5 h in scoring", "extracted", clock_set_back, (0,), SCORING, **adjustable),
        ]
    return faults


def list_skipped_faults() -> list[str]:
    """Returns the faults that cannot be injected on this machine, with the reasons."""
    skipped = []
    if not _faketime():
        skipped.append("clock set back: faketime is not installed (apt-get install faketime)")
    if not can_mount() and not os.geteuid():
        skipped.append("read-only folder: root can write to every folder, and this user may not mount")
    return skipped
