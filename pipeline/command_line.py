"""The command `spamscore`: asks the model about messages, and the database about what the nights wrote; takes it back.

A command reads settings, calls one function that answers, and prints. Those that change something ask before, unless
told `--yes`: withdraw, restore, serve and prune. What is heavy (TensorFlow,
SQLAlchemy, pyarrow, Rich) is imported inside the command that needs it, for a shell completing a word must not wait.
Running the tasks is Luigi's: ``luigi --module pipeline ScoreBatch``.

Exit codes: 0 done; 1 it failed; 2 a bad argument or setting; 35 the database cannot be used, as Luigi's own
``scheduling_error``; 130 interrupted; 141 whoever read the output went away.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO, TypeVar, cast

import click
from click.shell_completion import CompletionItem, get_completion_class

from models.errors import DatabaseError, InputError, SettingsError, SpamscoreError
from pipeline import tables
from pipeline.tables import Column, print_json, print_lines, print_rows
from tasks.settings import LUIGI_DEFAULTS, SECTIONS, DatabaseSettings, check_settings, load, prepare_luigi

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from pipeline.answers import Answer
    from pipeline.configuration import SettingInForce
    from tasks.batches import BatchRow, ScoreRow

SHELLS = ("bash", "zsh", "fish")
_FAILED, _USAGE, _DATABASE, _INTERRUPTED, _BROKEN_PIPE = 1, 2, 35, 130, 141
_PUBLISHED_NAMED = 5  # dates that an error names
_BATCHES_LOOKED_AT = 1000
_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Commands(click.Group):
    """The commands in the order they are written in; every failure ends in one line and an honest exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names for the help."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command that was asked for."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if ctx.params["debug"]:
                traceback.print_exc()
            ctx.exit(_ended_by(error))
        return result


def _ended_by(error: BaseException) -> int:
    """Says why a command failed, and gives its exit code."""
    if isinstance(error, KeyboardInterrupt):
        click.echo(err=True)
        return _INTERRUPTED
    if isinstance(error, BrokenPipeError):
        _silence_stdout()
        return _BROKEN_PIPE
    click.echo(f"spamscore: {_reason(error)}", err=True)
    if isinstance(error, SettingsError):
        return _USAGE
    return _DATABASE if isinstance(error, DatabaseError) else _FAILED


def _reason(error: BaseException) -> str:
    if isinstance(error, SpamscoreError):
        return tables.visible(str(error))
    if isinstance(error, OSError) and error.strerror:
        _silence_stdout()
        return f"{error.filename or 'standard output'}: {error.strerror}"
    return tables.visible(f"{type(error).__name__}: {error} (unexpected; `spamscore --debug …` shows where)")


def _silence_stdout() -> None:
    """Nothing more is written where it cannot be: what is left in the buffer would fail again as Python ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Date(click.ParamType[datetime.date]):
    """A date as 2026-01-31, or the words today and yesterday."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime.date:
        """Turns the argument into a date."""
        words = {"today": 0, "yesterday": 1}
        if value in words:
            return datetime.date.today() - datetime.timedelta(days=words[value])
        try:
            return datetime.date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r}: expected a date such as 2026-01-31, yesterday or today.", param, ctx)

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Offers the two words."""
        return [CompletionItem(word) for word in ("yesterday", "today") if word.startswith(incomplete)]


Command = TypeVar("Command", bound=Callable[..., Any])
_NUMBER = click.IntRange(min=1)


def _form(name: str, meaning: str) -> Callable[[Command], Command]:
    """An option that chooses the form of the answer; of several the last holds."""
    return click.option(f"--{name}", "form", flag_value=name, default=None, help=meaning)


def _yes(command: Command) -> Command:
    return click.option("--yes", is_flag=True, help="Do not ask.")(command)


def _examples(*lines: str) -> str:
    """An epilog of examples that click leaves as they stand."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


