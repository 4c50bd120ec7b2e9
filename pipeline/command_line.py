"""The command `spamscore`: asks the model about messages, and the database about what the nights wrote; takes it back.

The commands are in `pipeline.commands`. Each reads settings, calls one function that answers, and prints. Those that
change something ask before, unless told `--yes`: withdraw, restore, serve and prune. What is heavy (TensorFlow,
SQLAlchemy, pyarrow, Rich) is imported inside the command that needs it, for a shell completing a word must not wait.
Running the tasks is Luigi's: ``luigi --module pipeline ScoreBatch``.

Exit codes: 0 done; 1 it failed; 2 a bad argument or setting; 35 the database cannot be used, as Luigi's own
``scheduling_error``; 130 interrupted; 141 whoever read the output went away.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, TextIO, cast

import click
from click.shell_completion import get_completion_class

from pipeline.commands.batches import batches, scores, summary
from pipeline.commands.explain import explain
from pipeline.commands.group import Commands
from pipeline.commands.labels import label, labels, uncertain
from pipeline.commands.options import examples
from pipeline.commands.reports import drift, report
from pipeline.commands.rollback import prune, restore, verify, withdraw
from pipeline.commands.settings import config
from pipeline.commands.text import text
from pipeline.commands.versions import models, serve
from pipeline.commands.watch import watch
from pipeline.printing import print_lines

SHELLS = ("bash", "zsh", "fish")
_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(
    cls=Commands,
    context_settings=_HELP,
    epilog=examples(
        'spamscore text "You have WON a prize! Reply YES"   how likely a message is spam',
        "spamscore summary                                  what the last night did",
        "spamscore scores yesterday --flagged               what was flagged",
        "spamscore uncertain yesterday                      what a person should look at",
        "spamscore config scoring                           which settings hold, and why",
        "spamscore withdraw yesterday                       takes a night's scores back",
        "luigi --module pipeline ScoreBatch                 scores yesterday's messages",
    )
    + "\n\n\b\nExit codes: 0 done, 1 failed, 2 bad argument or setting, 35 no database, 130 interrupted.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
@click.version_option(package_name="spamscore", message="%(prog)s %(version)s", help="Show the version and exit.")
def cli(debug: bool) -> None:
    """Spam probabilities of text messages: ask the model, and see what the nightly batches wrote.

    Settings are read from luigi.cfg in the working folder, or where LUIGI_CONFIG_PATH says.
    """


COMMANDS = (
    text, explain, batches, scores, summary, report, drift, uncertain, label, labels, models, verify, withdraw, restore,
    serve, prune, watch, config,
)  # fmt: skip
for command in COMMANDS:
    cli.add_command(command)


@cli.command(
    short_help="Print a script for completion in a shell.",
    epilog=examples(
        'eval "$(spamscore completion bash)"                                        in ~/.bashrc',
        'eval "$(spamscore completion zsh)"                                         in ~/.zshrc',
        "spamscore completion fish > ~/.config/fish/completions/spamscore.fish      once",
    ),
)
@click.argument("shell", type=click.Choice(SHELLS), required=False)
def completion(shell: str | None) -> None:
    """Print the script that completes commands and options in SHELL; in the shell of $SHELL if not given.

    To install it, put the line of your shell into its start-up file, and open a new terminal.
    """
    chosen = shell or Path(os.environ.get("SHELL", "")).name
    script = get_completion_class(chosen)
    if script is None:
        raise click.UsageError(f"expected one of {', '.join(SHELLS)}, received {chosen or 'no $SHELL'!r}")
    print_lines([script(cli, {}, "spamscore", "_SPAMSCORE_COMPLETE").source()])


def main() -> None:
    """The entry point of the command."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that does not know a character gets its number rather than a failure.
        if stream is not None:
            cast("Any", stream).reconfigure(errors="backslashreplace")
    if sys.stdout is None:
        sys.stdout = cast("TextIO", open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for as long as we run
    cli.main(prog_name="spamscore")
