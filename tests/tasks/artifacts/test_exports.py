"""Exported versions: numbering, atomic publishing, verification, and the version in service."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from models.errors import ArtifactError
from tasks.artifacts import exports
from tasks.artifacts.folders import write_manifest

SPAWN = multiprocessing.get_context("spawn")
SetSettings = Callable[..., None]


def publish(fingerprint: str) -> int:
    def build(folder: Path, version: int) -> None:
        (folder / "half").touch()
        time.sleep(0.1)
        write_manifest(folder, {"version": version, "fingerprint": fingerprint, "training": "t", "evaluation": "e"})

    return exports.publish_version(fingerprint, build)


def publish_in(folder: Path, fingerprint: str) -> None:
    os.chdir(folder)
    publish(fingerprint)


SERVER_FILES = {"models.config", "batching.config", "monitoring.config"}


def names() -> list[str]:
    """The files and folders of the exports, without those for TensorFlow Serving."""
    found = {path.name for path in exports.exports_folder().iterdir()}
    assert found >= SERVER_FILES
    return sorted(found - SERVER_FILES)


@pytest.fixture(autouse=True)
def _isolated_folder(set_settings: SetSettings) -> None:
    assert exports.list_versions() == []


def test_versions_count_up_from_one() -> None:
    assert [publish(name) for name in ("a", "b", "c")] == [1, 2, 3]
    assert exports.list_versions() == [1, 2, 3]


def test_publishing_the_same_export_again_returns_its_version() -> None:
    assert [publish("a"), publish("b"), publish("a")] == [1, 2, 1]
    assert names() == ["1", "2"]


@pytest.mark.parametrize(
    ("fingerprints", "expected"), [("aaaa", ["1"]), ("abcd", ["1", "2", "3", "4"]), ("aabb", ["1", "2"])]
)
def test_concurrent_processes_publish_each_export_once(fingerprints: str, expected: list[str]) -> None:
    processes = [SPAWN.Process(target=publish_in, args=(Path.cwd(), name)) for name in fingerprints]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)
    assert names() == expected
    assert {exports.read_version_manifest(int(name))["fingerprint"] for name in expected} == set(fingerprints)


def test_a_failed_build_leaves_no_version_and_uses_no_number() -> None:
    def fail(_folder: Path, _version: int) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        exports.publish_version("a", fail)
    assert exports.list_versions() == []
    assert publish("a") == 1
    assert names() == ["1"]


def test_the_newest_version_is_in_service_unless_another_was_chosen_since() -> None:
    assert exports.version_in_service() is None
    publish("a")
    publish("b")
    assert exports.version_in_service() == 2
    exports.put_in_service(1)
    assert exports.version_in_service() == 1
    publish("c")
    assert exports.version_in_service() == 3


def read_server_config() -> tuple[list[int], dict[str, int]]:
    """The versions that TensorFlow Serving loads, and the version of each label."""
    content = (exports.exports_folder() / "models.config").read_text("utf-8")
    (model,) = text_format.Parse(content, ModelServerConfig()).model_config_list.config
    assert (model.name, model.model_platform) == ("spam_ham", "tensorflow")
    assert model.base_path == str(exports.exports_folder().resolve())
    return list(model.model_version_policy.specific.versions), dict(model.version_labels)


def test_the_server_loads_the_newest_versions_those_with_a_label_and_the_next_one(set_settings: SetSettings) -> None:
    set_settings("serving", keep_loaded="2")
    publish("a")
    assert read_server_config() == ([1, 2], {"stable": 1})
    publish("b")
    publish("c")
    assert read_server_config() == ([2, 3, 4], {"stable": 3})
    assert exports.announce_version(2) is False
    assert exports.announce_version(1) is True
    assert read_server_config() == ([1, 2, 3, 4], {"stable": 3})
    exports.put_in_service(1)
    assert read_server_config() == ([1, 2, 3, 4], {"stable": 1})
    exports.put_in_service(2, "canary")
    publish("d")
    assert read_server_config() == ([1, 2, 3, 4, 5], {"stable": 4, "canary": 2})
    exports.put_in_service(2)
    assert read_server_config() == ([2, 3, 4, 5], {"stable": 2})
    assert exports.remove_candidate() is None
    exports.put_in_service(3, "canary")
    assert exports.remove_candidate() == 3
    assert read_server_config() == ([2, 3, 4, 5], {"stable": 2})


def test_the_files_for_batching_and_monitoring_keep_an_operators_changes() -> None:
    publish("a")
    assert "max_batch_size { value: 1024 }" in (exports.exports_folder() / "batching.config").read_text()
    (exports.exports_folder() / "batching.config").write_text("max_batch_size { value: 64 }")
    (exports.exports_folder() / "monitoring.config").unlink()
    publish("b")
    assert (exports.exports_folder() / "batching.config").read_text() == "max_batch_size { value: 64 }"
    assert "enable: true" in (exports.exports_folder() / "monitoring.config").read_text()


@pytest.mark.parametrize(
    "edit",
    [
        lambda _: "",
        lambda text: text[:-3],
        lambda text: text.replace("stable", "latest"),
        lambda text: text.replace("value: 1", "value: one"),
        lambda text: text.replace("value: 1", "value: 0"),
        lambda text: text + "\n",
        lambda text: text.replace("        versions: 1\n        versions: 2\n", ""),
    ],
)
def test_a_changed_models_config_is_refused_with_the_way_out(edit: Callable[[str], str]) -> None:
    publish("a")
    path = exports.exports_folder() / "models.config"
    path.write_text(edit(path.read_text()))
    with pytest.raises(ArtifactError, match=r"models\.config: expected the file as .* writes it.*spamscore serve"):
        exports.version_in_service()


def test_a_version_whose_export_was_killed_before_it_was_in_service_is_put_in_service_by_the_next_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish("a")

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(exports, "write_model_config", kill)
        with pytest.raises(KeyboardInterrupt):
            publish("b")
    assert (exports.list_versions(), exports.version_in_service()) == ([1, 2], 1)
    assert not exports.VersionTarget("b").exists()
    assert publish("b") == 2
    assert (exports.list_versions(), exports.version_in_service()) == ([1, 2], 2)
    assert exports.VersionTarget("b").exists()


def test_the_number_of_a_deleted_version_is_not_used_again() -> None:
    publish("a")
    publish("b")
    shutil.rmtree(exports.version_folder(2))
    assert publish("c") == 3
    assert exports.version_in_service() == 3


def test_of_versions_that_an_older_spamscore_exported_the_newest_is_in_service() -> None:
    publish("a")
    publish("b")
    (exports.exports_folder() / "models.config").unlink()
    assert exports.version_in_service() == 2
    exports.put_in_service(1)
    assert read_server_config() == ([1, 2, 3], {"stable": 1})


def publish_slowly_in(folder: Path, started: Path) -> None:
    os.chdir(folder)

    def build(partial: Path, version: int) -> None:
        started.touch()
        time.sleep(0.5)
        write_manifest(partial, {"version": version, "fingerprint": "b", "training": "t", "evaluation": "e"})

    exports.publish_version("b", build)


def put_in_service_in(folder: Path, version: int) -> None:
    os.chdir(folder)
    exports.put_in_service(version)


def test_a_version_chosen_during_an_export_stays_in_service_after_it(tmp_path: Path) -> None:
    publish("a")
    process = SPAWN.Process(target=publish_slowly_in, args=(Path.cwd(), tmp_path / "started"))
    process.start()
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    exports.put_in_service(1)
    process.join()
    assert (exports.list_versions(), exports.version_in_service()) == ([1, 2], 1)
    publish("c")
    assert exports.version_in_service() == 3


def test_of_concurrent_choices_one_is_in_service() -> None:
    for name in "abc":
        publish(name)
    processes = [SPAWN.Process(target=put_in_service_in, args=(Path.cwd(), version)) for version in (1, 2, 1, 2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)
    assert exports.version_in_service() in (1, 2)
    assert names() == ["1", "2", "3"]


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file changed": (lambda folder: (folder / "2" / "half").write_text("x"), "2/half: not the file that was written"),
    "a file missing": (lambda folder: (folder / "2" / "half").unlink(), "2/half: not the file that was written"),
    "the manifest changed": (
        lambda folder: (folder / "2" / "manifest.json").write_text(
            (folder / "2" / "manifest.json").read_text().replace('"e"', '"f"')
        ),
        "not the manifest that was written",
    ),
    "no manifest": (lambda folder: (folder / "2" / "manifest.json").unlink(), "no such file"),
    "another version copied over it": (
        lambda folder: shutil.copytree(folder / "1", folder / "2", dirs_exist_ok=True),
        "version: expected 2, received 1",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_version_is_not_put_in_service(damage: str) -> None:
    for name in "abc":
        publish(name)
    apply, message = DAMAGE[damage]
    apply(exports.exports_folder())
    with pytest.raises(ArtifactError, match=message):
        exports.put_in_service(2)
    exports.put_in_service(1)
    assert exports.version_in_service() == 1


def test_a_model_card_may_be_edited() -> None:
    def build(folder: Path, version: int) -> None:
        (folder / exports.MODEL_CARD).write_text("card")
        write_manifest(folder, {"version": version, "fingerprint": "a", "training": "t", "evaluation": "e"})

    exports.publish_version("a", build)
    (exports.exports_folder() / "1" / exports.MODEL_CARD).write_text("card, with a note")
    assert exports.verify_version(1)["version"] == 1


def test_a_missing_version_is_refused_with_the_existing_ones() -> None:
    publish("a")
    with pytest.raises(ArtifactError, match=r"model version 7.*there are: 1"):
        exports.put_in_service(7)
