"""ScoreBatch: what changes its recipe, so that a date is scored again, a batch by a checkpoint, and its errors."""

from __future__ import annotations

import datetime
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from chain import DATE, CommandResult, environment, luigi, query
from spamscore_command import SPAMSCORE

from models.errors import InputError
from tasks.artifacts.folders import FolderTarget
from tasks.score_batch import ScoreBatch, require_snapshot


@pytest.mark.parametrize(("threshold", "changes"), [("auto", True), ("0.7", False)])
def test_ham_blocked_share_changes_the_recipe_only_with_an_automatic_threshold(
    set_settings: Callable[..., None], threshold: str, changes: bool
) -> None:
    recipes = []
    for share in ("0.002", "0.01"):
        set_settings("scoring", threshold=threshold, ham_blocked_share=share)
        recipes.append(ScoreBatch(date=datetime.date(2026, 1, 31)).fingerprint())
    assert (recipes[0] != recipes[1]) is changes


def test_a_snapshot_that_was_discarded_while_the_run_waited_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"messages of 2026-01-31 are to be read again.*Run the same command again"):
        require_snapshot(FolderTarget(tmp_path / "gone"), datetime.date(2026, 1, 31))


SCORES = "select message_id, spam_probability, flagged from published_scores order by message_id"


@pytest.fixture
def copied(finished: tuple[Path, CommandResult], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[0], tmp_path / "copy"))


def spamscore(folder: Path, *arguments: str) -> str:
    command = [SPAMSCORE, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_a_checkpoint_the_recipe_is_the_one_from_before_checkpoints_could_be_chosen(
    set_settings: Callable[..., None],
) -> None:
    date = datetime.date(2026, 1, 31)
    assert "checkpoint" not in ScoreBatch(date=date).fingerprint_parts()
    assert str(ScoreBatch(date=date)) == "ScoreBatch(date=2026-01-31, model_version=in service)"
    recipes = {
        ScoreBatch(date=date, model_version=version, checkpoint=checkpoint).fingerprint()
        for version in (None, 1) for checkpoint in (None, "ckpt-1", "ckpt-2")
    }  # fmt: skip
    assert len(recipes) == 6


def test_a_batch_by_a_checkpoint_supersedes_the_one_of_the_version_and_says_which_checkpoint_it_was(
    copied: Path,
) -> None:
    usual = query(copied, SCORES)
    rows = json.loads(spamscore(copied, "checkpoints", "1", "--json"))
    first, last, training = rows[-1]["checkpoint"], rows[0]["checkpoint"], rows[0]["training"]
    done = luigi(copied, "ScoreBatch", "--date", DATE, "--checkpoint", first)
    assert (done.code, done.ran) == (0, {"ScoreBatch"}), done.output
    assert [row[0] for row in query(copied, SCORES)] == [row[0] for row in usual]
    assert query(copied, SCORES) != usual
    columns = "batch_id, state, model_version, checkpoint, threshold"
    before, batch = query(copied, f"select {columns} from score_batches order by batch_id")
    stored = f"{training}/{first} (weights of its step)"
    assert (before[1], before[3]) == ("superseded", f"{training}/{last}")
    assert batch[1:] == ("published", 1, stored, before[4])
    receipt = copied / "artifacts" / "receipts" / DATE / f"batch-{batch[0]}.json"
    assert json.loads(receipt.read_text(encoding="utf-8"))["checkpoint"] == stored
    assert [line.split("\t")[-1] for line in spamscore(copied, "batches").splitlines()] == [first, ""]
    assert f"Checkpoint      {stored}" in spamscore(copied, "summary", DATE)
    message_id, probability = query(copied, "select message_id, spam_probability from published_scores limit 1")[0]
    explained = json.loads(spamscore(copied, "explain", "--date", DATE, "--message-id", str(message_id), "--json"))
    assert explained["spam_probability"] == pytest.approx(probability, abs=1e-5)
    again = luigi(copied, "ScoreBatch", "--date", DATE, "--checkpoint", first)
    assert (again.code, again.ran) == (0, set())
    report = luigi(copied, "ReportBatch", "--date", DATE)
    assert report.code == 0, report.output
    assert "ScoreBatch" not in report.ran
    page = spamscore(copied, "report", DATE).strip()
    assert f"version 1, checkpoint {first}" in (copied / page).read_text(encoding="utf-8")
    assert luigi(copied, "ScoreBatch", "--date", DATE, "--checkpoint", last).code == 0
    assert query(copied, SCORES) == usual


def test_a_checkpoint_that_cannot_be_used_fails_the_run_with_one_line(copied: Path) -> None:
    names = [row["checkpoint"] for row in json.loads(spamscore(copied, "checkpoints", "--json"))]
    done = luigi(copied, "ScoreBatch", "--date", DATE, "--checkpoint", "ckpt-999")
    assert done.code == 30
    assert done.last_line.endswith(f"there is no checkpoint ckpt-999. Newest first, there are: {', '.join(names)}.")
    (data,) = copied.glob(f"artifacts/training/*/checkpoints/{names[1]}.data*")
    data.write_bytes(data.read_bytes()[:-1])
    done = luigi(copied, "ScoreBatch", "--date", DATE, "--checkpoint", names[1])
    assert done.code == 30
    assert f"{names[1]}: the checkpoint is damaged" in done.last_line
    assert query(copied, "select state from score_batches") == [("published",)]
    for name in ("best", "ckpt-", "../ckpt-1"):
        done = luigi(copied, "ScoreBatch", "--date", DATE, "--checkpoint", name)
        assert (done.code, done.output.count("\n")) == (2, 1)
        assert f"--checkpoint {name}: expected the name of a checkpoint such as ckpt-72" in done.output


def test_a_checkpoint_needs_a_version_in_service(tmp_path: Path) -> None:
    done = luigi(tmp_path, "ScoreBatch", "--date", DATE, "--checkpoint", "ckpt-72")
    assert done.code == 30
    assert "no model version is exported yet" in done.last_line
    assert not (tmp_path / "artifacts" / "training").exists()
