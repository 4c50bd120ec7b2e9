"""Runs every command of the documentation in a copy of a finished chain, or checks it if it cannot run here.

`RULES` defines what is done with a command; a command without a rule fails. `SUBSTITUTIONS` adapts commands to the
fixture, which has one date, one batch, one model version, and the identifiers of the sample.
"""

from __future__ import annotations

import configparser
import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import kubectl_commands
import luigi
import pytest
import warm
import yaml
from chain import DATE, CommandResult, environment, kill_group_on_exit
from doc_pages import ROOT, VERSION, Block, blocks, inline_code, reference_pages
from eventually import eventually
from serving import RunningModelServer, model_server

import pipeline
from pipeline.command_line import cli

BIN = Path(sys.executable).parent
BLOCKS = list(blocks())
# Languages of code blocks. An indented block is a shell block, and is allowed on pages that a benchmark writes.
LANGUAGES = {"sh", "ini", "yaml", "text", "python"}
DIRECTIVES = {"{toctree}", "{include}", "{eval-rst}", "{confval}"}
SHELL = [block for block in BLOCKS if block.language in ("sh", "")]
# The commands of a page run one after the other in one folder. The examples of each reference command have their own.
SCENES: dict[str, list[str]] = {}
for shell_block in SHELL:
    scene_name = shell_block.section if shell_block.page == "generated/commands" else shell_block.page
    SCENES.setdefault(scene_name, []).extend(shell_block.commands)

# Scenes that take long and whose commands other tests run as well: `make test-slow` runs them.
SLOW_SCENES = {
    "docs/how-to/backfill.md", "docs/how-to/continue-training.md", "docs/how-to/front-end.md", "docs/how-to/monitor.md",
    "docs/reference/artifacts.md", "docs/reference/settings.md", "spamscore api", "spamscore drift", "spamscore report",
    "spamscore uncertain", "spamscore watch",
}  # fmt: skip

SUBSTITUTIONS: list[tuple[str, str]] = [
    (r"\b(yesterday|today)\b(?! only)", DATE),
    # Without a date, a command takes yesterday; the fixture has another date.
    (
        r"^((?:\w+=\S+ )?luigi --module pipeline (?:ScoreBatch|ReportBatch|Nightly)\b(?!.*--(?:date|help)).*)$",
        rf"\1 --date {DATE}",
    ),
    # Shortens a range of three months to two days, or to a month.
    (r"2026-04-01", "2026-01-03"),
    (r"2026-03-31", "2026-01-02"),
    (r"--stop 2026-04$", "--stop 2026-02"),
    (r"--days-back 30", "--days-back 2"),
    (r"--batch 3", "--batch 1"),
    (r"serve [234]", "serve 1"),
    (r"--model-version 2", "--model-version 1"),
    (r"version:3", "version:1"),
    (r"ckpt-72", "ckpt-150"),
    (r"sms-17", "m-0001"),
    (r"sms-18", "m-0002"),
    # zsh is not installed.
    (r'^eval "\$\((spamscore completion zsh)\)"$', r"\1"),
    # Nobody can answer a question.
    (
        r"^(spamscore (?:withdraw|restore|serve|prune(?!.*--dry-run)|.*--accept|extract.*--again)\b(?!.*--yes).*)$",
        r"\1 --yes",
    ),
    # The settings of the scene name the server that runs, which has neither TLS nor a candidate.
    (r" --tls\b| --(?:server|ca-file|certificate|key) \S+", ""),
    (r"--label canary", "--label stable"),
    # The port may be in use.
    (r"^spamscore watch\b", "spamscore watch --port 0"),
    (r"^(spamscore api\b.*?)( --grpc-port \d+)?$", r"\1 --port 0"),
]  # fmt: skip
# Commands that have nothing to do in the fixture: pattern, exit code, and words of the output. Their work is tested in
# tests/pipeline/test_nightly_chain.py, test_reports.py and commands/serving/.
EXPECTED: list[tuple[str, int, str]] = [
    ("spamscore serve --refused", 1, "exported already"),
    ("spamscore serve 1 --canary", 1, "cannot be the candidate too"),
    ("spamscore drift .*--accept", 0, "nothing to accept"),
]
# Commands that must run before a command, because each example of the reference runs alone.
PREPARATIONS: list[tuple[str, str]] = [
    ("spamscore (report|drift)", f"ls artifacts/reports || luigi --module pipeline ReportBatch --date {DATE}"),
    ("spamscore withdraw", f"spamscore restore {DATE} --batch 1 --yes || true"),
]
WARM = ("luigi", "spamscore", "saved_model_cli")
# External programs, each with a replacement for machines that do not have it.
REPLACEMENTS = {"jq": "cat", "sqlite3": "true", "ask_people": "cat"}
# Files that the reader has or fills in.
FILES = {
    "labelled.csv": "label,text\nham,Lunch at one?\nspam,FREE entry: text WIN to 80086\n",
    "messages.txt": "Lunch at one?\nFREE entry, text WIN to 80086\n",
    "m.txt": "Lunch at one?\n",
    "message.txt": "FREE entry, text WIN to 80086\n",
    "labels.csv": "message_id,label\nm-0003,ham\n",
}


