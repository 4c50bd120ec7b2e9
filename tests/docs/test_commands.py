"""Every command on a page of the documentation, run: for real in a copy of a finished chain, or as far as it can be.

`RULES` says how a command is treated; one that no rule knows fails. `SUBSTITUTIONS` says what is changed for the
fixture: it has one date, one batch and one version of the model, and the sample's identifiers.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import luigi
import pytest
import warm
from chain import DATE, CommandResult, environment, kill_group_on_exit
from doc_pages import ROOT, Block, blocks, inline_code, reference_pages

import pipeline
from pipeline.command_line import cli

BIN = Path(sys.executable).parent
BLOCKS = list(blocks())
# What a block of code may be written in. An indented one is a shell's, on pages that a benchmark writes.
LANGUAGES = {"sh", "ini", "yaml", "text"}
DIRECTIVES = {"{toctree}", "{include}", "{eval-rst}", "{confval}"}
SHELL = [block for block in BLOCKS if block.language in ("sh", "")]
# Commands of a page run one after the other in one folder; the examples of each command of the reference in their own.
SCENES: dict[str, list[str]] = {}
for one in SHELL:
    SCENES.setdefault(one.section if one.page == "generated/commands" else one.page, []).extend(one.commands)

SUBSTITUTIONS: list[tuple[str, str]] = [
    (r"\b(yesterday|today)\b(?! only)", DATE),
    # A date that is not named is yesterday's; the fixture has one other.
    (
        r"^((?:\w+=\S+ )?luigi --module pipeline (?:ScoreBatch|ReportBatch|Nightly)\b(?!.*--(?:date|help)).*)$",
        rf"\1 --date {DATE}",
    ),
    # Three months become two days.
    (r"2026-04-01", "2026-01-03"),
    (r"2026-03-31", "2026-01-02"),
    (r"--batch 3", "--batch 1"),
    (r"serve [23]", "serve 1"),
    (r"--model-version 2", "--model-version 1"),
    (r"sms-17", "m-0001"),
    (r"sms-18", "m-0002"),
    # There is no zsh.
    (r'^eval "\$\((spamscore completion zsh)\)"$', r"\1"),
    # There is nobody to ask.
    (r"^(spamscore (?:withdraw|restore|serve|prune(?!.*--dry-run)|drift.*--accept)\b(?!.*--yes).*)$", r"\1 --yes"),
    # The port may be taken.
    (r"^spamscore watch\b", "spamscore watch --port 0"),
]  # fmt: skip
# A command that has nothing to do in the fixture, its exit code, and words of its answer. The work of both is tested in
# tests/pipeline/test_nightly_chain.py and test_reports.py.
EXPECTED: list[tuple[str, int, str]] = [
    ("spamscore serve --refused", 1, "exported already"),
    ("spamscore drift .*--accept", 0, "nothing to accept"),
]
# What must be there before a command, as the examples of the reference stand alone.
BEFORE: list[tuple[str, str]] = [
    ("spamscore (report|drift)", f"ls artifacts/reports || luigi --module pipeline ReportBatch --date {DATE}"),
    ("spamscore withdraw", f"spamscore restore {DATE} --batch 1 --yes || true"),
]
WARM = ("luigi", "spamscore", "saved_model_cli")
# Other people's programs, and what stands in for one that is not here.
STAND_INS = {"jq": "cat", "sqlite3": "true", "ask_people": "cat"}
# Files that the reader has, or fills in.
FILES = {
    "messages.txt": "Lunch at one?\nFREE entry, text WIN to 80086\n",
    "m.txt": "Lunch at one?\n",
    "message.txt": "FREE entry, text WIN to 80086\n",
    "labels.csv": "message_id,label\nm-0003,ham\n",
}


# How a command is run


def run(command: str, folder: Path) -> None:
    """Runs a command for real, with its arguments for the fixture."""
    adapted = substituted(command)
    for pattern, needed in BEFORE:
        if re.match(pattern, adapted):
            assert run_shell(needed, folder).code == 0
    warm_too = re.match(r"([A-Z_]+=\S+ )*(\w+) ?", adapted)
    plain = warm_too and warm_too[2] in WARM and not re.search(r"[|<>$]", adapted)
    done = run_warm(adapted, folder) if plain else run_shell(adapted, folder)
    code, words = next(((code, words) for one, code, words in EXPECTED if re.match(one, adapted)), (0, ""))
    assert (done.code, words in done.output) == (code, True), f"{adapted}\n{done.output[-3000:]}"


def run_warm(command: str, folder: Path) -> CommandResult:
    """Runs a Python program of the environment with TensorFlow imported already."""
    words = shlex.split(command)
    start = next(place for place, word in enumerate(words) if not re.match(r"[A-Z_]+=", word))
    variables = dict(word.split("=", 1) for word in words[:start])
    program, *arguments = words[start:]
    return CommandResult(*warm.run(BIN / program, tuple(arguments), folder, {**shell_environment(folder), **variables}))


def run_shell(command: str, folder: Path) -> CommandResult:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=folder, env=shell_environment(folder),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    # 141: `head` had enough.
    return CommandResult(0 if done.returncode == 141 and "| head" in command else done.returncode, done.stdout)


def watch(command: str, folder: Path) -> None:
    """Runs `spamscore watch` until its run has ended, and interrupts it as a person does."""
    output = folder / "watched"
    with output.open("w") as log:
        process = subprocess.Popen(
            shlex.split(substituted(command)), cwd=folder, env=shell_environment(folder), stdout=log, stderr=log,
            start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
    with kill_group_on_exit(process):
        for _ in range(3000):  # looks are counted: the clock of a busy virtual machine may leap
            if found := re.search(r"the run ended with exit code (\d+)", output.read_text()):
                break
            assert process.poll() is None, output.read_text()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)
    assert found, output.read_text()
    assert found[1] == "0", output.read_text()


def make(command: str, folder: Path) -> None:
    """Has make say what it would do."""
    words = shlex.split(command)
    done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def script(command: str, folder: Path) -> None:
    """Checks that a script of the project is there and is one for a shell."""
    assert os.access(ROOT / command.split()[0], os.X_OK)
    subprocess.run(["bash", "-n", ROOT / command.split()[0]], check=True)


def check_extras(command: str, folder: Path) -> None:
    """Checks that the distribution has the extras that are installed."""
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    for extra in re.findall(r"\[(\w+)\]", command):
        assert f'"{extra}": ' in setup


def check_variable(command: str, folder: Path) -> None:
    """Checks that the environment variable is one that is read, and that its value is taken."""
    check_syntax(command, folder)
    (name,) = re.findall(r"export (\w+)=", command)
    (one,) = [one for one in reference_pages.SETTINGS if reference_pages.environment_variable(one) == name]
    one.parse(shlex.split(command)[1].split("=", 1)[1])


def check_files(command: str, folder: Path) -> None:
    """Checks the syntax, that each file and unit of the project is there, and that a task takes its parameters."""
    check_syntax(command, folder)
    for name in re.findall(r"deploy/[\w*./-]+", command):
        assert list(ROOT.glob(name)), name
    for name in re.findall(r"spamscore[\w-]*\.(?:service|timer)", command):
        assert (ROOT / "deploy" / name).is_file(), name
    if found := re.search(r"luigi (--module pipeline .*)$", command):
        assert run_warm(f"luigi {found[1]} --help", folder).code == 0


def check_syntax(command: str, folder: Path) -> None:
    subprocess.run(["bash", "-n", "-c", command], check=True)


@dataclass(frozen=True)
class Rule:
    """How the commands that a pattern matches are treated; a reason where they are not run."""

    pattern: str
    treat: Callable[[str, Path], None]
    reason: str = ""


RULES = [
    Rule(r"spamscore watch\b", watch),
    Rule(r"((LUIGI|SPAMSCORE)_\w+=\S+ )?(luigi --module pipeline|spamscore|saved_model_cli) ?", run),
    Rule(r"(printf|paste|sqlite3|eval) ", run),
    Rule(r"make ", make, "each target has a test of its own, or would take long; make -n runs it without its recipes"),
    Rule(r"\.ci/run$", script, "it runs all tests"),
    Rule(r"\. \.venv/bin/activate$", check_syntax, "the tests run in this environment; make score creates it"),
    Rule(r"\.venv/bin/pre-commit install$", check_syntax, "it would change this checkout's hooks"),
    Rule(r"pip install ", check_extras, "it would change this environment"),
    Rule(r"export ", check_variable, "there is no such database"),
    Rule(r"sudo ", check_files, "it would change this machine; tests/test_deploy.py has systemd verify the units"),
]  # fmt: skip


def rule_of(command: str) -> Rule:
    found = next((rule for rule in RULES if re.match(rule.pattern, command)), None)
    assert found, f"no rule for the command: {command}"
    return found


def substituted(command: str) -> str:
    for pattern, text in SUBSTITUTIONS:
        command = re.sub(pattern, text, command)
    return command


def shell_environment(folder: Path) -> dict[str, str]:
    path = os.pathsep.join([str(folder / "programs"), str(BIN), os.environ["PATH"]])
    return environment(PATH=path, HOME=str(folder), BROWSER="true", SHELL="/bin/bash", USER="tester", LOGNAME="tester")


@pytest.fixture
def scene(finished: tuple[Path, CommandResult], tmp_path: Path) -> Path:
    """A copy of the finished chain, with the files that the pages name."""
    folder = Path(shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True))
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "books.cfg", folder / "docs")
    shutil.copytree(ROOT / "deploy", folder / "deploy")
    nightly = folder / "deploy" / "nightly.cfg"
    # This machine has no luigid, mail server or node_exporter for it, and one night.
    for setting, here in {
        "local_scheduler = false": "local_scheduler = true", "mail_to = root@localhost": "mail_to =",
        "catch_up_days = 7": "catch_up_days = 0", "keep_alive = true": "keep_alive = false",
        "textfile_folder = /var/lib/prometheus/node-exporter": f"textfile_folder = {folder}",
    }.items():  # fmt: skip
        text = nightly.read_text(encoding="utf-8")
        assert f"\n{setting}\n" in text
        nightly.write_text(text.replace(f"\n{setting}\n", f"\n{here}\n"), encoding="utf-8")
    (folder / ".config" / "fish" / "completions").mkdir(parents=True)
    (folder / "programs").mkdir()
    for name, instead in STAND_INS.items():
        if shutil.which(name) is None:
            program = folder / ("." if name == "ask_people" else "programs") / name
            program.write_text(f"#!/bin/sh\nexec {instead}\n", encoding="utf-8")
            program.chmod(0o755)
    return folder


@pytest.mark.parametrize("page", SCENES)
def test_every_command_of_a_page_works_in_its_order(page: str, scene: Path) -> None:
    for command in SCENES[page]:
        rule_of(command).treat(command, scene)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.pattern)
def test_each_rule_is_needed(rule: Rule) -> None:
    assert any(rule_of(command) is rule for block in SHELL for command in block.commands)


@pytest.mark.parametrize(("pattern", "_text"), SUBSTITUTIONS)
def test_each_substitution_is_needed(pattern: str, _text: str) -> None:
    assert any(re.search(pattern, command) for block in SHELL for command in block.commands)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}:{block.line}")
def test_a_block_of_code_has_a_language_that_is_looked_at(block: Block) -> None:
    indented_allowed = block.page in ("docs/performance.md", "docs/quality.md", "docs/scaling.md")
    assert (
        block.language in LANGUAGES
        or block.language.split(" ")[0] in DIRECTIVES
        or (not block.language and indented_allowed)
    )
    if block.language == "text":
        assert not re.search(r"^(luigi|make|sudo) ", block.text, re.MULTILINE), "a command belongs in a block of sh"


@pytest.mark.parametrize(
    "block", [one for one in BLOCKS if one.language == "ini"], ids=lambda one: f"{one.page}:{one.line}"
)
def test_settings_of_a_page_are_ones_there_are(block: Block) -> None:
    parser = configparser.RawConfigParser()
    parser.read_string(block.text)
    for section in parser.sections():
        known = {one.key: one for one in reference_pages.SETTINGS if one.section == section}
        for key, value in parser.items(section):
            known[key].parse(value)


INLINE = sorted(
    {code for _, code in inline_code() if re.match(r"(spamscore [a-z]|luigi --module pipeline \w|make [a-z])", code)}
)


@pytest.mark.parametrize("code", INLINE)
def test_a_command_within_a_sentence_is_one_there_is(code: str) -> None:
    words = shlex.split(code)
    if words[0] == "make":
        make(code, ROOT)
        return
    if words[0] == "luigi":
        assert issubclass(getattr(pipeline, words[3], luigi.Task), luigi.Task)
        assert words[3] in (*pipeline.__all__, "RangeDaily")
        return
    options = {option for one in options_of(cli.commands[words[1]]) for option in one.opts}
    assert {word for word in words if word.startswith("--")} <= options


def options_of(command: click.Command) -> list[Any]:
    return command.get_params(click.Context(command))
