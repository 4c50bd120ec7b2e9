"""Draws the moments at which a run is struck from the recorded events of an undisturbed run."""

from __future__ import annotations

import dataclasses
import random
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

SCHEDULING, COMPUTING = "scheduling", "computing"
STAGES = (
    SCHEDULING, "IngestCorpus", "CleanText", "BuildVocabulary", "TrainModel", "EvaluateModel", "ExportModel",
    "ExtractMessages", "ScoreBatch",
)  # fmt: skip
# Each of these kinds gets a moment in each stage. All other kinds of a stage share one moment.
_ONCE_PER_STAGE = ("table write", "manifest write", "folder published", COMPUTING)
# Kinds where a kill tests most; they share the remaining moments.
_PREFERRED = ("checkpoint write", "export write", "batch begun", "chunk", "publishing", "receipt write")
# Maximum delay after an event, in seconds, so that the strike comes while its work is in progress.
_MAX_DELAY = {"checkpoint write": 0.04, "export write": 2.0, "table write": 0.005}
_DEFAULT_MAX_DELAY = 0.01


@dataclass(frozen=True)
class Moment:
    """When and how a run is struck.

    Attributes:
        stage: the stage, or `SCHEDULING` for the work of Luigi before and between the stages.
        kind: kind of the event.
        number: number of the event among the events of this kind in the stage, from 1.
        delay: seconds after the event; 0 strikes at the event itself.
        signal: name of the signal.
        target: "group" for all processes of the run, "process" for the process of the event, "parent" for Luigi.
    """

    stage: str
    kind: str
    number: int = 1
    delay: float = 0.0
    signal: str = "SIGKILL"
    target: str = "group"

    def __str__(self) -> str:
        delay = f" + {self.delay * 1000:.0f} ms" if self.delay else ""
        target = "" if self.target == "group" else f", its {self.target} only"
        return f"{self.stage}: {self.kind} {self.number}{delay}{target}"


@dataclass(frozen=True)
class Recording:
    """The events of an undisturbed run, by stage and kind: times in seconds since the start of the stage."""

    times: dict[tuple[str, str], list[float]]

    def select(self, stages: Collection[str]) -> Recording:
        """Returns the events of some stages."""
        return Recording({key: times for key, times in self.times.items() if key[0] in stages})

    def get_duration(self, stage: str) -> float:
        """Returns how long a stage took, in seconds."""
        return max(times[-1] for key, times in self.times.items() if key[0] == stage)

    def get_time(self, moment: Moment) -> float:
        """Returns the time of a moment, in seconds since the start of its stage."""
        return self.times[moment.stage, moment.kind][moment.number - 1] + moment.delay


def parse_recording(events: Iterable[dict[str, Any]]) -> Recording:
    """Groups the log lines of an instrumented run by stage and kind."""
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    stage_starts: dict[str, float] = {}
    for event in events:
        seconds = event["at"] - stage_starts.setdefault(event["stage"], event["at"])
        times[event["stage"], event["kind"]].append(seconds)
    return Recording(dict(times))


def draw_moments(recording: Recording, number: int, rng: random.Random) -> list[Moment]:
    """Draws moments from all stages and kinds: first one per stratum, then more from the preferred kinds.

    A stratum is a stage with one of the named kinds, or with all other kinds together.

    Args:
        recording: events of an undisturbed run.
        number: number of moments. If it is less than the number of strata, some strata have none.
        rng: gives the same moments for the same seed.
    """
    strata: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for stage, kind in sorted(recording.times):
        strata[stage, kind if kind.startswith(_ONCE_PER_STAGE + _PREFERRED) else "other"].append((stage, kind))
    preferred = [stratum for stratum in strata if stratum[1].startswith(_PREFERRED)]
    chosen = rng.sample(sorted(strata), len(strata))
    while len(chosen) < number:
        chosen += rng.sample(preferred or sorted(strata), len(preferred or strata))
    moments = [_draw_moment(recording, *rng.choice(strata[stratum]), rng) for stratum in chosen[:number]]
    return sorted(moments, key=lambda moment: (STAGES.index(moment.stage), recording.get_time(moment)))


def _draw_moment(recording: Recording, stage: str, kind: str, rng: random.Random) -> Moment:
    number = rng.randint(1, len(recording.times[stage, kind]))
    if kind == COMPUTING:
        delay = rng.uniform(0, recording.get_duration(stage)) if stage != SCHEDULING else rng.uniform(0.2, 1.0)
    else:
        delay = rng.choice((0.0, rng.uniform(0.0005, _MAX_DELAY.get(kind, _DEFAULT_MAX_DELAY))))
    # If only the process of the task dies, as when memory runs out, Luigi is still there to report it.
    target = "process" if stage != SCHEDULING and rng.random() < 0.2 else "group"
    return Moment(stage, kind, number, round(delay, 4), target=target)


def shorten_delay(moment: Moment) -> Moment:
    """Returns the moment with a quarter of its delay, which becomes 0 after a few calls."""
    return dataclasses.replace(moment, delay=round(moment.delay / 4, 4))


def divide_number(moment: Moment, divisor: int) -> Moment:
    """Returns the moment with a smaller event number, for a run that resumes a stage and has fewer events left."""
    return dataclasses.replace(moment, number=max(1, moment.number // divisor))