# Runners of the rules


def run(command: str, folder: Path) -> None:
    """Runs a command, adapted to the fixture, and checks its exit code and output."""
    adapted = substitute(command)
    for pattern, preparation in PREPARATIONS:
        if re.match(pattern, adapted):
            assert run_shell(preparation, folder).code == 0
    program = re.match(r"([A-Z_]+=\S+ )*(\w+) ?", adapted)
    needs_no_shell = program and program[2] in WARM and not re.search(r"[|<>$]", adapted)
    result = run_warm(adapted, folder) if needs_no_shell else run_shell(adapted, folder)
    code, words = next(((code, words) for pattern, code, words in EXPECTED if re.match(pattern, adapted)), (0, ""))
    assert (result.code, words in result.output) == (code, True), f"{adapted}\n{result.output[-3000:]}"


def run_warm(command: str, folder: Path) -> CommandResult:
    """Runs a Python program of this environment in a process that has already imported TensorFlow."""
    words = shlex.split(command)
    start = next(index for index, word in enumerate(words) if not re.match(r"[A-Z_]+=", word))
    variables = dict(word.split("=", 1) for word in words[:start])
    program, *arguments = words[start:]
    return CommandResult(*warm.run(BIN / program, tuple(arguments), folder, {**shell_environment(folder), **variables}))


def run_shell(command: str, folder: Path) -> CommandResult:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=folder, env=shell_environment(folder),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    # 141: `head` closed the pipe before the command had written everything.
    return CommandResult(0 if done.returncode == 141 and "| head" in command else done.returncode, done.stdout)


def watch(command: str, folder: Path) -> None:
    """Runs `spamscore watch`, waits until its run has ended, and interrupts it as ^C does."""
    output = folder / "watch.log"
    with output.open("w") as log:
        process = subprocess.Popen(
            shlex.split(substitute(command)), cwd=folder, env=shell_environment(folder), stdout=log, stderr=log,
            start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
    with kill_group_on_exit(process):
        for _ in range(3000):  # counts attempts, because the clock of a busy virtual machine can jump
            if match := re.search(r"the run ended with exit code (\d+)", output.read_text()):
                break
            assert process.poll() is None, output.read_text()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)
    assert match, output.read_text()
    assert match[1] == "0", output.read_text()


def start_front_end(command: str, folder: Path) -> None:
    """Runs `spamscore api` until it listens, and ends it with SIGTERM."""
    output = folder / "api.log"
    variables = {**shell_environment(folder), "SPAMSCORE_API_TOKEN": "a-token"}  # for other addresses than loopback
    with output.open("w") as log:
        process = subprocess.Popen(
            shlex.split(substitute(command)), cwd=folder, env=variables, stdout=log, stderr=log, start_new_session=True
        )
    with kill_group_on_exit(process):
        eventually(lambda: "listens at" in output.read_text() or process.poll() is not None, detail=output.read_text)
        process.terminate()
        process.wait(timeout=120)
    assert process.returncode == 0, output.read_text()


def show_help(command: str, folder: Path) -> None:
    """Runs the command with --help, which checks its name and its options."""
    assert run_warm(f"{command} --help", folder).code == 0


def dry_run_make(command: str, folder: Path) -> None:
    """Checks that make knows the target, without running its recipe."""
    words = shlex.split(command)
    done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def check_script(command: str, folder: Path) -> None:
    """Checks that a script of the project is executable and has valid shell syntax."""
    assert os.access(ROOT / command.split()[0], os.X_OK)
    subprocess.run(["bash", "-n", ROOT / command.split()[0]], check=True)


def check_extras(command: str, folder: Path) -> None:
    """Checks that setup.py declares the extras that the command installs."""
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    for extra in re.findall(r"\[(\w+)\]", command):
        assert f'"{extra}": ' in setup


