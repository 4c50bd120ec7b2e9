"""`spamscore verify`, `withdraw`, `restore` and `prune`."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path

import pytest
import sqlalchemy as sa
from published_batches import DATE, publish
from spamscore_command import (
    SCORES,
    Terminal,
    export_version,
    get_error,
    get_output,
    get_rows,
    run,
    run_process,
    strip_styles,
)
from sqlalchemy.engine import Engine

from tasks.database.batches import stream_scores as read_scores
from tasks.database.chunks import RejectedMessage
from tasks.database.connection import write_transaction
from tasks.database.ledger import BatchPlan, start_batch
from tasks.database.tables import spam_scores


def read_published_rows(engine: Engine, date: datetime.date = DATE) -> set[tuple[int, str]]:
    return {(row.batch_id, row.message_id) for row in read_scores(engine, date)}


def test_a_batch_is_withdrawn_restored_verified_and_pruned_on_every_database(
    folder: Path, engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPAMSCORE_DATABASE_URL", database_url)
    first = publish(engine, {"a": 0.25, "b": 0.5}, rejected=[RejectedMessage(9, None, "empty text")])
    second = publish(engine, {"c": 0.75}, version=2)
    output = get_output("withdraw", "2026-01-31", "--yes")
    assert output == f"batch {second} of 2026-01-31 is withdrawn: published_scores has no rows for the date\n"
    assert read_published_rows(engine) == set()
    output = get_output("restore", "2026-01-31", "--batch", str(first), "--yes")
    assert output == f"batch {first} of 2026-01-31 is published: published_scores has its 2 rows\n"
    assert read_published_rows(engine) == {(first, "a"), (first, "b")}
    assert get_rows("verify", "2026-01-31")[1:] == [
        ["scored", "2", "2", "true"], ["rejected", "1", "1", "true"],
        ["flagged", "1", "1", "true"], ["messages_read", "3", "3", "true"],
    ]  # fmt: skip
    output = get_output("prune", "--yes")
    assert output == f"batch {second} of 2026-01-31, withdrawn: 1 scores, 0 rejected messages, 1 chunks\n"
    assert read_published_rows(engine) == {(first, "a"), (first, "b")}
    assert "checksum: expected" in run("verify", "2026-01-31", "--batch", str(second)).stderr


def test_verify_names_each_difference_in_one_line_and_exits_with_1(database: Engine) -> None:
    publish(database, SCORES)
    assert json.loads(get_output("verify", "2026-01-31", "--json"))["agrees"] is True
    with write_transaction(database) as connection:
        connection.execute(sa.delete(spam_scores).where(spam_scores.c.message_id == "m-1"))
    result = run("verify", "2026-01-31")
    assert result.exit_code == 1
    assert [line.split("\t")[0::3] for line in result.stdout.splitlines()] == [
        ["checksum", "false"], ["scored", "false"], ["rejected", "true"], ["flagged", "false"],
        ["messages_read", "false"],
    ]  # fmt: skip
    assert re.fullmatch(
        r"spamscore: batch 1 of 2026-01-31 is not as published: checksum: expected \w{16}, found \w{16}; "
        r"scored: expected 4, found 3; flagged: expected 2, found 1; messages_read: expected 4, found 3\. "
        r"Withdraw it \(spamscore withdraw 2026-01-31\) or restore another \(spamscore batches\)\n",
        result.stderr,
    )
    as_json = run("verify", "2026-01-31", "--json")
    verification = json.loads(as_json.stdout)
    assert (as_json.exit_code, verification["batch_id"], verification["state"], verification["agrees"]) == (
        1,
        1,
        "published",
        False,
    )
    assert verification["compared"][1] == {"name": "scored", "expected": 4, "found": 3, "agrees": False}
    _, screen = Terminal("verify", "2026-01-31").wait()
    assert re.search(r"scored +4 +3 +differs", strip_styles(screen))


def test_a_batch_that_was_never_published_cannot_be_verified(database: Engine) -> None:
    start_batch(database, BatchPlan(DATE, "r", "spam_ham", 1, "ckpt", "snap", 0.5, "cpu:0", 10))
    assert "batch 1 of 2026-01-31 is running and was never published" in get_error(
        1, "verify", "2026-01-31", "--batch", "1"
    )


def test_a_batch_of_another_date_is_refused(database: Engine) -> None:
    publish(database, SCORES)
    other = publish(database, SCORES, datetime.date(2026, 2, 1))
    for command in ("verify", "restore"):
        error = get_error(1, command, "2026-01-31", "--batch", str(other))
        assert "2026-01-31 has no batch 2; its batches: 1 published" in error
        assert "it has none" in get_error(1, command, "2026-03-01", "--batch", "1")


def test_an_error_for_a_batch_that_cannot_be_restored_lists_the_batches_of_the_date(database: Engine) -> None:
    for version in (1, 2, 3, 4):
        publish(database, SCORES, version=version)
    with write_transaction(database) as connection:
        connection.execute(sa.delete(spam_scores).where(spam_scores.c.batch_id == 1))
    for snapshot in ("left", "snap"):
        start_batch(database, BatchPlan(DATE, "r", "spam_ham", 1, "ckpt", snapshot, 0.5, "cpu:0", 10))
    states = (
        "its batches: 6 running; 5 withdrawn before it was published; 4 published; 3 superseded; 2 superseded; "
        "1 superseded with rows missing, as after spamscore prune"
    )
    for number in (1, 5, 6):
        assert states in get_error(1, "restore", "2026-01-31", "--batch", str(number), "--yes")
    assert {batch_id for batch_id, _ in read_published_rows(database)} == {4}
    assert "is published already" in get_output("restore", "2026-01-31", "--batch", "4")
    assert run("restore", "2026-01-31").exit_code == 2


def test_without_a_terminal_nothing_is_changed_unless_yes_is_given(database: Engine, folder: Path) -> None:
    first, second = publish(database, SCORES), publish(database, {"m-1": 0.5}, version=2)
    export_version(folder, 1, "t", checkpoints=True)
    export_version(folder, 2, "t")
    for arguments, question in (
        (["withdraw", "2026-01-31"], f"The 1 rows of batch {second} (model version 2) of 2026-01-31 will be removed"),
        (
            ["restore", "2026-01-31", "--batch", str(first)],
            f"in place of the 1 rows of batch {second} (model version 2)?",
        ),
        (["serve", "1"], "Version 2 is in service. Score the next batches with version 1 instead?"),
        (["prune"], f"5 rows of batch {first}, of dates before"),
    ):
        error = get_error(1, *arguments)
        assert question in error
        assert "nothing was changed. To confirm, add --yes" in error
    assert read_published_rows(database) == {(second, "m-1")}
    assert get_rows("models")[0][:2] == ["2", "true"]
    assert "nothing to delete" not in run("prune", "--dry-run").stderr


@pytest.mark.parametrize(("typed", "exit_code", "rows"), [("y\n", 0, 0), ("n\n", 1, 4), ("\n", 1, 4), ("\x03", 130, 4)])
def test_a_terminal_asks_for_confirmation(
    database: Engine, folder: Path, typed: str, exit_code: int, rows: int
) -> None:
    publish(database, SCORES)
    terminal = Terminal("withdraw", "2026-01-31")
    question = terminal.read_until("[y/N] ").replace("\r\n", "\n")
    assert question == (
        "The 4 rows of batch 1 (model version 1) of 2026-01-31 will be removed from published_scores, which then has "
        "no rows for the date. The next run of the date will read its messages from the source again. Withdraw them? "
        "[y/N] "
    )
    terminal.type(typed)
    code, screen = terminal.wait()
    assert (code, len(read_published_rows(database))) == (exit_code, rows)
    assert ("nothing was changed" in screen) == (exit_code == 1)
    assert "Traceback" not in screen


def test_prune_keeps_the_days_of_the_setting_unless_keep_days_is_given(database: Engine, folder: Path) -> None:
    today = datetime.date.today()
    for days in (3, 10, 91):
        for version in (1, 2):
            publish(database, SCORES, today - datetime.timedelta(days=days), version=version)
    assert [line[0].split(",")[0] for line in get_rows("prune", "--dry-run")] == [
        f"batch 5 of {today - datetime.timedelta(days=91)}"
    ]
    assert len(get_rows("prune", "--dry-run", "--keep-days", "10")) == 1
    assert len(get_rows("prune", "--dry-run", "--keep-days", "9")) == 2
    assert len(get_rows("prune", "--dry-run", "--keep-days", "1")) == 3
    assert "0 days keep all" in run("prune", "--keep-days", "0", "--yes").stderr
    (folder / "luigi.cfg").write_text("[database]\nkeep_days = 5\n")
    assert len(run_process("prune", "--yes", cwd=folder).stdout.splitlines()) == 2
    again = run_process("prune", "--yes", cwd=folder)
    assert (again.returncode, again.stdout) == (0, "")
    assert "nothing to delete before" in again.stderr
