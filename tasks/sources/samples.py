"""Finds the sample files of the distribution: a small labelled corpus and an inbox, for a run without settings."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from models.errors import ArtifactError


def bundled_file(name: str) -> Path:
    """Returns the path of a file in `pipeline/sample`: corpus.csv (label, text) or inbox.csv (message_id, text).

    Raises:
        ArtifactError: the file is not part of the installation.
    """
    # The package is located, not imported: pipeline imports the tasks, and its start-up work is not needed here.
    spec = importlib.util.find_spec("pipeline")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        if (path := Path(folder, "sample", name)).is_file():
            return path
    raise ArtifactError(f"pipeline/sample/{name}: not found in {folders}. Install spamscore again.")
