"""`spamscore watch`: runs a task and shows it on Luigi's page."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

import click

from pipeline.commands.options import examples, print_note


@click.command(
    short_help="Run a task and show it on Luigi's page.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog=examples(
        "spamscore watch                                       the Nightly task of yesterday",
        "spamscore watch ScoreBatch --date 2026-01-31          the batch of another date",
        "spamscore watch TrainModel --network-rnn-units 128    a training with another setting",
    ),
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8082,
    show_default=True,
    metavar="N",
    help="Port of the page; 0 takes a free one.",
)
@click.argument("task", nargs=-1, type=click.UNPROCESSED)
def watch(port: int, task: tuple[str, ...]) -> None:
    """Run TASK (Nightly if not given) and show it on Luigi's page, which only this machine can open.

    The page shows the chain of tasks, the progress of each, and why a task failed. It can send messages to a running
    training or batch. The page stays available after the run, until ^C. It lists the runs of the last seven days. The
    exit code is that of the run.
    """
    from pipeline.watch.luigid import PAGE, luigid_folder, run_luigid, run_task
    from tasks.settings.checking import check_settings

    check_settings()
    signal.signal(signal.SIGTERM, _interrupt)
    exit_code = None
    try:
        with run_luigid(luigid_folder(), port) as url:
            print_note(f"watch it at {url}{PAGE}")
            with run_task(url, task or ("Nightly",)) as run:
                exit_code = run.wait()
                print_note(f"the run ended with exit code {exit_code}; {url}{PAGE} shows it until ^C")
                while True:
                    signal.pause()
    except KeyboardInterrupt:
        if exit_code is None:
            raise
    raise click.exceptions.Exit(exit_code)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
