"""The command line `spamscore`: its help, its imports and shell completion."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from spamscore_command import (
    get_output,
    run,
    run_process,
)

from pipeline.command_line import cli

COMMANDS = [
    "text", "explain", "batches", "scores", "summary", "report", "drift", "uncertain", "label", "labels", "models",
    "checkpoints", "weights", "extract", "verify", "withdraw", "restore", "serve", "prune", "api", "ask",
    "check-server", "watch", "config", "selftest", "completion",
]  # fmt: skip
WITHOUT_JSON = {"label", "withdraw", "restore", "serve", "prune", "api", "watch", "completion"}


def make_context() -> click.Context:
    return click.Context(cli, info_name="spamscore", **cli.context_settings)


def test_help_describes_every_command_option_and_argument() -> None:
    assert list(cli.commands) == COMMANDS
    context = make_context()
    for command in [cli, *cli.commands.values()]:
        assert command.help
        assert command.epilog
        assert command is cli or not command.get_short_help_str(60).endswith("...")
        for option in (param for param in command.get_params(context) if isinstance(param, click.Option)):
            assert option.help, f"{command.name} {option.opts[0]} has no help text"
        for argument in (param for param in command.params if isinstance(param, click.Argument)):
            assert argument.make_metavar(context).strip("[].").split("]")[0].split("|")[0] in command.help.upper() or (
                argument.name == "shell"
            )


def find_examples() -> list[str]:
    commands = []
    for command in [cli, *cli.commands.values()]:
        for line in (command.epilog or "").splitlines():
            commands += re.findall(r"spamscore (?:[^|<>)\"']|\"[^\"]*\"|'[^']*')*", line.split("   ")[0])
    return commands


@pytest.mark.parametrize("example", find_examples())
def test_the_examples_in_the_help_are_valid(example: str) -> None:
    _, name, *arguments = shlex.split(example)
    command = cli.commands[name]
    command.make_context(name, arguments, parent=make_context())


def test_each_command_that_prints_data_has_json() -> None:
    for name in set(COMMANDS) - WITHOUT_JSON:
        assert any("--json" in param.opts for param in cli.commands[name].params), name


@pytest.mark.parametrize("argument", ["-h", "--help"])
def test_help_has_examples(argument: str) -> None:
    assert "Examples:\n    spamscore scores yesterday --flagged\n" in get_output("scores", argument)


def test_version_prints_the_version_of_the_distribution() -> None:
    assert re.fullmatch(r"spamscore \d+\.\d+\.\d+\n", get_output("--version"))


HEAVY = ("tensorflow", "keras", "pandas", "numpy", "pyarrow", "sklearn", "sqlalchemy", "alembic", "rich")


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["--help"], set()),
        (["config"], set()),
        (["config", "--defaults"], set()),
        (["completion", "fish"], set()),
        (["models"], set()),
        (["prune", "--help"], set()),
        (["selftest", "--help"], set()),
        (["batches"], {"sqlalchemy"}),
    ],
    ids=" ".join,
)
def test_a_command_imports_only_what_it_needs(arguments: list[str], allowed: set[str], folder: Path) -> None:
    code = (
        f"import sys; from pipeline.command_line import cli; cli.main({arguments!r}, standalone_mode=False); "
        f"print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "SPAMSCORE_DATABASE_URL"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert set(result.stderr.splitlines()[-1].split()) <= allowed


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_for_a_shell(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = get_output("completion", shell)
    assert f"_SPAMSCORE_COMPLETE={shell}_complete" in script
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    assert get_output("completion") == script


def test_an_error_for_an_unknown_shell_lists_the_shells(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("completion", "powershell").exit_code == 2
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    result = run("completion")
    assert result.exit_code == 2
    assert "bash, zsh, fish" in result.stderr


@pytest.mark.parametrize(
    ("typed", "word_index", "completion"),
    [
        ("spamscore su", 1, "summary"),
        ("spamscore scores y", 2, "yesterday"),
        ("spamscore config sco", 2, "scoring"),
        ("spamscore scores today --fl", 3, "--flagged"),
    ],
)
def test_commands_options_and_values_are_completed(folder: Path, typed: str, word_index: int, completion: str) -> None:
    environment = {
        **os.environ,
        "_SPAMSCORE_COMPLETE": "bash_complete",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(word_index),
    }
    assert run_process(env=environment, cwd=folder).stdout.split() == [f"plain,{completion}"]
