"""The command `spamscore`: what each command answers, in a terminal and in a pipe, and how it fails."""

from __future__ import annotations

import csv
import datetime
import fcntl
import io
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from luigi.configuration import LuigiConfigParser
from published_batches import DATE, publish, write_snapshot
from sqlalchemy.engine import Engine

from models.inference.scorer import Scores
from models.settings import declared
from models.statistics.stability import count_scores
from pipeline.answers import configuration, probabilities
from pipeline.command_line import cli
from tasks.artifacts.folders import read_manifest, write_json, write_manifest
from tasks.database.batches import scores as found_scores
from tasks.database.chunks import RejectedMessage
from tasks.database.connection import writing
from tasks.database.ledger import BatchPlan, begin_batch
from tasks.database.schema import open_database
from tasks.database.tables import spam_scores
from tasks.monitoring.drift import Crossing, DriftFigures, write_drift
from tasks.scheduler.luigi_defaults import LUIGI_DEFAULTS
from tasks.settings.sections import SECTIONS
from tasks.settings.storage import DatabaseSettings

SPAMSCORE = Path(sys.executable).with_name("spamscore")
HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202egnp\u200b\tx\ny\x9b31m"
COMMANDS = [
    "text", "explain", "batches", "scores", "summary", "report", "drift", "uncertain", "label", "labels", "models",
    "verify", "withdraw", "restore", "serve", "prune", "watch", "config", "completion",
]  # fmt: skip
SILENT = {"label", "withdraw", "restore", "serve", "prune", "watch", "completion"}  # do something, and say so
SCORES = {"m-1": 0.998, "m-2": 0.25, "m-3": 0.75, "m-4": 0.0125}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, empty; the database is in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPAMSCORE_DATABASE_URL", raising=False)
    monkeypatch.delenv("LUIGI_CONFIG_PATH", raising=False)
    return tmp_path


@pytest.fixture
def database(folder: Path) -> Iterator[Engine]:
    engine = open_database(DatabaseSettings(url="sqlite:///spamscore.db"))
    yield engine
    engine.dispose()


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(cli, arguments, input=stdin, prog_name="spamscore")


def answered(*arguments: str, stdin: bytes | None = None) -> str:
    done = run(*arguments, stdin=stdin)
    assert done.exit_code == 0, done.output
    return str(done.stdout)


def lines(*arguments: str) -> list[list[str]]:
    return [line.split("\t") for line in answered(*arguments).splitlines()]


def refused(code: int, *arguments: str) -> str:
    """What is said on standard error by a command that fails: one line."""
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr.startswith("spamscore: ")
    assert done.stderr.count("\n") == 1
    return str(done.stderr)


