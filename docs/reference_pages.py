"""A Sphinx extension that writes the reference pages made from declarations into docs/reference/_generated.

Settings, commands, exit codes, tables and stages are declared once, in the code. Each page of docs/reference includes
what is written here. A function returns the Markdown of one page; `setup` has them written before each build.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import luigi
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

import pipeline
from models import errors
from models.settings import Setting, declared_settings
from pipeline import command_line
from pipeline.answers import configuration
from pipeline.commands import group
from tasks.database import tables
from tasks.scheduler import termination
from tasks.scheduler.luigi_defaults import LUIGI_DEFAULTS
from tasks.settings.loading import environment_variable
from tasks.settings.sections import SECTIONS

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = Path(__file__).parent
GENERATED = HERE / "reference" / "_generated"


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the extension."""
    app.connect("builder-inited", lambda _: write_pages(GENERATED))
    app.connect("autodoc-process-docstring", keep_drawings)
    app.connect("autodoc-skip-member", skip_tuple_fields)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_pages(folder: Path) -> None:
    """Writes every generated page; a file whose content is the same keeps its time."""
    folder.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        path, content = folder / f"{name}.md", "\n".join(page()) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            path.write_text(content, encoding="utf-8")


def skip_tuple_fields(_app: Sphinx, _what: str, _name: str, value: Any, _skip: bool, _options: Any) -> bool | None:
    """Leaves out the fields of named tuples, which have no text of their own; the signature has them."""
    return True if type(value).__name__ == "_tuplegetter" else None


def keep_drawings(_app: Sphinx, what: str, _name: str, _value: Any, _options: Any, lines: list[str]) -> None:
    """Keeps the lines of an indented block of a module's docstring, such as a tree, as they are."""
    starts = [
        number for number in range(2, len(lines))
        if lines[number].startswith("    ") and not lines[number - 1] and not lines[number - 2].startswith(" ")
        and not lines[number - 2].endswith("::")
    ]  # fmt: skip
    for number in reversed(starts if what == "module" else []):
        lines[number:number] = ["::", ""]


# Settings


SETTINGS: list[Setting] = [one for section, kind in SECTIONS.items() for one in declared_settings(section, kind)]


def settings_page() -> Iterator[str]:
    """Returns each section of luigi.cfg with its settings, Luigi's own at the end."""
    for section, settings_class in SECTIONS.items():
        yield f"## [{section}]\n\n{escaped(sentence(section_meaning(settings_class)))}\n"
        for one in [one for one in SETTINGS if one.section == section]:
            yield confval(one.section, one.key, expected(one), one.default, setting_text(one))
    yield "## Luigi's own sections\n"
    yield "Other defaults than Luigi's own, in force where no file sets them.\n"
    for section, values in LUIGI_DEFAULTS.items():
        for key, value in values.items():
            yield confval(section, key, "", value, escaped(sentence(luigi_meaning(section, key))))


def confval(section: str, key: str, kind: str, default: Any, text: str) -> str:
    """Returns one setting as Sphinx's directive for configuration values."""
    shown = written(default)
    facts = f"{kind}Default: {f'`{shown}`' if shown else 'empty'}."
    return f"```{{confval}} [{section}] {key}\n\n{text}\n\n{facts}\n```\n"


def setting_text(one: Setting) -> str:
    """Returns what a setting is for, and the environment variable that goes before luigi.cfg."""
    variable = environment_variable(one)
    return escaped(sentence(one.rule.description)) + (f"\n\nEnvironment: `{variable}`." if variable else "")


def expected(one: Setting) -> str:
    """Returns the values that are allowed, as the beginning of a line."""
    values = one.rule.describe_expected(one.kind)
    return "" if values == "text" else f"Value: {escaped(values)}. "


def section_meaning(settings_class: type) -> str:
    """Returns the description of a section, from the docstring of its dataclass."""
    return " ".join(inspect.getdoc(settings_class).split(": ", 1)[1].split("\n\n")[0].split())


def luigi_meaning(section: str, key: str) -> str:
    """Returns what a setting of Luigi's is for."""
    meanings: Any = configuration._LUIGI_DESCRIPTIONS
    return str(meanings[section][key])


# Commands


def commands_page() -> Iterator[str]:
    """Returns every command of `spamscore`: usage, description, options, examples."""
    cli = command_line.cli
    whole = click.Context(cli, info_name="spamscore", **cli.context_settings)
    yield "## spamscore\n"
    yield from described(cli, whole)
    for name, command in cli.commands.items():
        yield f"## spamscore {name}\n"
        yield from described(command, click.Context(command, info_name=name, parent=whole))


def described(command: click.Command, context: click.Context) -> Iterator[str]:
    """Returns the usage of a command, its help, its options and its examples."""
    yield f"```text\n{context.command_path} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        yield escaped(" ".join(paragraph.split())) + "\n"
    for option in command.params:
        if isinstance(option, click.Option) and (record := option.get_help_record(context)):
            names, meaning = record
            yield f"`{names}`\n: {escaped(meaning)}\n"
    if shown := examples(command):
        yield "```sh\n" + "\n".join(shown) + "\n```\n"


def examples(command: click.Command) -> list[str]:
    """Returns the examples of a command's help; what stands beside one becomes a comment."""
    lines = [line.strip() for line in (command.epilog or "").splitlines() if line.startswith("  ")]
    return [re.sub(r" {3,}(?=\S)", "  # ", line) for line in lines]


# Exit codes


@dataclasses.dataclass(frozen=True)
class ExitCode:
    """An exit code, its name in the declarations and its meaning."""

    code: int
    name: str
    meaning: str


