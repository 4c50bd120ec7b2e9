"""`spamscore extract`: what was read for a date, and the question before it is read again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from published_batches import DATE, publish
from spamscore_command import get_error, get_output, get_rows, run
from sqlalchemy.engine import Engine

from tasks.extract_messages import ExtractMessages


@pytest.fixture
def snapshot(folder: Path, database: Engine) -> Path:
    """The snapshot of a date with a published batch."""
    extraction = ExtractMessages(date=DATE)
    extraction.run()
    publish(database, {"m-0001": 0.5}, snapshot=extraction.output().path.name)
    return Path(extraction.output().path)


def test_the_snapshot_of_a_date_is_shown(snapshot: Path) -> None:
    facts = dict(get_rows("extract", str(DATE)))
    assert (facts["source"], facts["messages"], facts["published batch"]) == ("bundled inbox", "441", "1")
    assert facts["snapshot"] == str(snapshot)
    content = json.loads(get_output("extract", str(DATE), "--json"))
    assert content["taken_at"] == facts["read at (UTC)"]
    assert (content["rows"], content["changes"], content["published_batch"]) == (441, [], 1)


def test_reading_again_asks_first_and_keeps_the_snapshot_and_the_batch(snapshot: Path) -> None:
    error = get_error(1, "extract", str(DATE), "--again")
    assert "will read its messages from the source again; batch 1 stays published until then. Do it?" in error
    assert ExtractMessages(date=DATE).complete()
    result = run("extract", str(DATE), "--again", "--yes")
    assert result.exit_code == 0
    assert "batch 1 stays published until the new one replaces it" in result.stdout
    assert f"luigi --module pipeline ScoreBatch --date {DATE}" in result.stderr
    assert not ExtractMessages(date=DATE).complete()
    assert snapshot.is_dir()
    assert "there is no snapshot of the messages of 2026-01-31" in get_error(1, "extract", str(DATE))
    get_output("restore", str(DATE), "--batch", "1")
    assert ExtractMessages(date=DATE).complete()


def test_a_file_that_is_gone_is_named_before_it_is_to_be_read_again(
    folder: Path, database: Engine, set_settings: Callable[..., None]
) -> None:
    set_settings("messages", source="file", path="{date}.csv")
    publish(database, {"m-0001": 0.5})
    for command in (["withdraw", str(DATE)], ["extract", str(DATE), "--again"]):
        assert "2026-01-31.csv does not exist now, and that run will need it." in get_error(1, *command)
