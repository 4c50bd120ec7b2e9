"""`spamscore models`, `serve`, `checkpoints` and `weights`."""

from __future__ import annotations

import datetime
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from spamscore_command import (
    Terminal,
    export_version,
    get_error,
    get_output,
    get_rows,
    run,
    strip_styles,
)

from tasks.artifacts.exports import put_in_service
from tasks.artifacts.folders import lock_folder
from tasks.artifacts.model_config import CANARY


def test_models_lists_the_versions_with_their_metrics_and_marks_the_one_in_service(folder: Path) -> None:
    overruled = {"threshold": {"value": 0.801326}, "judged": {"approved": False, "reasons": ["why"]}}
    export_version(folder, 9, "t9", {"pr_auc": 0.98765, "mcc": 0.9}, **overruled)
    export_version(folder, 10, "t10")
    exported_at = "2026-01-31T02:05:06+00:00"
    assert get_rows("models") == [
        ["10", "true", exported_at, "", "", "t10", "", "false"],
        ["9", "false", exported_at, "0.98765", "0.9", "t9", "0.801326", "false"],
    ]  # fmt: skip
    versions = json.loads(get_output("models", "--json"))
    assert [(version["pr_auc"], version["approved"]) for version in versions] == [(None, None), (0.98765, False)]
    put_in_service(9)
    put_in_service(10, CANARY)
    assert [line[7] for line in get_rows("models")] == ["true", "false"]
    assert [line[1] for line in get_rows("models")] == ["false", "true"]
    code, screen = Terminal("models", columns=100).wait()
    assert code == 0
    assert re.search(r"9 +in service +2026-01-31 02:05 +0.9877 +0.9000 +t9 +0.801326", strip_styles(screen))
    assert re.search(r"10 .*candidate", strip_styles(screen))


def test_without_a_model_a_note_names_the_command_to_export_one(folder: Path) -> None:
    result = run("models")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "luigi --module pipeline ExportModel" in result.stderr
    assert "luigi --module pipeline ExportModel" in get_error(1, "text", "hello")


def test_an_older_version_stays_in_service_until_a_newer_one_is_exported(folder: Path) -> None:
    for version in (1, 2):
        export_version(folder, version, "t", checkpoints=version == 1)
    output = get_output("serve", "1", "--yes")
    assert output == "version 1 is in service until a newer one is exported; before, it was version 2\n"
    assert [line[:2] for line in get_rows("models")] == [["2", "false"], ["1", "true"]]
    assert get_output("serve", "1") == "version 1 is in service already\n"
    assert get_output("serve", "2", "--yes").endswith("before, it was version 1\n")
    get_output("serve", "1", "--yes")
    export_version(folder, 3, "t")
    assert get_rows("models")[0][:2] == ["3", "true"]


def test_a_version_without_checkpoints_is_not_put_in_service(folder: Path) -> None:
    assert "there are: none" in get_error(1, "serve", "1", "--yes")
    export_version(folder, 1, "t1", checkpoints=True)
    export_version(folder, 2, "t2")
    assert "model version 7: not in artifacts/exports/spam_ham; there are: 1, 2" in get_error(1, "serve", "7", "--yes")
    assert "the checkpoints of version 2 are missing" in get_error(1, "serve", "2", "--yes")
    assert get_rows("models")[0][:2] == ["2", "true"]
    assert run("serve", "0").exit_code == 2
    for words in ([], ["1", "--refused"], ["--canary"], ["1", "--no-canary"], ["--no-canary", "--refused"]):
        result = run("serve", *words)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "expected either VERSION, with or without --canary" in result.stderr


def test_a_candidate_is_labelled_promoted_and_removed(folder: Path) -> None:
    for version in (1, 2, 3):
        export_version(folder, version, f"t{version}", checkpoints=True)
    assert get_output("serve", "2", "--canary") == (
        "version 2 is the candidate; to put it in service: spamscore serve 2\n"
    )
    assert [line[0] for line in get_rows("models") if line[7] == "true"] == ["2"]
    assert [line[0] for line in get_rows("models") if line[1] == "true"] == ["3"]
    assert "version 3 is in service, so it cannot be the candidate too" in get_error(1, "serve", "3", "--canary")
    assert get_output("serve", "2", "--yes").startswith("version 2 is in service until a newer one is exported")
    assert get_output("serve", "--no-canary") == "there is no candidate\n"
    get_output("serve", "1", "--canary")
    assert get_output("serve", "--no-canary") == "version 1 is no candidate any more\n"
    assert [line[7] for line in get_rows("models")] == ["false"] * 3


