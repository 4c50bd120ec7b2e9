"""Learning from the nights, as a chain of commands: from published batches to a self-trained model in service."""

from __future__ import annotations

import datetime
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from chain import SMALL, CommandResult, environment, kill_when, luigi, merge_settings, query, write_settings

from tasks.artifacts.folders import read_manifest, write_json, write_manifest
from tasks.database.connection import connect
from tasks.database.labels import MessageLabel, change_labels
from tasks.select_night_messages import find_window
from tasks.self_training import append_labelled
from tasks.settings.storage import DatabaseSettings

FIRST, LAST = find_window(30)
AFTER = str(LAST + datetime.timedelta(days=1))  # in no window, so that its batch changes no selection
# Thresholds that the small network reaches, and a gate that lets every model pass.
NIGHTS = merge_settings(
    SMALL,
    {
        "corpus": {"self_training": "nights", "self_training_spam": "0.6", "self_training_ham": "0.3"},
        "gate": {"flip_budget": "1", "pr_auc_allowance": "1", "recall_allowance": "1", "calibration_allowance": "1",
                 "resamples": "100"},
    },
)  # fmt: skip
STAGES = ("SelectNightMessages", "TrainSelfTrained", "EvaluateSelfTrained", "ExportModel", "ScoreBatch")
EXPORTS = Path("artifacts", "exports", "spam_ham")


@pytest.fixture(scope="module")
def learned(
    finished: tuple[Path, CommandResult], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, CommandResult]:
    """A folder with a model that is trained with the messages of a night, and the result of the run that trained it."""
    folder = Path(shutil.copytree(finished[0], tmp_path_factory.mktemp("nights"), dirs_exist_ok=True))
    assert luigi(folder, "ScoreBatch", "--date", str(FIRST)).ran == {"ExtractMessages", "ScoreBatch"}
    write_settings(folder, NIGHTS)
    done = luigi(folder, "ScoreBatch", "--date", AFTER)
    assert done.code == 0, done.output
    return folder, done


@pytest.fixture
def copied(learned: tuple[Path, CommandResult], tmp_path: Path) -> Path:
    """A copy of that folder, for a test to change."""
    return Path(shutil.copytree(learned[0], tmp_path / "copied"))


def read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def read_selection(folder: Path) -> dict[str, Any]:
    (selection,) = (folder / "artifacts" / "night_messages").iterdir()
    return read_manifest(selection)


def list_stages(done: CommandResult) -> list[str]:
    return [stage for stage in STAGES if f"done      {stage}(" in done.output]


def find_student(folder: Path) -> Path:
    """Returns the training of the self-trained model."""
    trainings = (folder / "artifacts" / "training").iterdir()
    (student,) = [path for path in trainings if "self_training" in read_json(path / "model.json")]
    return student


def test_the_night_trains_exports_and_scores_with_a_self_trained_model(learned: tuple[Path, CommandResult]) -> None:
    folder, done = learned
    assert list_stages(done) == list(STAGES)
    assert "done      TrainModel(" not in done.output
    assert query(folder, f"select model_version from score_batches where batch_date = '{AFTER}'") == [(2,)]
    again = luigi(folder, "ScoreBatch", "--date", AFTER)
    assert (again.code, list_stages(again)) == (0, [])


def test_manifest_model_and_card_name_teacher_batches_thresholds_and_counts(
    learned: tuple[Path, CommandResult],
) -> None:
    folder, _ = learned
    manifest, version = read_selection(folder), read_manifest(folder / EXPORTS / "2")
    teacher = read_manifest(folder / EXPORTS / "1")["training"]
    ((batch, checksum),) = query(folder, f"select batch_id, checksum from score_batches where batch_date = '{FIRST}'")
    assert manifest["teacher"] == teacher
    assert [(entry["batch"], entry["date"], entry["checksum"]) for entry in manifest["batches"]] == [
        (batch, str(FIRST), checksum)
    ]
    assert manifest["thresholds"] == {"spam": 0.6, "ham": 0.3}
    assert manifest["messages"] == manifest["spam"] + manifest["ham"] > 100
    assert min(manifest["spam"], manifest["ham"]) > 10
    facts = version["trained"]["self_training"]
    assert read_json(find_student(folder) / "model.json")["self_training"] == facts
    for name in ("teacher", "batches", "left_out", "thresholds", "weight", "steps", "messages", "window"):
        assert facts[name] == manifest[name]
    card = (folder / EXPORTS / "2" / "model_card.md").read_text(encoding="utf-8")
    assert "### Self-training" in card
    assert f"| Teacher, trained on labelled messages alone | {teacher} |" in card
    assert f"{batch} (" in card
    assert "### Self-training" not in (folder / EXPORTS / "1" / "model_card.md").read_text(encoding="utf-8")


