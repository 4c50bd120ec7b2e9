"""Writes the reference pages that are made from declarations into docs/reference/_generated, as a Sphinx extension.

The code declares settings, commands, exit codes, tables and stages once. Each function in `PAGES` yields the Markdown
of one page, and a page of docs/reference includes it. `setup` writes all pages before each build.
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
from pipeline import command_group, command_line
from pipeline.answers import configuration
from pipeline.answers.configuration import format_value
from tasks.database import tables
from tasks.scheduler import termination
from tasks.scheduler.luigi_defaults import LUIGI_DEFAULTS
from tasks.settings.loading import environment_variable
from tasks.settings.sections import SECTIONS

if TYPE_CHECKING:
    from sphinx.application import Sphinx

REFERENCE = Path(__file__).parent / "reference"
GENERATED = REFERENCE / "_generated"


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the extension."""
    app.connect("builder-inited", lambda _: write_pages(GENERATED))
    app.connect("autodoc-process-docstring", keep_indented_blocks)
    app.connect("autodoc-skip-member", skip_tuple_fields)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_pages(folder: Path) -> None:
    """Writes every generated page. Does not touch a file whose content is the same: Sphinx compares the times."""
    folder.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        path, content = folder / f"{name}.md", "\n".join(page()) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            path.write_text(content, encoding="utf-8")


def skip_tuple_fields(_app: Sphinx, _what: str, _name: str, value: Any, _skip: bool, _options: Any) -> bool | None:
    """Leaves out the fields of named tuples: they have no docstring, and the signature lists them."""
    return True if type(value).__name__ == "_tuplegetter" else None


def keep_indented_blocks(_app: Sphinx, what: str, _name: str, _value: Any, _options: Any, lines: list[str]) -> None:
    """Makes an indented block of a module's docstring, such as a tree, a literal block."""
    starts = [
        number for number in range(2, len(lines))
        if lines[number].startswith("    ") and not lines[number - 1] and not lines[number - 2].startswith(" ")
        and not lines[number - 2].endswith("::")
    ]  # fmt: skip
    for number in reversed(starts if what == "module" else []):
        lines[number:number] = ["::", ""]


# Settings


SETTINGS: list[Setting] = [
    setting for section, settings_class in SECTIONS.items() for setting in declared_settings(section, settings_class)
]


def settings_page() -> Iterator[str]:
    """Yields each section of luigi.cfg with its settings, and then Luigi's own sections."""
    for section, settings_class in SECTIONS.items():
        yield f"## [{section}]\n\n{escape_markdown(to_sentence(describe_section(settings_class)))}\n"
        for setting in [setting for setting in SETTINGS if setting.section == section]:
            allowed = format_allowed_values(setting)
            yield render_confval(setting.section, setting.key, allowed, setting.default, describe_setting(setting))
    yield "## Luigi's own sections\n"
    yield "These defaults differ from Luigi's own. They apply where no file sets a value.\n"
    for section, values in LUIGI_DEFAULTS.items():
        for key, value in values.items():
            description = escape_markdown(to_sentence(describe_luigi_setting(section, key)))
            yield render_confval(section, key, "", value, description)


def render_confval(section: str, key: str, allowed: str, default: Any, text: str) -> str:
    """Renders one setting as Sphinx's directive for configuration values."""
    value = format_value(default)
    facts = f"{allowed}Default: {f'`{value}`' if value else 'empty'}."
    return f"```{{confval}} [{section}] {key}\n\n{text}\n\n{facts}\n```\n"


def describe_setting(setting: Setting) -> str:
    """Returns the description of a setting, and the environment variable that takes precedence over luigi.cfg."""
    variable = environment_variable(setting)
    description = escape_markdown(to_sentence(setting.rule.description))
    return description + (f"\n\nEnvironment: `{variable}`, or `{variable}_FILE`." if variable else "")


def format_allowed_values(setting: Setting) -> str:
    """Returns the allowed values of a setting as the start of a line; empty if any text is allowed."""
    values = setting.rule.describe_expected(setting.kind)
    return "" if values == "text" else f"Value: {escape_markdown(values)}. "


