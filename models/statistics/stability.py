"""The population stability index (PSI) of two sets of scores, computed from counts on a fixed grid.

For each batch the counts are stored, not the scores. So any two batches can be compared later, whatever their sizes,
and also after their rows were deleted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.statistics.arrays import FloatArray, IntArray
from models.statistics.curves import HISTOGRAM_BINS

PSI_BINS = 10
# Probability that chance alone gives a larger index than `Psi.critical_value`: once in a thousand nights.
SIGNIFICANCE_LEVEL = 0.001
_TAIL_EDGES = (1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 0.001, 0.002, 0.005, 0.01, 0.02)


def _build_grid() -> FloatArray:
    even = np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    tail = np.array(_TAIL_EDGES)
    # Rounded to the last digit that a probability is stored with, so that no score is between an edge and its rounding.
    return np.unique(np.round(np.concatenate([even, tail, 1 - tail]), 6))


# Bin edges for counting probabilities: those of the histograms, and finer ones near 0 and 1, where most scores are.
GRID = _build_grid()


def count_scores(probabilities: npt.ArrayLike) -> IntArray:
    """Counts probabilities between the edges of `GRID`.

    Bins are closed below; the last is closed on both sides.

    Returns:
        int64 [edges - 1].
    """
    counts, _ = np.histogram(np.asarray(probabilities, np.float64), bins=GRID)
    return counts.astype(np.int64)


def rebin_counts(counts: IntArray) -> IntArray:
    """Sums the counts of `GRID` into the bins of equal width of `models.statistics.curves.score_histogram`.

    Returns:
        int64 [20].
    """
    indices = np.searchsorted(np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1).round(6), GRID[:-1], side="right") - 1
    summed = np.zeros(HISTOGRAM_BINS, np.int64)
    np.add.at(summed, indices, counts)
    return summed


@dataclass(frozen=True)
class Psi:
    """A population stability index.

    Attributes:
        value: the index.
        critical_value: the index that chance alone exceeds once in a thousand times.
    """

    value: float
    critical_value: float


def population_stability(expected: IntArray, observed: IntArray, bins: int = PSI_BINS) -> Psi | None:
    """Computes the population stability index of two sets of scores.

    PSI = Σ (o - e) ln(o / e) over the bins, where o and e are the shares of the scores in a bin. Source: Siddiqi,
    "Credit Risk Scorecards", Wiley 2006; below 0.1 little has changed, above 0.25 much has. It is the divergence J of
    Jeffreys (Kullback and Leibler, "On Information and Sufficiency", 1951). Each bin contains a tenth of the expected
    scores, or more where the grid is too coarse; the two bins outside the range of the expected scores contain none of
    them. Half a score is added to each bin, because the logarithm of an empty bin is not defined.

    For two samples of one population, PSI divided by (1/n + 1/m) follows a chi-squared distribution with one degree of
    freedom less than the number of bins: Yurdakul, "Statistical Properties of Population Stability Index", Western
    Michigan University, 2018. `critical_value` is its quantile: for small batches a large index means nothing.

    Args:
        expected: counts of the reference on the grid, from `count_scores`.
        observed: counts on the grid, from `count_scores`.
        bins: maximum number of bins.

    Returns:
        The index; None if one of the sets has no scores.
    """
    from scipy.stats import chi2

    if not expected.sum() or not observed.sum():
        return None
    starts = bin_starts(expected, bins)
    shares = []
    for counts in (expected, observed):
        binned = np.add.reduceat(counts, starts) + 0.5
        shares.append(binned / binned.sum())
    expected_shares, observed_shares = shares
    value = float(((observed_shares - expected_shares) * np.log(observed_shares / expected_shares)).sum())
    spread = 1 / int(expected.sum()) + 1 / int(observed.sum())
    critical_value = float(chi2.isf(SIGNIFICANCE_LEVEL, len(starts) - 1)) * spread if len(starts) > 1 else 0.0
    return Psi(value, critical_value)


def bin_starts(expected: IntArray, bins: int) -> IntArray:
    """Returns the indices on the grid where bins start, int64 [bins].

    The expected scores are divided into `bins` equal parts. One more bin starts on each side of them, so that scores
    outside the expected range have their own bins.
    """
    before = np.cumsum(expected) - expected
    part = np.where(np.cumsum(expected) > 0, bins * before // expected.sum(), -1)
    return np.flatnonzero(np.diff(part, prepend=-2))
