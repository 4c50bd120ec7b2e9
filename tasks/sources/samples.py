"""The files that come with the distribution: a small labelled corpus and an inbox, for a first run without settings."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from models.errors import ArtifactError


def bundled_file(name: str) -> Path:
    """The path of a file of `pipeline/sample`: corpus.csv (label, text) or inbox.csv (message_id, text).

    Raises:
        ArtifactError: the distribution is not installed whole.
    """
    # Found, not imported: pipeline imports the tasks, and starts what a program needs and a question does not.
    found = importlib.util.find_spec("pipeline")
    folders = list(found.submodule_search_locations or []) if found else []
    for folder in folders:
        if (path := Path(folder, "sample", name)).is_file():
            return path
    raise ArtifactError(f"pipeline/sample/{name}: not found in {folders}. Install spamscore again.")
