"""Tests that every reader of files accepts any bytes or raises a `SpamscoreError`. `make fuzz` tries more inputs."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fuzz
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import SpamscoreError

TARGETS = list(fuzz.TARGETS.values())


@pytest.fixture(autouse=True)
def _in_its_own_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith(("SPAMSCORE_", "LUIGI_"))]:
        monkeypatch.delenv(name)
    before = Path.cwd()
    yield
    os.chdir(before)  # some readers use the working folder, so `feed` changes it


@pytest.mark.parametrize("target", TARGETS, ids=fuzz.TARGETS)
def test_a_reader_accepts_the_seeds_or_raises_an_error_of_the_project(target: fuzz.Target) -> None:
    seeds = target.seeds()
    assert seeds
    for content in seeds:
        fuzz.feed(target, content)


@pytest.mark.parametrize("target", TARGETS, ids=fuzz.TARGETS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_damaged_at_any_offset_is_read_or_raises_an_error_of_the_project(
    target: fuzz.Target, data: st.DataObject
) -> None:
    seed = data.draw(st.sampled_from(target.seeds()))
    first = data.draw(st.integers(0, len(seed)))
    last = data.draw(st.integers(first, min(len(seed), first + 8)))
    fuzz.feed(target, seed[:first] + data.draw(st.binary(max_size=8)) + seed[last:])


def damage(name: str, before: bytes, after: bytes, seed: int = 0) -> bytes:
    """Returns a seed of a target in which some bytes are replaced."""
    content = fuzz.TARGETS[name].seeds()[seed]
    assert before in content
    return content.replace(before, after, 1)


# Findings of `make fuzz`, reduced. Each caused a traceback or lost messages before it was fixed.
FINDINGS = {
    "a Parquet column name that is not UTF-8": ("parquet", lambda: damage("parquet", b"\x04text", b"\x04\x9bext")),
    "a snapshot with fewer rows than in its footer": ("snapshot", lambda: make_snapshot_with_wrong_row_count()),
    "a version manifest without a fingerprint": ("manifests", lambda: b"{}"),
    "an export time that is a number": (
        "manifests",
        lambda: b'{"fingerprint": "1", "training": "2", "evaluation": "3", "exported_at": 7}',
    ),
    "a version in service that is not a number": ("manifests", lambda: b'{"version": [], "newest": 1}'),
    "JSON that is nested too deeply": ("manifests", lambda: b"[" * 100_000),
    "a checkpoint state file with an invalid checkpoint name": (
        "checkpoint",
        lambda: damage("checkpoint", b'paths: "ckpt-1"', b'paths: "ckp,-0"'),
    ),
    "a count that is infinite": (
        "vocabulary",
        lambda: b'{"format_version": 1, "tokens": [[0, "a", 1e400]], "text": {}}',
    ),
    "half a surrogate pair": ("vocabulary", lambda: damage("vocabulary", b'"now"', b'"\\ud800"')),
    "encrypted weights": ("weights", lambda: make_encrypted_weights()),
    "weights with a member that is not an array": ("weights", lambda: make_weights(b"no array")),
    "weights whose header does not end": ("weights", lambda: b"\x93NUMPY\x01\x00\x01\x00("),
}


def make_snapshot_with_wrong_row_count() -> bytes:
    """Returns a snapshot whose footer has -18 rows instead of 4; Thrift writes the row count after the schema."""
    content = fuzz.TARGETS["snapshot"].seeds()[0]
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    offset = content.index(b"\x16\x08\x19", footer)
    return content[:offset] + b"\x16\x23\x19" + content[offset + 3 :]


def make_weights(content: bytes) -> bytes:
    """Returns a weights archive in which each array is replaced by the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for variable in fuzz.network().weights:
            file.writestr(f"{variable.path}.npy", content)
    return buffer.getvalue()


def make_encrypted_weights() -> bytes:
    """Returns weights whose first member has the encryption flag, in both headers of the zip file."""
    content = bytearray(fuzz.TARGETS["weights"].seeds()[0])
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    return bytes(content)


@pytest.mark.parametrize("finding", FINDINGS)
def test_an_earlier_finding_raises_an_error_of_the_project(finding: str) -> None:
    name, make_content = FINDINGS[finding]
    target, content = fuzz.TARGETS[name], make_content()
    if name in ("manifests", "checkpoint"):  # these readers continue with another file
        fuzz.feed(target, content)
        return
    with pytest.raises(SpamscoreError):
        target.feed(content)
