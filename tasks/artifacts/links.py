"""Where Luigi's page leads who wants to see more of a task: an address of what it leaves, for a browser."""

from __future__ import annotations

import urllib.parse
from pathlib import Path

from tasks.artifacts.locations import artifacts_folder
from tasks.settings.loading import load
from tasks.settings.operation import RunSettings


def link_to(path: Path) -> str:
    """The address of a file or folder among the artifacts: below [run] artifacts_url, else the file's own.

    Args:
        path: below the artifacts' folder.
    """
    if not (base := load(RunSettings).artifacts_url):
        return path.absolute().as_uri()
    return f"{base.rstrip('/')}/{urllib.parse.quote(path.relative_to(artifacts_folder()).as_posix())}"


def tensorboard_link(training: Path) -> str | None:
    """The address of TensorBoard with the runs of one training chosen, if [run] tensorboard_url says where it is."""
    if not (base := load(RunSettings).tensorboard_url):
        return None
    return f"{base.rstrip('/')}/?{urllib.parse.urlencode({'runFilter': training.name})}#timeseries"
