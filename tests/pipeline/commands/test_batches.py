"""`spamscore batches`, `scores` and `summary`."""

from __future__ import annotations

import csv
import datetime
import io
import json
import re
import zoneinfo
from collections.abc import Callable
from pathlib import Path

import pytest
from published_batches import DATE, publish, write_snapshot
from spamscore_command import (
    HOSTILE,
    SCORES,
    Terminal,
    get_error,
    get_output,
    get_rows,
    run,
    strip_styles,
)
from sqlalchemy.engine import Engine

from tasks.database.batches import OF_STEP
from tasks.database.chunks import RejectedMessage
from tasks.database.ledger import BatchPlan, start_batch


def test_batches_are_listed_latest_first_and_separated_by_tabs(database: Engine) -> None:
    publish(database, SCORES, DATE, [RejectedMessage(9, None, "empty text")])
    publish(database, {"m-1": 0.5}, datetime.date(2026, 2, 1), version=2)
    first, second = get_rows("batches")
    assert first[:8] == ["2", "2026-02-01", "published", "2", "1", "1", "0", "1"]
    assert second[:8] == ["1", "2026-01-31", "published", "1", "5", "4", "1", "2"]
    assert datetime.datetime.fromisoformat(second[8]).utcoffset() == datetime.timedelta()
    assert second[9:] == ["12.34", "false", ""]
    assert len(get_rows("batches", "--limit", "1")) == 1


def test_a_running_batch_has_no_counts_yet(database: Engine) -> None:
    start_batch(database, BatchPlan(DATE, "r", "spam_ham", 1, "ckpt", "snap", 0.5, "cpu:0", 10))
    assert get_rows("batches") == [["1", "2026-01-31", "running", "1", "", "", "", "", "", "", "false", ""]]


def test_a_batch_by_a_checkpoint_names_it(database: Engine) -> None:
    publish(database, SCORES)
    assert "checkpoint" not in strip_styles(Terminal("batches", columns=140).wait()[1])
    stored = f"t/ckpt-72{OF_STEP}"
    start_batch(database, BatchPlan(DATE, "r", "spam_ham", 1, stored, "snap", 0.5, "cpu:0", 10))
    assert [row[11] for row in get_rows("batches")] == ["ckpt-72", ""]
    assert json.loads(get_output("batches", "--json"))[0]["checkpoint"] == "t/ckpt-72 (weights of its step)"
    screen = strip_styles(Terminal("batches", columns=140).wait()[1])
    assert (screen.count("checkpoint"), screen.count("ckpt-72")) == (1, 1)


def test_a_provisional_batch_is_marked(database: Engine) -> None:
    publish(database, SCORES)
    assert "provisional" not in get_output("summary")
    assert "provisional" not in strip_styles(Terminal("batches", columns=140).wait()[1])
    publish(database, {"m-1": 0.5}, datetime.date(2026, 2, 1), provisional=True)
    assert [row[10] for row in get_rows("batches")] == ["true", "false"]
    assert [batch["provisional"] for batch in json.loads(get_output("batches", "--json"))] == [True, False]
    assert strip_styles(Terminal("batches", columns=140).wait()[1]).count("provisional") == 2  # title and value
    assert "Provisional     scored before its date was over" in get_output("summary")
    assert json.loads(get_output("summary", "--json"))["provisional"] is True
    assert "(batch 2, provisional, model version 1)" in strip_styles(Terminal("scores", "2026-02-01").wait()[1])


def test_batches_as_json_have_every_column(database: Engine) -> None:
    publish(database, SCORES)
    (batch,) = json.loads(get_output("batches", "--json"))
    assert (batch["batch_date"], batch["state"], batch["flagged"]) == ("2026-01-31", "published", 2)
    assert batch["checkpoint"] == "fingerprint/ckpt-7"
    assert batch["checksum"]


def test_without_any_batch_a_note_names_the_command_to_score_one(folder: Path) -> None:
    result = run("batches")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "luigi --module pipeline ScoreBatch" in result.stderr
    assert get_output("batches", "--json") == "[]\n"
    assert list(folder.iterdir()) == []


def test_a_narrow_terminal_drops_columns_of_batches(database: Engine) -> None:
    publish(database, SCORES)
    code, narrow = Terminal("batches", columns=80).wait()
    assert code == 0
    assert "not shown in 80 columns: scored, took" in strip_styles(narrow)
    assert max(map(len, strip_styles(narrow).splitlines())) <= 80
    _, wide = Terminal("batches", columns=140).wait()
    assert "12.3 s" in wide
    assert "not shown" not in wide


