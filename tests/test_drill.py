"""The fault drill in its short form, and that it finds what it is there to find. The long form is `make drill`."""

from __future__ import annotations

import dataclasses
import json
import random
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from drill.__main__ import main
from drill.moments import SCHEDULING, STAGES, Recorded, drawn
from drill.report import Report, Row
from drill.scene import Outcome, Reader, Verdict, compared, publish_old_batch, rows_of


def test_kills_and_faults_in_a_batch_lose_and_double_nothing_on_either_database(tmp_path: Path) -> None:
    path = tmp_path / "drill.json"
    arguments = ["--seed", "20", "--moments", "2", "--stages", "ScoreBatch", "--faults", "alone|cut in a chunk"]
    assert main([*arguments, "--report", str(path)]) == 0, path.read_text(encoding="utf-8")
    report = json.loads(path.read_text(encoding="utf-8"))
    assert {row["database"] for row in report["rows"]} == {"sqlite", "postgresql"}
    totals = report["totals"]
    assert (totals["moments killed"], totals["faults injected"]) == (4, 7)
    assert (totals["rows lost"], totals["rows doubled"], totals["wrong readings"]) == (0, 0, 0)
    assert totals["readings"] > 0


WHOLE = Outcome(
    rows=[("a", 0.25, False, 1), ("b", 0.75, True, 1)], rejected=[(3, None, "missing message_id")],
    batches=[("published", 3, 2, 1, 1, "0f")], twice=0, weights={"training": "aa"}, content={"corpus.parquet": "bb"},
    files={"corpus/manifest.json"}, strays=[],
)  # fmt: skip
WRONG = [
    ("a row is missing", {"rows": WHOLE.rows[:1]}, "lost"),
    ("a row has another score", {"rows": [("a", 0.5, False, 1), WHOLE.rows[1]]}, "lost"),
    ("a row is there twice", {"rows": [WHOLE.rows[0], *WHOLE.rows]}, "doubled"),
    ("a batch has a message twice", {"twice": 1}, "doubled"),
    ("no batch is published", {"rows": [], "batches": [("running", None, None, None, None, None)]}, "lost"),
    ("another batch is left running", {"batches": [*WHOLE.batches, ("running", 3, 2, 1, 1, "0f")]}, "other batches"),
    ("a message is not refused", {"rejected": []}, "other rejected"),
    ("other weights", {"weights": {"training": "cc"}}, "weights"),
    ("no weights", {"weights": {}}, "weights"),
    ("another table", {"content": {"corpus.parquet": "dd"}}, "other content"),
    ("a file is missing", {"files": set()}, "missing corpus/manifest.json"),
    ("a file too many", {"files": {*WHOLE.files, "corpus/other"}}, "stray: corpus/other"),
    ("a half-made folder", {"strays": ["corpus/x.partial"]}, "stray: corpus/x.partial"),
]


def watched(seen_wrong: list[str]) -> Reader:
    reader = Reader(sa.make_url("sqlite://"), [], [])
    reader.seen_wrong = seen_wrong
    return reader


def reported(verdict: Verdict) -> Report:
    row = Row("sqlite", "SIGKILL in ScoreBatch", times=1)
    row.add(verdict)
    return Report(seed=1, rows=[row])


@pytest.mark.parametrize(("_what", "changed", "said"), WRONG, ids=[row[0] for row in WRONG])
def test_an_outcome_that_differs_is_said_and_fails_the_drill(
    _what: str, changed: dict[str, object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = reported(compared(dataclasses.replace(WHOLE, **changed), WHOLE, watched([])))  # type: ignore[arg-type]
    assert not report.good
    report.show()
    assert said in capsys.readouterr().out


def test_an_outcome_like_the_undisturbed_one_passes() -> None:
    assert reported(compared(WHOLE, WHOLE, watched([]))).good
    assert not reported(compared(WHOLE, WHOLE, watched(["read 1 rows"]))).good


def test_a_fault_that_was_not_injected_fails_the_drill() -> None:
    assert not Report(seed=1, rows=[Row("sqlite", "disk full")]).good


def test_a_reader_takes_nothing_but_the_old_rows_and_then_the_new_ones(sqlite_url: str) -> None:
    url = sa.make_url(sqlite_url)
    old = publish_old_batch(url)
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        assert rows_of(connection) == old
    seen = {name: readings(url, *known) for name, known in {
        "old": (old, []), "new": ([], old), "neither": ([], old[:-1]), "too few": (old[:-1], []),
    }.items()}  # fmt: skip
    engine.dispose()
    assert {name: wrong for name, wrong in seen.items() if wrong} == {
        name: {f"read {len(old)} rows that are neither the old nor the new ones"} for name in ("neither", "too few")
    }


def readings(url: sa.URL, old: list[tuple[object, ...]], new: list[tuple[object, ...]]) -> set[str]:
    with Reader(url, old, new) as reader:
        while not reader.readings:
            threading.Event().wait(0.01)
    return set(reader.seen_wrong)


KINDS = ("computing", "chunk", "fsync")
SEEN = Recorded({(stage, kind): [0.0, 1.0, 2.0, 3.0, 4.0] for stage in STAGES for kind in KINDS})


def test_the_same_seed_gives_the_same_moments_spread_over_every_stage() -> None:
    first, again, other = (drawn(SEEN, 100, random.Random(seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert {moment.stage for moment in first} == set(STAGES)
    assert len(first) == 100
    assert all(1 <= moment.number <= 5 and moment.delay >= 0 for moment in first)
    assert {moment.whom for moment in first if moment.stage == SCHEDULING} == {"group"}