def test_serve_waits_while_servers_load_a_version_that_they_do_not_keep_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[tuple[float, str]] = []
    config = folder / "artifacts" / "exports" / "spam_ham" / "models.config"
    monkeypatch.setattr("time.sleep", lambda seconds: waits.append((seconds, config.read_text())))
    for version in range(1, 8):
        export_version(folder, version, f"t{version}", checkpoints=True)
    get_output("serve", "4", "--yes")
    assert waits == []
    get_output("serve", "1", "--yes")
    ((seconds, content),) = waits
    assert seconds == 30
    assert "versions: 1\n" in content  # listed, while the label is still that of the version in service
    assert re.search(r'key: "stable"\s+value: 4', content)
    assert get_rows("models")[-1][:2] == ["1", "true"]


@pytest.fixture
def training(small_model: Path, folder: Path) -> Path:
    """The folder of the training of version 1, in a copy of the small model that a test may change."""
    shutil.copytree(small_model, folder, dirs_exist_ok=True)
    return folder / "artifacts" / "training" / "t1"


def read_checkpoints(*arguments: str) -> list[dict]:
    return list(json.loads(get_output("checkpoints", *arguments, "--json")))


def list_names(training: Path) -> list[str]:
    paths = training.glob("checkpoints/ckpt-*.index")
    return sorted((path.stem for path in paths), key=lambda name: int(name[5:]), reverse=True)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_checkpoints_lists_step_epoch_loss_and_the_one_that_the_model_uses(training: Path) -> None:
    names = list_names(training)
    rows = read_checkpoints("1")
    assert rows == read_checkpoints()
    assert [row["checkpoint"] for row in rows] == names
    assert [row["step"] for row in rows] == [int(name[5:]) for name in names]
    assert [row["used"] for row in rows] == [True] + [False] * (len(names) - 1)
    assert {(row["training"], row["state"], row["fold"], row["damaged"], row["permanent"]) for row in rows} == {
        ("t1", "finished", None, False, False)
    }
    assert rows[0]["validation_loss"] == min(row["validation_loss"] for row in rows)
    for row, line in zip(rows, get_rows("checkpoints"), strict=True):
        written = datetime.datetime.fromtimestamp((training / f"checkpoints/{row['checkpoint']}.index").stat().st_mtime)
        assert datetime.datetime.fromisoformat(row["written_at"]) == written.astimezone(datetime.UTC)
        assert line == [
            "t1", "finished", "", row["checkpoint"], str(row["step"]), str(row["epoch"]), str(row["validation_loss"]),
            row["written_at"], "false", "false", str(row["used"]).lower(),
        ]  # fmt: skip
    code, screen = Terminal("checkpoints", columns=120).wait()
    assert code == 0
    assert re.search(rf"t1 +finished +{names[0]} .* used", strip_styles(screen))


def test_a_changed_checkpoint_is_listed_as_damaged_with_the_reason(training: Path) -> None:
    first, second, third, *_ = list_names(training)
    damage(training / "checkpoints" / f"{first}.data-00000-of-00001")
    with (training / "checkpoints" / f"{second}.data-00000-of-00001").open("ab") as file:
        file.write(b"x")
    (training / "checkpoints" / f"{third}.index").unlink()
    rows = {row["checkpoint"]: row for row in read_checkpoints()}
    assert third not in rows
    assert [name for name, row in rows.items() if row["damaged"]] == [first, second]
    assert (rows[first]["step"], rows[first]["used"]) == (None, True)
    assert "the checkpoint is damaged" in rows[first]["damage"]
    assert "as in its manifest.json" in rows[second]["damage"]
    assert get_rows("checkpoints")[0][-2:] == ["true", "true"]


def test_unfinished_trainings_are_listed_before_older_ones_with_their_folds(training: Path) -> None:
    killed = training.with_name("t2.partial")
    shutil.copytree(training / "checkpoints", killed / "checkpoints", copy_function=shutil.copy)
    shutil.copytree(training / "checkpoints", killed / "held_out" / "1" / "checkpoints", copy_function=shutil.copy)
    count = len(list_names(training))
    rows = read_checkpoints()
    assert [row["training"] for row in rows] == ["t2"] * 2 * count + ["t1"] * count
    assert {row["state"] for row in rows if row["training"] == "t2"} == {"unfinished"}
    assert [row["fold"] for row in rows] == [None] * count + [1] * count + [None] * count
    assert not any(row["used"] or row["damaged"] for row in rows if row["training"] == "t2")
    assert {row["training"] for row in read_checkpoints("1")} == {"t1"}
    with lock_folder(killed):
        assert {row["state"] for row in read_checkpoints() if row["training"] == "t2"} == {"running"}


