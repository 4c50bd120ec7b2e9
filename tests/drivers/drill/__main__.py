"""The fault drill: the whole chain in a scratch folder, disturbed in every way there is, and held to what an
undisturbed run leaves.

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
from drill.faults import Fault, all_faults, left_out, under
from drill.moments import STAGES, Moment, drawn, sooner, sooner_after
from drill.report import Report, Row
from drill.scene import Ended, Ground, Stand, point_before, prepared

DATABASES = ("sqlite", "postgresql")
_NIGHT = 4  # kills before a run is left to end
_RESUMING = ("TrainModel", "ScoreBatch")  # stages that go on where they were killed, and so have less before them
_OUTSIDE = 0.1  # share of the moments that are killed from outside, at any time


def main(arguments: list[str] | None = None) -> int:
    """Runs the drill; 1 if anything is not as the undisturbed run left it."""
    options = _parsed(arguments)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    databases = DATABASES if options.database == "both" else (options.database,)
    report = Report(seed, left_out=left_out())
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="spamscore-drill-", ignore_cleanup_errors=True))
        server = stack.enter_context(servers.postgresql()) if "postgresql" in databases else None
        grounds = stack.enter_context(prepared(Path(folder), databases, server))
        with ThreadPoolExecutor(len(grounds)) as pool:
            for rows in pool.map(lambda ground: drill(ground, options, seed), grounds):
                report.rows += rows
    report.show()
    if options.report:
        report.write(options.report)
    return 0 if report.good else 1


def _parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="drill", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, help="repeats the moments of a drill that printed it")
    parser.add_argument("--moments", type=int, default=100, help="moments of SIGKILL on each database (100)")
    parser.add_argument("--database", choices=(*DATABASES, "both"), default="both")
    parser.add_argument("--faults", default="", metavar="REGEX", help="only the faults whose name it is found in")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="only moments of these stages")
    parser.add_argument("--report", type=Path, help="a file for the report, .json or .md")
    return parser.parse_args(arguments)


def drill(ground: Ground, options: argparse.Namespace, seed: int) -> list[Row]:
    """All moments and faults on one kind of database."""
    chance = random.Random(f"{seed} {ground.name}")
    outside = round(options.moments * _OUTSIDE) if set(options.stages) == set(STAGES) else 0
    seen = ground.seen.only(options.stages)
    moments = drawn(seen, options.moments - outside, chance)
    rows = [
        kills(ground, stage, list(of_stage))
        for stage, of_stage in groupby(moments, key=lambda one: one.stage)
    ]  # fmt: skip
    if outside:
        rows.append(kills_from_outside(ground, outside, chance))
    wanted = [
        one for one in all_faults()
        if ground.name in one.databases and re.search(options.faults, one.name)
    ]  # fmt: skip
    return rows + [inject(ground, one) for one in wanted]


def kills(ground: Ground, stage: str, moments: list[Moment]) -> Row:
    """Nights of a few kills each at moments of one stage, each night left to end at last."""
    row = Row(ground.name, f"SIGKILL in {stage}")
    waiting = list(moments)
    while waiting:
        # Taken from all over the list, so that the moments of a night are spread over the stage.
        night = waiting[:: -(-len(waiting) // _NIGHT)]
        with ground.stand(point_before(stage)) as stand:
            over = False
            for place, moment in enumerate(night):
                if over:
                    break
                ended = stand.run(sooner(moment, len(night)) if place and stage in _RESUMING else moment)
                row.runs += 1
                over = ended.went_on is None
                if over and ended.code == 0 and (place or moment.delay):
                    # The stage was past it already, as a batch that is begun is not begun again; or, from fresh, it had
                    # ended before the delay had: once more, and sooner.
                    waiting[waiting.index(moment)] = moment if place else sooner_after(moment)
                    continue
                if over:
                    row.wrong.append(f"{moment} did not come, exit {ended.code}: {ended.last_line}")
                else:
                    row.times += 1
                    judge_kill(row, moment, ended)
                waiting.remove(moment)
            finish(row, stand, rerun=not over)
        say(row, ", ".join(map(str, night)))
    return row


def judge_kill(row: Row, moment: Moment, ended: Ended) -> None:
    """A run that is killed whole says nothing; one whose task's process alone is must say so in a line."""
    row.left(ended.code, ended.last_line)
    if moment.whom == "group":
        # The thread that kills may be late by a little, when there is nothing left to kill.
        if ended.code not in (-signal.SIGKILL, 0):
            row.wrong.append(f"{moment}: exit {ended.code}: {ended.last_line}")
    elif ended.code not in (0, 30) or (ended.code and not ended.last_line.startswith("spamscore: ")):
        row.wrong.append(f"{moment}: exit {ended.code}: {ended.last_line}")


def kills_from_outside(ground: Ground, times: int, chance: random.Random) -> Row:
    """Kills of the whole group at any time since its start, whatever it is at."""
    row = Row(ground.name, "SIGKILL from outside")
    for night in range(-(-times // _NIGHT)):
        with ground.stand("nothing") as stand:
            for _ in range(min(_NIGHT, times - night * _NIGHT)):
                run = stand.start()
                time.sleep(chance.uniform(0.1, sum(map(ground.seen.seconds, STAGES)) / _NIGHT + 5))
                run.signal(signal.SIGKILL)
                ended = run.ended()
                row.times, row.runs = row.times + 1, row.runs + 1
                row.left(ended.code, ended.last_line)
            finish(row, stand, rerun=True)
        say(row, "at any time")
    return row


def inject(ground: Ground, fault: Fault) -> Row:
    """One fault, then the same command with the fault gone."""
    row = Row(ground.name, fault.name)
    with ground.stand(fault.point, mounted=fault.mounted) as stand:
        ended = under(fault, stand)
        row.runs += 1
        if fault.moment is None or ended.went_on is not None:
            row.times += 1
        row.left(ended.code, ended.last_line)
        if ended.went_on is not None and ended.code == 143:
            row.said += f" (after {ended.went_on:.1f} s)"
            if ended.went_on > 10:
                row.wrong.append(f"went on for {ended.went_on:.0f} s after SIGTERM")
        if ended.code not in fault.codes:
            row.wrong.append(f"expected exit {fault.codes}, received {ended.code}")
        if ended.code and not ended.last_line.startswith("spamscore: "):
            row.wrong.append(f"the last line does not say what is wrong: {ended.last_line}")
        if "Traceback" in ended.output:
            row.wrong.append("a traceback was printed")
            keep_output(ground, fault.name, ended)
        finish(row, stand, rerun=True)
    say(row, f"exit {ended.code}, {row.said}")
    return row


def finish(row: Row, stand: Stand, rerun: bool) -> None:
    """Gives the command again and holds what is there then to the undisturbed run."""
    if rerun:
        ended = stand.run()
        row.runs += 1
        if ended.code:
            row.wrong.append(f"the rerun ended with {ended.code}: {ended.last_line}")
            keep_output(stand.ground, f"rerun of {row.fault}", ended)
    row.add(stand.verdict())


def keep_output(ground: Ground, name: str, ended: Ended) -> None:
    """Shows the output of a run that is not understood."""
    print(f"--- {ground.name}, {name}, exit {ended.code}:\n{ended.output}\n---", file=sys.stderr, flush=True)


def say(row: Row, what: str) -> None:
    """A line of progress."""
    state = "as undisturbed" if row.good else "WRONG: " + "; ".join(row.wrong)
    print(f"{row.database}, {row.fault}: {what}: {state}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
