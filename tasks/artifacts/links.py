"""URLs that Luigi's page links a task to: its output as a browser finds it, and its runs in TensorBoard."""

from __future__ import annotations

import urllib.parse
from pathlib import Path

from tasks.artifacts.locations import artifacts_folder
from tasks.settings.loading import load
from tasks.settings.operation import RunSettings


def link_to(path: Path) -> str:
    """Returns the URL of an artifact: below [run] artifacts_url or, if that is empty, its file URL.

    Args:
        path: a file or folder in the artifacts folder.
    """
    if not (base := load(RunSettings).artifacts_url):
        return path.absolute().as_uri()
    return f"{base.rstrip('/')}/{urllib.parse.quote(path.relative_to(artifacts_folder()).as_posix())}"


def tensorboard_link(training: Path) -> str | None:
    """Returns the URL of TensorBoard, filtered to the runs of a training; None if [run] tensorboard_url is empty."""
    if not (base := load(RunSettings).tensorboard_url):
        return None
    return f"{base.rstrip('/')}/?{urllib.parse.urlencode({'runFilter': training.name})}#timeseries"
