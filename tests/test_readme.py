"""Tests that README, reference pages and luigi.cfg agree with the code: settings, stages, tables, commands, counts."""

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


def format_value(value: object) -> str:
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
def test_every_link_to_a_file_of_the_project_is_valid(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", SOURCES[page]):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize(("name", "phrase"), [("corpus.csv", "{} labelled messages"), ("inbox.csv", "inbox of {}")])
def test_the_bundled_sample_has_the_size_that_the_readme_gives(name: str, phrase: str) -> None:
    with (ROOT / "pipeline" / "sample" / name).open(newline="", encoding="utf-8") as file:
        assert phrase.format(len(list(csv.DictReader(file)))) in SOURCES["README.md"]


# Settings


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: f"{setting.section}.{setting.key}")
def test_the_reference_and_the_shipped_file_have_each_setting_with_its_default(setting: Setting) -> None:
    (entry,) = re.findall(
        rf"^```{{confval}} \[{setting.section}\] {setting.key}\n(.*?)^```",
        SOURCES["generated/settings"],
        re.DOTALL | re.MULTILINE,
    )
    assert f"Default: `{format_value(setting.default)}`." in entry or (
        "Default: empty." in entry and not format_value(setting.default)
    )
    assert reference_pages.escape_markdown(reference_pages.to_sentence(setting.rule.description)) in entry
    assert read_cfg(ROOT / "luigi.cfg").get(setting.section, setting.key) == format_value(setting.default)


def test_the_shipped_file_has_no_other_settings() -> None:
    expected = {(setting.section, setting.key) for setting in SETTINGS}
    expected |= {(section, key) for section, keys in LUIGI_DEFAULTS.items() for key in keys}
    shipped = read_cfg(ROOT / "luigi.cfg")
    assert {(section, key) for section in shipped.sections() for key in shipped.options(section)} == expected


@pytest.mark.parametrize(("section", "keys"), LUIGI_DEFAULTS.items())
def test_the_shipped_file_has_the_defaults_of_luigi_s_own_sections(section: str, keys: dict[str, str]) -> None:
    assert dict(read_cfg(ROOT / "luigi.cfg").items(section)) == keys


def find_named_settings() -> set[tuple[str, str]]:
    """Returns the sections and keys that a page names as `[section] key`; the key is empty for a section alone."""
    matches = [
        match
        for page, code in inline_code()
        if not page.startswith("generated")
        for match in [re.match(r"\[(\w+)\](?: (\w+))?", code)]
        if match
    ]
    return {(match[1], match[2] or "") for match in matches}


@pytest.mark.parametrize(("section", "key"), sorted(find_named_settings()))
def test_a_setting_that_a_page_names_exists(section: str, key: str) -> None:
    declared_keys = {setting.key for setting in SETTINGS if setting.section == section}
    luigi_sections = {"core", "smtp", "email", "scheduler", "worker", "retcode", "RangeDaily"}
    assert (section in SECTIONS and (not key or key in declared_keys)) or section in luigi_sections


def test_the_books_preset_has_only_valid_settings() -> None:
    preset = read_cfg(DOCS / "books.cfg")
    declared = {(setting.section, setting.key): setting for setting in SETTINGS}
    for section in preset.sections():
        for key, value in preset.items(section):
            declared[section, key].parse(value)


# Stages, tables, commands, exit codes


@pytest.mark.parametrize("name", pipeline.__all__)
def test_the_reference_has_each_stage_with_its_docstring_and_its_artifacts(name: str) -> None:
    sentence = (getattr(pipeline, name).__doc__ or "").split("\n")[0]
    assert f"### {name}\n\n{reference_pages.escape_markdown(sentence)}" in SOURCES["generated/stages"]
    assert f"| `{name}` | " in SOURCES["docs/reference/artifacts.md"]


@pytest.mark.parametrize(
    "table", [*tables.metadata.sorted_tables, tables.published_scores], ids=lambda table: table.name
)
def test_the_reference_has_each_table_with_its_columns(table: Any) -> None:
    (part,) = re.findall(rf"^## {table.name}\n(.*?)(?=^## |\Z)", SOURCES["generated/tables"], re.DOTALL | re.MULTILINE)
    columns = re.findall(r"^\| `(\w+)`", part, re.MULTILINE)
    assert columns == [column.name for column in table.columns if getattr(column, "computed", None) is None]
    assert isinstance(table, sa.Table | sa.TableClause)


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_the_reference_has_each_command(name: str) -> None:
    assert f"## spamscore {name}\n" in SOURCES["generated/commands"]


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`spamscore ([a-z]+)", TEXT))))
def test_every_command_that_a_page_names_exists(command: str) -> None:
    assert command in cli.commands


def test_the_reference_has_each_declared_exit_code() -> None:
    codes = {exit_code.code for exit_code in reference_pages.luigi_codes()}
    errors = [error for error in reference_pages.subclasses(SpamscoreError) if error.exit_code is not None]
    assert codes == {
        0,
        1,
        2,
        143,
        *map(int, LUIGI_DEFAULTS["retcode"].values()),
        *(error.exit_code for error in errors),
    }
    assert {exit_code.code for exit_code in reference_pages.command_line_codes()} == {0, 1, 2, 35, 130, 141}


@pytest.mark.parametrize("flag", sorted(set(re.findall(r"(?<=[ `])--[a-z-]+(?= [0-9])", TEXT))))
def test_each_option_of_the_pages_exists(flag: str, tmp_path: Path) -> None:
    own_flags = {name for command in cli.commands.values() for option in command.params for name in option.opts}
    luigid_flags = {"--address"}
    assert flag in own_flags | luigid_flags or flag in "".join(
        help_of(task, tmp_path) for task in ("ScoreBatch", "RangeDaily")
    )


def help_of(task: str, folder: Path) -> str:
    command = [Path(sys.executable).with_name("luigi"), "--module", "pipeline", task, "--help"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


TASKS = sorted({name for block in blocks() for name in re.findall(r"luigi --module pipeline (\w+)", block.text)})


@pytest.mark.parametrize("name", TASKS)
def test_each_task_of_the_pages_exists(name: str) -> None:
    assert issubclass(luigi.task_register.Register.get_task_cls(name), luigi.Task)
