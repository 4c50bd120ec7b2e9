"""The README, the reference pages and luigi.cfg agree with the code: settings, stages, tables, commands, counts."""

from __future__ import annotations

import configparser
import csv
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import luigi
import pytest
import sqlalchemy as sa
from doc_pages import DOCS, README, ROOT, blocks, inline_code, reference_pages, sources

import pipeline
from models.errors import SpamscoreError
from models.settings import Setting
from pipeline.command_line import cli
from tasks.database import tables
from tasks.scheduler.luigi_defaults import LUIGI_DEFAULTS
from tasks.settings.sections import SECTIONS

SOURCES = sources()
SETTINGS = reference_pages.SETTINGS
TEXT = "\n".join(SOURCES.values())


def written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def read_cfg(path: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.read(path, encoding="utf-8")
    return parser


# The README


def test_the_readme_has_at_most_150_lines() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


def test_the_readme_links_every_page_of_the_site() -> None:
    linked = set(re.findall(r"\]\((docs/[^)#]+\.md)\)", SOURCES["README.md"]))
    pages = {name for name in SOURCES if name.startswith("docs/")}
    assert pages - linked == {"docs/index.md", "docs/contributing.md", "docs/changelog.md"}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_link_into_the_project_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", SOURCES[page]):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize(("name", "phrase"), [("corpus.csv", "{} labelled messages"), ("inbox.csv", "inbox of {}")])
def test_the_bundled_sample_has_the_size_that_the_readme_says(name: str, phrase: str) -> None:
    with (ROOT / "pipeline" / "sample" / name).open(newline="", encoding="utf-8") as file:
        assert phrase.format(len(list(csv.DictReader(file)))) in SOURCES["README.md"]


# Settings


@pytest.mark.parametrize("one", SETTINGS, ids=lambda one: f"{one.section}.{one.key}")
def test_the_reference_and_the_shipped_file_have_each_setting_with_its_default(one: Setting) -> None:
    (entry,) = re.findall(
        rf"^```{{confval}} \[{one.section}\] {one.key}\n(.*?)^```",
        SOURCES["generated/settings"],
        re.DOTALL | re.MULTILINE,
    )
    assert f"Default: `{written(one.default)}`." in entry or ("Default: empty." in entry and not written(one.default))
    assert reference_pages.escaped(reference_pages.sentence(one.rule.description)) in entry
    assert read_cfg(ROOT / "luigi.cfg").get(one.section, one.key) == written(one.default)


def test_the_shipped_file_has_no_other_settings() -> None:
    expected = {(one.section, one.key) for one in SETTINGS}
    expected |= {(section, key) for section, keys in LUIGI_DEFAULTS.items() for key in keys}
    shipped = read_cfg(ROOT / "luigi.cfg")
    assert {(section, key) for section in shipped.sections() for key in shipped.options(section)} == expected


@pytest.mark.parametrize(("section", "keys"), LUIGI_DEFAULTS.items())
def test_the_shipped_file_sets_luigi_s_own_sections_as_they_are_set_without_it(
    section: str, keys: dict[str, str]
) -> None:
    assert dict(read_cfg(ROOT / "luigi.cfg").items(section)) == keys


def settings_named() -> set[tuple[str, str]]:
    """Sections and keys that a page names as `[section] key`."""
    codes = [
        found
        for page, code in inline_code()
        if not page.startswith("generated")
        for found in [re.match(r"\[(\w+)\](?: (\w+))?", code)]
        if found
    ]
    return {(found[1], found[2] or "") for found in codes}


@pytest.mark.parametrize(("section", "key"), sorted(settings_named()))
def test_a_setting_that_a_page_names_is_one_there_is(section: str, key: str) -> None:
    ours = {one.key for one in SETTINGS if one.section == section}
    luigis = {"core", "smtp", "email", "scheduler", "worker", "retcode", "RangeDaily"}
    assert (section in SECTIONS and (not key or key in ours)) or section in luigis


def test_the_books_preset_sets_only_settings_there_are_within_their_ranges() -> None:
    preset = read_cfg(DOCS / "books.cfg")
    known = {(one.section, one.key): one for one in SETTINGS}
    for section in preset.sections():
        for key, value in preset.items(section):
            known[section, key].parse(value)


# Stages, tables, commands, exit codes


@pytest.mark.parametrize("name", pipeline.__all__)
def test_the_reference_has_each_stage_with_the_sentence_of_its_docstring_and_what_it_leaves(name: str) -> None:
    sentence = (getattr(pipeline, name).__doc__ or "").split("\n")[0]
    assert f"### {name}\n\n{reference_pages.escaped(sentence)}" in SOURCES["generated/stages"]
    assert f"| `{name}` | " in SOURCES["docs/reference/artifacts.md"]


@pytest.mark.parametrize("table", [*tables.metadata.sorted_tables, tables.published_scores], ids=lambda one: one.name)
def test_the_reference_has_each_table_with_its_columns(table: Any) -> None:
    (part,) = re.findall(rf"^## {table.name}\n(.*?)(?=^## |\Z)", SOURCES["generated/tables"], re.DOTALL | re.MULTILINE)
    columns = re.findall(r"^\| `(\w+)`", part, re.MULTILINE)
    assert columns == [column.name for column in table.columns if getattr(column, "computed", None) is None]
    assert isinstance(table, sa.Table | sa.TableClause)


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_the_reference_has_each_command(name: str) -> None:
    assert f"## spamscore {name}\n" in SOURCES["generated/commands"]


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`spamscore ([a-z]+)", TEXT))))
def test_the_pages_have_no_command_that_is_not_there(command: str) -> None:
    assert command in cli.commands


def test_the_reference_has_each_declared_exit_code() -> None:
    codes = {one.code for one in reference_pages.luigi_codes()}
    errors = [error for error in reference_pages.subclasses(SpamscoreError) if error.exit_code is not None]
    assert codes == {
        0,
        1,
        2,
        143,
        *map(int, LUIGI_DEFAULTS["retcode"].values()),
        *(error.exit_code for error in errors),
    }
    assert {one.code for one in reference_pages.command_line_codes()} == {0, 1, 2, 35, 130, 141}


@pytest.mark.parametrize("flag", sorted(set(re.findall(r"(?<=[ `])--[a-z-]+(?= [0-9])", TEXT))))
def test_each_option_of_the_pages_is_there(flag: str, tmp_path: Path) -> None:
    ours = {flag for command in cli.commands.values() for option in command.params for flag in option.opts}
    luigids = {"--address"}
    assert flag in ours | luigids or flag in "".join(help_of(task, tmp_path) for task in ("ScoreBatch", "RangeDaily"))


def help_of(task: str, folder: Path) -> str:
    command = [Path(sys.executable).with_name("luigi"), "--module", "pipeline", task, "--help"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


TASKS = sorted({name for one in blocks() for name in re.findall(r"luigi --module pipeline (\w+)", one.text)})


@pytest.mark.parametrize("name", TASKS)
def test_each_task_of_the_pages_is_there(name: str) -> None:
    assert issubclass(luigi.task_register.Register.get_task_cls(name), luigi.Task)