def test_the_selected_messages_are_of_the_night_unlabelled_and_labelled_by_the_teacher(
    learned: tuple[Path, CommandResult],
) -> None:
    folder, _ = learned
    (path,) = (folder / "artifacts" / "night_messages").glob("*/messages.parquet")
    selected = pd.read_parquet(path)
    assert set(selected["date"]) == {FIRST}
    assert selected["text"].is_unique
    assert (selected.loc[selected["spam"], "probability"] >= 0.6).all()
    assert (selected.loc[~selected["spam"], "probability"] <= 0.3).all()
    parts = (folder / "artifacts" / "messages").glob("*/t*.parquet")
    labelled = set(pd.concat([pd.read_parquet(part) for part in parts])["text"])
    assert not labelled & set(selected["text"])
    manifest = read_selection(folder)
    (messages,) = (folder / "artifacts" / "messages").iterdir()
    assert manifest["weight"] * manifest["messages"] <= read_manifest(messages)["training"]["messages"]


def test_only_the_linear_part_differs_from_the_teacher(learned: tuple[Path, CommandResult]) -> None:
    folder, _ = learned
    versions = [np.load(folder / EXPORTS / number / "assets.extra" / "weights.npz") for number in ("1", "2")]
    histories = [
        pd.read_csv(folder / "artifacts" / "training" / name / "history.csv").drop(columns="seconds")
        for name in (find_student(folder).name, read_selection(folder)["teacher"])
    ]
    pd.testing.assert_frame_equal(*histories)
    equal = {name for name in versions[0] if np.array_equal(versions[0][name], versions[1][name])}
    assert {name for name in versions[0] if name.startswith("embedding/")} <= equal
    assert not [name for name in equal if name.startswith("linear/")]


def test_the_self_trained_model_is_judged_against_the_version_in_service_on_labelled_messages_and_the_latest_batch(
    learned: tuple[Path, CommandResult],
) -> None:
    folder, _ = learned
    version = read_manifest(folder / EXPORTS / "2")
    metrics = read_json(folder / "artifacts" / "evaluation" / version["evaluation"] / "metrics.json")
    assert metrics["in_service_version"] == 1
    assert metrics["flips"]["source"].startswith(f"the messages of {FIRST}")
    # The teacher is the version in service, so it is compared once.
    assert [check["name"] for check in metrics["checks"]] == [
        "majority", "chance", "pr_auc", "recall", "calibration_error", "flips",
    ]  # fmt: skip


def test_it_is_compared_with_its_teacher_too_if_that_is_not_in_service(copied: Path) -> None:
    write_settings(copied, merge_settings(NIGHTS, {"gate": {"resamples": "101"}}))
    shutil.rmtree(copied / "artifacts" / "exports")
    done = luigi(copied, "ExportModel")
    assert done.code == 0, done.output
    metrics = read_json(
        copied / "artifacts" / "evaluation" / read_manifest(copied / EXPORTS / "1")["evaluation"] / "metrics.json"
    )
    assert [check["name"] for check in metrics["checks"]] == [
        "majority", "chance", "pr_auc_teacher", "recall_teacher", "calibration_error_teacher",
    ]  # fmt: skip
    assert "of its teacher" in metrics["reasons"][-1]


def refuse_student(folder: Path) -> None:
    """Changes the evaluation of the self-trained model to a refusal."""
    evaluation = folder / "artifacts" / "evaluation" / read_manifest(folder / EXPORTS / "2")["evaluation"]
    metrics, manifest = read_json(evaluation / "metrics.json"), read_manifest(evaluation)
    write_json(evaluation / "metrics.json", {**metrics, "approved": False, "reasons": ["it is worse than its teacher"]})
    write_manifest(evaluation, {key: manifest[key] for key in manifest if key not in ("files", "manifest_sha256")})