def exit_codes_page() -> Iterator[str]:
    """Returns the exit codes of both commands."""
    yield "## Exit codes of luigi\n"
    for one in luigi_codes():
        name = f" `{one.name}`" if one.name else ""
        way_out = f"[Way out](../operations.md#exit-code-{one.code})"
        yield f"**{one.code}**{name}\n: {escaped(one.meaning)} {way_out}\n"
    yield "## Exit codes of spamscore\n"
    for one in command_line_codes():
        yield f"**{one.code}**\n: {escaped(one.meaning)}\n"


def luigi_codes() -> list[ExitCode]:
    """Returns the exit codes of `luigi --module pipeline`, by number.

    Those of [retcode] and those of errors are declared. 0, 1 and 2 are Python's and argparse's, 143 is the signal's.
    """
    codes = {
        0: ExitCode(0, "", "Done."),
        1: ExitCode(1, "", "No such task."),
        2: ExitCode(2, "", "Unknown option, or a settings file that cannot be parsed."),
        termination.EXIT_CODE: ExitCode(termination.EXIT_CODE, "", "Ended by SIGTERM."),
    }
    for error in subclasses(errors.SpamscoreError):
        if error.exit_code is not None:
            meaning = inspect.getdoc(error).split("\n\n")[0]
            codes[error.exit_code] = ExitCode(error.exit_code, error.__name__, " ".join(meaning.split()))
    for name, code in LUIGI_DEFAULTS["retcode"].items():
        meaning = sentence(luigi_meaning("retcode", name).removeprefix("exit code when "))
        codes[int(code)] = ExitCode(int(code), f"[retcode] {name}", meaning)
    return [codes[code] for code in sorted(codes)]


def subclasses(base: type) -> Iterator[Any]:
    """Returns every class below one."""
    for one in base.__subclasses__():
        yield one
        yield from subclasses(one)


def command_line_codes() -> list[ExitCode]:
    """Returns the exit codes of `spamscore`."""
    return [ExitCode(code, "", sentence(meaning)) for code, meaning in group.EXIT_CODES.items()]


# Tables


def tables_page() -> Iterator[str]:
    """Returns each table with its columns: type, key and meaning."""
    meanings = tomllib.loads((HERE / "reference" / "columns.toml").read_text(encoding="utf-8"))
    for table in [tables.published_scores, *tables.metadata.sorted_tables]:
        columns = readable_columns(table)
        known = meanings.pop(table.name)
        yield f"## {table.name}\n\n{escaped(known.pop('row'))}\n"
        yield "| column | type | meaning |\n| --- | --- | --- |"
        for column in columns:
            meaning = column.comment if isinstance(column, sa.Column) and column.comment else known.pop(column.name)
            yield f"| `{column.name}`{key_mark(column)} | {column_type(column)} | {escaped(meaning)} |"
        yield ""
        if known:
            raise ValueError(f"columns.toml: [{table.name}] has no column {', '.join(known)}")
    if meanings:
        raise ValueError(f"columns.toml: there is no table {', '.join(meanings)}")


def readable_columns(table: Any) -> list[Any]:
    """Returns the columns that a reader needs: all but the generated ones, which hold a constraint."""
    return [column for column in table.columns if getattr(column, "computed", None) is None]


def key_mark(column: Any) -> str:
    """Returns a mark for a column of the primary key."""
    return " (key)" if getattr(column, "primary_key", False) else ""


def column_type(column: Any) -> str:
    """Returns the type of a column on PostgreSQL, and whether it may be null."""
    name = column.type.compile(dialect=postgresql.dialect()).replace(' COLLATE "C"', "").lower()
    return name + (", null" if getattr(column, "nullable", False) and isinstance(column, sa.Column) else "")


# Stages


def stages_page() -> Iterator[str]:
    """Returns each task of `luigi --module pipeline`, in the order of the chain, with its parameters."""
    for name in CHAIN:
        task = getattr(pipeline, name)
        first, *others = inspect.getdoc(task).split("\n\n")
        yield f"### {name}\n\n{escaped(' '.join(first.split()))}\n"
        for paragraph in others:
            yield escaped(" ".join(paragraph.replace("``", "`").split())) + "\n"
        for parameter, declaration in parameters(task):
            yield f"`--{parameter.replace('_', '-')}`\n: {escaped(sentence(declaration.description))}\n"


def parameters(task: type[luigi.Task]) -> list[tuple[str, Any]]:
    """Returns the parameters of a task that the command line takes."""
    return [(name, one) for name, one in task.get_params() if one.description]


CHAIN = (
    "IngestCorpus", "CleanText", "BuildVocabulary", "TrainModel", "EvaluateModel", "ExportModel", "ExtractMessages",
    "ScoreBatch", "ReportBatch", "Nightly",
)  # fmt: skip


# Text


def written(value: Any) -> str:
    """Returns a value as luigi.cfg has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def sentence(text: str) -> str:
    """Returns a fragment as a sentence: a capital at its beginning unless it is a name, a full stop at its end."""
    first, _, rest = text.partition(" ")
    begin = first if re.search(r"[\W_]|\d", first) or first != first.lower() else first.capitalize()
    whole = f"{begin} {rest}".strip()
    return whole if whole.endswith((".", "?")) else whole + "."


def escaped(text: str) -> str:
    """Returns plain text as Markdown that shows the same; what stands between backticks stays as it is."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([\\*_<>\[\]{}#|$~])", r"\\\1", part) for part in parts)


PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "settings": settings_page,
    "commands": commands_page,
    "exit-codes": exit_codes_page,
    "tables": tables_page,
    "stages": stages_page,
}
