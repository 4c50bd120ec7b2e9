"""Tests of the fault drill: a short drill, and that it detects each kind of damage. The long drill is `make drill`."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import pytest
import sqlalchemy as sa
from drill.__main__ import main
from drill.baseline import publish_old_batch
from drill.moments import SCHEDULING, STAGES, Recording, draw_moments
from drill.outcome import Outcome, Verdict, compare_outcomes
from drill.reader import Reader, read_published_rows
from drill.report import Report, Row
from eventually import eventually


def test_kills_and_faults_in_a_batch_neither_lose_nor_duplicate_rows_on_sqlite_and_postgresql(tmp_path: Path) -> None:
    path = tmp_path / "drill.json"
    arguments = ["--seed", "20", "--moments", "2", "--stages", "ScoreBatch", "--faults", "alone|cut in a chunk"]
    assert main([*arguments, "--report", str(path)]) == 0, path.read_text(encoding="utf-8")
    report = json.loads(path.read_text(encoding="utf-8"))
    assert {row["database"] for row in report["rows"]} == {"sqlite", "postgresql"}
    totals = report["totals"]
    assert (totals["moments killed"], totals["faults injected"]) == (4, 7)
    assert (totals["rows lost"], totals["rows doubled"], totals["wrong readings"]) == (0, 0, 0)
    assert totals["readings"] > 0


UNDISTURBED = Outcome(
    rows=[("a", 0.25, False, 1), ("b", 0.75, True, 1)], rejected=[(3, None, "missing message_id")],
    batches=[("published", 3, 2, 1, 1, "0f")], duplicates=0, weights={"training": "aa"},
    content={"corpus.parquet": "bb"}, files={"corpus/manifest.json"}, strays=[],
)  # fmt: skip
DEVIATIONS = [
    ("a row is missing", {"rows": UNDISTURBED.rows[:1]}, "lost"),
    ("a row has another score", {"rows": [("a", 0.5, False, 1), UNDISTURBED.rows[1]]}, "lost"),
    ("a row is duplicated", {"rows": [UNDISTURBED.rows[0], *UNDISTURBED.rows]}, "doubled"),
    ("a batch has a duplicate message", {"duplicates": 1}, "doubled"),
    ("no batch is published", {"rows": [], "batches": [("running", None, None, None, None, None)]}, "lost"),
    (
        "another batch is left running",
        {"batches": [*UNDISTURBED.batches, ("running", 3, 2, 1, 1, "0f")]},
        "other batches",
    ),
    ("a message is not rejected", {"rejected": []}, "other rejected"),
    ("other weights", {"weights": {"training": "cc"}}, "weights"),
    ("no weights", {"weights": {}}, "weights"),
    ("another table", {"content": {"corpus.parquet": "dd"}}, "other content"),
    ("a file is missing", {"files": set()}, "missing corpus/manifest.json"),
    ("an additional file", {"files": {*UNDISTURBED.files, "corpus/other"}}, "stray: corpus/other"),
    ("an unfinished folder", {"strays": ["corpus/x.partial"]}, "stray: corpus/x.partial"),
]


def make_reader(wrong_readings: list[str]) -> Reader:
    reader = Reader(sa.make_url("sqlite://"), [], [])
    reader.wrong_readings = wrong_readings
    return reader


def make_report(verdict: Verdict) -> Report:
    row = Row("sqlite", "SIGKILL in ScoreBatch", times=1)
    row.add(verdict)
    return Report(seed=1, rows=[row])


@pytest.mark.parametrize(("changes", "message"), [row[1:] for row in DEVIATIONS], ids=[row[0] for row in DEVIATIONS])
def test_a_different_outcome_is_reported_and_fails_the_drill(
    changes: dict[str, object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = make_report(compare_outcomes(dataclasses.replace(UNDISTURBED, **changes), UNDISTURBED, make_reader([])))  # type: ignore[arg-type]
    assert not report.good
    report.print()
    assert message in capsys.readouterr().out


def test_an_outcome_equal_to_the_undisturbed_one_passes() -> None:
    assert make_report(compare_outcomes(UNDISTURBED, UNDISTURBED, make_reader([]))).good
    assert not make_report(compare_outcomes(UNDISTURBED, UNDISTURBED, make_reader(["read 1 rows"]))).good


def test_a_fault_that_was_not_injected_fails_the_drill() -> None:
    assert not Report(seed=1, rows=[Row("sqlite", "disk full")]).good


def test_a_reader_accepts_only_the_old_rows_and_then_the_new_ones(sqlite_url: str) -> None:
    url = sa.make_url(sqlite_url)
    old = publish_old_batch(url)
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        assert read_published_rows(connection) == old
    wrong = {name: collect_wrong_readings(url, *rows) for name, rows in {
        "old": (old, []), "new": ([], old), "neither": ([], old[:-1]), "too few": (old[:-1], []),
    }.items()}  # fmt: skip
    engine.dispose()
    assert {name: readings for name, readings in wrong.items() if readings} == {
        name: {f"read {len(old)} rows that are neither the old nor the new ones"} for name in ("neither", "too few")
    }


def collect_wrong_readings(url: sa.URL, old: list[tuple[object, ...]], new: list[tuple[object, ...]]) -> set[str]:
    with Reader(url, old, new) as reader:
        eventually(lambda: reader.readings)
    return set(reader.wrong_readings)


KINDS = ("computing", "chunk", "fsync")
RECORDING = Recording({(stage, kind): [0.0, 1.0, 2.0, 3.0, 4.0] for stage in STAGES for kind in KINDS})


def test_the_same_seed_draws_the_same_moments_and_every_stage_has_some() -> None:
    first, again, other = (draw_moments(RECORDING, 100, random.Random(seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert {moment.stage for moment in first} == set(STAGES)
    assert len(first) == 100
    assert all(1 <= moment.number <= 5 and moment.delay >= 0 for moment in first)
    assert {moment.target for moment in first if moment.stage == SCHEDULING} == {"group"}
