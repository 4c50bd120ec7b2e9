"""Computes fingerprints: short names of artifacts, hashed from their inputs. Equal fingerprints mean equal results."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

LENGTH = 16


def compute_fingerprint(parts: Any) -> str:
    """Returns the first 16 hexadecimal digits of the SHA-256 of the parts as canonical JSON."""
    return content_sha256(parts)[:LENGTH]


def content_sha256(content: Any) -> str:
    """Returns the SHA-256 of JSON content, in hexadecimal. The order of keys and white space do not matter."""
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    # JSON may contain a lone surrogate, which UTF-8 cannot encode.
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal. The result is cached until the file's size or mtime changes."""
    state = path.stat()
    return _file_sha256(path.resolve(), state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _file_sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
