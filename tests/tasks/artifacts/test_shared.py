"""Shared copies of artifact folders, on an S3 server and in a folder: whole, verified, downloaded once."""

from __future__ import annotations

import datetime
import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from object_store import ObjectStore

from models.errors import ArtifactError, SettingsError
from tasks.artifacts.folders import FolderTarget, write_manifest
from tasks.artifacts.shared import delete_shared_snapshots, fetch_folder, put_folder, shared_address
from tasks.settings.storage import ArtifactSettings

SPAWN = multiprocessing.get_context("spawn")
DATE = "2026-01-31"


@dataclass(frozen=True)
class Shared:
    """A place for shared copies, and how a test reads and changes a file of it."""

    root: str
    write: Callable[[str, bytes], Any]
    read: Callable[[str], bytes]
    delete: Callable[[str], Any]

    @property
    def address(self) -> str:
        return f"{self.root}/snapshots/{DATE}/abc"


@pytest.fixture(params=["s3", "file"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Shared:
    if request.param == "file":

        def path(address: str) -> Path:
            return Path(address.removeprefix("file://"))

        root = f"file://{tmp_path}/mnt"
        return Shared(
            root,
            lambda address, content: path(address).write_bytes(content),
            lambda address: path(address).read_bytes(),
            lambda address: path(address).unlink(),
        )
    store = request.getfixturevalue("s3")
    return Shared(f"s3://bucket/{tmp_path.name}", store.put, store.get, store.delete)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "artifacts" / "snapshots" / DATE / "abc")


def make_folder(folder: Path, text: str = "hello") -> Path:
    with FolderTarget(folder).build() as partial:
        pq.write_table(pa.table({"text": [text] * 100_000}), partial / "messages.parquet", row_group_size=1_000)
        (partial / "checkpoints").mkdir()
        (partial / "checkpoints" / "1").write_bytes(os.urandom(1_000))
        write_manifest(partial, {"fingerprint": "abc"})
    return folder


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_copy_has_the_files_of_the_folder(shared: Shared, folder: Path, tmp_path: Path) -> None:
    assert put_folder(folder, shared.address) == 3
    copy = fetch_folder(shared.address, tmp_path / "cache")
    assert read_files(copy) == read_files(folder)
    assert FolderTarget(copy).manifest()["fingerprint"] == "abc"
    assert copy.parts[-2:] == (DATE, "abc")
    assert put_folder(folder, shared.address) == 0
    assert fetch_folder(shared.address, tmp_path / "cache") == copy


def test_a_second_upload_and_a_second_fetch_transfer_no_file(s3: ObjectStore, folder: Path, tmp_path: Path) -> None:
    address = "s3://bucket/twice/abc"
    put_folder(folder, address)
    methods = [(request["method"], request["path"]) for request in s3.heal() if request["method"] in ("PUT", "POST")]
    assert methods[-1] == ("PUT", "/bucket/twice/abc/manifest.json")
    fetch_folder(address, tmp_path / "cache")
    s3.heal()
    put_folder(folder, address)
    fetch_folder(address, tmp_path / "cache")
    transfers = [request for request in s3.heal() if request["method"] != "HEAD" and "abc" in request["path"]]
    assert {(request["method"], request["path"]) for request in transfers} <= {
        ("GET", "/bucket/twice/abc/manifest.json")
    }


def test_an_upload_that_was_cut_off_is_not_taken_and_is_completed(shared: Shared, folder: Path, tmp_path: Path) -> None:
    put_folder(folder, shared.address)
    shared.delete(f"{shared.address}/manifest.json")
    with pytest.raises(ArtifactError, match=r"\[artifacts\] shared: .*/abc: no such folder, or an upload that was cut"):
        fetch_folder(shared.address, tmp_path / "cache")
    assert put_folder(folder, shared.address) == 3
    shared.delete(f"{shared.address}/checkpoints/1")
    with pytest.raises(ArtifactError, match=r"checkpoints/1: not what was uploaded: no such file. Delete "):
        fetch_folder(shared.address, tmp_path / "cache")
    assert put_folder(folder, shared.address) == 3
    assert read_files(fetch_folder(shared.address, tmp_path / "cache")) == read_files(folder)


@pytest.mark.parametrize("name", ["messages.parquet", "checkpoints/1", "manifest.json"])
def test_a_damaged_copy_is_an_error(shared: Shared, folder: Path, tmp_path: Path, name: str) -> None:
    put_folder(folder, shared.address)
    content = bytearray(shared.read(f"{shared.address}/{name}"))
    content[-20] ^= 1
    shared.write(f"{shared.address}/{name}", bytes(content))
    with pytest.raises(ArtifactError, match=rf"\[artifacts\] shared: .*/{name}: not what was uploaded: .*Delete "):
        fetch_folder(shared.address, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/*/abc"))


def test_a_manifest_that_names_a_file_elsewhere_is_refused(shared: Shared, folder: Path, tmp_path: Path) -> None:
    from tasks.artifacts.fingerprint import content_sha256

    put_folder(folder, shared.address)
    content = json.loads(shared.read(f"{shared.address}/manifest.json"))
    del content["manifest_sha256"]
    content["files"]["../../evil"] = {"bytes": 1, "sha256": "0"}
    content["manifest_sha256"] = content_sha256(content)
    shared.write(f"{shared.address}/manifest.json", json.dumps(content).encode())
    with pytest.raises(ArtifactError, match="names a file outside of its folder"):
        fetch_folder(shared.address, tmp_path / "cache")


def test_a_damaged_folder_is_not_uploaded(shared: Shared, folder: Path) -> None:
    (folder / "checkpoints" / "1").write_bytes(b"x")
    with pytest.raises(ArtifactError, match="not the file that was written"):
        put_folder(folder, shared.address)


def test_a_damaged_or_older_copy_in_the_cache_is_replaced(shared: Shared, folder: Path, tmp_path: Path) -> None:
    put_folder(folder, shared.address)
    copy = fetch_folder(shared.address, tmp_path / "cache")
    (copy / "checkpoints" / "1").write_bytes(b"x")
    assert read_files(fetch_folder(shared.address, tmp_path / "cache")) == read_files(folder)
    other = make_folder(tmp_path / "other" / "abc", "another")
    assert put_folder(other, shared.address) == 3
    assert read_files(fetch_folder(shared.address, tmp_path / "cache")) == read_files(other)


def fetch(address: str, cache: Path, results: Any) -> None:
    results.put(str(fetch_folder(address, cache)))


def test_two_processes_at_once_download_once(s3: ObjectStore, folder: Path, tmp_path: Path) -> None:
    address = "s3://bucket/at-once/abc"
    put_folder(folder, address)
    s3.heal()
    results = SPAWN.Queue()
    processes = [SPAWN.Process(target=fetch, args=(address, tmp_path / "cache", results)) for _ in range(2)]
    for process in processes:
        process.start()
    assert results.get(timeout=60) == results.get(timeout=60)
    for process in processes:
        process.join()
    gets = [request["path"] for request in s3.heal() if request["method"] == "GET"]
    assert gets.count("/bucket/at-once/abc/checkpoints/1") == 1
    (copy,) = (tmp_path / "cache").glob("*/at-once/abc")
    assert read_files(copy) == read_files(folder)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("s3://no-bucket/abc", "no such bucket"),
        ("s3://bucket/denied/abc", r"no permission \(Access Denied\).*AWS_PROFILE"),
    ],
)
def test_a_storage_that_cannot_be_read_is_named_with_its_setting(
    s3: ObjectStore, tmp_path: Path, address: str, reason: str
) -> None:
    s3.put("s3://bucket/denied/abc/manifest.json", b"{}")
    s3.fail("deny", "denied")
    with pytest.raises(ArtifactError, match=rf"^\[artifacts\] shared: {address}: {reason}"):
        fetch_folder(address, tmp_path / "cache")