@click.group(
    cls=Commands,
    context_settings=_HELP,
    epilog=_examples(
        'spamscore text "You have WON a prize! Reply YES"   how likely a message is spam',
        "spamscore summary                                  what the last night did",
        "spamscore scores yesterday --flagged               what was flagged",
        "spamscore config scoring                           which settings hold, and why",
        "spamscore withdraw yesterday                       takes a night's scores back",
        "luigi --module pipeline ScoreBatch                 scores yesterday's messages",
    )
    + "\n\n\b\nExit codes: 0 done, 1 failed, 2 bad argument or setting, 35 no database, 130 interrupted.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
@click.version_option(package_name="spamscore", message="%(prog)s %(version)s", help="Show the version and exit.")
def cli(debug: bool) -> None:
    """Spam probabilities of text messages: ask the model, and see what the nightly batches wrote.

    Settings are read from luigi.cfg in the working folder, or where LUIGI_CONFIG_PATH says.
    """


@cli.command(
    short_help="Say how likely messages are spam.",
    epilog=_examples(
        'spamscore text "You have WON a prize! Reply YES to claim"',
        'spamscore text --json "Lunch at one?" "FREE entry, text WIN to 80086"',
        "spamscore text                                  asks for messages",
        "spamscore text --plain < messages.txt           a number for each line",
        "paste <(spamscore text --plain < m.txt) m.txt   both, side by side",
        "spamscore text -- -20% today only               after -- nothing is an option",
    ),
)
@click.argument("messages", metavar="[MESSAGE]...", nargs=-1)
@_form("plain", "Bare numbers with six decimals, one a line.")
@_form("json", "A JSON object a line: message, spam_probability, flagged, model_version.")
@click.option(
    "--model-version",
    type=click.IntRange(min=1),
    metavar="N",
    help="Version of the model instead of the one in service.",
)
def text(messages: tuple[str, ...], form: str | None, model_version: int | None) -> None:
    """Say how likely messages are spam.

    Each MESSAGE is scored. Without any, a terminal asks for messages until an empty line; a pipe or file gives one a
    line, answered as they come. The answers keep the order and number of the lines: an empty line, which no batch
    scores either, gives nan (null in JSON), and so does one that makes scoring itself fail. Bytes that are not UTF-8
    are read as U+FFFD.
    """
    read_settings()
    from pipeline import answers

    asks = not messages and sys.stdin is not None and sys.stdin.isatty()
    version = answers.chosen_version(model_version)
    with _said_meanwhile(f"Loading version {version} of the model …"):
        model = answers.open_model(version)
    if messages:
        _print_answers(model.answers([answers.argument_text(one) for one in messages]), form, beside=len(messages) > 1)
    elif asks:
        for message in answers.typed_messages("Message: "):
            _print_answers(model.answers([message]), form, beside=False)
    elif sys.stdin is not None:
        for batch in answers.line_batches(sys.stdin.buffer):
            _print_answers(model.answers(batch), form, beside=True)


@contextlib.contextmanager
def _said_meanwhile(line: str) -> Iterator[None]:
    """Shows a line on a terminal while something takes long."""
    watched = sys.stderr.isatty()
    if watched:
        click.echo(line, nl=False, err=True)
    try:
        yield
    finally:
        if watched:
            click.echo("\r\x1b[K", nl=False, err=True)


def _print_answers(answers: list[Answer], form: str | None, beside: bool) -> None:
    if form == "json":
        print_lines(tables.as_json(dataclasses.asdict(one)) for one in answers)
    elif form == "plain":
        print_lines("nan" if one.spam_probability is None else f"{one.spam_probability:.6f}" for one in answers)
    else:
        _show_answers(answers, beside)
    sys.stdout.flush()


def _show_answers(answers: list[Answer], beside: bool) -> None:
    console = tables.page()
    for one in answers:
        number = "nan" if one.spam_probability is None else f"{one.spam_probability:.4f}"
        said = f"Probability of spam: {number}"
        message = f"  {tables.shortened(one.message, console.width - len(said) - 2)}" if beside and one.message else ""
        if console.is_terminal:
            line = tables.styled("Probability of spam: ").append(number, "bold red" if one.flagged else "bold")
            console.print(line.append(message), soft_wrap=True)
        else:  # many times faster, for a file may have millions
            print_lines([said + message])


@cli.command(
    short_help="List the batches: state, counts, times.",
    epilog=_examples(
        "spamscore batches",
        "spamscore batches --limit 100 --json | jq '.[] | select(.state == \"published\") | .flagged'",
        "spamscore batches | cut -f 2,3,8                date, state and flagged, with tabs between",
    ),
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", default=20, show_default=True, help="Most batches shown."
)
@_form("json", "A JSON array of objects with every column of score_batches.")
def batches(limit: int, form: str | None) -> None:
    """List the batches, the newest date first.

    In a pipe: a line a batch with tabs between id, date, state, model version, read, scored, rejected, flagged,
    published at (UTC), seconds. The counts are there once a batch was published.
    """
    engine = open_scores()
    from tasks.batches import batches as found_batches

    found = found_batches(engine, limit)
    if form == "json":
        print_json([dataclasses.asdict(one) for one in found])
        return
    print_rows(_BATCH_COLUMNS, found)
    if not found:
        _remark(f"no batches yet. Score one: {_SCORE}")


_SCORE = "luigi --module pipeline ScoreBatch"
_BATCH_COLUMNS = [
    Column("id", lambda batch: batch.batch_id, right=True),
    Column("date", lambda batch: batch.batch_date, style="bold"),
    Column("state", lambda batch: batch.state),
    Column("model", lambda batch: batch.model_version, right=True, leaves=1),
    Column("read", lambda batch: batch.messages_read, tables.count, right=True),
    Column("scored", lambda batch: batch.scored, tables.count, right=True, leaves=3),
    Column("rejected", lambda batch: batch.rejected, tables.count, right=True),
    Column("flagged", lambda batch: batch.flagged, tables.count, right=True, style="bold"),
    Column("published (UTC)", lambda batch: batch.published_at, tables.minute, leaves=2),
    Column(
        "took",
        lambda batch: batch.seconds_total and round(batch.seconds_total, 3),
        tables.duration,
        right=True,
        leaves=4,
    ),
]


def _remark(line: str) -> None:
    """Says something beside the answer, where a program that reads the answer does not see it."""
    click.echo(f"spamscore: {line}", err=True)


@cli.command(
    short_help="Show the published scores of a date.",
    epilog=_examples(
        "spamscore scores yesterday --flagged",
        "spamscore scores 2026-01-31 --limit 100",
        "spamscore scores 2026-01-31 --order message_id --csv > scores.csv",
        "spamscore scores today --json | jq -r 'select(.spam_probability > 0.9) | .message_id'",
        "spamscore scores today --plain | head           stops early, as it should",
    ),
)
@click.argument("date", type=Date())
@click.option("--flagged", is_flag=True, help="Only messages whose probability reaches the threshold.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Most messages shown; all if not given.")
@click.option(
    "--order",
    type=click.Choice(["probability", "message_id"]),
    default="probability",
    show_default=True,
    help="The most suspicious first, or by identifier.",
)
@_form("plain", "As in a pipe, in a terminal too.")
@_form("csv", "CSV with a head and every column of published_scores; exact in a file or pipe.")
@_form("json", "A JSON object a line, with every column of published_scores.")
def scores(
    date: datetime.date, flagged: bool, limit: int | None, order: Literal["probability", "message_id"], form: str | None
) -> None:
    """Show the published scores of DATE (2026-01-31, yesterday, today), streamed.

    In a pipe: a line a message with tabs between probability, flagged (true or false) and message_id, which is made
    visible where it holds what a terminal would act on.
    """
    engine = open_scores()
    from tasks.batches import scores as found_scores

    batch = require_published(engine, date)
    rows = found_scores(engine, date, flagged, limit, order)
    if form == "json":
        print_lines(tables.as_json(row._asdict()) for row in rows)
    elif form == "csv":
        from tasks.batches import ScoreRow

        print_lines(tables.csv_lines(ScoreRow._fields, rows))
    elif form == "plain" or not tables.in_terminal():
        print_lines(
            f"{row.spam_probability:.6f}\t{tables.plain(row.flagged)}\t{tables.visible(row.message_id)}" for row in rows
        )
    else:
        _show_scores(batch, rows)


def _show_scores(batch: BatchRow, rows: Iterator[ScoreRow]) -> None:
    console = tables.page()
    from_where = f"of batch {batch.batch_id}, by version {batch.model_version}"
    console.print(tables.styled(f"probability         message_id {from_where}", "bold"))
    for row in rows:
        line = tables.styled(f"{row.spam_probability:.6f}  ", "bold" if row.flagged else "")
        line.append("flagged  " if row.flagged else "         ", "bold red").append("   ")
        console.print(line.append(tables.visible(row.message_id)), soft_wrap=True)


@cli.command(
    short_help="Tell what happened in a night's batch.",
    epilog=_examples(
        "spamscore summary                               the newest published batch",
        "spamscore summary 2026-01-31",
        "spamscore summary yesterday --json | jq .flagged_share",
    ),
)
@click.argument("date", type=Date(), required=False)
@_form("json", "A JSON object: the columns of score_batches, rejected_because, most_suspicious and where the rows are.")
def summary(date: datetime.date | None, form: str | None) -> None:
    """Tell what happened in the published batch of DATE; of the newest date if not given.

    How many messages were read, scored, rejected and why, flagged; by which model; where the rows are; the ten most
    suspicious messages, with their texts where the snapshot that was scored is still there.
    """
    engine = open_scores()
    from pipeline.summary import print_summary, summarize

    batch = require_published(engine, date)
    found = summarize(engine, batch)
    if form == "json":
        print_json(found.to_dict())
    else:
        print_summary(found)


def require_published(engine: Engine, date: datetime.date | None) -> BatchRow:
    """The published batch of a date, or of the newest that has one.

    Raises:
        InputError: there is none; names dates that have one.
    """
    from tasks.batches import batches as found_batches
    from tasks.batches import published_batch

    if date is not None and (batch := published_batch(engine, date)):
        return batch
    published = [one for one in found_batches(engine, _BATCHES_LOOKED_AT) if one.state == "published"]
    if date is None and published:
        return published[0]
    dates = ", ".join(str(one.batch_date) for one in published[:_PUBLISHED_NAMED])
    there = f"the newest dates that have one: {dates}" if dates else "no date has one yet"
    of = f" of {date}" if date else ""
    again = _SCORE + (f" --date {date}" if date else "")
    raise InputError(f"there is no published batch{of}; {there}. Score it: {again}")


@cli.command(
    short_help="List the exported versions of the model.",
    epilog=_examples(
        "spamscore models",
        "spamscore models --json | jq '.[] | select(.in_service)'",
        "spamscore models | cut -f 1,4                   version and PR AUC, with tabs between",
    ),
)
@_form("json", "A JSON array of objects.")
def models(form: str | None) -> None:
    """List the exported versions of the model, and which one is in service.

    PR AUC and MCC are those of EvaluateModel on the test part; training is the fingerprint that names the folder of the
    checkpoints. In a pipe: a line a version with tabs between version, in service (true or false), exported at, PR AUC,
    MCC, training.
    """
    read_settings()
    from pipeline.versions import exported_versions

    found = exported_versions()
    if form == "json":
        print_json([dataclasses.asdict(one) for one in found])
        return
    print_rows(_MODEL_COLUMNS, found)
    if not found:
        _remark("no version of the model yet. Export one: luigi --module pipeline ExportModel")


_MODEL_COLUMNS = [
    Column("version", lambda one: one.version, right=True, style="bold"),
    Column("", lambda one: one.in_service, lambda value: "in service" if value else "", style="bold green"),
    Column(
        "exported (UTC)",
        lambda one: one.exported_at,
        tables.minute,
        leaves=2,
    ),
    Column("PR AUC", lambda one: one.pr_auc, "{:.4f}".format, right=True),
    Column("MCC", lambda one: one.mcc, "{:.4f}".format, right=True),
    Column("training", lambda one: one.training, leaves=1),
]


def _complete_section(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    return [one for one in dict.fromkeys([*SECTIONS, *LUIGI_DEFAULTS]) if one.startswith(incomplete)]


@cli.command(
    short_help="Check that a batch's rows are those that were published.",
    epilog=_examples(
        "spamscore verify yesterday",
        "spamscore verify 2026-01-31 --batch 3           before it is restored",
        "spamscore verify yesterday --json | jq .agrees",
    ),
)
@click.argument("date", type=Date())
@click.option("--batch", "number", type=_NUMBER, metavar="N", help="A batch of the date instead of the published one.")
@_form("json", "A JSON object: batch_id, batch_date, state, agrees, and what was compared.")
def verify(date: datetime.date, number: int | None, form: str | None) -> None:
    """Check that the rows of the published batch of DATE are still those that were published.

    The checksum is computed from the rows again, the rows are counted, and both are compared with what score_batches
    says; messages_read must be scored + rejected. Exit code 0 when all agree, 1 when not. In a pipe: a line for each
    with tabs between what it is, expected (score_batches), found (the rows) and whether they agree (true or false).
    """
    engine = open_scores()
    from pipeline.undo import batch_of_date, verified

    found = verified(engine, batch_of_date(engine, date, number) if number else require_published(engine, date))
    if form == "json":
        print_json(found.to_dict())
    else:
        print_rows(_COMPARISON_COLUMNS, found.compared)
    if not found.agrees:
        _remark(found.said())
        raise click.exceptions.Exit(_FAILED)


_COMPARISON_COLUMNS = [
    Column("compared", lambda one: one.name, style="bold"),
    Column("expected", lambda one: one.expected, right=True),
    Column("found", lambda one: one.found, right=True),
    Column("", lambda one: one.agrees, lambda agrees: "agrees" if agrees else "differs"),
]


@cli.command(
    short_help="Take a date's published scores back.",
    epilog=_examples(
        "spamscore withdraw yesterday",
        "spamscore withdraw 2026-01-31 --yes             without a question, for scripts",
        "spamscore restore 2026-01-31 --batch 3          puts them back",
    ),
)
@click.argument("date", type=Date())
@_yes
def withdraw(date: datetime.date, yes: bool) -> None:
    """Take the published batch of DATE back: published_scores shows nothing of the date from then on.

    One transaction. The rows stay, so that `spamscore restore` can put them back, until `spamscore prune` deletes them.
    The next run of the date scores it anew.
    """
    engine = open_scores()
    from pipeline.undo import question_of_withdrawing
    from tasks.ledger import withdraw_batch

    batch = require_published(engine, date)
    _ask(question_of_withdrawing(batch), yes)
    withdraw_batch(engine, batch.batch_id)
    print_lines([f"batch {batch.batch_id} of {date} is withdrawn: published_scores shows nothing of the date"])
    _remark(f"to put it back: spamscore restore {date} --batch {batch.batch_id}; a run of the date scores it anew")


@cli.command(
    short_help="Publish an older batch of a date again.",
    epilog=_examples(
        "spamscore batches                               which batches there are",
        "spamscore verify 2026-01-31 --batch 3           whether its rows are whole",
        "spamscore restore 2026-01-31 --batch 3",
    ),
)
@click.argument("date", type=Date())
@click.option("--batch", "number", type=_NUMBER, metavar="N", required=True, help="The batch to publish again.")
@_yes
def restore(date: datetime.date, number: int, yes: bool) -> None:
    """Publish a superseded or withdrawn batch of DATE again, in place of the one published now.

    One transaction: who reads published_scores sees the rows of the one or of the other. The batch must have been
    published once and have all its rows. No run of the same settings undoes it.
    """
    engine = open_scores()
    from pipeline.undo import question_of_restoring, restorable
    from tasks.batches import published_batch
    from tasks.ledger import restore_batch

    batch = restorable(engine, date, number)
    before = published_batch(engine, date)
    if batch.state != "published":
        _ask(question_of_restoring(batch, before), yes)
        restore_batch(engine, number)
    shown = f"published_scores shows its {tables.count(batch.scored or 0)} rows"
    print_lines([f"batch {number} of {date} is published{' already' * (batch.state == 'published')}: {shown}"])


@cli.command(
    short_help="Put another version of the model in service.",
    epilog=_examples(
        "spamscore models                                which versions there are",
        "spamscore serve 3",
        "spamscore serve 3 --yes                         without a question, for scripts",
    ),
)
@click.argument("version", type=_NUMBER)
@_yes
def serve(version: int, yes: bool) -> None:
    """Put VERSION of the model in service, an older or a newer one: the next batch is scored with it.

    It holds until a newer version is exported, which is in service from then on. Dates that are scored already stay as
    they are; to score one again: luigi --module pipeline ScoreBatch --date DATE --model-version VERSION
    """
    read_settings()
    from pipeline.undo import servable
    from tasks.exports import put_in_service

    before = servable(version)
    if version == before:
        print_lines([f"version {version} is in service already"])
        return
    _ask(f"Version {before} is in service. Score the next batches with version {version} instead?", yes)
    put_in_service(version)
    print_lines([f"version {version} is in service until a newer one is exported; before, it was version {before}"])


@cli.command(
    short_help="Delete the rows of old batches that nobody reads.",
    epilog=_examples(
        "spamscore prune --dry-run                       what would go",
        "spamscore prune --keep-days 30",
        "spamscore prune --yes                           every night, from cron",
        "sqlite3 spamscore.db VACUUM                     gives the room back to the disk",
    ),
)
@click.option(
    "--keep-days",
    type=click.IntRange(min=0, max=36_500),
    metavar="N",
    help="Batches of the last N days are kept, all if 0; [database] keep_days if not given.",
)
@click.option("--dry-run", is_flag=True, help="Say what would go, and delete nothing.")
@_yes
def prune(keep_days: int | None, dry_run: bool, yes: bool) -> None:
    """Delete the rows of superseded, withdrawn and stale running batches whose date is older than N days.

    Published batches stay, however old. Of the others the scores, rejected messages and chunks go, for good; the row in
    score_batches stays as history. Stale is a running batch that was begun, and last written to, before those days.
    Each transaction deletes 10,000 rows at most. Killed in the middle, it can simply be run again. SQLite fills the
    room with new rows; its VACUUM, which needs the database for itself, gives it back to the disk.
    """
    engine = open_scores()
    from pipeline.undo import pruned_line, question_of_pruning
    from tasks.retention import prunable, prune_batch

    days = load(DatabaseSettings).keep_days if keep_days is None else keep_days
    before = datetime.date.today() - datetime.timedelta(days=days)
    found = prunable(engine, before) if days else []
    if not found:
        _remark(f"nothing to delete before {before}" if days else "nothing to delete: 0 days keep all")
    elif dry_run:
        print_lines(map(pruned_line, found))
    else:
        _ask(question_of_pruning(found, before), yes)
        for one in found:
            print_lines([pruned_line(prune_batch(engine, one, before))])
            sys.stdout.flush()


def _ask(question: str, yes: bool) -> None:
    """Asks a person, unless told that the answer is yes.

    Raises:
        InputError: there is nobody to ask.
    """
    if yes:
        return
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InputError(f"{question} There is no terminal to ask in, and nothing was changed: answer with --yes")
    click.echo(f"{question} [y/N] ", nl=False, err=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        _remark("nothing was changed")
        raise click.exceptions.Exit(_FAILED)


@cli.command(
    short_help="Show every setting, and where it came from.",
    epilog=_examples(
        "spamscore config",
        "spamscore config scoring --long                 with what each setting is for",
        "spamscore config --defaults > luigi.cfg         a file to start from",
        "spamscore config | grep -v default$             what was changed",
        "SPAMSCORE_DATABASE_URL=postgresql://… spamscore config database",
    ),
)
@click.argument("section", required=False, shell_complete=_complete_section)
@click.option("--long", "is_long", is_flag=True, help="Say what each setting is for.")
@click.option("--defaults", is_flag=True, help="Print a complete luigi.cfg with every setting at its default.")
@_form("json", "A JSON array of objects: section, key, value, source, default, description.")
def config(section: str | None, is_long: bool, defaults: bool, form: str | None) -> None:
    """Show every setting, its value, and where it came from; those of one SECTION if given.

    The value may come from a file (its path is shown), an environment variable (its name is shown) or be the default.
    Passwords are masked. In a pipe: a line a setting with tabs between section, key, value and source.
    """
    from pipeline import configuration

    if defaults:
        print_lines([configuration.default_file()])
        return
    read_settings()
    found = configuration.settings_in_force(section)
    if form == "json":
        print_json([dataclasses.asdict(one) for one in found])
    elif tables.in_terminal():
        _show_settings(found, is_long)
    else:
        columns = ("section", "key", "value", "source", *(("description",) if is_long else ()))
        print_lines("\t".join(tables.plain(getattr(one, name)) for name in columns) for one in found)


def _show_settings(found: list[SettingInForce], is_long: bool) -> None:
    from rich.padding import Padding

    console = tables.page()
    key_width = max(len(one.key) for one in found)
    room = console.width - key_width - max(len(one.source) for one in found) - 6
    value_width = max(10, min(room, max(tables.cell_len(tables.visible(one.value)) for one in found)))
    for number, (section, settings) in enumerate(itertools.groupby(found, lambda one: one.section)):
        console.print(tables.styled("\n" * bool(number) + f"[{section}]", "bold"))
        for one in settings:
            changed = one.value != one.default
            value = tables.shortened(one.value, value_width)
            line = tables.styled(f"  {one.key:<{key_width}}  ")
            line.append(value + " " * (value_width - tables.cell_len(value)), "bold" if changed else "")
            console.print(line.append(f"  {one.source}", "" if changed else "dim"), soft_wrap=True)
            if is_long:
                console.print(Padding(tables.styled(one.description, "dim"), (0, 0, 0, 6)))


@cli.command(
    short_help="Print a script for completion in a shell.",
    epilog=_examples(
        'eval "$(spamscore completion bash)"                                        in ~/.bashrc',
        'eval "$(spamscore completion zsh)"                                         in ~/.zshrc',
        "spamscore completion fish > ~/.config/fish/completions/spamscore.fish      once",
    ),
)
@click.argument("shell", type=click.Choice(SHELLS), required=False)
def completion(shell: str | None) -> None:
    """Print the script that completes commands and options in SHELL; in the shell of $SHELL if not given.

    To install it, put the line of your shell into its start-up file, and open a new terminal.
    """
    chosen = shell or Path(os.environ.get("SHELL", "")).name
    script = get_completion_class(chosen)
    if script is None:
        raise click.UsageError(f"expected one of {', '.join(SHELLS)}, received {chosen or 'no $SHELL'!r}")
    print_lines([script(cli, {}, "spamscore", "_SPAMSCORE_COMPLETE").source()])


def read_settings() -> None:
    """Reads luigi.cfg and the environment, and holds every value to what is declared.

    Raises:
        SettingsError: one cannot be used.
    """
    prepare_luigi()
    check_settings()


def open_scores() -> Engine:
    """The database of the scores. Nothing is made where there is none.

    Raises:
        SettingsError: a setting cannot be used.
        DatabaseError: the database cannot be reached.
    """
    read_settings()
    from tasks.database import connect

    return connect(load(DatabaseSettings))


def main() -> None:
    """The entry point of the command."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that does not know a character gets its number rather than a failure.
        if stream is not None:
            cast("Any", stream).reconfigure(errors="backslashreplace")
    if sys.stdout is None:
        sys.stdout = cast("TextIO", open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for as long as we run
    cli.main(prog_name="spamscore")
