"""What the README and luigi.cfg promise is what there is: settings, stages, tables, commands, counts."""

from __future__ import annotations

import configparser
import csv
import re
import subprocess
import sys
from pathlib import Path

import luigi
import pytest
import sqlalchemy as sa

import pipeline
from models.settings import Setting, declared_settings
from pipeline.command_line import cli
from tasks.database import tables
from tasks.scheduler.luigi_defaults import LUIGI_DEFAULTS
from tasks.settings.sections import SECTIONS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SETTINGS = [one for section, settings_class in SECTIONS.items() for one in declared_settings(section, settings_class)]
LINE = re.compile(r"^(?: {4}|`).*", re.MULTILINE)


def written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def read_cfg(path: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.read(path, encoding="utf-8")
    return parser


def section_of_readme(section: str) -> str:
    found = re.search(rf"^\*\*\[{section}\]\*\*.*?(?=^\*\*\[|^Luigi's own)", README, re.DOTALL | re.MULTILINE)
    assert found, f"the README says nothing of [{section}]"
    return found[0]


@pytest.mark.parametrize("one", SETTINGS, ids=lambda one: f"{one.section}.{one.key}")
def test_the_readme_and_the_shipped_file_have_each_setting_with_its_default(one: Setting) -> None:
    default = f"`{written(one.default)}`" if written(one.default) else "empty"
    assert f"| `{one.key}` | {default} | {one.rule.description} |" in section_of_readme(one.section)
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


def test_the_readme_has_no_setting_that_is_not_there() -> None:
    for section in re.findall(r"^\*\*\[(\w+)\]\*\*", README, re.MULTILINE):
        rows = re.findall(r"^\| `(\w+)` \|", section_of_readme(section), re.MULTILINE)
        assert set(rows) == {one.key for one in SETTINGS if one.section == section}


@pytest.mark.parametrize("name", pipeline.__all__)
def test_the_readme_has_each_stage_with_the_sentence_of_its_docstring(name: str) -> None:
    sentence = (getattr(pipeline, name).__doc__ or "").split("\n")[0]
    assert f"| `{name}` | {sentence} |" in README


@pytest.mark.parametrize("table", [*tables.metadata.sorted_tables, tables.published_scores], ids=lambda one: one.name)
def test_the_readme_has_each_table_with_its_columns(table: sa.Table) -> None:
    (row,) = re.findall(rf"^\| `{table.name}`.*$", README, re.MULTILINE)
    columns = re.findall(r"`(\w+)`", row.split("|")[3])
    assert columns == [column.name for column in table.columns if getattr(column, "computed", None) is None]


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_the_readme_has_each_command(name: str) -> None:
    assert re.search(rf"`spamscore {name}\b", README)


@pytest.mark.parametrize("command", sorted(set(re.findall(r"spamscore ([a-z]+)", README))))
def test_the_readme_has_no_command_that_is_not_there(command: str) -> None:
    assert command in cli.commands


@pytest.mark.parametrize("target", sorted(set(re.findall(r"^ {4}make (\w+)", README + "\n", re.MULTILINE))))
def test_the_makefile_has_each_target_that_the_readme_names(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", sorted(set(re.findall(r"luigi --module pipeline ([^`\n…]+)", README))))
def test_each_luigi_command_of_the_readme_is_understood(arguments: str, tmp_path: Path) -> None:
    luigi_command = Path(sys.executable).with_name("luigi")
    words = arguments.strip().split()
    done = subprocess.run(
        [luigi_command, "--module", "pipeline", *words, "--help"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert issubclass(luigi.task_register.Register.get_task_cls(words[0]), luigi.Task)


@pytest.mark.parametrize("flag", sorted(set(re.findall(r"(?<=[ `])--[a-z-]+(?= [0-9])", README))))
def test_each_option_of_the_readme_is_there(flag: str, tmp_path: Path) -> None:
    luigi_command = Path(sys.executable).with_name("luigi")
    said = [
        subprocess.run(
            [luigi_command, "--module", "pipeline", task, "--help"],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        ).stdout
        for task in ("ScoreBatch", "RangeDaily")
    ]  # fmt: skip
    ours = {flag for command in cli.commands.values() for option in command.params for flag in option.opts}
    assert flag in "".join(said) or flag in ours


@pytest.mark.parametrize(("name", "phrase"), [("corpus.csv", "{} labelled messages"), ("inbox.csv", "inbox of {}")])
def test_the_bundled_sample_has_the_size_that_the_readme_says(name: str, phrase: str) -> None:
    with (ROOT / "pipeline" / "sample" / name).open(newline="", encoding="utf-8") as file:
        assert phrase.format(len(list(csv.DictReader(file)))) in README


def test_every_link_of_the_readme_into_the_project_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_books_preset_sets_only_settings_there_are_within_their_ranges() -> None:
    preset = read_cfg(ROOT / "docs" / "books.cfg")
    known = {(one.section, one.key): one for one in SETTINGS}
    for section in preset.sections():
        for key, value in preset.items(section):
            known[section, key].parse(value)
