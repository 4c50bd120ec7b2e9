"""Reads the SMS Spam Collection, which is not part of the project; skips the test if the file is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PATH = Path(os.environ.get("SPAMSCORE_TEST_DATA", PROJECT.parent / "shared" / "data")) / "SMSSpamCollection"


def real_messages() -> list[str]:
    """Returns the texts in file order; skips the test if the file is missing."""
    if not PATH.is_file():
        pytest.skip(f"the real corpus is not at {PATH}: set SPAMSCORE_TEST_DATA to the folder of SMSSpamCollection")
    return [line.split("\t", 1)[1] for line in PATH.read_text(encoding="utf-8").rstrip("\n").split("\n")]
