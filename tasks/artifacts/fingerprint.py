"""Fingerprints: short names for what an artifact is made of. Equal fingerprints, equal results."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

LENGTH = 16


def fingerprint(parts: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the parts as canonical JSON."""
    return content_sha256(parts)[:LENGTH]


def content_sha256(content: Any) -> str:
    """SHA-256 of what can be written as JSON, whatever its order and spaces, in hexadecimal."""
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    # JSON may hold half a character, which has no bytes in UTF-8.
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; read again only when its size or time of change differ."""
    state = path.stat()
    return _file_sha256(path.resolve(), state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _file_sha256(path: Path, _size: int, _changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