def test_scores_are_sorted_by_probability_and_separated_by_tabs(database: Engine) -> None:
    publish(database, SCORES)
    assert get_rows("scores", "2026-01-31") == [
        ["0.998000", "true", "m-1"], ["0.750000", "true", "m-3"],
        ["0.250000", "false", "m-2"], ["0.012500", "false", "m-4"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--flagged"], ["m-1", "m-3"]),
        (["--limit", "1"], ["m-1"]),
        (["--order", "message_id"], ["m-1", "m-2", "m-3", "m-4"]),
        (["--order", "message_id", "--flagged", "--limit", "2", "--plain"], ["m-1", "m-3"]),
    ],
    ids=" ".join,
)
def test_options_filter_limit_and_sort_scores(database: Engine, options: list[str], ids: list[str]) -> None:
    publish(database, SCORES)
    assert [line[2] for line in get_rows("scores", "2026-01-31", *options)] == ids


def test_scores_as_json_lines_and_csv_have_every_column_with_exact_values(database: Engine) -> None:
    publish(database, {HOSTILE: 0.75, "m,2": 0.25})
    objects = [json.loads(line) for line in get_output("scores", "2026-01-31", "--json").splitlines()]
    rows = list(csv.DictReader(io.StringIO(get_output("scores", "2026-01-31", "--csv"), newline="")))
    for records in (objects, rows):
        assert [record["message_id"] for record in records] == [HOSTILE, "m,2"]
        assert [float(record["spam_probability"]) for record in records] == [0.75, 0.25]
        assert list(records[0]) == [
            "batch_date", "message_id", "spam_probability", "flagged", "model_version", "batch_id", "scored_at",
        ]  # fmt: skip
    assert [row["flagged"] for row in rows] == ["true", "false"]
    assert [record["flagged"] for record in objects] == [True, False]


def test_the_last_of_several_format_options_is_used(database: Engine) -> None:
    publish(database, SCORES)
    assert get_output("scores", "2026-01-31", "--csv", "--json").startswith("{")
    assert get_output("scores", "2026-01-31", "--json", "--plain").startswith("0.998000\t")


@pytest.mark.parametrize(("word", "days"), [("today", 0), ("yesterday", 1)])
def test_a_date_can_be_a_word(database: Engine, word: str, days: int) -> None:
    publish(database, {"m-9": 0.5}, datetime.date.today() - datetime.timedelta(days=days))
    assert get_rows("scores", word) == [["0.500000", "true", "m-9"]]


def test_a_word_is_a_date_in_the_time_zone_of_the_messages(database: Engine, set_settings: Callable[..., None]) -> None:
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):  # a day and an hour apart
        set_settings("messages", timezone=zone)
        publish(database, {zone: 0.5}, datetime.datetime.now(zoneinfo.ZoneInfo(zone)).date())
        assert get_rows("scores", "today") == [["0.500000", "true", zone]]


@pytest.mark.parametrize("command", ["scores", "summary", "verify", "withdraw"])
def test_an_error_for_a_date_without_a_published_batch_names_dates_that_have_one(
    database: Engine, command: str
) -> None:
    assert "no date has one yet" in get_error(1, command, "2026-03-01")
    for day in range(1, 8):
        publish(database, {"m": 0.5}, datetime.date(2026, 2, day))
    error = get_error(1, command, "2026-03-01")
    assert "2026-02-07, 2026-02-06, 2026-02-05, 2026-02-04, 2026-02-03." in error
    assert "luigi --module pipeline ScoreBatch --date 2026-03-01" in error


@pytest.mark.parametrize("date", ["2026-02-30", "31.1.2026", "tomorrow", ""])
def test_an_invalid_date_is_a_bad_argument(folder: Path, date: str) -> None:
    result = run("scores", date)
    assert result.exit_code == 2
    assert "expected a date such as 2026-01-31, yesterday or today" in result.stderr


def test_the_summary_shows_counts_model_and_most_suspicious_messages(database: Engine, folder: Path) -> None:
    rejected_messages = [
        RejectedMessage(11, None, "empty text"),
        RejectedMessage(12, "x", "empty text"),
        RejectedMessage(13, None, "missing message_id"),
    ]
    publish(database, SCORES, rejected=rejected_messages)
    write_snapshot(folder, [(1, "m-1", "You have WON"), (2, "m-1", "a later row of the same id"), (3, "m-3", None)])
    output = get_output("summary")
    assert "Batch 1 of Saturday, 31 January 2026" in output
    for expected in (
        r"Messages read +7", r"Scored +4", r"Rejected +3  2 empty text, 1 missing message_id",
        r"Flagged +2  50.0% of the scored messages, at a threshold of 0.5", r"Model +spam_ham, version 1",
        r"Checkpoint +fingerprint/ckpt-7", r"UTC, in 12.3 s on cpu:0", r"Database +sqlite:///spamscore.db",
        r"published_scores \(view\), spam_scores, rejected_messages",
        r"0.9980  m-1  You have WON\n", r"0.7500  m-3  \?\n",
    ):  # fmt: skip
        assert re.search(expected, output), (expected, output)
    assert not re.search(r"\x1b|[─│┃]|[ \t]\n", output)
    assert max(map(len, output.splitlines())) <= 100


