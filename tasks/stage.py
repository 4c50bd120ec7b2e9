"""Base classes of the stages: fingerprints, output folders; and their TensorFlow and logging setup."""

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
from tasks.scheduler.failures import describe_error, find_expected_error
from tasks.settings.checking import check_settings
from tasks.settings.loading import load
from tasks.settings.operation import ConsoleSettings, RunSettings
from tasks.settings.sections import SECTIONS

log = logging.getLogger("spamscore")


class Stage(luigi.Task):
    """A task whose result is named by its fingerprint: a hash of its settings, its inputs and its code version.

    Attributes:
        sections: the settings sections that shape the result.
        code_version: a subclass increases it when the same settings and inputs give another result than before.
    """

    sections: ClassVar[tuple[type, ...]] = ()
    code_version: ClassVar[int] = 1

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_settings()
        configure_logging(load(ConsoleSettings))

    @property
    def uses_tensorflow(self) -> bool:
        """Whether `run` needs TensorFlow, which Luigi's worker then imports before it starts the process."""
        return False

    def fingerprint_parts(self) -> dict[str, Any]:
        """Returns what the fingerprint is computed from. Subclasses add inputs that are neither settings nor stages."""
        names = {settings_class: section for section, settings_class in SECTIONS.items()}
        return {
            "stage": self.task_family,
            "code_version": self.code_version,
            "settings": {names[section]: result_values(load(section)) for section in self.sections},
            "inputs": [task.fingerprint() for task in luigi.task.flatten(self.requires()) if isinstance(task, Stage)],
        }

    def on_failure(self, exception: BaseException) -> Any:
        """Returns the text of a failure on Luigi's page: one line for an expected error, else Luigi's traceback."""
        return describe_error(exception) if find_expected_error(exception) else super().on_failure(exception)

    def fingerprint(self) -> str:
        """Returns the name of the result. It changes with the settings, the code version and every input."""
        if _fingerprint_cache is None:
            return compute_fingerprint(self.fingerprint_parts())
        if self not in _fingerprint_cache:
            _fingerprint_cache[self] = compute_fingerprint(self.fingerprint_parts())
        return _fingerprint_cache[self]


_fingerprint_cache: dict[Stage, str] | None = None


@contextlib.contextmanager
def cache_fingerprints() -> Iterator[None]:
    """Caches all fingerprints within the block, for checks of many dates of one model."""
    global _fingerprint_cache
    outer, _fingerprint_cache = _fingerprint_cache, _fingerprint_cache if _fingerprint_cache is not None else {}
    try:
        yield
    finally:
        _fingerprint_cache = outer


class FolderStage(Stage):
    """A stage whose result is a folder. Subclasses fill it in `build`.

    Attributes:
        folder: name of the stage's folder in the artifacts folder.
        resumes: whether `build` finds in its folder what a killed run left; otherwise it starts with an empty one.
    """

    folder: ClassVar[str] = ""
    resumes: ClassVar[bool] = False

    def output(self) -> FolderTarget:
        """Returns the folder that this stage writes."""
        return FolderTarget(artifacts_folder() / self.folder / self.fingerprint())

    def run(self) -> None:
        """Builds the folder, unless another process built it while this one waited for the lock."""
        target = self.output()
        with target.build(self.resumes, load(RunSettings).when_running == "wait") as folder:
            if not target.exists():
                content = self.build(folder)
                self._require_unchanged(target)
                write_manifest(
                    folder, {**content, "fingerprint": target.path.name, "made_of": self.fingerprint_parts()}
                )

    def _require_unchanged(self, target: FolderTarget) -> None:
        """Checks that the fingerprint still holds: a source may have been replaced while it was read."""
        if self.output().path != target.path:
            raise InputError(
                f"{target.path}: an input of {self.task_family} changed while it ran; the result is not kept. "
                "Run again when the file is no longer being written."
            )

    def build(self, folder: Path) -> dict[str, Any]:
        """Fills the folder and returns the content of its manifest: counts and hashes."""
        raise NotImplementedError(f"{self.task_family} must define build()")


def prepare_tensorflow() -> None:
    """Imports TensorFlow and sets up its devices. A stage calls it before it imports modules that use TensorFlow."""
    from models.network.devices import start_tensorflow

    settings = load(DeviceSettings)
    if luigi.interface.core().workers > 1:  # a single worker takes all cores, TensorFlow's default
        settings = dataclasses.replace(settings, threads=processor_threads(settings))
    start_tensorflow(settings, load(ConsoleSettings).tensorflow_log)


def processor_threads(settings: DeviceSettings) -> int:
    """Returns the threads of one task: [devices] threads, or all cores divided among Luigi's workers."""
    cores = len(os.sched_getaffinity(0))
    return settings.threads or max(1, cores // luigi.interface.core().workers)


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to the current `sys.stderr`: a progress bar replaces it, to keep log lines above the bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a log record as a line."""
        self.stream = sys.stderr
        super().emit(record)


def configure_logging(settings: ConsoleSettings) -> None:
    """Shows the pipeline's log lines on stderr, unless logging is already configured."""
    log.setLevel(settings.log_level)
    if not log.hasHandlers():
        handler = StderrHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        log.addHandler(handler)
        # Some libraries call logging.basicConfig, which would show every line twice.
        logging.getLogger().addHandler(logging.NullHandler())
