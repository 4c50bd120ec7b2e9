"""`spamscore selftest`: checks an installation on this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from pipeline import printing
from pipeline.command_group import FAILED
from pipeline.commands.options import examples, format_option, print_note, status_line
from pipeline.printing import print_json, print_lines

if TYPE_CHECKING:
    from pipeline.answers.selftest import CheckResult

_STYLES = {"ok": "green", "failed": "bold red", "skipped": "dim"}


@click.command(
    short_help="Check this installation.",
    epilog=examples(
        "spamscore selftest",
        "spamscore selftest --json > selftest.json       for a report of a problem",
    ),
)
@format_option("json", "Print a JSON object: ok, checks, versions, devices, cores, memory_bytes.")
def selftest(output_format: str | None) -> None:
    """Check this installation in under a minute: packages, devices, training, export, scoring, database.

    Runs the code of the nightly run on a few messages of the sample, on the devices of [devices]: encodes them, trains
    three steps, restores the checkpoint, exports the model, scores, and writes the scores to a database. Everything is
    written to a temporary folder, which is deleted at the end. Needs no luigi.cfg, and does not use the configured
    database.

    The exit code is 0 if every check passes, and 1 if one fails. Checks that depend on it are skipped. In a pipe,
    prints one line per check, separated by tabs: name, state (ok, failed or skipped), seconds, and what was found or
    the error. Then one line for each version, the devices, the cores and the memory: name, value.
    """
    from pipeline.answers.selftest import FAILED as CHECK_FAILED
    from pipeline.answers.selftest import run_checks

    results = []
    checks = run_checks()
    while True:
        with status_line("Checking …"):
            result = next(checks, None)
        if result is None:
            break
        results.append(result)
        if output_format != "json":
            _print_check(result)
    facts = _collect_facts(results)
    failed = next((result for result in results if result.state == CHECK_FAILED), None)
    if output_format == "json":
        print_json({"ok": failed is None, "checks": [dataclasses.asdict(result) for result in results], **facts})
    else:
        _print_facts(facts)
    if failed:
        print_note(f"{failed.name} failed: {printing.escape_unprintable(failed.detail)}")
        raise click.exceptions.Exit(FAILED)


def _print_check(result: CheckResult) -> None:
    if printing.is_terminal():
        line = printing.styled_text(f"{result.state:<8}", _STYLES[result.state])
        line.append(f"{result.name:<11}", "default").append(f"{result.seconds:5.1f} s  ", "dim")
        printing.open_console().print(line.append(printing.escape_unprintable(result.detail)), soft_wrap=True)
        return
    values = (result.name, result.state, f"{result.seconds:.1f}", result.detail)
    print_lines(["\t".join(map(printing.format_plain, values))])


def _collect_facts(results: Sequence[CheckResult]) -> dict[str, Any]:
    from pipeline.answers.selftest import count_cores, find_devices, list_versions, read_memory

    return {
        "versions": list_versions(),
        "devices": find_devices(results),
        "cores": count_cores(),
        "memory_bytes": read_memory(),
    }


def _print_facts(facts: dict[str, Any]) -> None:
    rows = {**facts["versions"], "devices": facts["devices"], "cores": facts["cores"]}
    rows["memory"] = f"{facts['memory_bytes'] / 2**30:.1f} GiB"
    if printing.is_terminal():
        print_lines(["", *(f"{name:<12}{value or 'unknown'}" for name, value in rows.items())])
    else:
        print_lines(f"{name}\t{value}" for name, value in rows.items())
