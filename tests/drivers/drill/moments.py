"""The moments at which a run is struck, drawn from those that a run which nobody disturbed went through."""

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
# Kinds that each get a moment in each stage; of all others a stage has one.
_EACH = ("table write", "manifest write", "folder published", COMPUTING)
# And those that get more, where a kill is worth most.
_OFTEN = ("checkpoint write", "export write", "batch begun", "chunk", "publishing", "receipt write")
# How long after an event "in the middle of it" may be, in seconds.
_LONGEST = {"checkpoint write": 0.04, "export write": 2.0, "table write": 0.005}
_LONGEST_OF_OTHERS = 0.01


@dataclass(frozen=True)
class Moment:
    """When a run is struck, and how.

    Attributes:
        stage: the stage, or `SCHEDULING` for what Luigi does before and between them.
        kind: what happens then.
        number: which of the stage's events of that kind, from 1.
        delay: seconds after it; 0 is at the event itself.
        signal: name of the signal.
        whom: "group" for all processes of the run, "process" for the one that the event is in, "parent" for Luigi's.
    """

    stage: str
    kind: str
    number: int = 1
    delay: float = 0.0
    signal: str = "SIGKILL"
    whom: str = "group"

    def __str__(self) -> str:
        later = f" + {self.delay * 1000:.0f} ms" if self.delay else ""
        whom = "" if self.whom == "group" else f", its {self.whom} alone"
        return f"{self.stage}: {self.kind} {self.number}{later}{whom}"


@dataclass(frozen=True)
class Recorded:
    """The events of an undisturbed run: when each came, in seconds since its stage began, by stage and kind."""

    times: dict[tuple[str, str], list[float]]

    def only(self, stages: Collection[str]) -> Recorded:
        """Those of some stages."""
        return Recorded({one: times for one, times in self.times.items() if one[0] in stages})

    def seconds(self, stage: str) -> float:
        """How long a stage took."""
        return max(times[-1] for one, times in self.times.items() if one[0] == stage)

    def when(self, moment: Moment) -> float:
        """When a moment was, in seconds since its stage began."""
        return self.times[moment.stage, moment.kind][moment.number - 1] + moment.delay


def recorded(events: Iterable[dict[str, Any]]) -> Recorded:
    """Sorts the lines that a watch wrote."""
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    began: dict[str, float] = {}
    for event in events:
        since = event["at"] - began.setdefault(event["stage"], event["at"])
        times[event["stage"], event["kind"]].append(since)
    return Recorded(dict(times))


def drawn(seen: Recorded, number: int, chance: random.Random) -> list[Moment]:
    """Moments spread over every stage and kind: each kind that is named once a stage, then those worth most in turn.

    Args:
        seen: the events of an undisturbed run.
        number: moments wanted. Fewer than there are kinds takes some of the kinds.
        chance: gives the same moments for the same seed.
    """
    strata: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for stage, kind in sorted(seen.times):
        strata[stage, kind if kind.startswith(_EACH + _OFTEN) else "other"].append((stage, kind))
    often = [one for one in strata if one[1].startswith(_OFTEN)]
    chosen = chance.sample(sorted(strata), len(strata))
    while len(chosen) < number:
        chosen += chance.sample(often or sorted(strata), len(often or strata))
    moments = [_moment(seen, *chance.choice(strata[one]), chance) for one in chosen[:number]]
    return sorted(moments, key=lambda one: (STAGES.index(one.stage), seen.when(one)))


def _moment(seen: Recorded, stage: str, kind: str, chance: random.Random) -> Moment:
    number = chance.randint(1, len(seen.times[stage, kind]))
    if kind == COMPUTING:
        delay = chance.uniform(0, seen.seconds(stage)) if stage != SCHEDULING else chance.uniform(0.2, 1.0)
    else:
        delay = chance.choice((0.0, chance.uniform(0.0005, _LONGEST.get(kind, _LONGEST_OF_OTHERS))))
    # A process that dies alone, as when the system runs out of memory, leaves Luigi's there to say so.
    whom = "process" if stage != SCHEDULING and chance.random() < 0.2 else "group"
    return Moment(stage, kind, number, round(delay, 4), whom=whom)


def sooner_after(moment: Moment) -> Moment:
    """The moment with a quarter of its delay; after a few times with none."""
    return dataclasses.replace(moment, delay=round(moment.delay / 4, 4))


def sooner(moment: Moment, share: int) -> Moment:
    """The moment for a run that began a stage again where others were killed in it, and has less of it before it."""
    return dataclasses.replace(moment, number=max(1, moment.number // share))
