"""Runs Luigi's command line in this process with probes that count events and send a signal at a given moment.

The probes use Python's audit events, `os`, SQLAlchemy's events, and wrappers around calls of TensorFlow and Arrow that
write files in native code. The project itself has no code for them.

    DRILL_WATCH='{"root": "…", "log": "…"}' python -m drill.instrumented_luigi --module pipeline ScoreBatch
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from drill.moments import COMPUTING, SCHEDULING, Moment

# Calls that write files in native code: module, class or None, function, kind of the event.
_CALLS = [
    ("tensorflow.python.checkpoint.checkpoint_management", "CheckpointManager", "save", "checkpoint write"),
    ("models.network.export", None, "write_saved_model", "export write"),
    ("models.network.export", None, "write_warmup", "export write"),
    ("pyarrow.parquet.core", "ParquetWriter", "__init__", "table write"),
    ("pyarrow.parquet.core", "ParquetWriter", "write_batch", "table write"),
    ("pyarrow.parquet.core", "ParquetWriter", "write_table", "table write"),
    ("pyarrow.parquet.core", "ParquetWriter", "close", "table write"),
]


class Probe:
    """Counts the events of a stage by kind. Luigi forks a process for each task, and the probe is copied with it."""

    def __init__(self, root: str, log: str, moment: Moment | None) -> None:
        self.root, self.log, self.moment = os.path.realpath(root), log, moment
        self.stage = SCHEDULING
        self.counts: Counter[str] = Counter()
        self.transaction = ""
        self.striking = False

    def enter(self, stage: str) -> None:
        """Starts a stage, in the process of its task."""
        self.stage, self.counts = stage, Counter()
        self.count(COMPUTING)

    def count(self, kind: str) -> None:
        """Counts an event, and strikes if it is the event of the moment."""
        if self.striking:
            return
        self.counts[kind] += 1
        if self.moment is None:
            self.log_event(stage=self.stage, kind=kind, at=time.monotonic())
        elif (self.stage, kind, self.counts[kind]) == (self.moment.stage, self.moment.kind, self.moment.number):
            self.striking = True
            self.strike(self.moment)

    def strike(self, moment: Moment) -> None:
        """Sends the signal now, or after the delay from a thread while the event is in progress."""
        if not moment.delay:
            self.send_signal(moment)
        else:
            threading.Thread(target=lambda: (time.sleep(moment.delay), self.send_signal(moment)), daemon=True).start()

    def send_signal(self, moment: Moment) -> None:
        """Logs the strike, then sends the signal to its target."""
        self.log_event(struck=moment.stage, at=time.monotonic())
        number = signal.Signals[moment.signal]
        if moment.target == "group":
            os.killpg(os.getpgrp(), number)
        else:
            os.kill(os.getpid() if moment.target == "process" else os.getppid(), number)

    def log_event(self, **fields: Any) -> None:
        """Appends a line to the log, in one write."""
        before, self.striking = self.striking, True
        with open(self.log, "a", encoding="utf-8") as file:
            file.write(json.dumps(fields) + "\n")
        self.striking = before

    def get_relative_path(self, path: Any) -> str | None:
        """Returns the path below the root folder, or None if it is outside."""
        if not isinstance(path, str | os.PathLike):
            return None
        real = os.path.realpath(path)
        return real.removeprefix(self.root) if real.startswith(self.root + os.sep) else None

    def probe_files(self) -> None:
        """Counts files opened for writing, folders created and deleted, renames and fsyncs."""
        sys.addaudithook(self._audit)
        for name in ("rename", "replace"):
            setattr(os, name, self._wrap_rename(getattr(os, name)))
        os.fsync = self._count_after(os.fsync, "fsync")

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = set(mode or "") & set("wxa+") or flags & (os.O_WRONLY | os.O_RDWR)
            if writes and (relative_path := self.get_relative_path(path)):
                self.count(get_file_kind(relative_path))
        elif event in ("shutil.rmtree", "os.remove") and self.get_relative_path(arguments[0]):
            self.count("clearing")
        elif event == "os.mkdir" and self.get_relative_path(arguments[0]):
            self.count("folder made")

    def _wrap_rename(self, call: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(call)
        def wrapper(source: Any, target: Any, *args: Any, **kwargs: Any) -> None:
            kind = "folder published" if Path(source).is_dir() else "file put in place"
            inside = self.get_relative_path(target)
            if inside:
                self.count(f"{kind}, before")
            call(source, target, *args, **kwargs)
            if inside:
                self.count(f"{kind}, after")

        return wrapper

    def _count_after(self, call: Callable[..., Any], kind: str) -> Callable[..., Any]:
        @functools.wraps(call)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            result = call(*args, **kwargs)
            self.count(kind)
            return result

        return wrapper

    def probe_database(self) -> None:
        """Counts the statements of each transaction by kind, and the moments before and after its commit."""
        from sqlalchemy import event
        from sqlalchemy.engine import Engine
        from sqlalchemy.engine.default import DefaultDialect

        commit = DefaultDialect.do_commit

        def do_commit(dialect: Any, connection: Any) -> None:
            if self.transaction:
                self.count(f"{self.transaction}, before the commit")
            commit(dialect, connection)
            if self.transaction:
                self.count(f"{self.transaction}, after the commit")
            self.transaction = ""

        DefaultDialect.do_commit = do_commit  # type: ignore[method-assign]

        def on_execute(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            self.transaction = get_transaction_kind(statement, parameters) or self.transaction
            if self.transaction:
                self.count(f"{self.transaction}, inside")

        event.listen(Engine, "begin", lambda _: setattr(self, "transaction", ""))
        event.listen(Engine, "after_cursor_execute", on_execute)

    def probe_calls(self) -> None:
        """Wraps each call of `_CALLS` when its module is imported."""
        sys.meta_path.insert(0, _ImportHook({name for name, *_ in _CALLS}, self._wrap_calls))

    def _wrap_calls(self, module: ModuleType) -> None:
        for name, class_name, function, kind in _CALLS:
            if name == module.__name__:
                owner = getattr(module, class_name) if class_name else module
                setattr(owner, function, self._count_around(getattr(owner, function), kind))

    def _count_around(self, call: Callable[..., Any], kind: str) -> Callable[..., Any]:
        @functools.wraps(call)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self.count(kind)
            result = call(*args, **kwargs)
            self.count(f"{kind}, after")
            return result

        return wrapper


def get_file_kind(path: str) -> str:
    """Returns the kind of event for a file that is opened for writing."""
    if "manifest.json" in path:
        return "manifest write"
    for part in ("receipts", "exports", "checkpoints"):
        if f"/{part}/" in path:
            return f"{part.removesuffix('s')} write"
    return "file write"


def get_transaction_kind(statement: str, parameters: Any) -> str | None:
    """Returns the kind of transaction that a statement belongs to, or None if the statement does not show it."""
    sql = " ".join(statement.split()).lower()
    if sql.startswith("insert into batch_chunks"):
        return "chunk"
    if sql.startswith("insert into score_batches"):
        return "batch begun"
    if sql.startswith("update score_batches"):
        values = parameters.values() if isinstance(parameters, dict) else parameters
        return (
            "publishing"
            if {"published", "superseded"} & {value for value in values if isinstance(value, str)}
            else None
        )
    return None


class _ImportHook(importlib.abc.MetaPathFinder):
    """Calls a function with each of the named modules after its import."""

    def __init__(self, names: set[str], on_import: Callable[[ModuleType], None]) -> None:
        self.names, self.on_import = names, on_import

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns the normal spec of the module, with a loader that also calls the function."""
        if name not in self.names:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            self.on_import(module)

        loader.exec_module = exec_module
        return spec


def main() -> None:
    """Installs the probes and runs the `luigi` command."""
    plan = json.loads(os.environ["DRILL_WATCH"])
    moment = Moment(**plan["moment"]) if plan.get("moment") else None
    probe = Probe(plan["root"], plan["log"], moment)
    sys.path.pop(0)  # the `luigi` command does not import modules from the working folder
    sys.argv[0] = str(Path(sys.executable).with_name("luigi"))
    import luigi
    from luigi.cmdline import luigi_run

    probe.probe_files()
    probe.probe_calls()
    probe.probe_database()
    luigi.Task.event_handler(luigi.Event.START)(lambda task: probe.enter(task.task_family))
    luigi.Task.event_handler(luigi.Event.SUCCESS)(lambda _: probe.count("done"))
    probe.count(COMPUTING)
    luigi_run()


if __name__ == "__main__":
    main()