def test_without_checkpoints_a_note_names_the_command_to_train(folder: Path) -> None:
    result = run("checkpoints")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "luigi --module pipeline TrainModel" in result.stderr
    assert "model version 7: not in" in get_error(1, "checkpoints", "7")
    export_version(folder, 1, "t1")
    assert "the checkpoints of version 1 are missing" in get_error(1, "checkpoints", "1")
    assert "the checkpoints of version 1 are missing" in get_error(1, "weights", "1")


def test_weights_written_to_a_file_are_those_of_the_checkpoint_bit_by_bit(training: Path) -> None:
    import tensorflow as tf

    from models.text.vocabulary import load_vocabulary

    name = list_names(training)[-1]
    result = run("weights", "1", "--checkpoint", name, "--npz", "weights.npz", "--json")
    assert result.exit_code == 0, result.output
    listed = json.loads(result.stdout)
    assert (listed["version"], listed["checkpoint"], listed["calibrated"]) == (1, name, False)
    assert f"raw, not calibrated: training t1, checkpoint {name} (weights of the step)" in result.stderr
    assert result.stderr.endswith("; written to weights.npz\n")
    with np.load("weights.npz", allow_pickle=False) as arrays:
        content = {key: arrays[key] for key in arrays.files}
    assert not content.pop("spamscore:calibrated")
    assert content.pop("spamscore:vocabulary").tolist() == list(load_vocabulary(training / "vocabulary.json").tokens)
    assert [weight["path"] for weight in listed["weights"]] == list(content)
    reader = tf.train.load_checkpoint(str(training / "checkpoints" / name))
    stored = {
        reader.get_tensor(key).tobytes() for key in reader.get_variable_to_shape_map()
        if key.startswith(("model/", "optimizer/_trainable_variables/"))
    }  # fmt: skip
    assert {array.tobytes() for array in content.values()} == stored
    for weight in listed["weights"]:
        array = content[weight["path"]]
        assert (tuple(weight["shape"]), weight["dtype"], weight["parameters"]) == (array.shape, "float32", array.size)
        assert weight["norm"] == pytest.approx(float(np.sqrt(np.square(array.astype(np.float64)).sum())))
    assert [path.name for path in Path.cwd().glob("weights*")] == ["weights.npz"]


def test_weights_are_raw_unless_calibrated_ones_are_asked_for(training: Path) -> None:
    raw = {row[0]: row[1:] for row in get_rows("weights")}
    result = run("weights", "--calibrated", "--npz", "calibrated.npz")
    calibrated = {row[0]: row[1:] for row in (line.split("\t") for line in result.stdout.splitlines())}
    assert "weights of version 1, calibrated: training t1" in result.stderr
    changed = {path for path in raw if raw[path] != calibrated[path]}
    assert changed == {"logit/kernel", "logit/bias", "linear/weights", "linear/bias"}
    with np.load("calibrated.npz", allow_pickle=False) as arrays:
        assert bool(arrays["spamscore:calibrated"])
    assert raw["embedding/shapes"][:2] == ["3x4", "float32"]


def test_a_file_is_replaced_only_with_force(training: Path) -> None:
    path = Path("weights.npz")
    path.write_text("mine", encoding="utf-8")
    assert "weights.npz: the file exists and was not replaced" in get_error(1, "weights", "--npz", "weights.npz")
    assert path.read_text(encoding="utf-8") == "mine"
    get_output("weights", "--npz", "weights.npz", "--force")
    assert np.load(path).files
    assert "cannot be written: No such file" in get_error(1, "weights", "--npz", "missing/weights.npz")
    assert run("weights", "--npz", "artifacts", "--force").exit_code == 2


def test_a_checkpoint_that_is_unknown_or_damaged_is_one_line_and_no_other_one_is_used(training: Path) -> None:
    names = list_names(training)
    damage(training / "checkpoints" / f"{names[0]}.data-00000-of-00001")
    for command in (["weights"], ["text", "win prize now"]):
        error = get_error(1, *command, "--checkpoint", "ckpt-999")
        assert f"there is no checkpoint ckpt-999. Newest first, there are: {', '.join(names)}." in error
        error = get_error(1, *command, "--checkpoint", names[0])
        assert f"{names[0]}: the checkpoint is damaged" in error
        assert "no other one was used in its place" in error
        assert get_output(*command, "--checkpoint", names[1])