def test_a_refused_self_trained_model_is_replaced_by_the_one_that_is_trained_on_labelled_messages_alone(
    copied: Path,
) -> None:
    refuse_student(copied)
    shutil.rmtree(copied / "artifacts" / "exports")
    done = luigi(copied, "ExportModel")
    assert done.code == 0, done.output
    manifest = read_manifest(copied / EXPORTS / "1")
    assert manifest["training"] == read_selection(copied)["teacher"]
    assert manifest["self_trained_refused"] == "it is worse than its teacher"
    card = (copied / EXPORTS / "1" / "model_card.md").read_text(encoding="utf-8")
    assert "refused: it is worse than its teacher" in card
    assert (
        "the self-trained model was refused; the model trained on labelled messages alone is version 1, and version 1 "
        "is in service: it is worse than its teacher"
    ) in done.output
    command = [Path(sys.executable).with_name("spamscore"), "serve", "--refused", "--yes"]
    refused = subprocess.run(command, cwd=copied, env=environment(), capture_output=True, text=True, check=False)
    assert "exported already" in refused.stderr


def test_every_night_says_that_the_self_trained_model_was_refused_and_what_is_in_service(copied: Path) -> None:
    refuse_student(copied)
    done = luigi(copied, "ScoreBatch", "--date", "2026-02-01")
    assert done.code == 0, done.output
    assert (
        "spamscore: the self-trained model was refused; the model trained on labelled messages alone is version 1, and "
        "version 2 is in service: it is worse than its teacher"
    ) in done.output


def test_without_batches_in_the_window_the_model_is_trained_on_labelled_messages_alone(
    finished: tuple[Path, CommandResult], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished[0], tmp_path / "empty"))
    write_settings(folder, merge_settings(NIGHTS, {"gate": SMALL.get("gate", {})}))
    done = luigi(folder, "ExportModel")
    assert done.code == 0, done.output
    line = "self-training: no messages of past nights yet, so the model is trained on labelled messages alone"
    assert done.output.count(line) == 1
    assert len(list((folder / "artifacts" / "training").iterdir())) == 1
    assert sorted(path.name for path in (folder / EXPORTS).iterdir() if path.is_dir()) == ["1"]
    again = luigi(folder, "ExportModel")
    assert (again.code, list_stages(again)) == (0, [])


def test_a_message_that_a_person_labelled_is_not_taken_but_judged_on_even_if_no_model_is_trained_on_it(
    copied: Path,
) -> None:
    (path,) = (copied / "artifacts" / "night_messages").glob("*/messages.parquet")
    selected = pd.read_parquet(path)["text"].tolist()
    engine = connect(DatabaseSettings(url=f"sqlite:///{copied}/spamscore.db"))
    moment = datetime.datetime.combine(FIRST, datetime.time(12), datetime.UTC)
    change_labels(engine, [MessageLabel(FIRST, "m-1", "ann", "ham", moment, selected[0])])
    shutil.rmtree(path.parents[1])
    evaluations = {path.name for path in (copied / "artifacts" / "evaluation").iterdir()}
    version = read_manifest(copied / EXPORTS / "2")
    before = read_json(copied / "artifacts" / "evaluation" / version["evaluation"] / "metrics.json")
    done = luigi(copied, "ExportModel")
    assert done.code == 0, done.output
    (path,) = (copied / "artifacts" / "night_messages").glob("*/messages.parquet")
    assert selected[0] not in pd.read_parquet(path)["text"].tolist()
    assert read_selection(copied)["messages"] < len(selected)
    assert "people's labels of past nights that the model is judged on: 1" in done.output
    (evaluation,) = {path.name for path in (copied / "artifacts" / "evaluation").iterdir()} - evaluations
    after = read_json(copied / "artifacts" / "evaluation" / evaluation / "metrics.json")
    assert (after["messages"], after["spam"]) == (before["messages"] + 1, before["spam"])


