"""How far the scores of a batch are from those of others: counts on a fixed grid, and the population stability index.

The counts of a batch are kept, not its scores: any two batches can be compared later, however many messages they had
and whether or not their rows are still there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.statistics.arrays import FloatArray, IntArray
from models.statistics.curves import HISTOGRAM_BINS

PSI_BINS = 10
# How often chance alone may give a larger index than `Psi.by_chance`: once in a thousand nights.
CHANCE = 0.001
_TAIL = (1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 0.001, 0.002, 0.005, 0.01, 0.02)


def _grid() -> FloatArray:
    even = np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    tail = np.array(_TAIL)
    # To the last digit that a probability is stored with, so that no score lies between an edge and its rounding.
    return np.unique(np.round(np.concatenate([even, tail, 1 - tail]), 6))


# Edges that probabilities are counted between: those of the histograms, and finer ones where most scores are, near
# nought and one.
GRID = _grid()


def count_scores(probabilities: npt.ArrayLike) -> IntArray:
    """Counts probabilities between the edges of `GRID`: int64 [edges - 1]; closed below, the last one on both sides."""
    counts, _ = np.histogram(np.asarray(probabilities, np.float64), bins=GRID)
    return counts.astype(np.int64)


def rebin_counts(counts: IntArray) -> IntArray:
    """The counts of `GRID` in bins of equal width, as `models.statistics.metrics.score_histogram` has them: int64
    [20].
    """
    place = np.searchsorted(np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1).round(6), GRID[:-1], side="right") - 1
    summed = np.zeros(HISTOGRAM_BINS, np.int64)
    np.add.at(summed, place, counts)
    return summed


@dataclass(frozen=True)
class Psi:
    """A population stability index, and the one that chance alone exceeds once in a thousand times."""

    value: float
    by_chance: float


def population_stability(expected: IntArray, observed: IntArray, bins: int = PSI_BINS) -> Psi | None:
    """The population stability index of two sets of scores, each as counted by `count_scores`; None without scores.

    PSI = Σ (o - e) ln(o / e) over bins, o and e the shares of the scores that are in a bin: Siddiqi, "Credit Risk
    Scorecards", Wiley 2006; below 0.1 little has changed, above 0.25 much has. It is the divergence J of Jeffreys
    (Kullback and Leibler, "On Information and Sufficiency", 1951). Bins hold a tenth of the expected scores each, or
    more where the grid is too coarse; the two beyond the expected scores hold none. Half a score is added to each bin,
    for an empty one has no logarithm.

    Of two samples of one population, PSI over (1/n + 1/m) is distributed as chi squared with one degree of freedom less
    than there are bins: Yurdakul, "Statistical Properties of Population Stability Index", Western Michigan University,
    2018. `by_chance` is its quantile: of small batches a large index says nothing.

    Args:
        expected: counts on the grid, of the reference.
        observed: counts on the grid.
        bins: most bins.
    """
    from scipy.stats import chi2

    if not expected.sum() or not observed.sum():
        return None
    starts = bin_starts(expected, bins)
    shares = []
    for counts in (expected, observed):
        binned = np.add.reduceat(counts, starts) + 0.5
        shares.append(binned / binned.sum())
    of_expected, of_observed = shares
    value = float(((of_observed - of_expected) * np.log(of_observed / of_expected)).sum())
    spread = 1 / int(expected.sum()) + 1 / int(observed.sum())
    by_chance = float(chi2.isf(CHANCE, len(starts) - 1)) * spread if len(starts) > 1 else 0.0
    return Psi(value, by_chance)


def bin_starts(expected: IntArray, bins: int) -> IntArray:
    """Where bins begin on the grid: at each part in `bins` of what is expected, and on both sides of all of it; int64.

    So scores where none was expected have a bin of their own.
    """
    before = np.cumsum(expected) - expected
    part = np.where(np.cumsum(expected) > 0, bins * before // expected.sum(), -1)
    return np.flatnonzero(np.diff(part, prepend=-2))
