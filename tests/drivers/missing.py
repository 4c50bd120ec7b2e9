"""What a test does on a machine that lacks something."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def skip_or_fail(message: str) -> NoReturn:
    """Skips the test. With CI set it fails, because everything must be installed there."""
    pytest.fail(message, pytrace=False) if os.environ.get("CI") else pytest.skip(message)