def test_a_storage_that_cannot_be_written_is_named_with_its_setting(s3: ObjectStore, folder: Path) -> None:
    with pytest.raises(ArtifactError, match=r"^\[artifacts\] shared: s3://no-bucket/abc: no such bucket"):
        put_folder(folder, "s3://no-bucket/abc")
    address = "s3://bucket/readonly/abc"
    s3.fail("deny", "readonly", "PUT", after=1)
    with pytest.raises(ArtifactError, match=rf"^\[artifacts\] shared: {address}: no permission"):
        put_folder(folder, address)
    requests = [request["path"] for request in s3.heal() if request["method"] == "PUT"]
    assert "/bucket/readonly/abc/manifest.json" not in requests
    assert put_folder(folder, address) == 3


def test_snapshots_of_old_dates_are_deleted(shared: Shared, folder: Path, tmp_path: Path) -> None:
    for date in ("2026-01-29", "2026-01-30", "2026-01-31", "other"):
        put_folder(folder, f"{shared.root}/snapshots/{date}/abc")
    put_folder(folder, f"{shared.root}/training/2026-01-29")
    deleted = delete_shared_snapshots(shared.root, datetime.date(2026, 1, 31))
    assert deleted == [f"{shared.root}/snapshots/2026-01-29", f"{shared.root}/snapshots/2026-01-30"]
    assert delete_shared_snapshots(shared.root, datetime.date(2026, 1, 31)) == []
    for kept in ("snapshots/2026-01-31/abc", "snapshots/other/abc", "training/2026-01-29"):
        fetch_folder(f"{shared.root}/{kept}", tmp_path / "cache")
    with pytest.raises(ArtifactError, match="no such folder"):
        fetch_folder(f"{shared.root}/snapshots/2026-01-30/abc", tmp_path / "cache")
    assert delete_shared_snapshots(f"{shared.root}/nothing", datetime.date(2026, 1, 31)) == []


def test_the_address_of_a_folder_mirrors_the_artifacts(set_settings: Callable[..., None]) -> None:
    folder = Path("artifacts") / "snapshots" / DATE / "abc"
    assert shared_address(folder) is None
    set_settings("artifacts", shared="s3://bucket/spamscore/")
    assert shared_address(folder) == f"s3://bucket/spamscore/snapshots/{DATE}/abc"


@pytest.mark.parametrize("value", ["/mnt/shared", "https://host/x", "file://mnt/x", "s3://user:hunter2@bucket/x"])
def test_another_value_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match=r"\[artifacts\] shared = .*expected ") as error:
        ArtifactSettings(shared=value)
    assert "hunter2" not in str(error.value)
