"""`spamscore report` and `drift`."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import click
import pytest
from published_batches import DATE, publish
from spamscore_command import (
    SCORES,
    get_error,
    get_output,
    get_rows,
    run,
)
from sqlalchemy.engine import Engine

from models.statistics.stability import count_scores
from tasks.monitoring.drift import Crossing, DriftFigures, write_drift


def publish_measured(engine: Engine, crossed: bool = True, date: datetime.date = DATE) -> int:
    """Publishes a batch with its drift figures, and returns its id."""
    batch_id = publish(engine, SCORES, date)
    figures = DriftFigures(batch_id, date, 4, 4, 2, unknown_share=0.125, psi_before=0.5, psi_before_by_chance=0.25)
    crossings = [Crossing("psi_before", 0.5, 0.25, "the scores are unlike the batch before")] if crossed else []
    write_drift(engine, figures, count_scores(list(SCORES.values())), crossings)
    return batch_id


def test_report_prints_the_path_of_a_report_or_the_command_to_make_it(database: Engine, folder: Path) -> None:
    batch_id = publish(database, SCORES)
    path = Path("artifacts/reports") / str(DATE) / f"batch-{batch_id}.html"
    assert "To make it: luigi --module pipeline ReportBatch --date 2026-01-31" in get_error(1, "report", str(DATE))
    path.parent.mkdir(parents=True)
    path.write_text("<p>", encoding="utf-8")
    path.with_suffix(".json").write_text('{"counts": {"read": 4}}', encoding="utf-8")
    assert get_output("report") == f"{path}\n"
    assert json.loads(get_output("report", str(DATE), "--json")) == {"counts": {"read": 4}}


def test_open_opens_the_report_in_a_browser(database: Engine, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    path = Path("artifacts/reports") / str(DATE) / f"batch-{publish(database, SCORES)}.html"
    path.parent.mkdir(parents=True)
    path.touch()
    opened: list[str] = []
    monkeypatch.setattr(click, "launch", opened.append)
    get_output("report", "--open")
    assert opened == [path.resolve().as_uri()]


def test_drift_is_listed_latest_first_and_separated_by_tabs(database: Engine) -> None:
    first, second = (
        publish_measured(database),
        publish_measured(database, crossed=False, date=DATE + datetime.timedelta(days=1)),
    )
    assert get_rows("drift") == [
        ["2026-02-01", str(second), "4", "0.5", "0.125", "0.5", "", "", ""],
        ["2026-01-31", str(first), "4", "0.5", "0.125", "0.5", "", "psi_before", ""],
    ]
    assert get_rows("drift", "--limit", "1")[0][0] == "2026-02-01"
    assert get_rows("drift", str(DATE))[0][7] == "psi_before"
    (drift,) = json.loads(get_output("drift", str(DATE), "--json"))
    assert (drift["flagged_share"], drift["crossed"][0]["limit"], drift["accepted_by"]) == (0.5, "psi_before", None)
    assert "score_counts" not in drift


def test_drift_is_accepted_once_and_only_after_confirmation(database: Engine, folder: Path) -> None:
    batch_id = publish_measured(database)
    page = Path("artifacts/reports") / str(DATE) / f"batch-{batch_id}.html"  # the index lists only batches with a page
    page.parent.mkdir(parents=True)
    page.touch()
    assert "add --yes" in get_error(1, "drift", str(DATE), "--accept")
    assert get_rows("drift", str(DATE))[0][8] == ""
    output = get_output("drift", str(DATE), "--accept", "--yes", "--who", "ann")
    assert output == f"the drift of batch {batch_id} of {DATE} is accepted, by ann\n"
    assert get_rows("drift", str(DATE))[0][8] == "ann"
    assert "drift, accepted" in (folder / "artifacts" / "reports" / "index.html").read_text("utf-8")
    assert run("drift", str(DATE), "--accept", "--yes", "--who", "bob").stderr.endswith("was accepted by ann\n")
    assert get_rows("drift", str(DATE))[0][8] == "ann"


def test_drift_that_cannot_be_accepted_is_reported(database: Engine) -> None:
    publish(database, SCORES)
    assert "is not measured yet" in get_error(1, "drift", str(DATE))
    assert "is not measured yet" in get_error(1, "drift", str(DATE), "--accept", "--yes")
    publish_measured(database, crossed=False, date=DATE + datetime.timedelta(days=1))
    result = run("drift", "2026-02-01", "--accept", "--yes")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "there is nothing to accept" in result.stderr
    assert run("drift", "--accept").exit_code == 2
