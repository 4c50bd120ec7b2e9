"""`spamscore config`: every setting, its value and its source."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

import click

from pipeline import printing
from pipeline.commands.context import read_settings
from pipeline.commands.options import examples, format_option
from pipeline.printing import print_json, print_lines
from tasks.scheduler.luigi_defaults import LUIGI_DEFAULTS
from tasks.settings.sections import SECTIONS

if TYPE_CHECKING:
    from pipeline.answers.configuration import ActiveSetting


def _complete_section(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    return [section for section in dict.fromkeys([*SECTIONS, *LUIGI_DEFAULTS]) if section.startswith(incomplete)]


@click.command(
    short_help="Show every setting, its value and its source.",
    epilog=examples(
        "spamscore config",
        "spamscore config scoring --long                 with descriptions",
        "spamscore config --defaults > luigi.cfg         writes a settings file to start from",
        "spamscore config | grep -v default$             settings that were changed",
        "SPAMSCORE_DATABASE_URL=postgresql://… spamscore config database",
    ),
)
@click.argument("section", required=False, shell_complete=_complete_section)
@click.option("--long", "show_description", is_flag=True, help="Add the description of each setting.")
@click.option("--defaults", is_flag=True, help="Print a complete luigi.cfg with every setting at its default.")
@format_option("json", "Print a JSON array of objects: section, key, value, source, default, description.")
def config(section: str | None, show_description: bool, defaults: bool, output_format: str | None) -> None:
    """Show every setting with its value and source, or only those of one SECTION.

    The source is the path of a file, the name of an environment variable, or default. Passwords are masked.

    In a pipe, prints one line per setting, separated by tabs: section, key, value, source and, with --long,
    description.
    """
    from pipeline.answers import configuration

    if defaults:
        print_lines([configuration.format_default_file()])
        return
    read_settings()
    settings = configuration.list_settings(section)
    if output_format == "json":
        print_json([dataclasses.asdict(setting) for setting in settings])
    elif printing.is_terminal():
        _show_settings(settings, show_description)
    else:
        columns = ("section", "key", "value", "source", *(("description",) if show_description else ()))
        print_lines(
            "\t".join(printing.format_plain(getattr(setting, column)) for column in columns) for setting in settings
        )


def _show_settings(settings: list[ActiveSetting], show_description: bool) -> None:
    from rich.padding import Padding

    console = printing.open_console()
    key_width = max(len(setting.key) for setting in settings)
    available_width = console.width - key_width - max(len(setting.source) for setting in settings) - 6
    longest = max(printing.display_width(printing.escape_unprintable(setting.value)) for setting in settings)
    value_width = max(10, min(available_width, longest))
    for number, (section, section_settings) in enumerate(itertools.groupby(settings, lambda setting: setting.section)):
        console.print(printing.styled_text("\n" * bool(number) + f"[{section}]", "bold"))
        for setting in section_settings:
            changed = setting.value != setting.default
            value = printing.truncate(setting.value, value_width)
            line = printing.styled_text(f"  {setting.key:<{key_width}}  ")
            line.append(value + " " * (value_width - printing.display_width(value)), "bold" if changed else "")
            console.print(line.append(f"  {setting.source}", "" if changed else "dim"), soft_wrap=True)
            if show_description:
                console.print(Padding(printing.styled_text(setting.description, "dim"), (0, 0, 0, 6)))
