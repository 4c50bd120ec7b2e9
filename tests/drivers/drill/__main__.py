"""Runs the fault drill: the whole chain in a scratch folder, killed and disturbed in many ways. The result must be the
same as that of an undisturbed run.

    make drill
    make drill DRILL='--seed 7 --moments 20 --database sqlite --report drill.md'
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import servers
from drill.baseline import Baseline, find_start_point, prepare_baselines
from drill.faults import Fault, all_faults, list_skipped_faults, run_with_fault
from drill.moments import STAGES, Moment, divide_number, draw_moments, shorten_delay
from drill.report import Report, Row
from drill.workspace import RunResult, Workspace

DATABASES = ("sqlite", "postgresql")
_KILLS_PER_WORKSPACE = 4  # kills before a run may end
_RESUMED_STAGES = ("TrainModel", "ScoreBatch")  # a killed run resumes inside these stages, so fewer events are left
_OUTSIDE_SHARE = 0.1  # share of the kills that come from outside, at any time


def main(arguments: list[str] | None = None) -> int:
    """Runs the drill; returns 1 if any result differs from the undisturbed run."""
    options = _parse_arguments(arguments)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    databases = DATABASES if options.database == "both" else (options.database,)
    report = Report(seed, skipped=list_skipped_faults())
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="spamscore-drill-", ignore_cleanup_errors=True))
        server = stack.enter_context(servers.postgresql()) if "postgresql" in databases else None
        baselines = stack.enter_context(prepare_baselines(Path(folder), databases, server))
        with ThreadPoolExecutor(len(baselines)) as pool:
            for rows in pool.map(lambda baseline: drill(baseline, options, seed), baselines):
                report.rows += rows
    report.print()
    if options.report:
        report.write(options.report)
    return 0 if report.good else 1


def _parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="drill", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, help="repeat the moments of the drill that printed this seed")
    parser.add_argument("--moments", type=int, default=100, help="number of SIGKILLs on each database (100)")
    parser.add_argument("--database", choices=(*DATABASES, "both"), default="both")
    parser.add_argument("--faults", default="", metavar="REGEX", help="inject only faults whose name matches")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="kill only in these stages")
    parser.add_argument("--report", type=Path, help="file for the report: .md for Markdown, otherwise JSON")
    return parser.parse_args(arguments)


def drill(baseline: Baseline, options: argparse.Namespace, seed: int) -> list[Row]:
    """Runs all kills and faults on one kind of database."""
    rng = random.Random(f"{seed} {baseline.name}")
    outside = round(options.moments * _OUTSIDE_SHARE) if set(options.stages) == set(STAGES) else 0
    recording = baseline.recording.select(options.stages)
    moments = draw_moments(recording, options.moments - outside, rng)
    rows = [
        kill_at_moments(baseline, stage, list(stage_moments))
        for stage, stage_moments in groupby(moments, key=lambda moment: moment.stage)
    ]  # fmt: skip
    if outside:
        rows.append(kill_from_outside(baseline, outside, rng))
    faults = [
        fault for fault in all_faults()
        if baseline.name in fault.databases and re.search(options.faults, fault.name)
    ]  # fmt: skip
    return rows + [inject(baseline, fault) for fault in faults]


def kill_at_moments(baseline: Baseline, stage: str, moments: list[Moment]) -> Row:
    """Kills runs at moments of one stage: a few kills in each workspace, then a run that may end."""
    row = Row(baseline.name, f"SIGKILL in {stage}")
    waiting = list(moments)
    while waiting:
        # Every n-th moment of the list, so that the moments of a workspace are spread over the stage.
        batch = waiting[:: -(-len(waiting) // _KILLS_PER_WORKSPACE)]
        with baseline.open_workspace(find_start_point(stage)) as workspace:
            ended = False
            for index, moment in enumerate(batch):
                if ended:
                    break
                resumed = index and stage in _RESUMED_STAGES
                result = workspace.run(divide_number(moment, len(batch)) if resumed else moment)
                row.runs += 1
                ended = result.seconds_after_strike is None
                if ended and result.code == 0 and (index or moment.delay):
                    # The run ended before the moment: either a run killed earlier had already passed the event, or the
                    # delay was longer than the rest of the run. Tries the moment again, in a new workspace.
                    waiting[waiting.index(moment)] = moment if index else shorten_delay(moment)
                    continue
                if ended:
                    row.problems.append(f"{moment} was not reached, exit {result.code}: {result.last_line}")
                else:
                    row.times += 1
                    judge_kill(row, moment, result)
                waiting.remove(moment)
            finish(row, baseline, workspace, rerun=not ended)
        print_progress(row, ", ".join(map(str, batch)))
    return row


def judge_kill(row: Row, moment: Moment, result: RunResult) -> None:
    """Checks the exit of a killed run: if only the process of the task was killed, the last line must report it."""
    row.add_exit(result.code, result.last_line)
    if moment.target == "group":
        # The thread that sends the signal may be a little late; then the run has already ended with 0.
        if result.code not in (-signal.SIGKILL, 0):
            row.problems.append(f"{moment}: exit {result.code}: {result.last_line}")
    elif result.code not in (0, 30) or (result.code and not result.last_line.startswith("spamscore: ")):
        row.problems.append(f"{moment}: exit {result.code}: {result.last_line}")


def kill_from_outside(baseline: Baseline, times: int, rng: random.Random) -> Row:
    """Kills the process group of runs at random times after their start."""
    row = Row(baseline.name, "SIGKILL from outside")
    for number in range(-(-times // _KILLS_PER_WORKSPACE)):
        with baseline.open_workspace("nothing") as workspace:
            for _ in range(min(_KILLS_PER_WORKSPACE, times - number * _KILLS_PER_WORKSPACE)):
                run = workspace.start()
                duration = sum(map(baseline.recording.get_duration, STAGES))
                time.sleep(rng.uniform(0.1, duration / _KILLS_PER_WORKSPACE + 5))
                run.signal(signal.SIGKILL)
                result = run.wait()
                row.times, row.runs = row.times + 1, row.runs + 1
                row.add_exit(result.code, result.last_line)
            finish(row, baseline, workspace, rerun=True)
        print_progress(row, "at any time")
    return row


def inject(baseline: Baseline, fault: Fault) -> Row:
    """Runs the command with a fault, and again without it."""
    row = Row(baseline.name, fault.name)
    with baseline.open_workspace(fault.point, mounted=fault.mounted) as workspace:
        result = run_with_fault(fault, workspace)
        row.runs += 1
        if fault.moment is None or result.seconds_after_strike is not None:
            row.times += 1
        row.add_exit(result.code, result.last_line)
        if result.seconds_after_strike is not None and result.code == 143:
            row.last_line += f" (after {result.seconds_after_strike:.1f} s)"
            if result.seconds_after_strike > 10:
                row.problems.append(f"ran for {result.seconds_after_strike:.0f} s after SIGTERM; expected at most 10 s")
        if result.code not in fault.codes:
            row.problems.append(f"expected exit {fault.codes}, received {result.code}")
        if result.code and not result.last_line.startswith("spamscore: "):
            row.problems.append(f"the last line does not report the error: {result.last_line}")
        if "Traceback" in result.output:
            row.problems.append("a traceback was printed")
            print_output(row, result)
        finish(row, baseline, workspace, rerun=True)
    print_progress(row, f"exit {result.code}, {row.last_line}")
    return row


def finish(row: Row, baseline: Baseline, workspace: Workspace, rerun: bool) -> None:
    """Runs the command again without a fault if `rerun`, and compares the outcome with the undisturbed run."""
    if rerun:
        result = workspace.run()
        row.runs += 1
        if result.code:
            row.problems.append(f"the rerun ended with {result.code}: {result.last_line}")
            print_output(row, result)
    row.add(baseline.judge(workspace))


def print_output(row: Row, result: RunResult) -> None:
    """Prints the output of an unexpected run."""
    print(f"--- {row.database}, {row.fault}, exit {result.code}:\n{result.output}\n---", file=sys.stderr, flush=True)


def print_progress(row: Row, detail: str) -> None:
    """Prints a line of progress."""
    state = "same as undisturbed" if row.good else "WRONG: " + "; ".join(row.problems)
    print(f"{row.database}, {row.fault}: {detail}: {state}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
