"""Folders appear completely or not at all; manifests detect every change."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import ArtifactError
from tasks.artifacts.folders import FolderTarget, is_locked, read_json, read_manifest, write_json, write_manifest

SPAWN = multiprocessing.get_context("spawn")


def build(path: Path, content: str, pause: float = 0.0) -> None:
    target = FolderTarget(path)
    with target.build() as folder:
        if target.exists():
            return
        (folder / "content").write_text(content, encoding="utf-8")
        time.sleep(pause)
        with (path.parent / "built").open("a", encoding="utf-8") as log:
            log.write(content)
        write_manifest(folder, {"content": content})


def build_half_and_wait(path: Path) -> None:
    with FolderTarget(path).build() as folder:
        (folder / "half").write_text("half", encoding="utf-8")
        (path.parent / "ready").touch()
        time.sleep(60)


def build_and_kill(path: Path) -> None:
    process = SPAWN.Process(target=build_half_and_wait, args=(path,))
    process.start()
    while not (path.parent / "ready").exists():
        time.sleep(0.01)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()


def test_a_folder_is_locked_while_it_is_built(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "made.partial")
    with FolderTarget(tmp_path / "made").build() as folder:
        assert is_locked(folder)
        write_manifest(folder, {})
    assert not is_locked(tmp_path / "made")


def test_a_built_folder_exists_with_its_content(tmp_path: Path) -> None:
    target = FolderTarget(tmp_path / "made")
    assert not target.exists()
    build(target.path, "one")
    assert target.exists()
    assert target.file("content").read_text(encoding="utf-8") == "one"
    assert target.manifest() == {"content": "one"}


def test_an_error_leaves_no_folder(tmp_path: Path) -> None:
    target = FolderTarget(tmp_path / "made")
    with pytest.raises(RuntimeError), target.build():
        raise RuntimeError
    assert not target.path.exists()


def test_the_next_run_clears_what_a_killed_run_left(tmp_path: Path) -> None:
    build_and_kill(tmp_path / "made")
    assert not (tmp_path / "made").exists()
    build(tmp_path / "made", "again")
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["content", "manifest.json"]
    assert not list(tmp_path.glob("*.partial"))


def test_a_resuming_build_finds_what_a_killed_run_left(tmp_path: Path) -> None:
    build_and_kill(tmp_path / "made")
    with FolderTarget(tmp_path / "made").build(resume=True) as folder:
        assert (folder / "half").read_text(encoding="utf-8") == "half"
        write_manifest(folder, {})
    assert (tmp_path / "made" / "half").exists()


def test_of_concurrent_builds_one_runs_and_the_others_wait(tmp_path: Path) -> None:
    processes = [SPAWN.Process(target=build, args=(tmp_path / "made", name, 0.3)) for name in "abcd"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    (builder,) = (tmp_path / "built").read_text(encoding="utf-8")
    assert FolderTarget(tmp_path / "made").manifest() == {"content": builder}
    assert not list(tmp_path.glob("*.partial"))


def test_a_folder_without_manifest_is_incomplete_and_is_rebuilt(tmp_path: Path) -> None:
    build(tmp_path / "made", "one")
    (tmp_path / "made" / "manifest.json").unlink()
    assert not FolderTarget(tmp_path / "made").exists()
    build(tmp_path / "made", "two")
    assert FolderTarget(tmp_path / "made").manifest() == {"content": "two"}


def test_a_folder_without_manifest_is_renamed_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for content in ("one", "two", "three"):
        build(tmp_path / "made", content)
        if content != "three":
            (tmp_path / "made" / "manifest.json").unlink()
    assert (tmp_path / "made.damaged" / "content").read_text(encoding="utf-8") == "two"
    assert caplog.text.count(f"{tmp_path / 'made'}: incomplete, because it has no manifest.json") == 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(content=st.dictionaries(st.text(), json_values, max_size=4), key=st.text(), value=json_values, data=st.data())
def test_an_unchanged_manifest_is_read_and_a_changed_one_is_refused(
    tmp_path: Path, content: dict[str, Any], key: str, value: Any, data: st.DataObject
) -> None:
    write_manifest(tmp_path, content)
    assert read_manifest(tmp_path) == json.loads(json.dumps(content))
    written = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    changed = {**written, data.draw(st.sampled_from(sorted(written)) | st.just(key)): value}
    # White space and the order of keys do not matter. True differs from 1, and 1 from 1.0.
    (tmp_path / "manifest.json").write_text(json.dumps(changed), encoding="utf-8")
    if json.dumps(changed, sort_keys=True) == json.dumps(written, sort_keys=True):
        assert read_manifest(tmp_path) == json.loads(json.dumps(content))
    else:
        with pytest.raises(ArtifactError, match=r"manifest\.json: not the manifest that was written"):
            read_manifest(tmp_path)


@pytest.mark.parametrize("key", ["files", "manifest_sha256", "content"])
def test_an_incomplete_manifest_is_refused_with_the_way_out(tmp_path: Path, key: str) -> None:
    build(tmp_path / "made", "one")
    path = tmp_path / "made" / "manifest.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    del written[key]
    path.write_text(json.dumps(written), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"Restore it from a backup; or delete .*made and run again") as caught:
        FolderTarget(tmp_path / "made").manifest()
    assert str(path) in str(caught.value)
    assert FolderTarget(tmp_path / "made").exists()  # so that no stage overwrites it


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_text("two"), "expected SHA-256"),
        (lambda path: path.write_text("longer"), "expected 3 bytes"),
        (lambda path: path.write_text(""), "received 0"),
        (Path.unlink, "no such file"),
        (lambda path: path.rename(path.with_name("other")), "no such file"),
    ],
)
def test_a_changed_file_is_refused_when_its_path_is_requested(
    tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    target = FolderTarget(tmp_path / "made")
    build(target.path, "one")
    change(target.file("content"))
    with pytest.raises(ArtifactError, match=f"{target.path / 'content'}: not the file that was written: .*{message}"):
        target.file("content")
    with pytest.raises(ArtifactError, match=r"manifest\.json has no such file"):
        target.file("other")


def test_a_folder_copied_over_another_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with FolderTarget(tmp_path / name).build() as folder:
            write_manifest(folder, {"fingerprint": name})
    shutil.rmtree(tmp_path / "b")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert FolderTarget(tmp_path / "a").manifest() == {"fingerprint": "a"}
    with pytest.raises(ArtifactError, match="expected the manifest of b, received that of a"):
        FolderTarget(tmp_path / "b").manifest()


@pytest.mark.parametrize(
    ("content", "message"), [("{", "expected JSON"), ("[1]", "expected a JSON object"), (None, "no such file")]
)
def test_unreadable_json_is_refused_with_its_path(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "manifest.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ArtifactError, match=message) as caught:
        read_json(path)
    assert str(path) in str(caught.value)


def test_json_is_written_sorted_and_indented(tmp_path: Path) -> None:
    write_json(tmp_path / "one.json", {"b": 1, "a": {"ü": None}})
    text = (tmp_path / "one.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"a": {"ü": None}, "b": 1}
    assert text.splitlines()[1:3] == ['  "a": {', '    "ü": null']
