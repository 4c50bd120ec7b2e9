"""The command line `spamscore`: asks the model about messages, reads what the batches wrote, and rolls it back.

The commands are in `pipeline.commands`. Each reads the settings, calls one function and prints the result. The commands
withdraw, restore, serve, prune, extract --again and drift --accept ask for confirmation unless `--yes` is given. Heavy
packages (TensorFlow, SQLAlchemy, pyarrow, Rich) are imported inside the command that needs them, so that shell
completion is fast. The exit codes are in `pipeline.command_group`.

Luigi runs the tasks: ``luigi --module pipeline ScoreBatch``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, TextIO, cast

import click
from click.shell_completion import get_completion_class

from pipeline.command_group import EXIT_CODES, CommandGroup
from pipeline.commands.batches import batches, scores, summary
from pipeline.commands.explain import explain
from pipeline.commands.extract import extract
from pipeline.commands.labels import label, labels, uncertain
from pipeline.commands.options import examples, exit_codes
from pipeline.commands.reports import drift, report
from pipeline.commands.rollback import prune, restore, verify, withdraw
from pipeline.commands.selftest import selftest
from pipeline.commands.serving.api import api
from pipeline.commands.serving.ask import ask
from pipeline.commands.serving.check_server import check_server
from pipeline.commands.settings import config
from pipeline.commands.text import text
from pipeline.commands.versions import checkpoints, models, serve, weights
from pipeline.commands.watch import watch
from pipeline.printing import print_lines

SHELLS = ("bash", "zsh", "fish")
_CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(
    cls=CommandGroup,
    context_settings=_CONTEXT_SETTINGS,
    epilog=examples(
        'spamscore text "You have WON a prize! Reply YES"   spam probability of a message',
        "spamscore summary                                  result of the latest batch",
        "spamscore scores yesterday --flagged               messages that were flagged",
        "spamscore uncertain yesterday                      messages most worth labelling",
        "spamscore config scoring                           settings, and where each comes from",
        "spamscore withdraw yesterday                       rolls back the scores of a date",
        "luigi --module pipeline ScoreBatch                 scores yesterday's messages",
    )
    + "\n\n"
    + exit_codes(EXIT_CODES),
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="spamscore", message="%(prog)s %(version)s", help="Show the version and exit.")
def cli(debug: bool) -> None:
    """Spam probabilities of text messages: ask the model, and inspect or roll back the nightly batches.

    Settings are read from luigi.cfg in the current folder, or from the file that LUIGI_CONFIG_PATH names.
    """


COMMANDS = (
    text, explain, batches, scores, summary, report, drift, uncertain, label, labels, models, checkpoints, weights,
    extract, verify, withdraw, restore, serve, prune, api, ask, check_server, watch, config, selftest,
)  # fmt: skip
for command in COMMANDS:
    cli.add_command(command)


@cli.command(
    short_help="Print the completion script of a shell.",
    epilog=examples(
        'eval "$(spamscore completion bash)"                                        in ~/.bashrc',
        'eval "$(spamscore completion zsh)"                                         in ~/.zshrc',
        "spamscore completion fish > ~/.config/fish/completions/spamscore.fish      run once",
    ),
)
@click.argument("shell", type=click.Choice(SHELLS), required=False)
def completion(shell: str | None) -> None:
    """Print the script that completes commands and options in SHELL (default: the shell in $SHELL).

    To install it, add the line for your shell to its start-up file, and open a new terminal.
    """
    name = shell or Path(os.environ.get("SHELL", "")).name
    completion_class = get_completion_class(name)
    if completion_class is None:
        raise click.UsageError(f"expected one of {', '.join(SHELLS)}, received {name or 'no $SHELL'!r}")
    print_lines([completion_class(cli, {}, "spamscore", "_SPAMSCORE_COMPLETE").source()])


def main() -> None:
    """Runs the command line; the entry point of `spamscore`."""
    for stream in (sys.stdout, sys.stderr):
        # A character that the encoding of the terminal lacks is printed as its code point, instead of failing.
        if stream is not None:
            cast("Any", stream).reconfigure(errors="backslashreplace")
    if sys.stdout is None:
        sys.stdout = cast("TextIO", open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open until the process ends
    cli.main(prog_name="spamscore")
