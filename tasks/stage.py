"""What every stage shares: its fingerprint, its folder, its log, its progress shown in the visualizer."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, TextIO

import luigi
import luigi.interface

from models.errors import InputError
from models.settings import DeviceSettings, result_values
from tasks.artifacts.fingerprint import compute_fingerprint
from tasks.artifacts.folders import FolderTarget, write_manifest
from tasks.artifacts.locations import artifacts_folder
from tasks.scheduler.failures import describe_error, find_expected_error, record_failure, retract_failure
from tasks.scheduler.luigi_defaults import LUIGI_DEFAULTS
from tasks.settings.checking import check_settings
from tasks.settings.loading import load
from tasks.settings.operation import ConsoleSettings, RunSettings
from tasks.settings.sections import SECTIONS

log = logging.getLogger("spamscore")


class Stage(luigi.Task):
    """A task whose result is named by what it is made of.

    Subclasses name the settings sections that shape their result, and raise `code_version` when the same settings and
    inputs give another result than before.
    """

    sections: ClassVar[tuple[type, ...]] = ()
    code_version: ClassVar[int] = 1

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_settings()
        configure_logging(load(ConsoleSettings))

    def made_of(self) -> dict[str, Any]:
        """What the fingerprint is taken of. Subclasses add what is neither a setting nor another stage."""
        names = {settings_class: section for section, settings_class in SECTIONS.items()}
        return {
            "stage": self.task_family,
            "code_version": self.code_version,
            "settings": {names[one]: result_values(load(one)) for one in self.sections},
            "inputs": [one.fingerprint() for one in luigi.task.flatten(self.requires()) if isinstance(one, Stage)],
        }

    def on_failure(self, exception: BaseException) -> Any:
        """What Luigi's page says of a failure: the one line, and the traceback where nobody foresaw it."""
        return describe_error(exception) if find_expected_error(exception) else super().on_failure(exception)

    def fingerprint(self) -> str:
        """The name of the result: it differs when the settings, the code version or any input differ."""
        if _held is None:
            return compute_fingerprint(self.made_of())
        if self not in _held:
            _held[self] = compute_fingerprint(self.made_of())
        return _held[self]


_held: dict[Stage, str] | None = None


@contextlib.contextmanager
def held_fingerprints() -> Iterator[None]:
    """Within, each fingerprint is worked out once, for who asks about many dates of one model: one moment's answer."""
    global _held
    before, _held = _held, _held if _held is not None else {}
    try:
        yield
    finally:
        _held = before


class FolderStage(Stage):
    """A stage whose result is a folder; subclasses fill it in `build`.

    A stage that `resumes` finds in the folder what a killed run left; the others begin with an empty one.
    """

    folder: ClassVar[str] = ""
    resumes: ClassVar[bool] = False

    def output(self) -> FolderTarget:
        """The folder this stage leaves."""
        return FolderTarget(artifacts_folder() / self.folder / self.fingerprint())

    def run(self) -> None:
        """Builds the folder, unless another process did while this one waited for its turn."""
        target = self.output()
        with target.build(self.resumes, load(RunSettings).when_running == "wait") as folder:
            if not target.exists():
                content = self.build(folder)
                self._require_unchanged(target)
                write_manifest(folder, {**content, "fingerprint": target.path.name, "made_of": self.made_of()})

    def _require_unchanged(self, target: FolderTarget) -> None:
        """Holds what was built to the name it gets: a source may have been replaced while it was read."""
        if self.output().path != target.path:
            raise InputError(
                f"{target.path}: what {self.task_family} is made of changed while it ran; the result is not kept. "
                "Run again once the file is no longer being written."
            )

    def build(self, folder: Path) -> dict[str, Any]:
        """Fills the folder and returns what the manifest says of it: counts, hashes."""
        raise NotImplementedError(f"{self.task_family} must define build()")


class ExternalFile(luigi.ExternalTask):
    """A file that somebody else provides. Missing, it makes the run end as "missing data"."""

    path = luigi.Parameter(description="path of the file")
    setting = luigi.Parameter(description="the setting that names it, for the message", significant=False)
    _missing = ""

    def output(self) -> luigi.LocalTarget:
        """The file."""
        return luigi.LocalTarget(self.path)

    def complete(self) -> bool:
        """Whether the file is there; says so when it is not, and takes that back when it came while Luigi waited."""
        if Path(self.path).is_file():
            if self._missing:
                retract_failure(self._missing)
            return True
        found = "expected a file, received a folder" if Path(self.path).is_dir() else "no such file"
        self._missing = (
            f"missing data: {self.setting} = {self.path}: {found} (looked in {Path.cwd()}). "
            "Provide the file or correct the setting, and run again."
        )
        record_failure(self._missing, int(LUIGI_DEFAULTS["retcode"]["missing_data"]))
        return False


def prepare_tensorflow() -> None:
    """Imports TensorFlow and sets up its devices; a stage that computes calls it before it imports what computes."""
    from models.network.devices import start_tensorflow

    settings = load(DeviceSettings)
    if luigi.interface.core().workers > 1:  # one alone takes all cores, as TensorFlow does by itself
        settings = dataclasses.replace(settings, threads=processor_threads(settings))
    start_tensorflow(settings, load(ConsoleSettings).tensorflow_log)


def processor_threads(settings: DeviceSettings) -> int:
    """Threads that one task may compute with: as set, or the cores there are, divided among Luigi's workers."""
    cores = len(os.sched_getaffinity(0))
    return settings.threads or max(1, cores // luigi.interface.core().workers)


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to stderr as it is at that moment: a progress bar puts itself in its place, to stay below the lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a line."""
        self.stream = sys.stderr
        super().emit(record)


def configure_logging(settings: ConsoleSettings) -> None:
    """Shows the pipeline's lines on stderr, unless somebody configured logging otherwise."""
    log.setLevel(settings.log_level)
    if not log.hasHandlers():
        handler = StderrHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        log.addHandler(handler)
        # Some libraries call logging.basicConfig on the way, which would show every line a second time.
        logging.getLogger().addHandler(logging.NullHandler())
