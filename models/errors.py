"""Every error this project raises on purpose, in one tree.

    SpamscoreError
    ├── SettingsError       a section, key or value of luigi.cfg, the environment or the command line
    ├── InputError          labelled or unlabelled messages that cannot be used
    ├── ArtifactError       a vocabulary, checkpoint, export or snapshot that is damaged or does not fit
    ├── DeviceError         a device that is not there
    └── DatabaseError       a database that cannot be reached, or whose schema is not ours

The text of each says what was expected, what was received, and the way out. It never holds a password.
"""

from __future__ import annotations


class SpamscoreError(Exception):
    """Base of all: its text alone is fit for a person, no traceback needed."""


class SettingsError(SpamscoreError):
    """A section, key or value that cannot be used. Raised before any work."""


class InputError(SpamscoreError):
    """Messages that cannot be read or used. Names the file or query and, where it can, the row."""


class ArtifactError(SpamscoreError):
    """An artifact that is missing, damaged, or made for another one. Names the file."""


class DeviceError(SpamscoreError):
    """A device that is not there. Names those that are."""


class DatabaseError(SpamscoreError):
    """A database that cannot be reached or used. Names it with its password masked."""