@pytest.mark.parametrize(
    ("labels", "added"),
    [
        ([], []),
        ([("ham", "Lunch at the canteen?"), ("spam", "Win a car today")],
         [(10, "Lunch at the canteen?", False), (11, "Win a car today", True)]),
        ([("ham", "Call 80086 now to claim")], []),
        ([("ham", "Win a car today"), ("spam", "Win a car today")], []),
    ],
    ids=["none", "new ones", "a near copy of the corpus", "both labels"],
)  # fmt: skip
def test_the_model_is_judged_on_new_messages_that_people_labelled(
    labels: list[tuple[str, str]], added: list[tuple[int, str, bool]]
) -> None:
    test = pd.DataFrame({"row_number": [4, 2], "text": ["See you", "Free entry"], "spam": [False, True]})
    training = pd.DataFrame({"row_number": [3, 9], "text": ["call 90099 now to CLAIM", None]})
    judged = append_labelled(test, labels, pd.concat([test, training]))
    assert judged.dtypes.equals(test.dtypes)
    assert list(judged.itertuples(index=False, name=None)) == [(4, "See you", False), (2, "Free entry", True), *added]


def test_a_withdrawn_batch_and_one_without_its_messages_are_named_and_left_out(copied: Path) -> None:
    shutil.rmtree(copied / "artifacts" / "night_messages")
    (snapshot,) = (copied / "artifacts" / "snapshots" / str(FIRST)).iterdir()
    shutil.rmtree(snapshot)
    done = luigi(copied, "SelectNightMessages")
    assert done.code == 0, done.output
    (entry,) = read_selection(copied)["left_out"]
    assert (entry["date"], read_selection(copied)["messages"]) == (str(FIRST), 0)
    assert "are not in" in entry["reason"]
    assert "keep_days" in entry["reason"]
    shutil.rmtree(copied / "artifacts" / "night_messages")
    command = [Path(sys.executable).with_name("spamscore"), "withdraw", str(FIRST), "--yes"]
    subprocess.run(command, cwd=copied, env=environment(), check=True, capture_output=True)
    assert luigi(copied, "SelectNightMessages").code == 0
    assert [entry["reason"] for entry in read_selection(copied)["left_out"]] == ["withdrawn"]


@pytest.mark.slow
def test_a_run_that_is_killed_between_and_in_the_stages_ends_with_the_same_model(
    learned: tuple[Path, CommandResult], copied: Path
) -> None:
    training = copied / "artifacts" / "training"
    shutil.rmtree(find_student(copied))
    shutil.rmtree(copied / "artifacts" / "night_messages")
    selections = copied / "artifacts" / "night_messages"
    kill_when(copied, ("TrainSelfTrained",), lambda: bool(list(selections.glob("*/manifest.json"))))
    kill_when(copied, ("TrainSelfTrained",), lambda: bool(list(training.glob("*.partial/checkpoints/ckpt-*.index"))))
    done = luigi(copied, "TrainSelfTrained")
    assert (done.code, list_stages(done)) == (0, ["TrainSelfTrained"]), done.output
    whole, killed = find_student(learned[0]), find_student(copied)
    assert whole.name == killed.name
    weights = [read_json(folder / "model.json")["weights_sha256"] for folder in (whole, killed)]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_old_messages_leave_the_selection_with_the_snapshots(copied: Path) -> None:
    write_settings(copied, merge_settings(NIGHTS, {"artifacts": {"keep_days": "1"}}))
    done = luigi(copied, "Nightly", "--date", AFTER)
    assert done.code == 0, done.output
    assert not list((copied / "artifacts" / "night_messages").iterdir())
    again = luigi(copied, "ScoreBatch", "--date", AFTER)
    assert (again.code, list_stages(again)) == (0, [])


def test_the_summary_says_whether_the_model_of_a_batch_is_self_trained(copied: Path) -> None:
    def summarize(date: str) -> str:
        command = [Path(sys.executable).with_name("spamscore"), "summary", date]
        done = subprocess.run(command, cwd=copied, env=environment(COLUMNS="200"), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return " ".join(done.stdout.split())

    messages = read_selection(copied)["messages"]
    assert f"spam_ham, version 2, self-trained with {messages} messages of 1 batches" in summarize(AFTER)
    assert "self-trained" not in summarize(str(FIRST))


def test_self_training_needs_a_linear_part(tmp_path: Path) -> None:
    write_settings(tmp_path, merge_settings(NIGHTS, {"network": {"linear": "false"}}))
    done = luigi(tmp_path, "ExportModel")
    assert done.code == 40
    assert "[corpus] self_training = nights: expected [network] linear = true, received false" in done.output
