"""`spamscore check-server`: compares a model server with the batch on labelled messages, and measures it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from pipeline import printing
from pipeline.command_group import FAILED
from pipeline.commands.options import POSITIVE_INTEGER, examples, format_option, status_line
from pipeline.commands.serving.server_options import server_options
from pipeline.printing import print_json, print_lines

if TYPE_CHECKING:
    from pipeline.client.server import ModelServer
    from pipeline.client.server_check import ServerCheck

_MAX_CONCURRENCY = 1024


@click.command(
    "check-server",
    short_help="Compare a model server with the batch, and measure it.",
    epilog=examples(
        "spamscore check-server --messages labelled.csv",
        "spamscore check-server --server models.internal:8500 --tls --messages labelled.csv --concurrency 1",
        "spamscore check-server --label canary --messages labelled.csv --json | jq .error_rate",
        "spamscore check-server --messages labelled.csv --per-call 512       the rate of large calls",
    ),
)
@click.option(
    "--messages",
    type=click.Path(),
    required=True,
    metavar="FILE",
    help="Labelled messages, in the format, columns and labels of [corpus].",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, _MAX_CONCURRENCY),
    default=32,
    show_default=True,
    metavar="N",
    help="Calls at the same time.",
)
@click.option(
    "--per-call", type=POSITIVE_INTEGER, default=1, show_default=True, metavar="N", help="Messages in a call."
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=1e-5,
    show_default=True,
    metavar="X",
    help="Largest difference of a probability that counts as agreement.",
)
@format_option("json", "Print a JSON object.")
@server_options
def check_server(
    messages: str,
    concurrency: int,
    per_call: int,
    tolerance: float,
    output_format: str | None,
    server: ModelServer,
    rest: bool,
) -> None:
    """Ask a model server for labelled messages, and compare its answers with the batch's own probabilities.

    The batch's probabilities are computed here, with the versions that the answers name, so these must be in the
    exports of this folder. The exit code is 1 if a probability differs by more than --tolerance, or if a call fails.

    A served model computes in single precision, and a batch rounds to six decimals: differences of one or two
    millionths are usual. Another version, or other weights, differ a hundred times as much on many messages.

    The latency is that of this client, with --concurrency calls at the same time, including the network and retries:
    with a larger concurrency calls wait for each other. For the latency of a single call, use --concurrency 1.

    With --rest, a call by label first asks for the version of the label, and its latency includes that.
    """
    from pipeline.client import asking, server_check

    labelled = server_check.read_labelled_messages(messages)
    line = f"Asking for {len(labelled.texts):,} messages …"
    with contextlib.closing(asking.open_client(server, rest)) as client, status_line(line):
        check = server_check.check_server(client, labelled, concurrency, per_call, tolerance)
    if output_format == "json":
        print_json({"server": server.address, "model": server.model, **check.to_dict()})
    else:
        print_lines(_format_check(server, check))
    if not check.passed:
        raise click.exceptions.Exit(FAILED)


def _format_check(server: ModelServer, check: ServerCheck) -> list[str]:
    versions = ", ".join(
        f"{version} (threshold {threshold:g})"
        for version, threshold in zip(check.versions, check.thresholds, strict=True)
    )
    skipped = "".join(f", {count:,} skipped ({reason})" for reason, count in check.skipped.items())
    failed = ", ".join(f"{count:,} {kind}" for kind, count in check.failed_calls.items())
    agrees = check.largest_difference <= check.tolerance
    rows = {
        "Server": f"{server.address}, model {server.model}, version {versions}",
        "Messages": f"{check.messages:,} answered{skipped}",
        "Error rate": f"{check.error_rate.value:.2%} ({check.errors:,} wrong; 95 % interval "
        f"{check.error_rate.low:.2%} to {check.error_rate.high:.2%})",
        "Precision": _format_share(check.precision),
        "Recall": _format_share(check.recall),
        "Difference": f"{check.largest_difference:.1e} at most; {'agrees' if agrees else 'DIFFERS'} to within "
        f"{check.tolerance:g}",
        "Latency": f"median {check.median_ms:.1f} ms, p99 {check.p99_ms:.1f} ms, with {check.concurrency} calls at the "
        "same time",
        "Rate": f"{check.messages_per_second:,.0f} messages a second",
        "Failed calls": failed or "none",
    }
    return [f"{title + ':':<14}{printing.escape_unprintable(value)}" for title, value in rows.items()]


def _format_share(share: float | None) -> str:
    return "not defined" if share is None else f"{share:.2%}"
