"""`spamscore watch`: a run, and Luigi's page to see it on."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

import click

from pipeline.commands.options import examples, remark


@click.command(
    short_help="Run a task with Luigi's page beside it.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog=examples(
        "spamscore watch                                       yesterday's night",
        "spamscore watch ScoreBatch --date 2026-01-31          another date",
        "spamscore watch TrainModel --network-rnn-units 128    a training, with another setting",
    ),
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8082,
    show_default=True,
    metavar="N",
    help="Port of the page; 0 takes one that is free.",
)
@click.argument("task", nargs=-1, type=click.UNPROCESSED)
def watch(port: int, task: tuple[str, ...]) -> None:
    """Run TASK (Nightly if not given) with Luigi's page beside it, on this machine alone.

    The page shows the chain, how far each stage is, and what failed and why; a running training or batch takes messages
    from it. It stays, after the run too, until ^C. The runs of the last seven days are on it whenever it is opened.
    Exits as the run did.
    """
    from pipeline.watch.luigid import PAGE, luigid, watch_folder, watched_run
    from tasks.settings.checking import check_settings

    check_settings()
    signal.signal(signal.SIGTERM, _interrupt)
    code = None
    try:
        with luigid(watch_folder(), port) as url:
            remark(f"watch it at {url}{PAGE}")
            with watched_run(url, task or ("Nightly",)) as run:
                code = run.wait()
                remark(f"the run ended with exit code {code}; {url}{PAGE} shows it until ^C")
                while True:
                    signal.pause()
    except KeyboardInterrupt:
        if code is None:
            raise
    raise click.exceptions.Exit(code)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
