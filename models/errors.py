"""Every error this project raises on purpose, in one tree.

    SpamscoreError
    ├── SettingsError       a section, key or value of luigi.cfg, the environment or the command line
    ├── InputError          labelled or unlabelled messages that cannot be used
    ├── ArtifactError       a vocabulary, checkpoint, export or snapshot that is damaged or does not fit
    ├── DeviceError         a device that is not there
    ├── DatabaseError       a database that cannot be reached, or whose schema is not ours
    ├── AlreadyRunningError another run is at the same work
    ├── DatesError          some of several dates failed
    └── DriftError          a batch crossed a limit of [drift], and on_drift = fail

The text of each says what was expected, what was received, and the way out. It never holds a password.
"""

from __future__ import annotations

from typing import ClassVar


class SpamscoreError(Exception):
    """Base of all: its text alone is fit for a person, no traceback needed.

    Attributes:
        exit_code: of the `luigi` command when every failure of a run is of this kind; None leaves it to Luigi.
    """

    exit_code: ClassVar[int | None] = None


class SettingsError(SpamscoreError):
    """A section, key or value that cannot be used. Raised before any work."""


class InputError(SpamscoreError):
    """Messages that cannot be read or used. Names the file or query and, where it can, the row."""


class ArtifactError(SpamscoreError):
    """An artifact that is missing, damaged, or made for another one. Names the file."""


class FormatError(ArtifactError):
    """An artifact was made by another version of this program, which wrote it in another form."""


class DeviceError(SpamscoreError):
    """A device that is not there. Names those that are."""


class StorageError(SpamscoreError):
    """A disk refused a file: it is full or read-only, or the folder is somebody else's."""


class DatabaseError(SpamscoreError):
    """A database that cannot be reached or used. Names it with its password masked."""


class SchedulerError(SpamscoreError):
    """Luigi's scheduler does not answer."""

    exit_code = 35  # as for a database: it cannot be told what is done


class AlreadyRunningError(SpamscoreError):
    """Another run is at the same work, and this one was told not to wait for it."""

    exit_code = 10  # what Luigi ships for its own lock


class DatesError(SpamscoreError):
    """Some of several dates failed; names them, and why."""


class DriftError(SpamscoreError):
    """A batch is unlike those before: a limit of [drift] was crossed. It stays published."""

    exit_code = 50  # none of Luigi's, so that a cron job can tell it from a night that did not come to its end
