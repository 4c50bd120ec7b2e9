"""`spamscore config`: every setting, and where it came from."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

import click

from pipeline import printing
from pipeline.commands.context import read_settings
from pipeline.commands.options import examples, form
from pipeline.printing import print_json, print_lines
from tasks.scheduler.luigi_defaults import LUIGI_DEFAULTS
from tasks.settings.sections import SECTIONS

if TYPE_CHECKING:
    from pipeline.answers.configuration import SettingInForce


def _complete_section(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    return [one for one in dict.fromkeys([*SECTIONS, *LUIGI_DEFAULTS]) if one.startswith(incomplete)]


@click.command(
    short_help="Show every setting, and where it came from.",
    epilog=examples(
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
@form("json", "A JSON array of objects: section, key, value, source, default, description.")
def config(section: str | None, is_long: bool, defaults: bool, form: str | None) -> None:
    """Show every setting, its value, and where it came from; those of one SECTION if given.

    The value may come from a file (its path is shown), an environment variable (its name is shown) or be the default.
    Passwords are masked. In a pipe: a line a setting with tabs between section, key, value and source.
    """
    from pipeline.answers import configuration

    if defaults:
        print_lines([configuration.default_file()])
        return
    read_settings()
    found = configuration.settings_in_force(section)
    if form == "json":
        print_json([dataclasses.asdict(one) for one in found])
    elif printing.in_terminal():
        _show_settings(found, is_long)
    else:
        columns = ("section", "key", "value", "source", *(("description",) if is_long else ()))
        print_lines("\t".join(printing.plain(getattr(one, name)) for name in columns) for one in found)


def _show_settings(found: list[SettingInForce], is_long: bool) -> None:
    from rich.padding import Padding

    console = printing.page()
    key_width = max(len(one.key) for one in found)
    room = console.width - key_width - max(len(one.source) for one in found) - 6
    value_width = max(10, min(room, max(printing.cell_len(printing.visible(one.value)) for one in found)))
    for number, (section, settings) in enumerate(itertools.groupby(found, lambda one: one.section)):
        console.print(printing.styled("\n" * bool(number) + f"[{section}]", "bold"))
        for one in settings:
            changed = one.value != one.default
            value = printing.shortened(one.value, value_width)
            line = printing.styled(f"  {one.key:<{key_width}}  ")
            line.append(value + " " * (value_width - printing.cell_len(value)), "bold" if changed else "")
            console.print(line.append(f"  {one.source}", "" if changed else "dim"), soft_wrap=True)
            if is_long:
                console.print(Padding(printing.styled(one.description, "dim"), (0, 0, 0, 6)))