def started(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The real command."""
    return subprocess.run([SPAMSCORE, *arguments], capture_output=True, text=True, timeout=120, **options)


class Terminal:
    """The real command in a terminal of its own."""

    def __init__(self, *arguments: str, columns: int = 80, **environment: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        variables = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR")}
        self.process = subprocess.Popen(
            [SPAMSCORE, *arguments], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**variables, "TERM": "xterm-256color", **environment},
        )  # fmt: skip
        os.close(slave)
        self.shown = ""

    def until(self, text: str | None) -> str:
        """Reads until a text is shown; until the end if it is None."""
        while text is None or text not in self.shown:
            if not select.select([self.master], [], [], 120)[0]:
                self.process.kill()
                self.process.wait()
                pytest.fail(f"waited two minutes for {text!r}, shown was {self.shown!r}")
            try:
                piece = os.read(self.master, 65536)
            except OSError:  # the other side is closed
                break
            self.shown += piece.decode("utf-8", "replace")
        return self.shown

    def type(self, keys: str) -> None:
        if "\x03" in keys:
            self.wait_until_it_reads()
        self.shown = ""
        os.write(self.master, keys.encode())

    def wait_until_it_reads(self) -> None:
        """Python's input() misses a signal that comes between its prompt and its wait: then nothing ends it."""
        asleep, switches = 0, ""
        while asleep < 10:
            time.sleep(0.05)
            status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
            before, switches = switches, re.findall(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.MULTILINE)[0]
            asleep = asleep + 1 if "\nState:\tS" in status and switches == before else 0

    def end(self) -> tuple[int, str]:
        shown = self.until(None)
        os.close(self.master)
        return self.process.wait(timeout=60), shown.replace("\r\n", "\n")


def without_styles(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*[mK]", "", text)


# Help


def whole_context() -> click.Context:
    return click.Context(cli, info_name="spamscore", **cli.context_settings)


def test_help_says_what_every_command_and_option_is_for() -> None:
    assert list(cli.commands) == COMMANDS
    context = whole_context()
    for command in [cli, *cli.commands.values()]:
        assert command.help
        assert command.epilog
        assert command is cli or not command.get_short_help_str(60).endswith("...")
        for option in (one for one in command.get_params(context) if isinstance(one, click.Option)):
            assert option.help, f"{command.name} {option.opts[0]} has no help text"
        for argument in (one for one in command.params if isinstance(one, click.Argument)):
            assert argument.make_metavar(context).strip("[].").split("]")[0].split("|")[0] in command.help.upper() or (
                argument.name == "shell"
            )


def examples() -> list[str]:
    found = []
    for command in [cli, *cli.commands.values()]:
        for line in (command.epilog or "").splitlines():
            found += re.findall(r"spamscore (?:[^|<>)\"']|\"[^\"]*\"|'[^']*')*", line.split("   ")[0])
    return found


@pytest.mark.parametrize("example", examples())
def test_the_examples_in_the_help_are_ones_that_work(example: str) -> None:
    _, name, *arguments = shlex.split(example)
    command = cli.commands[name]
    command.make_context(name, arguments, parent=whole_context())


def test_each_command_that_answers_with_data_has_json() -> None:
    for name in set(COMMANDS) - SILENT:
        assert any("--json" in one.opts for one in cli.commands[name].params), name


@pytest.mark.parametrize("argument", ["-h", "--help"])
def test_help_teaches_by_example(argument: str) -> None:
    assert "Examples:\n    spamscore scores yesterday --flagged\n" in answered("scores", argument)


def test_version_is_the_distributions() -> None:
    assert re.fullmatch(r"spamscore \d+\.\d+\.\d+\n", answered("--version"))


HEAVY = ("tensorflow", "keras", "pandas", "numpy", "pyarrow", "sklearn", "sqlalchemy", "alembic", "rich")


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["--help"], set()),
        (["config"], set()),
        (["config", "--defaults"], set()),
        (["completion", "fish"], set()),
        (["models"], set()),
        (["prune", "--help"], set()),
        (["batches"], {"sqlalchemy"}),
    ],
    ids=" ".join,
)
def test_a_command_imports_only_what_it_needs(arguments: list[str], allowed: set[str], folder: Path) -> None:
    code = (
        f"import sys; from pipeline.command_line import cli; cli.main({arguments!r}, standalone_mode=False); "
        f"print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "SPAMSCORE_DATABASE_URL"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert set(done.stderr.splitlines()[-1].split()) <= allowed


# Batches


def test_batches_are_listed_newest_first_with_tabs_between(database: Engine) -> None:
    publish(database, SCORES, DATE, [RejectedMessage(9, None, "empty text")])
    publish(database, {"m-1": 0.5}, datetime.date(2026, 2, 1), version=2)
    first, second = lines("batches")
    assert first[:8] == ["2", "2026-02-01", "published", "2", "1", "1", "0", "1"]
    assert second[:8] == ["1", "2026-01-31", "published", "1", "5", "4", "1", "2"]
    assert datetime.datetime.fromisoformat(second[8]).utcoffset() == datetime.timedelta()
    assert second[9] == "12.34"
    assert len(lines("batches", "--limit", "1")) == 1


def test_a_running_batch_has_no_counts_yet(database: Engine) -> None:
    begin_batch(database, BatchPlan(DATE, "r", "spam_ham", 1, "ckpt", "snap", 0.5, "cpu:0", 10))
    assert lines("batches") == [["1", "2026-01-31", "running", "1", "", "", "", "", "", ""]]


def test_batches_as_json_hold_every_column(database: Engine) -> None:
    publish(database, SCORES)
    (batch,) = json.loads(answered("batches", "--json"))
    assert (batch["batch_date"], batch["state"], batch["flagged"]) == ("2026-01-31", "published", 2)
    assert batch["checkpoint"] == "fingerprint/ckpt-7"
    assert batch["checksum"]


def test_without_any_batch_the_way_to_one_is_said_beside_the_answer(folder: Path) -> None:
    done = run("batches")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "luigi --module pipeline ScoreBatch" in done.stderr
    assert answered("batches", "--json") == "[]\n"
    assert list(folder.iterdir()) == []


def test_a_terminal_shows_batches_in_the_columns_it_has(database: Engine) -> None:
    publish(database, SCORES)
    code, narrow = Terminal("batches", columns=80).end()
    assert code == 0
    assert "not shown in 80 columns: scored, took" in without_styles(narrow)
    assert max(map(len, without_styles(narrow).splitlines())) <= 80
    _, wide = Terminal("batches", columns=140).end()
    assert "12.3 s" in wide
    assert "not shown" not in wide


# Scores


def test_scores_come_most_suspicious_first_with_tabs_between(database: Engine) -> None:
    publish(database, SCORES)
    assert lines("scores", "2026-01-31") == [
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
def test_scores_are_chosen_by_options(database: Engine, options: list[str], ids: list[str]) -> None:
    publish(database, SCORES)
    assert [line[2] for line in lines("scores", "2026-01-31", *options)] == ids


def test_scores_as_json_lines_and_csv_hold_every_column_exactly(database: Engine) -> None:
    publish(database, {HOSTILE: 0.75, "m,2": 0.25})
    objects = [json.loads(line) for line in answered("scores", "2026-01-31", "--json").splitlines()]
    rows = list(csv.DictReader(io.StringIO(answered("scores", "2026-01-31", "--csv"), newline="")))
    for found in (objects, rows):
        assert [one["message_id"] for one in found] == [HOSTILE, "m,2"]
        assert [float(one["spam_probability"]) for one in found] == [0.75, 0.25]
        assert list(found[0]) == [
            "batch_date", "message_id", "spam_probability", "flagged", "model_version", "batch_id", "scored_at",
        ]  # fmt: skip
    assert [one["flagged"] for one in rows] == ["true", "false"]
    assert [one["flagged"] for one in objects] == [True, False]


def test_the_last_of_several_forms_holds(database: Engine) -> None:
    publish(database, SCORES)
    assert answered("scores", "2026-01-31", "--csv", "--json").startswith("{")
    assert answered("scores", "2026-01-31", "--json", "--plain").startswith("0.998000\t")


@pytest.mark.parametrize(("word", "days"), [("today", 0), ("yesterday", 1)])
def test_a_date_may_be_a_word(database: Engine, word: str, days: int) -> None:
    publish(database, {"m-9": 0.5}, datetime.date.today() - datetime.timedelta(days=days))
    assert lines("scores", word) == [["0.500000", "true", "m-9"]]


@pytest.mark.parametrize("command", ["scores", "summary", "verify", "withdraw"])
def test_a_date_without_a_published_batch_names_those_that_have_one(database: Engine, command: str) -> None:
    assert "no date has one yet" in refused(1, command, "2026-03-01")
    for day in range(1, 8):
        publish(database, {"m": 0.5}, datetime.date(2026, 2, day))
    said = refused(1, command, "2026-03-01")
    assert "2026-02-07, 2026-02-06, 2026-02-05, 2026-02-04, 2026-02-03." in said
    assert "luigi --module pipeline ScoreBatch --date 2026-03-01" in said


@pytest.mark.parametrize("date", ["2026-02-30", "31.1.2026", "tomorrow", ""])
def test_what_is_no_date_is_a_bad_argument(folder: Path, date: str) -> None:
    done = run("scores", date)
    assert done.exit_code == 2
    assert "expected a date such as 2026-01-31, yesterday or today" in done.stderr


# Summary


def test_the_summary_tells_what_happened(database: Engine, folder: Path) -> None:
    refusals = [
        RejectedMessage(11, None, "empty text"),
        RejectedMessage(12, "x", "empty text"),
        RejectedMessage(13, None, "missing message_id"),
    ]
    publish(database, SCORES, rejected=refusals)
    write_snapshot(folder, [(1, "m-1", "You have WON"), (2, "m-1", "a later row of the same id"), (3, "m-3", None)])
    said = answered("summary")
    assert "Batch 1 of Saturday, 31 January 2026" in said
    for expected in (
        r"Messages read +7", r"Scored +4", r"Rejected +3  2 empty text, 1 missing message_id",
        r"Flagged +2  50.0% of the scored, at probability 0.5 or more", r"Model +spam_ham, version 1",
        r"Checkpoint +fingerprint/ckpt-7", r"UTC, 12.3 s on cpu:0", r"Database +sqlite:///spamscore.db",
        r"published_scores \(view\), spam_scores, rejected_messages",
        r"0.9980  m-1  You have WON\n", r"0.7500  m-3  \?\n",
    ):  # fmt: skip
        assert re.search(expected, said), (expected, said)
    assert not re.search(r"\x1b|[─│┃]|[ \t]\n", said)
    assert max(map(len, said.splitlines())) <= 100


def test_the_summary_is_of_the_newest_published_batch_or_of_a_date(database: Engine) -> None:
    publish(database, {"m": 0.5}, datetime.date(2026, 1, 30))
    publish(database, SCORES)
    begin_batch(database, BatchPlan(datetime.date(2026, 2, 1), "r", "spam_ham", 1, "ckpt", "snap", 0.5, "cpu:0", 10))
    assert json.loads(answered("summary", "--json"))["batch_date"] == "2026-01-31"
    assert json.loads(answered("summary", "2026-01-30", "--json"))["batch_date"] == "2026-01-30"


def test_the_summary_as_json_is_for_a_program(database: Engine, folder: Path) -> None:
    publish(
        database,
        {f"m-{number:02}": number / 100 for number in range(60)},
        rejected=[RejectedMessage(99, None, "empty text")],
    )
    write_snapshot(folder, [(1, "m-59", "hello")])
    found = json.loads(answered("summary", "--json"))
    assert (found["messages_read"], found["scored"], found["rejected"], found["flagged"]) == (61, 60, 1, 10)
    assert found["flagged_share"] == pytest.approx(1 / 6)
    assert found["rejected_because"] == {"empty text": 1}
    assert len(found["most_suspicious"]) == 10
    assert found["most_suspicious"][0] == {
        "message_id": "m-59",
        "spam_probability": 0.59,
        "flagged": True,
        "text": "hello",
    }


@pytest.mark.parametrize("damage", ["missing", "garbage"])
def test_without_its_snapshot_a_summary_has_no_texts_and_says_so(database: Engine, folder: Path, damage: str) -> None:
    publish(database, SCORES)
    if damage == "garbage":
        write_snapshot(folder, [])
        for path in folder.rglob("*.parquet"):
            path.write_bytes(b"PAR1 not parquet")
    said = answered("summary")
    assert re.search(r"0.9980  m-1  \?\n", said)
    assert "No text: artifacts/snapshots/2026-01-31/snap" in said


def test_a_batch_of_nothing_has_a_summary_too(database: Engine) -> None:
    publish(database, {})
    said = answered("summary")
    assert re.search(r"Scored +0\n", said)
    assert "suspicious" not in said


def test_hostile_texts_and_identifiers_do_not_reach_the_terminal(database: Engine, folder: Path) -> None:
    publish(database, {HOSTILE: 0.9, "[bold red]m[/]": 0.8}, rejected=[RejectedMessage(9, None, HOSTILE)])
    write_snapshot(folder, [(1, HOSTILE, HOSTILE * 20), (2, "[bold red]m[/]", ":skull: [blink]x[/]")])
    for command in (
        ["summary"],
        ["scores", "2026-01-31"],
        ["scores", "2026-01-31", "--csv"],
        ["scores", "2026-01-31", "--json"],
    ):
        code, shown = Terminal(*command).end()
        assert code == 0
        left = without_styles(shown).replace("\n", "")
        assert left.isprintable(), (command, left)
        assert "[bold red]m[/]" in left
    assert ":skull: [blink]x[/]" in without_styles(Terminal("summary").end()[1])


@pytest.mark.parametrize("command", ["summary", "batches", "config"])
def test_colours_are_for_terminals_that_want_them(database: Engine, command: str) -> None:
    publish(database, SCORES)
    assert "\x1b[1" in Terminal(command).end()[1]
    # Bold and dim are no colours; https://no-color.org says as much.
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", Terminal(command, NO_COLOR="1").end()[1])
    assert "\x1b" not in Terminal(command, TERM="dumb").end()[1]
    assert "\x1b" not in answered(command)


def test_every_database_answers_and_keeps_its_password(
    folder: Path, engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPAMSCORE_DATABASE_URL", database_url)
    publish(engine, SCORES, rejected=[RejectedMessage(9, None, "empty text")])
    assert [line[2] for line in lines("scores", "2026-01-31", "--flagged")] == ["m-1", "m-3"]
    assert lines("batches")[0][4:8] == ["5", "4", "1", "2"]
    shown = answered("summary") + answered("config", "database")
    assert not engine.url.password or ":***@" in shown
    assert "secret" not in shown


# Reports and drift


def measured(engine: Engine, crossed: bool = True, date: datetime.date = DATE) -> int:
    """A published batch with the figures that its report keeps."""
    batch_id = publish(engine, SCORES, date)
    figures = DriftFigures(batch_id, date, 4, 4, 2, unknown_share=0.125, psi_before=0.5, psi_before_by_chance=0.25)
    found = [Crossing("psi_before", 0.5, 0.25, "the scores are unlike the batch before")] if crossed else []
    write_drift(engine, figures, count_scores(list(SCORES.values())), found)
    return batch_id


def test_the_report_of_a_batch_is_found_or_the_way_to_one_is_said(database: Engine, folder: Path) -> None:
    batch_id = publish(database, SCORES)
    path = Path("artifacts/reports") / str(DATE) / f"batch-{batch_id}.html"
    assert "Make it: luigi --module pipeline ReportBatch --date 2026-01-31" in refused(1, "report", str(DATE))
    path.parent.mkdir(parents=True)
    path.write_text("<p>", encoding="utf-8")
    path.with_suffix(".json").write_text('{"counts": {"read": 4}}', encoding="utf-8")
    assert answered("report") == f"{path}\n"
    assert json.loads(answered("report", str(DATE), "--json")) == {"counts": {"read": 4}}


def test_a_report_is_opened_where_it_is(database: Engine, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    path = Path("artifacts/reports") / str(DATE) / f"batch-{publish(database, SCORES)}.html"
    path.parent.mkdir(parents=True)
    path.touch()
    opened: list[str] = []
    monkeypatch.setattr(click, "launch", opened.append)
    answered("report", "--open")
    assert opened == [path.resolve().as_uri()]


def test_drift_is_listed_newest_first_with_tabs_between(database: Engine) -> None:
    one, two = measured(database), measured(database, crossed=False, date=DATE + datetime.timedelta(days=1))
    assert lines("drift") == [
        ["2026-02-01", str(two), "4", "0.5", "0.125", "0.5", "", "", ""],
        ["2026-01-31", str(one), "4", "0.5", "0.125", "0.5", "", "psi_before", ""],
    ]
    assert lines("drift", "--limit", "1")[0][0] == "2026-02-01"
    assert lines("drift", str(DATE))[0][7] == "psi_before"
    (found,) = json.loads(answered("drift", str(DATE), "--json"))
    assert (found["flagged_share"], found["crossed"][0]["limit"], found["accepted_by"]) == (0.5, "psi_before", None)
    assert "score_counts" not in found


def test_drift_is_accepted_once_by_a_person_who_was_asked(database: Engine, folder: Path) -> None:
    batch_id = measured(database)
    page = Path("artifacts/reports") / str(DATE) / f"batch-{batch_id}.html"  # the index has no others
    page.parent.mkdir(parents=True)
    page.touch()
    assert "answer with --yes" in refused(1, "drift", str(DATE), "--accept")
    assert lines("drift", str(DATE))[0][8] == ""
    said = answered("drift", str(DATE), "--accept", "--yes", "--who", "ann")
    assert said == f"what batch {batch_id} of {DATE} crossed is accepted, by ann\n"
    assert lines("drift", str(DATE))[0][8] == "ann"
    assert "drift, accepted" in (folder / "artifacts" / "reports" / "index.html").read_text("utf-8")
    assert run("drift", str(DATE), "--accept", "--yes", "--who", "bob").stderr.endswith("was accepted by ann\n")
    assert lines("drift", str(DATE))[0][8] == "ann"


def test_what_cannot_be_accepted_is_said(database: Engine) -> None:
    publish(database, SCORES)
    assert "was not measured yet" in refused(1, "drift", str(DATE))
    assert "was not measured yet" in refused(1, "drift", str(DATE), "--accept", "--yes")
    measured(database, crossed=False, date=DATE + datetime.timedelta(days=1))
    done = run("drift", "2026-02-01", "--accept", "--yes")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "there is nothing to accept" in done.stderr
    assert run("drift", "--accept").exit_code == 2


# Taking it back


def published_rows(engine: Engine, date: datetime.date = DATE) -> set[tuple[int, str]]:
    return {(row.batch_id, row.message_id) for row in found_scores(engine, date)}


def test_a_batch_is_withdrawn_restored_verified_and_pruned_on_every_database(
    folder: Path, engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPAMSCORE_DATABASE_URL", database_url)
    first = publish(engine, {"a": 0.25, "b": 0.5}, rejected=[RejectedMessage(9, None, "empty text")])
    second = publish(engine, {"c": 0.75}, version=2)
    said = answered("withdraw", "2026-01-31", "--yes")
    assert said == f"batch {second} of 2026-01-31 is withdrawn: published_scores shows nothing of the date\n"
    assert published_rows(engine) == set()
    said = answered("restore", "2026-01-31", "--batch", str(first), "--yes")
    assert said == f"batch {first} of 2026-01-31 is published: published_scores shows its 2 rows\n"
    assert published_rows(engine) == {(first, "a"), (first, "b")}
    assert lines("verify", "2026-01-31")[1:] == [
        ["scored", "2", "2", "true"], ["rejected", "1", "1", "true"],
        ["flagged", "1", "1", "true"], ["messages_read", "3", "3", "true"],
    ]  # fmt: skip
    said = answered("prune", "--yes")
    assert said == f"batch {second} of 2026-01-31, withdrawn: 1 scores, 0 rejected messages, 1 chunks\n"
    assert published_rows(engine) == {(first, "a"), (first, "b")}
    assert "checksum: expected" in run("verify", "2026-01-31", "--batch", str(second)).stderr


def test_verify_names_each_difference_in_one_line_and_ends_with_1(database: Engine) -> None:
    publish(database, SCORES)
    assert json.loads(answered("verify", "2026-01-31", "--json"))["agrees"] is True
    with writing(database) as connection:
        connection.execute(sa.delete(spam_scores).where(spam_scores.c.message_id == "m-1"))
    done = run("verify", "2026-01-31")
    assert done.exit_code == 1
    assert [line.split("\t")[0::3] for line in done.stdout.splitlines()] == [
        ["checksum", "false"], ["scored", "false"], ["rejected", "true"], ["flagged", "false"],
        ["messages_read", "false"],
    ]  # fmt: skip
    assert re.fullmatch(
        r"spamscore: batch 1 of 2026-01-31 is not as it was published: checksum: expected \w{16}, found \w{16}; "
        r"scored: expected 4, found 3; flagged: expected 2, found 1; messages_read: expected 4, found 3\. "
        r"Withdraw it \(spamscore withdraw 2026-01-31\) or restore another \(spamscore batches\)\n",
        done.stderr,
    )
    as_json = run("verify", "2026-01-31", "--json")
    found = json.loads(as_json.stdout)
    assert (as_json.exit_code, found["batch_id"], found["state"], found["agrees"]) == (1, 1, "published", False)
    assert found["compared"][1] == {"name": "scored", "expected": 4, "found": 3, "agrees": False}
    _, shown = Terminal("verify", "2026-01-31").end()
    assert re.search(r"scored +4 +3 +differs", without_styles(shown))


def test_a_batch_that_was_never_published_has_nothing_to_verify(database: Engine) -> None:
    begin_batch(database, BatchPlan(DATE, "r", "spam_ham", 1, "ckpt", "snap", 0.5, "cpu:0", 10))
    assert "batch 1 of 2026-01-31 is running and was never published" in refused(
        1, "verify", "2026-01-31", "--batch", "1"
    )


def test_a_batch_of_another_date_is_not_taken_for_one_of_this(database: Engine) -> None:
    publish(database, SCORES)
    other = publish(database, SCORES, datetime.date(2026, 2, 1))
    for command in ("verify", "restore"):
        said = refused(1, command, "2026-01-31", "--batch", str(other))
        assert "batch 2 is not one of 2026-01-31; those there are: 1 published" in said
        assert "there are none" in refused(1, command, "2026-03-01", "--batch", "1")


def test_a_batch_that_cannot_be_restored_is_refused_with_those_of_the_date_and_their_states(database: Engine) -> None:
    for version in (1, 2, 3, 4):
        publish(database, SCORES, version=version)
    with writing(database) as connection:
        connection.execute(sa.delete(spam_scores).where(spam_scores.c.batch_id == 1))
    for snapshot in ("left", "snap"):
        begin_batch(database, BatchPlan(DATE, "r", "spam_ham", 1, "ckpt", snapshot, 0.5, "cpu:0", 10))
    there = (
        "those there are: 6 running; 5 withdrawn before it was published; 4 published; 3 superseded; 2 superseded; "
        "1 superseded with rows missing, as after spamscore prune"
    )
    for number in (1, 5, 6):
        assert there in refused(1, "restore", "2026-01-31", "--batch", str(number), "--yes")
    assert {batch_id for batch_id, _ in published_rows(database)} == {4}
    assert "is published already" in answered("restore", "2026-01-31", "--batch", "4")
    assert run("restore", "2026-01-31").exit_code == 2


def test_without_a_terminal_nothing_is_changed_unless_told(database: Engine, folder: Path) -> None:
    first, second = publish(database, SCORES), publish(database, {"m-1": 0.5}, version=2)
    export(folder, 1, "t", checkpoints=True)
    export(folder, 2, "t")
    for arguments, question in (
        (["withdraw", "2026-01-31"], f"the 1 rows of batch {second} (version 2) disappear from published_scores"),
        (["restore", "2026-01-31", "--batch", str(first)], f"in place of the 1 rows of batch {second} (version 2)?"),
        (["serve", "1"], "Version 2 is in service. Score the next batches with version 1 instead?"),
        (["prune"], f"5 rows of batch {first}, of dates before"),
    ):
        said = refused(1, *arguments)
        assert question in said
        assert "nothing was changed: answer with --yes" in said
    assert published_rows(database) == {(second, "m-1")}
    assert lines("models")[0][:2] == ["2", "true"]
    assert "nothing to delete" not in run("prune", "--dry-run").stderr


@pytest.mark.parametrize(("typed", "code", "left"), [("y\n", 0, 0), ("n\n", 1, 4), ("\n", 1, 4), ("\x03", 130, 4)])
def test_a_terminal_asks_and_does_what_is_answered(
    database: Engine, folder: Path, typed: str, code: int, left: int
) -> None:
    publish(database, SCORES)
    terminal = Terminal("withdraw", "2026-01-31")
    asked = terminal.until("[y/N] ").replace("\r\n", "\n")
    assert asked == (
        "Of 2026-01-31, the 4 rows of batch 1 (version 1) disappear from published_scores, which then shows nothing "
        "of the date. Withdraw them? [y/N] "
    )
    terminal.type(typed)
    ended, shown = terminal.end()
    assert (ended, len(published_rows(database))) == (code, left)
    assert ("nothing was changed" in shown) == (code == 1)
    assert "Traceback" not in shown


def test_an_older_version_is_put_in_service_until_a_newer_one_comes(folder: Path) -> None:
    for version in (1, 2):
        export(folder, version, "t", checkpoints=version == 1)
    said = answered("serve", "1", "--yes")
    assert said == "version 1 is in service until a newer one is exported; before, it was version 2\n"
    assert [line[:2] for line in lines("models")] == [["2", "false"], ["1", "true"]]
    assert answered("serve", "1") == "version 1 is in service already\n"
    assert answered("serve", "2", "--yes").endswith("before, it was version 1\n")
    answered("serve", "1", "--yes")
    export(folder, 3, "t")
    assert lines("models")[0][:2] == ["3", "true"]


def test_a_version_that_no_batch_could_be_scored_with_is_not_put_in_service(folder: Path) -> None:
    assert "there are: none" in refused(1, "serve", "1", "--yes")
    export(folder, 1, "t1", checkpoints=True)
    export(folder, 2, "t2")
    assert "model version 7: not in artifacts/exports/spam_ham; there are: 1, 2" in refused(1, "serve", "7", "--yes")
    assert "the checkpoints of version 2 are not here" in refused(1, "serve", "2", "--yes")
    assert not (folder / "artifacts" / "exports" / "spam_ham" / "service.json").exists()
    assert run("serve", "0").exit_code == 2
    for words in ([], ["1", "--refused"]):
        done = run("serve", *words)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "expected either VERSION or --refused" in done.stderr


def test_prune_keeps_the_days_of_the_setting_unless_told_otherwise(database: Engine, folder: Path) -> None:
    today = datetime.date.today()
    for days in (3, 10, 91):
        for version in (1, 2):
            publish(database, SCORES, today - datetime.timedelta(days=days), version=version)
    assert [line[0].split(",")[0] for line in lines("prune", "--dry-run")] == [
        f"batch 5 of {today - datetime.timedelta(days=91)}"
    ]
    assert len(lines("prune", "--dry-run", "--keep-days", "10")) == 1
    assert len(lines("prune", "--dry-run", "--keep-days", "9")) == 2
    assert len(lines("prune", "--dry-run", "--keep-days", "1")) == 3
    assert "0 days keep all" in run("prune", "--keep-days", "0", "--yes").stderr
    (folder / "luigi.cfg").write_text("[database]\nkeep_days = 5\n")
    assert len(started("prune", "--yes", cwd=folder).stdout.splitlines()) == 2
    again = started("prune", "--yes", cwd=folder)
    assert (again.returncode, again.stdout) == (0, "")
    assert "nothing to delete before" in again.stderr


# Models


def export(
    folder: Path,
    version: int,
    training: str = "t",
    metrics: dict[str, float] | None = None,
    checkpoints: bool = False,
    **more: object,
) -> None:
    trained = folder / "artifacts" / "training" / training
    if checkpoints:
        trained.mkdir(parents=True)
        write_manifest(trained, {"vocabulary_sha256": "v", "weights_sha256": "w"})
    path = folder / "artifacts" / "exports" / "spam_ham" / str(version)
    path.mkdir(parents=True)
    content = {"version": version, "training": training, "evaluation": f"e{version}", "fingerprint": f"f{version}"}
    content["trained"] = read_manifest(trained) if trained.exists() else {}
    write_manifest(path, {**content, **more, "exported_at": "2026-01-31T04:05:06+02:00"})
    if metrics is not None:
        (folder / "artifacts" / "evaluation" / f"e{version}").mkdir(parents=True)
        write_json(folder / "artifacts" / "evaluation" / f"e{version}" / "metrics.json", metrics)


def test_models_are_listed_with_the_one_in_service_and_their_figures(folder: Path) -> None:
    overruled = {"threshold": {"value": 0.801326}, "judged": {"approved": False, "reasons": ["why"]}}
    export(folder, 9, "t9", {"pr_auc": 0.98765, "mcc": 0.9}, **overruled)
    export(folder, 10, "t10")
    time_of = "2026-01-31T02:05:06+00:00"
    assert lines("models") == [
        ["10", "true", time_of, "", "", "t10", ""], ["9", "false", time_of, "0.98765", "0.9", "t9", "0.801326"],
    ]  # fmt: skip
    found = json.loads(answered("models", "--json"))
    assert [(one["pr_auc"], one["approved"]) for one in found] == [(None, None), (0.98765, False)]
    write_json(folder / "artifacts" / "exports" / "spam_ham" / "service.json", {"version": 9, "newest": 10})
    assert [line[1] for line in lines("models")] == ["false", "true"]
    code, shown = Terminal("models").end()
    assert code == 0
    assert re.search(r"9 +in service +2026-01-31 02:05 +0.9877 +0.9000 +t9 +0.801326", without_styles(shown))


def test_without_a_model_the_way_to_one_is_said(folder: Path) -> None:
    done = run("models")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "luigi --module pipeline ExportModel" in done.stderr
    assert "luigi --module pipeline ExportModel" in refused(1, "text", "hello")


# Settings


def test_config_lists_every_setting_with_its_source(folder: Path) -> None:
    found = [line[:2] for line in lines("config")]
    ours = [[section, one.key] for section, settings in SECTIONS.items() for one in declared(section, settings)]
    assert found[: len(ours)] == ours
    assert [[section, key] for section, keys in LUIGI_DEFAULTS.items() for key in keys] == found[len(ours) :]
    assert lines("config", "scoring")[0] == ["scoring", "threshold", "auto", "default"]
    said = "spam probability from which a message is flagged; auto finds it on validation data, by ham_blocked_share"
    assert lines("config", "scoring", "--long")[0][4] == said
    assert set(json.loads(answered("config", "--json"))[0]) == {
        "section",
        "key",
        "value",
        "source",
        "default",
        "description",
    }


def test_config_says_where_a_value_came_from(folder: Path) -> None:
    (folder / "luigi.cfg").write_text(
        "[scoring]\nthreshold = 0.7\nchunk-size = 9\n[corpus]\nquery = SELECT '50%',\n  label\n"
        "[email]\nreceiver = a@b.example\n"
        "[smtp]\npassword = hunter2\n[metrics]\npushgateway = http://me:hunter2@push:9091\n"
        "[database]\nurl = sqlite:///other.db\n[core]\nlog_level = DEBUG\n"
    )
    environment = {
        **os.environ,
        "SPAMSCORE_CORPUS_URL": "postgresql://me:hunter2@host/db?password=hunter2",
        "SPAMSCORE_ALERTS_WEBHOOK_URL": "https://chat.internal/hooks/hunter2",
    }
    done = started("config", cwd=folder, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    found = {tuple(line.split("\t")[:2]): line.split("\t")[2:] for line in done.stdout.splitlines()}
    assert found["scoring", "threshold"] == ["0.7", "luigi.cfg"]
    assert found["scoring", "chunk_size"] == ["9", "luigi.cfg"]
    assert found["scoring", "batch_size"] == ["auto", "default"]
    assert found["corpus", "query"] == ["SELECT '50%',\\nlabel", "luigi.cfg"]
    assert found["corpus", "url"] == ["postgresql://me:***@host/db?password=***", "SPAMSCORE_CORPUS_URL"]
    assert found["alerts", "webhook_url"] == ["https://chat.internal/…", "SPAMSCORE_ALERTS_WEBHOOK_URL"]
    assert found["metrics", "pushgateway"][0] == "http://me:***@push:9091"
    assert found["database", "url"] == ["sqlite:///other.db", "luigi.cfg"]
    assert found["core", "log_level"] == ["DEBUG", "luigi.cfg"]
    assert found["email", "receiver"] == ["a@b.example", "luigi.cfg"]
    assert found["smtp", "password"] == ["***", "luigi.cfg"]


@pytest.mark.parametrize("form", [[], ["--json"], ["--long"]], ids=["plain", "json", "long"])
def test_a_password_is_never_shown(folder: Path, monkeypatch: pytest.MonkeyPatch, form: list[str]) -> None:
    monkeypatch.setenv("SPAMSCORE_DATABASE_URL", "postgresql://me:p%40ss-word@localhost:1/scores")
    shown = answered("config", "database", *form)
    assert "postgresql://me:***@localhost:1/scores" in shown
    assert "SPAMSCORE_DATABASE_URL" in shown
    assert "ss-word" not in shown
    for command in (["--debug", "batches"], ["summary"]):
        done = run(*command)
        assert done.exit_code == 35
        assert "ss-word" not in done.output
        assert "me:***@localhost" in done.output


def test_an_unknown_section_names_those_there_are(folder: Path) -> None:
    assert "[scores]: no such section. Sections are artifacts, database, corpus" in refused(2, "config", "scores")


def test_the_default_file_holds_every_setting_at_its_default(folder: Path) -> None:
    text = answered("config", "--defaults")
    parser = LuigiConfigParser()
    parser.read_string(text)
    assert parser.sections() == [*SECTIONS, *LUIGI_DEFAULTS]
    for section, settings in SECTIONS.items():
        assert parser.options(section) == [one.key for one in declared(section, settings)]
        for one in declared(section, settings):
            assert one.parse(parser.get(section, one.key)) == one.default
            assert one.rule.description in re.sub(r"\n# ", " ", text)
    for section, keys in LUIGI_DEFAULTS.items():
        assert dict(parser.items(section)) == keys
        assert set(configuration._LUIGI_MEANINGS[section]) == set(keys)


def test_the_default_file_is_one_that_luigi_takes(folder: Path) -> None:
    (folder / "luigi.cfg").write_text(answered("config", "--defaults"))
    done = started("config", "--json", cwd=folder)
    found = json.loads(done.stdout)
    assert {one["source"] for one in found} == {"luigi.cfg"}
    assert [one["key"] for one in found if one["value"] != one["default"]] == []


# Messages


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with version 1 of a very small model in it."""
    from models.network.devices import start_tensorflow
    from models.settings import DeviceSettings, NetworkSettings, TextSettings, TrainingSettings, VocabularySettings

    start_tensorflow(DeviceSettings())
    from models.text.vocabulary import build_vocabulary
    from models.training.loop import LabelledMessages, train
    from models.training.trained_model import describe_trained, unseen_scores

    folder = tmp_path_factory.mktemp("trained")
    training = folder / "artifacts" / "training" / "t1"
    training.mkdir(parents=True)
    vocabulary = build_vocabulary(["win prize now", "see you at lunch"] * 2, VocabularySettings(), TextSettings())
    texts, labels = ["win prize now", "see you at lunch"], np.array([1, 0], np.int32)
    part = LabelledMessages(texts * 8, np.tile(labels, 8))
    network = NetworkSettings(
        cell="simple", bidirectional=False, embedding_size=4, rnn_units=4, dropout=0.0, ngram_buckets=256
    )
    settings = TrainingSettings(epochs=10, batch_size=8, learning_rate=0.1, augmentation=0.0)
    done = train(part, part, vocabulary, network, settings, training)
    # Of so few messages a calibration makes nothing sure; of more of the same it does.
    unseen = unseen_scores(done, vocabulary, network, LabelledMessages(texts * 200, np.tile(labels, 200)), None)
    write_manifest(training, describe_trained(done, vocabulary, network, unseen, training))
    export(folder, 1, "t1")
    return folder


@pytest.fixture
def model(trained: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    return trained


def test_one_message_is_answered_for_a_person(model: Path) -> None:
    assert re.fullmatch(r"Probability of spam: [01]\.\d{4}\n", answered("text", "win prize now"))


def test_several_messages_are_answered_with_the_message_beside(model: Path) -> None:
    first, second, third = answered("text", "win prize now", "see you at lunch\x1b[2J", "lunch " * 40).splitlines()
    assert re.fullmatch(r"Probability of spam: 0\.9\d{3}  win prize now", first)
    assert re.fullmatch(r"Probability of spam: 0\.0\d{3}  see you at lunch\[U\+001B\]\[2J", second)
    assert third.endswith("…")
    assert len(third) <= 100


def test_plain_answers_are_the_numbers_that_a_batch_stores(model: Path) -> None:
    from tasks.evaluate_model import scored

    messages = ["win prize now", "see you at lunch", "FREE entry, text WIN to 80086", "🎁"]
    expected = [f"{value:.6f}" for value in scored(model / "artifacts" / "training" / "t1", messages)]
    assert answered("text", "--plain", *messages).splitlines() == expected
    piped = "".join(f"{message}\n" for message in messages).encode()
    assert answered("text", "--plain", stdin=piped).splitlines() == expected


def test_json_answers_hold_the_message_and_the_version(model: Path) -> None:
    first, second = (json.loads(line) for line in answered("text", "--json", "win prize now", " ").splitlines())
    assert first == {
        "message": "win prize now", "spam_probability": pytest.approx(0.99, abs=0.1),
        "flagged": True, "model_version": 1,
    }  # fmt: skip
    assert second == {"message": " ", "spam_probability": None, "flagged": None, "model_version": 1}


@pytest.mark.parametrize(
    ("piped", "count", "empty"),
    [
        (b"one\ntwo\n", 2, []),
        (b"one\r\n\r\nthree", 3, [1]),
        (b"\n\n", 2, [0, 1]),
        (b"\xff\xfe win\n\x00\n \xe2\x80\x83\nlast", 4, [2]),
        (b"", 0, []),
    ],
)
def test_numbers_stay_on_the_lines_of_their_messages(model: Path, piped: bytes, count: int, empty: list[int]) -> None:
    found = answered("text", "--plain", stdin=piped).splitlines()
    assert len(found) == count
    assert [place for place, number in enumerate(found) if number == "nan"] == empty
    answers = [json.loads(line) for line in answered("text", "--json", stdin=piped).splitlines()]
    assert [one["message"] for one in answers] == [
        line.removesuffix("\r") for line in piped.decode("utf-8", "replace").removesuffix("\n").split("\n") if piped
    ]


class Choosy:
    """Scores every message alike, and cannot score one at all."""

    def score(self, texts: Sequence[str]) -> Scores:
        if "bad" in texts:
            raise ValueError("no sense")
        return Scores(np.full(len(texts), 0.75), 0.0, 0.0)


def test_a_message_that_makes_scoring_fail_has_no_number_and_costs_the_others_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = probabilities.OpenModel(3, Choosy(), 0.5).answers(["one", " ", "bad", "two"])  # type: ignore[arg-type]
    assert [one.spam_probability for one in found] == [0.75, None, None, 0.75]
    assert [one.flagged for one in found] == [True, None, None, True]
    assert [record.getMessage() for record in caplog.records] == ["message 3 cannot be scored: ValueError: no sense"]


def test_an_argument_that_is_not_utf8_is_read_as_far_as_it_is() -> None:
    assert probabilities.argument_text("caf\udce9 ☕") == "caf\ufffd ☕"


def test_a_version_that_is_not_there_names_those_that_are(model: Path) -> None:
    assert "model version 7: not in" in (said := refused(1, "text", "--model-version", "7", "hello"))
    assert "there are: 1" in said
    assert answered("text", "--plain", "--model-version", "1", "hello") == answered("text", "--plain", "hello")
    assert run("text", "--model-version", "0", "hello").exit_code == 2


def test_a_message_may_begin_with_a_dash(model: Path) -> None:
    assert answered("text", "--plain", "--", "-20% today only")


def test_a_terminal_asks_until_an_empty_line(model: Path) -> None:
    terminal = Terminal("text")
    assert "Loading version 1" in terminal.until("Message: ")
    terminal.type("win prize now\n")
    assert re.search(r"Probability of spam: \S*0\.9\d{3}", without_styles(terminal.until("Message: ")))
    terminal.type("\n")
    assert terminal.end()[0] == 0


def test_a_terminal_that_is_interrupted_says_no_more(model: Path) -> None:
    terminal = Terminal("text")
    terminal.until("Message: ")
    terminal.type("\x03")
    code, shown = terminal.end()
    assert code == 130
    assert "Traceback" not in shown


def test_a_line_in_a_pipe_is_answered_as_it_comes() -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as stream:
        found = probabilities.line_batches(stream)
        os.write(write, b"one\ntwo\nthr")
        assert next(found) == ["one", "two"]
        os.write(write, b"ee\n")
        assert next(found) == ["three"]
        os.write(write, b"four")
        os.close(write)
        assert list(found) == [["four"]]


def test_a_file_is_read_in_full_and_bounded_batches(tmp_path: Path) -> None:
    (tmp_path / "messages").write_bytes(b"x\n" * 25_000)
    with open(tmp_path / "messages", "rb") as stream:
        assert [len(batch) for batch in probabilities.line_batches(stream)] == [10_000, 10_000, 5_000]
    assert [len(batch) for batch in probabilities.line_batches(io.BytesIO(b"x\n" * 25_000))] == [10_000, 10_000, 5_000]


def test_a_line_without_end_is_cut_and_the_next_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probabilities, "_LINE_BYTES", 100_000)
    stream = io.BytesIO(b"a" * 250_000 + b"\nnext\n")
    assert [len(line) for batch in probabilities.line_batches(stream) for line in batch] == [100_000, 4]


# Explanations


def test_an_explanation_has_the_change_of_each_word_beside_it(model: Path) -> None:
    first, words, *_ = answered("explain", "win prize now").splitlines()
    assert re.fullmatch(r"Probability of spam: 0\.9\d{3} \(flagged, version 1\)", first)
    assert re.fullmatch(r"  win(\[\+\d\.\d\d\])? prize(\[\+\d\.\d\d\])? now(\[\+\d\.\d\d\])?", words)
    assert "[+" in words
    assert "[-" in answered("explain", "win prize now lunch you")


def test_an_explanation_says_what_the_model_says_of_the_message_without_the_word(model: Path) -> None:
    (one,) = (json.loads(line) for line in answered("explain", "--json", "win prize  at\nlunch").splitlines())
    assert (one["message"], one["model_version"]) == ("win prize  at\nlunch", 1)
    assert f"{one['spam_probability']:.6f}" == answered("text", "--plain", "win prize  at\nlunch").strip()
    assert [word["text"] for word in one["words"]] == ["win", "prize", "at", "lunch"]
    for word in one["words"]:
        left = one["message"][: word["start"]] + one["message"][word["end"] :]
        assert f"{word['probability_without']:.6f}" == answered("text", "--plain", left).strip()
        assert (word["change"] > 0) == (word["probability_without"] < one["spam_probability"])
    left = " ".join(word["text"] for word in one["words"] if word["text"] not in one["decisive"])
    (rest,) = (json.loads(line) for line in answered("text", "--json", left).splitlines())
    assert one["decisive"]
    assert rest["flagged"] != one["flagged"]
    said = f"  {'Not flagged' if one['flagged'] else 'Flagged'} without: {', '.join(one['decisive'])}"
    assert answered("explain", "win prize  at\nlunch").splitlines()[2] == said


def test_plain_explanations_are_a_line_a_word_and_a_message_of_nothing_has_none(model: Path) -> None:
    rows = [line.split("\t") for line in answered("explain", "--plain", "win lunch\x1b[2J", " ").splitlines()]
    assert [row[2] for row in rows] == ["win", "lunch[U+001B][2J"]
    assert all(float(change) and 0 <= float(probability) <= 1 for change, probability, _ in rows)
    assert json.loads(answered("explain", "--json", " "))["spam_probability"] is None
    assert answered("explain", " ") == "Probability of spam: nan (there is no text to score)\n"


def test_messages_to_explain_may_be_piped_in(model: Path) -> None:
    found = answered("explain", "--json", stdin=b"win prize now\nsee you\n").splitlines()
    assert [json.loads(line)["message"] for line in found] == ["win prize now", "see you"]


def test_a_terminal_colours_words_by_what_they_speak_for_unless_it_wants_no_colour(model: Path) -> None:
    code, shown = Terminal("explain", "win", "you").end()
    assert code == 0
    assert re.search(r"\n  \x1b\[(1;)?31mwin\x1b", shown), shown
    assert re.search(r"\n  \x1b\[(1;)?36myou\x1b", shown), shown
    assert re.search(r"\+\d\.\d\d +win +0\.\d{4} without it", without_styles(shown))
    bare = Terminal("explain", "win", "you", NO_COLOR="1").end()[1]
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", bare)
    assert re.search(r"win\[\+.*you\[-", without_styles(bare), re.DOTALL)


def test_a_message_of_a_batch_is_explained_from_the_snapshot_by_the_version_that_scored_it(
    trained: Path, folder: Path
) -> None:
    shutil.copytree(trained / "artifacts", folder / "artifacts")
    engine = open_database(DatabaseSettings(url="sqlite:///spamscore.db"))
    publish(engine, {"m-1": 0.9, "m-2": 0.1})
    engine.dispose()
    asked = ["explain", "--date", "2026-01-31", "--message-id"]
    assert "the messages of batch 1 are not here" in refused(1, *asked, "m-1")
    write_snapshot(folder, [(1, "m-1", "win prize now"), (2, "m-2", "see you at lunch")])
    first, second = (json.loads(line) for line in answered(*asked, "m-2", "--message-id", "m-1", "--json").splitlines())
    assert (first["batch_date"], first["message_id"], first["message"]) == ("2026-01-31", "m-2", "see you at lunch")
    assert [word["text"] for word in second["words"]] == ["win", "prize", "now"]
    assert "no message with text in batch 1 of 2026-01-31 is m-7, m-8." in refused(
        1, *asked, "m-7", "--message-id", "m-8"
    )
    assert "there is no published batch of 2026-02-01" in refused(
        1, "explain", "--date", "2026-02-01", "--message-id", "m-1"
    )
    export(folder, 2, "t2")
    publish_again = open_database(DatabaseSettings(url="sqlite:///spamscore.db"))
    publish(publish_again, {"m-1": 0.9}, version=7)
    publish_again.dispose()
    assert "model version 7: not in" in refused(1, *asked, "m-1")
    assert answered(*asked, "m-1", "--model-version", "1", "--plain")


@pytest.mark.parametrize(
    "arguments", [["--date", "today"], ["--message-id", "m"], ["--date", "today", "--message-id", "m", "hello"]]
)
def test_what_to_explain_is_either_messages_or_one_of_a_date(folder: Path, arguments: list[str]) -> None:
    done = run("explain", *arguments)
    assert (done.exit_code, "expected messages, or --date with --message-id" in done.stderr) == (2, True)


# Failures


def test_a_bad_setting_ends_with_2_and_one_line(folder: Path) -> None:
    for text, said in (
        ("[scoring]\nthreshold = 2\n", "[scoring] threshold"),
        ("[scorng]\nthreshold = 1\n", "did you mean scoring"),
        ("[database]\nurl = postgresql://me:${NOT_THERE}@h/d\n", "[database] url"),
    ):
        (folder / "luigi.cfg").write_text(text)
        done = started("batches", cwd=folder)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert said in done.stderr
    assert started("config", "--defaults", cwd=folder).returncode == 0


def test_bad_arguments_end_with_2(folder: Path) -> None:
    for arguments in (["nonsense"], ["scores"], ["batches", "--limit", "0"], ["scores", "today", "--order", "size"]):
        assert run(*arguments).exit_code == 2


def test_a_database_that_cannot_be_reached_ends_with_35(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPAMSCORE_DATABASE_URL", f"sqlite:///{folder}/not/there.db")
    for command in (["batches"], ["scores", "today"], ["summary"]):
        assert "no such folder" in refused(35, *command)


def test_a_failure_nobody_foresaw_is_one_line_and_debug_shows_where(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("a bug\x1b[2J")

    monkeypatch.setattr("pipeline.commands.context.check_settings", fail)
    said = refused(1, "models")
    assert "RuntimeError: a bug[U+001B][2J (unexpected; `spamscore --debug …` shows where)" in said
    done = run("--debug", "models")
    assert done.exit_code == 1
    assert "Traceback (most recent call last)" in done.stderr


def test_a_reader_that_goes_away_ends_it_quietly(database: Engine, folder: Path) -> None:
    publish(database, {f"message-{number:06}": 0.5 for number in range(20_000)})
    with subprocess.Popen(
        [SPAMSCORE, "scores", "2026-01-31"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"0.500000\ttrue\tmessage-000000\n"
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == b""


def test_a_full_disk_is_said(database: Engine, folder: Path) -> None:
    publish(database, SCORES)
    with open("/dev/full", "w") as full:
        done = subprocess.run([SPAMSCORE, "batches"], cwd=folder, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "spamscore: standard output: No space left on device\n")


def test_an_interrupt_ends_with_130(database: Engine, folder: Path) -> None:
    publish(database, {f"message-{number:06}": 0.5 for number in range(20_000)})
    with subprocess.Popen(
        [SPAMSCORE, "scores", "2026-01-31"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        process.stdout.read()
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() == b"\n"


def test_a_locale_without_the_characters_gets_their_numbers(database: Engine, folder: Path) -> None:
    publish(database, {"ü-1": 0.5})
    done = started("scores", "2026-01-31", cwd=folder, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (0, "0.500000\ttrue\t\\xfc-1\n")


# Completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_of_a_shell(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = answered("completion", shell)
    assert f"_SPAMSCORE_COMPLETE={shell}_complete" in script
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    assert answered("completion") == script


def test_completion_for_another_shell_names_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("completion", "powershell").exit_code == 2
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    done = run("completion")
    assert done.exit_code == 2
    assert "bash, zsh, fish" in done.stderr


@pytest.mark.parametrize(
    ("typed", "place", "offered"),
    [
        ("spamscore su", 1, "summary"),
        ("spamscore scores y", 2, "yesterday"),
        ("spamscore config sco", 2, "scoring"),
        ("spamscore scores today --fl", 3, "--flagged"),
    ],
)
def test_words_are_completed(folder: Path, typed: str, place: int, offered: str) -> None:
    environment = {**os.environ, "_SPAMSCORE_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(place)}
    assert started(env=environment, cwd=folder).stdout.split() == [f"plain,{offered}"]
