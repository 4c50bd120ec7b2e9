"""Runs a command as a user who may read a folder but not write to it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_NOBODY = "65534"


@contextlib.contextmanager
def readable_folder() -> Iterator[Path]:
    """Creates a folder that every user can enter; pytest's own are closed to others. Deletes it at the end."""
    with tempfile.TemporaryDirectory(prefix="spamscore-readable-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
        Path(folder).chmod(0o755)


def run_without_write_permission(folder: Path, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Takes the write permission on a folder away and runs a command; as root, as another user."""
    folder.chmod(0o555)
    if os.geteuid() == 0:  # root may write everywhere
        command = ("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", *command)
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)
