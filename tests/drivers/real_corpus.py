"""The published SMS Spam Collection, no part of the project: its messages, or a test that says it is absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PATH = Path(os.environ.get("SPAMSCORE_TEST_DATA", PROJECT.parent / "shared" / "data")) / "SMSSpamCollection"


def real_messages() -> list[str]:
    """The texts in the order of the file; skips the test where it is not there."""
    if not PATH.is_file():
        pytest.skip(f"the real corpus is not at {PATH}: set SPAMSCORE_TEST_DATA to the folder of SMSSpamCollection")
    return [line.split("\t", 1)[1] for line in PATH.read_text(encoding="utf-8").rstrip("\n").split("\n")]