def test_the_summary_is_of_the_latest_published_batch_or_of_a_date(database: Engine) -> None:
    publish(database, {"m": 0.5}, datetime.date(2026, 1, 30))
    publish(database, SCORES)
    start_batch(database, BatchPlan(datetime.date(2026, 2, 1), "r", "spam_ham", 1, "ckpt", "snap", 0.5, "cpu:0", 10))
    assert json.loads(get_output("summary", "--json"))["batch_date"] == "2026-01-31"
    assert json.loads(get_output("summary", "2026-01-30", "--json"))["batch_date"] == "2026-01-30"


def test_the_summary_as_json_has_counts_and_most_suspicious_messages(database: Engine, folder: Path) -> None:
    publish(
        database,
        {f"m-{number:02}": number / 100 for number in range(60)},
        rejected=[RejectedMessage(99, None, "empty text")],
    )
    write_snapshot(folder, [(1, "m-59", "hello")])
    summary = json.loads(get_output("summary", "--json"))
    assert (summary["messages_read"], summary["scored"], summary["rejected"], summary["flagged"]) == (61, 60, 1, 10)
    assert summary["flagged_share"] == pytest.approx(1 / 6)
    assert summary["rejected_because"] == {"empty text": 1}
    assert len(summary["most_suspicious"]) == 10
    assert summary["most_suspicious"][0] == {
        "message_id": "m-59",
        "spam_probability": 0.59,
        "flagged": True,
        "text": "hello",
    }


@pytest.mark.parametrize("damage", ["missing", "garbage"])
def test_a_summary_without_a_snapshot_shows_no_texts_and_says_so(database: Engine, folder: Path, damage: str) -> None:
    publish(database, SCORES)
    if damage == "garbage":
        write_snapshot(folder, [])
        for path in folder.rglob("*.parquet"):
            path.write_bytes(b"PAR1 not parquet")
    output = get_output("summary")
    assert re.search(r"0.9980  m-1  \?\n", output)
    assert "No text: artifacts/snapshots/2026-01-31/snap" in output


def test_an_empty_batch_has_a_summary(database: Engine) -> None:
    publish(database, {})
    output = get_output("summary")
    assert re.search(r"Scored +0\n", output)
    assert "suspicious" not in output


def test_hostile_texts_and_identifiers_are_escaped_in_a_terminal(database: Engine, folder: Path) -> None:
    publish(database, {HOSTILE: 0.9, "[bold red]m[/]": 0.8}, rejected=[RejectedMessage(9, None, HOSTILE)])
    write_snapshot(folder, [(1, HOSTILE, HOSTILE * 20), (2, "[bold red]m[/]", ":skull: [blink]x[/]")])
    for command in (
        ["summary"],
        ["scores", "2026-01-31"],
        ["scores", "2026-01-31", "--csv"],
        ["scores", "2026-01-31", "--json"],
    ):
        code, raw_screen = Terminal(*command).wait()
        assert code == 0
        screen = strip_styles(raw_screen).replace("\n", "")
        assert screen.isprintable(), (command, screen)
        assert "[bold red]m[/]" in screen
    assert ":skull: [blink]x[/]" in strip_styles(Terminal("summary").wait()[1])


@pytest.mark.parametrize("command", ["summary", "batches", "config"])
def test_colours_are_used_only_in_terminals_that_support_them(database: Engine, command: str) -> None:
    publish(database, SCORES)
    assert "\x1b[1" in Terminal(command).wait()[1]
    # NO_COLOR does not apply to bold and dim: https://no-color.org
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", Terminal(command, NO_COLOR="1").wait()[1])
    assert "\x1b" not in Terminal(command, TERM="dumb").wait()[1]
    assert "\x1b" not in get_output(command)


def test_commands_work_on_every_database_and_hide_its_password(
    folder: Path, engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPAMSCORE_DATABASE_URL", database_url)
    publish(engine, SCORES, rejected=[RejectedMessage(9, None, "empty text")])
    assert [line[2] for line in get_rows("scores", "2026-01-31", "--flagged")] == ["m-1", "m-3"]
    assert get_rows("batches")[0][4:8] == ["5", "4", "1", "2"]
    output = get_output("summary") + get_output("config", "database")
    assert not engine.url.password or ":***@" in output
    assert "secret" not in output