def describe_section(settings_class: type) -> str:
    """Returns the description of a section, from the docstring of its dataclass."""
    return " ".join(inspect.getdoc(settings_class).split(": ", 1)[1].split("\n\n")[0].split())


def describe_luigi_setting(section: str, key: str) -> str:
    """Returns the description of one of Luigi's own settings."""
    descriptions: Any = configuration._LUIGI_DESCRIPTIONS
    return str(descriptions[section][key])


# Commands


def commands_page() -> Iterator[str]:
    """Yields every command of `spamscore`: usage, description, options, examples."""
    cli = command_line.cli
    cli_context = click.Context(cli, info_name="spamscore", **cli.context_settings)
    yield "## spamscore\n"
    yield from render_command(cli, cli_context)
    for name, command in cli.commands.items():
        yield f"## spamscore {name}\n"
        yield from render_command(command, click.Context(command, info_name=name, parent=cli_context))


def render_command(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yields the usage of a command, its help, its options and its examples."""
    yield f"```text\n{context.command_path} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        yield escape_markdown(" ".join(paragraph.split())) + "\n"
    for option in command.params:
        if isinstance(option, click.Option) and (record := option.get_help_record(context)):
            names, description = record
            yield f"`{names}`\n: {escape_markdown(description)}\n"
    if examples := command_examples(command):
        yield "```sh\n" + "\n".join(examples) + "\n```\n"


def command_examples(command: click.Command) -> list[str]:
    """Returns the examples of a command's help. The explanation next to an example becomes a comment."""
    sections = (command.epilog or "").split("\n\n")  # of which one may list exit codes
    section = next((section for section in sections if "Examples:" in section), "")
    lines = [line.strip() for line in section.splitlines() if line.startswith("  ")]
    return [re.sub(r" {3,}(?=\S)", "  # ", line) for line in lines]


# Exit codes


@dataclasses.dataclass(frozen=True)
class ExitCode:
    """An exit code, its name in the declarations and its meaning."""

    code: int
    name: str
    meaning: str


def exit_codes_page() -> Iterator[str]:
    """Yields the exit codes of both commands."""
    yield "## Exit codes of luigi\n"
    for exit_code in luigi_codes():
        name = f" `{exit_code.name}`" if exit_code.name else ""
        link = f"[What to do](../operations.md#exit-code-{exit_code.code})"
        yield f"**{exit_code.code}**{name}\n: {escape_markdown(exit_code.meaning)} {link}\n"
    yield "## Exit codes of spamscore\n"
    for exit_code in command_line_codes():
        yield f"**{exit_code.code}**\n: {escape_markdown(exit_code.meaning)}\n"


def luigi_codes() -> list[ExitCode]:
    """Returns the exit codes of `luigi --module pipeline`, sorted by number.

    The codes of [retcode] and of errors are declared. 0 and 1 come from Python, 143 from SIGTERM.
    """
    codes = {
        0: ExitCode(0, "", "Done."),
        1: ExitCode(1, "", "Luigi could not be started."),
        termination.EXIT_CODE: ExitCode(termination.EXIT_CODE, "", "Ended by SIGTERM."),
    }
    for error in subclasses(errors.SpamscoreError):
        if error.exit_code is not None:
            meaning = inspect.getdoc(error).split("\n\n")[0]
            codes[error.exit_code] = ExitCode(error.exit_code, error.__name__, " ".join(meaning.split()))
    for name, code in LUIGI_DEFAULTS["retcode"].items():
        meaning = to_sentence(describe_luigi_setting("retcode", name).removeprefix("exit code when "))
        codes[int(code)] = ExitCode(int(code), f"[retcode] {name}", meaning)
    return [codes[code] for code in sorted(codes)]


def subclasses(base: type) -> Iterator[Any]:
    """Yields the direct and indirect subclasses of a class."""
    for subclass in base.__subclasses__():
        yield subclass
        yield from subclasses(subclass)


def command_line_codes() -> list[ExitCode]:
    """Returns the exit codes of `spamscore`."""
    return [ExitCode(code, "", to_sentence(meaning)) for code, meaning in command_group.EXIT_CODES.items()]


# Tables


def tables_page() -> Iterator[str]:
    """Yields each table with its columns: name, type, key and meaning."""
    descriptions = tomllib.loads((REFERENCE / "columns.toml").read_text(encoding="utf-8"))
    for table in [tables.published_scores, *tables.metadata.sorted_tables]:
        columns = columns_for_readers(table)
        texts = descriptions.pop(table.name)
        yield f"## {table.name}\n\n{escape_markdown(texts.pop('row'))}\n"
        yield "| column | type | meaning |\n| --- | --- | --- |"
        for column in columns:
            meaning = column.comment if isinstance(column, sa.Column) and column.comment else texts.pop(column.name)
            yield (
                f"| `{column.name}`{format_key_mark(column)} | {format_column_type(column)} "
                f"| {escape_markdown(meaning)} |"
            )
        yield ""
        if texts:
            raise ValueError(f"columns.toml: [{table.name}] has no column {', '.join(texts)}")
    if descriptions:
        raise ValueError(f"columns.toml: there is no table {', '.join(descriptions)}")


def columns_for_readers(table: Any) -> list[Any]:
    """Returns all columns of a table except the generated ones, which only enforce a constraint."""
    return [column for column in table.columns if getattr(column, "computed", None) is None]


def format_key_mark(column: Any) -> str:
    """Returns the mark of a column of the primary key; empty for other columns."""
    return " (key)" if getattr(column, "primary_key", False) else ""


def format_column_type(column: Any) -> str:
    """Returns the type of a column on PostgreSQL, and whether the column can be null."""
    name = column.type.compile(dialect=postgresql.dialect()).replace(' COLLATE "C"', "").lower()
    return name + (", null" if getattr(column, "nullable", False) and isinstance(column, sa.Column) else "")


# Stages


def stages_page() -> Iterator[str]:
    """Yields each task of `luigi --module pipeline` with its parameters, in the order of the chain."""
    for name in CHAIN:
        task = getattr(pipeline, name)
        first, *others = inspect.getdoc(task).split("\n\n")
        yield f"### {name}\n\n{escape_markdown(' '.join(first.split()))}\n"
        for paragraph in others:
            yield escape_markdown(" ".join(paragraph.replace("``", "`").split())) + "\n"
        for parameter, declaration in command_line_parameters(task):
            description = escape_markdown(to_sentence(declaration.description))
            yield f"`--{parameter.replace('_', '-')}`\n: {description}\n"


def command_line_parameters(task: type[luigi.Task]) -> list[tuple[str, Any]]:
    """Returns the parameters of a task that are set on the command line: those with a description."""
    return [(name, parameter) for name, parameter in task.get_params() if parameter.description]


CHAIN = (
    "IngestCorpus", "CleanText", "BuildVocabulary", "TrainModel", "EvaluateModel", "SelectNightMessages",
    "TrainSelfTrained", "EvaluateSelfTrained", "ExportModel", "ExtractMessages", "ScoreBatch", "ReportBatch", "Nightly",
)  # fmt: skip


# Text


def to_sentence(text: str) -> str:
    """Makes a sentence of a fragment: capitalizes its first word unless it is a name, and adds a full stop."""
    first, _, rest = text.partition(" ")
    start = first if re.search(r"[\W_]|\d", first) or first != first.lower() else first.capitalize()
    sentence = f"{start} {rest}".strip()
    return sentence if sentence.endswith((".", "?")) else sentence + "."


def escape_markdown(text: str) -> str:
    """Escapes plain text for Markdown; text between backticks stays as it is."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([\\*_<>\[\]{}#|$~])", r"\\\1", part) for part in parts)


PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "settings": settings_page,
    "commands": commands_page,
    "exit-codes": exit_codes_page,
    "tables": tables_page,
    "stages": stages_page,
}