def check_variable(command: str, folder: Path) -> None:
    """Checks that a setting has this environment variable, and that its value is valid; or that it names a file."""
    check_syntax(command, folder)
    (name,) = re.findall(r"export (\w+?)(?:_FILE)?=", command)
    (setting,) = [
        setting for setting in reference_pages.SETTINGS if reference_pages.environment_variable(setting) == name
    ]
    value = shlex.split(command)[1].split("=", 1)[1]
    if f"{name}_FILE=" in command:
        assert Path(value).is_absolute()
    else:
        setting.parse(value)


def check_files(command: str, folder: Path) -> None:
    """Checks the shell syntax, the files and units of the project, and the parameters of a Luigi task."""
    check_syntax(command, folder)
    for name in re.findall(r"deploy/[\w*./-]+", command):
        assert list(ROOT.glob(name)), name
    for name in re.findall(r"spamscore[\w-]*\.(?:service|timer)", command):
        assert (ROOT / "deploy" / name).is_file(), name
    if match := re.search(r"luigi (--module pipeline .*)$", command):
        assert run_warm(f"luigi {match[1]} --help", folder).code == 0


def check_kubectl(command: str, folder: Path) -> None:
    """Checks a command of kubectl, and runs what it would run in a container."""
    check_syntax(command, folder)
    outer, _, inner = command.partition(" -- ")
    kubectl_commands.check(outer, "docs/how-to/kubernetes.md")
    if inner:
        find_rule(inner).test(inner, folder)


def check_container(command: str, folder: Path) -> None:
    """Checks the services, files, images and tasks that a command of Docker names."""
    check_syntax(command, folder)
    words = shlex.split(command)
    if words[1] == "compose":
        services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
        assert words[2] == "up" or set(words[3:]) & set(services), f"{command}: expected a service of compose.yaml"
        if "spamscore" in words:
            assert words[-1] in cli.commands
        return
    for option, name in itertools.pairwise(words):
        assert option != "--file" or (ROOT / name).is_file(), name
        if variable := re.match(r"(SPAMSCORE_\w+)_FILE=", name):
            variables = map(reference_pages.environment_variable, reference_pages.SETTINGS)
            assert variable[1] in variables, name
    if words[1] == "run":
        task = words[words.index(f"spamscore:{VERSION}") + 1 :]
        assert run_warm(shlex.join(["luigi", "--module", "pipeline", *task, "--help"]), folder).code == 0


def check_syntax(command: str, folder: Path) -> None:
    subprocess.run(["bash", "-n", "-c", command], check=True)


@dataclass(frozen=True)
class Rule:
    """How to test the commands that match a pattern, and why they are not run if they are only checked."""

    pattern: str
    test: Callable[[str, Path], None]
    reason: str = ""


RULES = [
    Rule(r"spamscore watch\b", watch),
    Rule(r"spamscore api\b", start_front_end),
    Rule(r"spamscore selftest", show_help, "it takes a minute; tests/pipeline/commands/test_selftest.py runs it"),
    Rule(r"kubectl ", check_kubectl, "there is no API server; the objects are those of deploy/kubernetes"),
    Rule(r"curl ", check_syntax, "the front end does not run; tests/pipeline/api/ sends requests"),
    Rule(r"((LUIGI|SPAMSCORE)_\w+=\S+ )?(luigi --module pipeline|spamscore|saved_model_cli) ?", run),
    Rule(r"(printf|paste|sqlite3|eval) ", run),
    Rule(r"make ", dry_run_make, "each target has its own test or takes long; make -n does not run the recipes"),
    Rule(r"\.ci/run$", check_script, "it runs all tests"),
    Rule(r"deploy/docker/make-secrets", run),
    Rule(r"docker ", check_container, "no engine runs; test_compose.py and tests/images/ run the commands inside"),
    Rule(r"deploy/serving/", check_script, "TensorFlow Serving is not installed; test_deploy.py runs the scripts"),
    Rule(r"\. \.venv/bin/activate$", check_syntax, "the tests run in this environment; make score creates it"),
    Rule(r"\.venv/bin/pre-commit install$", check_syntax, "it would change this checkout's hooks"),
    Rule(r"pip install ", check_extras, "it would change this environment"),
    Rule(r"export ", check_variable, "the database of the example does not exist"),
    Rule(r"sudo ", check_files, "it would change this machine; tests/test_deploy.py has systemd verify the units"),
]  # fmt: skip


