"""The exceptions that this project raises on purpose, in one tree.

    SpamscoreError
    ├── SettingsError       a section, key or value of luigi.cfg, the environment or the command line
    │   ├── ArgumentError   arguments of the `luigi` command that cannot be used
    │   └── WarmStartError  weights that a training cannot start from: they do not exist, or are calibrated
    ├── InputError          labelled or unlabelled messages that cannot be used
    │   └── RejectedError   too many messages of a date were rejected; none of them is published
    ├── ArtifactError       a vocabulary, checkpoint, export or snapshot that is damaged or does not fit
    │   └── FormatError     an artifact in the format of another version of this program
    ├── DeviceError         a device that does not exist, or a GPU whose memory cannot be found out
    ├── ClusterError        a Spark cluster that cannot be reached, or whose executors fail
    ├── WorkerError         a process or a machine that takes part in a training
    ├── StorageError        a disk that is full, read-only or not writable
    ├── DatabaseError       a database that cannot be reached, or that has another schema
    ├── SchedulerError      Luigi's scheduler does not answer
    ├── ServerError         a model server that does not answer, or whose answer cannot be used
    ├── DateNotOverError    a date whose messages have not all arrived yet
    ├── AlreadyRunningError another run is doing the same work
    ├── DatesError          some dates of a run over several dates failed
    └── DriftError          a batch crossed a limit of [drift], and on_drift = fail

Each message says what was expected, what was received, and how to fix it. It never contains a password.
"""

from __future__ import annotations

from typing import ClassVar


class SpamscoreError(Exception):
    """Base class of all errors. Its message is complete: it is shown to the user without a traceback.

    Attributes:
        exit_code: exit code of the `luigi` command when every failure of a run has this type; None leaves the exit
            code to Luigi.
    """

    exit_code: ClassVar[int | None] = None


class SettingsError(SpamscoreError):
    """A section, key or value that cannot be used. Raised before any work starts."""


class ArgumentError(SettingsError):
    """The arguments of the command cannot be used: task, option, value, date or range."""

    exit_code = 2  # the code of argparse


class WarmStartError(SettingsError):
    """A training cannot start from the weights of [training]: they do not exist, are calibrated, or are not matched."""

    exit_code = 40  # Luigi's own exit code for bad settings, also if the source disappears during a run


class InputError(SpamscoreError):
    """Messages that cannot be read or used. Names the file or query and, where possible, the row."""


class RejectedError(InputError):
    """Too many messages of a date were rejected: none of them is published."""

    exit_code = 60  # not one of Luigi's: the data needs a correction, not the program


class ArtifactError(SpamscoreError):
    """An artifact that is missing, is damaged, or belongs to another artifact. Names the file."""


class FormatError(ArtifactError):
    """An artifact that another version of this program wrote in another format."""


class DeviceError(SpamscoreError):
    """A device that does not exist, or a GPU whose memory cannot be found out. Names the devices that exist."""


class WorkerError(SpamscoreError):
    """A process or a machine that takes part in a training does not answer, or does not fit the others. Names it."""


class ClusterError(SpamscoreError):
    """A Spark cluster that cannot be reached, or whose executors fail or do not fit this program. Names the cluster."""


class StorageError(SpamscoreError):
    """A file that cannot be written: the disk is full or read-only, or the folder belongs to another user."""


class DatabaseError(SpamscoreError):
    """A database that cannot be reached or used. Names it with its password masked."""


class SchedulerError(SpamscoreError):
    """Luigi's scheduler does not answer."""

    exit_code = 35  # the same code as for a database: in both cases it is unknown which tasks are done


class ServerError(SpamscoreError):
    """A model server that does not answer, or whose answer cannot be used. Names its address, model and version.

    Attributes:
        kind: the reason in a word or two, to count failed calls by: "unreachable", "TLS", "deadline", "overloaded",
            "not served" (a model, version or label that the server does not have), "signature", "not allowed",
            "too large", "form" (an answer that is not as expected) or "failed".
        temporary: whether the same call can succeed later without a change of settings.
    """

    def __init__(self, message: str, kind: str, temporary: bool = False) -> None:
        super().__init__(message)
        self.kind, self.temporary = kind, temporary


class DateNotOverError(SpamscoreError):
    """A date that is not over: messages may still arrive, and they would never be scored."""

    exit_code = 20  # Luigi's own exit code for missing data: in both cases the same command works later


class AlreadyRunningError(SpamscoreError):
    """Another run is doing the same work, and this run is set not to wait for it."""

    exit_code = 10  # Luigi's own exit code for a run that could not take the lock


class DatesError(SpamscoreError):
    """Some dates of a run over several dates failed. Names them and the reasons."""


class DriftError(SpamscoreError):
    """A batch differs from earlier batches: a limit of [drift] was crossed. The batch stays published."""

    exit_code = 50  # not one of Luigi's, so that a cron job can tell drift from a run that did not finish
