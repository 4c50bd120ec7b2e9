"""Every reader of files takes any bytes: what it cannot use it refuses on purpose. `make fuzz` looks for more."""

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
    os.chdir(before)  # some readers look in the working folder, which `feed` changes


@pytest.mark.parametrize("target", TARGETS, ids=fuzz.TARGETS)
def test_what_a_reader_cannot_use_it_refuses_on_purpose(target: fuzz.Target) -> None:
    seeds = target.seeds()
    assert seeds
    for content in seeds:
        fuzz.feed(target, content)


@pytest.mark.parametrize("target", TARGETS, ids=fuzz.TARGETS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_in_any_place_is_refused_or_read(target: fuzz.Target, data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from(target.seeds()))
    first = data.draw(st.integers(0, len(whole)))
    last = data.draw(st.integers(first, min(len(whole), first + 8)))
    fuzz.feed(target, whole[:first] + data.draw(st.binary(max_size=8)) + whole[last:])


def changed(name: str, before: bytes, after: bytes, seed: int = 0) -> bytes:
    """A seed of a target with some bytes in the place of others."""
    whole = fuzz.TARGETS[name].seeds()[seed]
    assert before in whole
    return whole.replace(before, after, 1)


# What `make fuzz` found, made smaller. Each once ended in a traceback, or in fewer messages than there were.
FOUND = {
    "a Parquet name that is no UTF-8": ("parquet", lambda: changed("parquet", b"\x04text", b"\x04\x9bext")),
    "a snapshot with fewer rows than its footer says": ("snapshot", lambda: snapshot_of_fewer_rows()),
    "a manifest of a version without a fingerprint": ("manifests", lambda: b"{}"),
    "a time of export that is none": (
        "manifests",
        lambda: b'{"fingerprint": "1", "training": "2", "evaluation": "3", "exported_at": 7}',
    ),
    "a version in service that is no number": ("manifests", lambda: b'{"version": [], "newest": 1}'),
    "JSON nested too deep": ("manifests", lambda: b"[" * 100_000),
    "a state file with a name that is no checkpoint's": (
        "checkpoint",
        lambda: changed("checkpoint", b'paths: "ckpt-1"', b'paths: "ckp,-0"'),
    ),
    "a count beyond all integers": (
        "vocabulary",
        lambda: b'{"format_version": 1, "tokens": [[0, "a", 1e400]], "text": {}}',
    ),
    "half a surrogate pair": ("vocabulary", lambda: changed("vocabulary", b'"now"', b'"\\ud800"')),
    "weights with a password": ("weights", lambda: encrypted()),
    "weights with a member that is no array": ("weights", lambda: weights_with(b"no array")),
    "weights whose header does not end": ("weights", lambda: b"\x93NUMPY\x01\x00\x01\x00("),
}


def snapshot_of_fewer_rows() -> bytes:
    """In the footer, minus 18 in the place of the number of rows, 4, as Thrift writes it behind the schema."""
    whole = fuzz.TARGETS["snapshot"].seeds()[0]
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    place = whole.index(b"\x16\x08\x19", footer)
    return whole[:place] + b"\x16\x23\x19" + whole[place + 3 :]


def weights_with(content: bytes) -> bytes:
    """An archive like that of the weights, with the same bytes in the place of each array."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for variable in fuzz.network().weights:
            file.writestr(f"{variable.path}.npy", content)
    return buffer.getvalue()


def encrypted() -> bytes:
    """Weights whose first member says that it is encrypted, in both places where a zip says so."""
    whole = bytearray(fuzz.TARGETS["weights"].seeds()[0])
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        whole[whole.index(mark) + place] |= 1
    return bytes(whole)


@pytest.mark.parametrize("found", FOUND)
def test_what_was_found_once_is_refused(found: str) -> None:
    name, make = FOUND[found]
    target, content = fuzz.TARGETS[name], make()
    if name in ("manifests", "checkpoint"):  # these go on, with the file before or another one
        fuzz.feed(target, content)
        return
    with pytest.raises(SpamscoreError):
        target.feed(content)