def find_rule(command: str) -> Rule:
    rule = next((rule for rule in RULES if re.match(rule.pattern, command)), None)
    assert rule, f"no rule for the command: {command}"
    return rule


def substitute(command: str) -> str:
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
    # The test has no luigid, mail server or node_exporter, and only one date.
    for shipped, replacement in {
        "local_scheduler = false": "local_scheduler = true", "mail_to = root@localhost": "mail_to =",
        "catch_up_days = 7": "catch_up_days = 0", "keep_alive = true": "keep_alive = false",
        "textfile_folder = /var/lib/prometheus/node-exporter": f"textfile_folder = {folder}",
    }.items():  # fmt: skip
        text = nightly.read_text(encoding="utf-8")
        assert f"\n{shipped}\n" in text
        nightly.write_text(text.replace(f"\n{shipped}\n", f"\n{replacement}\n"), encoding="utf-8")
    (folder / ".config" / "fish" / "completions").mkdir(parents=True)
    (folder / "programs").mkdir()
    for name, replacement in REPLACEMENTS.items():
        if shutil.which(name) is None:
            program = folder / ("." if name == "ask_people" else "programs") / name
            program.write_text(f"#!/bin/sh\nexec {replacement}\n", encoding="utf-8")
            program.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def served(finished: tuple[Path, CommandResult]) -> Iterator[RunningModelServer]:
    """A model server with the exports of the finished chain."""
    with model_server(finished[0] / "artifacts" / "exports" / "spam_ham") as server:
        yield server


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=pytest.mark.slow if page in SLOW_SCENES else ()) for page in SCENES]
)
def test_the_commands_of_a_page_work_in_their_order(page: str, scene: Path, request: pytest.FixtureRequest) -> None:
    if any(re.match(r"spamscore (ask|check-server)", command) for command in SCENES[page]):
        server = request.getfixturevalue("served")
        with open(scene / "luigi.cfg", "a", encoding="utf-8") as settings:
            settings.write(f"[serving]\nserver = {server.grpc}\nrest_server = {server.rest}\n")
    for command in SCENES[page]:
        find_rule(command).test(command, scene)


def test_the_slow_scenes_exist() -> None:
    assert set(SCENES) >= SLOW_SCENES


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.pattern)
def test_each_rule_is_needed(rule: Rule) -> None:
    assert any(find_rule(command) is rule for block in SHELL for command in block.commands)


@pytest.mark.parametrize(("pattern", "_text"), SUBSTITUTIONS)
def test_each_substitution_is_needed(pattern: str, _text: str) -> None:
    assert any(re.search(pattern, command) for block in SHELL for command in block.commands)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}:{block.line}")
def test_a_code_block_has_a_known_language(block: Block) -> None:
    indented_allowed = block.page in ("docs/performance.md", "docs/quality.md", "docs/scaling.md")
    assert (
        block.language in LANGUAGES
        or block.language.split(" ")[0] in DIRECTIVES
        or (not block.language and indented_allowed)
    )
    if block.language == "text":
        assert not re.search(r"^(luigi|make|sudo) ", block.text, re.MULTILINE), "write the command into a block of sh"


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "ini"], ids=lambda block: f"{block.page}:{block.line}"
)
def test_the_settings_of_an_ini_block_are_valid(block: Block) -> None:
    parser = configparser.RawConfigParser()
    parser.read_string(block.text)
    for section in parser.sections():
        declared = {setting.key: setting for setting in reference_pages.SETTINGS if setting.section == section}
        for key, value in parser.items(section):
            declared[key].parse(value)


INLINE = sorted(
    {code for _, code in inline_code() if re.match(r"(spamscore [a-z]|luigi --module pipeline \w|make [a-z])", code)}
)


@pytest.mark.parametrize("code", INLINE)
def test_a_command_within_a_sentence_exists(code: str) -> None:
    words = shlex.split(code)
    if words[0] == "make":
        dry_run_make(code, ROOT)
        return
    if words[0] == "luigi":
        assert issubclass(getattr(pipeline, words[3], luigi.Task), luigi.Task)
        assert words[3] in (*pipeline.__all__, "RangeDaily")
        return
    options = {name for option in options_of(cli.commands[words[1]]) for name in option.opts}
    assert {word for word in words if word.startswith("--")} <= options


def options_of(command: click.Command) -> list[Any]:
    return command.get_params(click.Context(command))
