"""Runs Luigi's own command line in this process with a watch on it, which counts what happens and strikes at a moment.

The product knows nothing of it: the watch sits on Python's audit events, on `os`, on SQLAlchemy's events, and around
the calls of TensorFlow and Arrow whose writing is out of Python's sight.

    DRILL_WATCH='{"root": "…", "log": "…"}' python -m drill.watched --module pipeline ScoreBatch
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

# Who writes out of Python's sight: module, class or None, function, the kind of event.
_CALLS = [
    ("tensorflow.python.checkpoint.checkpoint_management", "CheckpointManager", "save", "checkpoint write"),
    ("models.network.export", None, "write_saved_model", "export write"),
    ("models.network.export", None, "write_warmup", "export write"),
    ("pyarrow.parquet.core", "ParquetWriter", "__init__", "table write"),
    ("pyarrow.parquet.core", "ParquetWriter", "write_batch", "table write"),
    ("pyarrow.parquet.core", "ParquetWriter", "write_table", "table write"),
    ("pyarrow.parquet.core", "ParquetWriter", "close", "table write"),
]


class Watch:
    """Counts the events of a stage by their kind. It is copied with the process that Luigi forks for each task."""

    def __init__(self, root: str, log: str, moment: Moment | None) -> None:
        self.root, self.log, self.moment = os.path.realpath(root), log, moment
        self.stage = SCHEDULING
        self.counts: Counter[str] = Counter()
        self.transaction = ""
        self.striking = False

    def enter(self, stage: str) -> None:
        """A task begins, in a process of its own."""
        self.stage, self.counts = stage, Counter()
        self.happens(COMPUTING)

    def happens(self, kind: str) -> None:
        """Takes note of an event, and strikes if it is the one."""
        if self.striking:
            return
        self.counts[kind] += 1
        if self.moment is None:
            self.note(stage=self.stage, kind=kind, at=time.monotonic())
        elif (self.stage, kind, self.counts[kind]) == (self.moment.stage, self.moment.kind, self.moment.number):
            self.striking = True
            self.strike(self.moment)

    def strike(self, moment: Moment) -> None:
        """Does it here, or in a little while from a thread, for then the event is in the middle."""
        if not moment.delay:
            self.act(moment)
        else:
            threading.Thread(target=lambda: (time.sleep(moment.delay), self.act(moment)), daemon=True).start()

    def act(self, moment: Moment) -> None:
        """Notes that the moment came, then sends the signal: to the whole group, to this process, to Luigi's."""
        self.note(struck=moment.stage, at=time.monotonic())
        number = signal.Signals[moment.signal]
        if moment.whom == "group":
            os.killpg(os.getpgrp(), number)
        else:
            os.kill(os.getpid() if moment.whom == "process" else os.getppid(), number)

    def note(self, **said: Any) -> None:
        """A line in the log, in one write."""
        before, self.striking = self.striking, True
        with open(self.log, "a", encoding="utf-8") as file:
            file.write(json.dumps(said) + "\n")
        self.striking = before

    def within(self, path: Any) -> str | None:
        """The path below the watched folder, or None."""
        if not isinstance(path, str | os.PathLike):
            return None
        whole = os.path.realpath(path)
        return whole.removeprefix(self.root) if whole.startswith(self.root + os.sep) else None

    def watch_files(self) -> None:
        """Files opened for writing, folders made and cleared, what is renamed and put on the disk."""
        sys.addaudithook(self._audit)
        for name in ("rename", "replace"):
            setattr(os, name, self._around_rename(getattr(os, name)))
        os.fsync = self._after(os.fsync, "fsync")

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            if (set(mode or "") & set("wxa+") or flags & (os.O_WRONLY | os.O_RDWR)) and (below := self.within(path)):
                self.happens(file_kind(below))
        elif event in ("shutil.rmtree", "os.remove") and self.within(arguments[0]):
            self.happens("clearing")
        elif event == "os.mkdir" and self.within(arguments[0]):
            self.happens("folder made")

    def _around_rename(self, call: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(call)
        def watched(source: Any, target: Any, *rest: Any, **named: Any) -> None:
            kind = "folder published" if Path(source).is_dir() else "file put in place"
            below = self.within(target)
            if below:
                self.happens(f"{kind}, before")
            call(source, target, *rest, **named)
            if below:
                self.happens(f"{kind}, after")

        return watched

    def _after(self, call: Callable[..., Any], kind: str) -> Callable[..., Any]:
        @functools.wraps(call)
        def watched(*arguments: Any, **named: Any) -> Any:
            result = call(*arguments, **named)
            self.happens(kind)
            return result

        return watched

    def watch_database(self) -> None:
        """What each transaction does, and the moments before and after its commit."""
        from sqlalchemy import event
        from sqlalchemy.engine import Engine
        from sqlalchemy.engine.default import DefaultDialect

        commit = DefaultDialect.do_commit

        def do_commit(dialect: Any, connection: Any) -> None:
            if self.transaction:
                self.happens(f"{self.transaction}, before the commit")
            commit(dialect, connection)
            if self.transaction:
                self.happens(f"{self.transaction}, after the commit")
            self.transaction = ""

        DefaultDialect.do_commit = do_commit  # type: ignore[method-assign]

        def executed(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            self.transaction = transaction_kind(statement, parameters) or self.transaction
            if self.transaction:
                self.happens(f"{self.transaction}, inside")

        event.listen(Engine, "begin", lambda _: setattr(self, "transaction", ""))
        event.listen(Engine, "after_cursor_execute", executed)

    def watch_calls(self) -> None:
        """Wraps each of `_CALLS` when its module is imported."""
        sys.meta_path.insert(0, _AfterImport({name for name, *_ in _CALLS}, self._wrap))

    def _wrap(self, module: ModuleType) -> None:
        for name, holder, function, kind in _CALLS:
            if name == module.__name__:
                owner = getattr(module, holder) if holder else module
                setattr(owner, function, self._around(getattr(owner, function), kind))

    def _around(self, call: Callable[..., Any], kind: str) -> Callable[..., Any]:
        @functools.wraps(call)
        def watched(*arguments: Any, **named: Any) -> Any:
            self.happens(kind)
            result = call(*arguments, **named)
            self.happens(f"{kind}, after")
            return result

        return watched


def file_kind(below: str) -> str:
    """What a file that is opened for writing is."""
    if "manifest.json" in below:
        return "manifest write"
    for part in ("receipts", "exports", "checkpoints"):
        if f"/{part}/" in below:
            return f"{part.removesuffix('s')} write"
    return "file write"


def transaction_kind(statement: str, parameters: Any) -> str | None:
    """Which transaction a statement shows that it is in."""
    said = " ".join(statement.split()).lower()
    if said.startswith("insert into batch_chunks"):
        return "chunk"
    if said.startswith("insert into score_batches"):
        return "batch begun"
    if said.startswith("update score_batches"):
        values = parameters.values() if isinstance(parameters, dict) else parameters
        return "publishing" if {"published", "superseded"} & {one for one in values if isinstance(one, str)} else None
    return None


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls back once a module of certain names was executed."""

    def __init__(self, names: set[str], call: Callable[[ModuleType], None]) -> None:
        self.names, self.call = names, call

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module's own spec, its loader made to call back."""
        if name not in self.names:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            self.call(module)

        loader.exec_module = exec_module
        return spec


def main() -> None:
    """Sets the watch up and becomes the `luigi` command."""
    plan = json.loads(os.environ["DRILL_WATCH"])
    moment = Moment(**plan["moment"]) if plan.get("moment") else None
    watch = Watch(plan["root"], plan["log"], moment)
    sys.path.pop(0)  # `luigi` does not look for modules in the working folder
    sys.argv[0] = str(Path(sys.executable).with_name("luigi"))
    import luigi
    from luigi.cmdline import luigi_run

    watch.watch_files()
    watch.watch_calls()
    watch.watch_database()
    luigi.Task.event_handler(luigi.Event.START)(lambda task: watch.enter(task.task_family))
    luigi.Task.event_handler(luigi.Event.SUCCESS)(lambda _: watch.happens("done"))
    watch.happens(COMPUTING)
    luigi_run()


if __name__ == "__main__":
    main()
