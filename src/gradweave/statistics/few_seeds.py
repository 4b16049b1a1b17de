"""Statistics over few seeds: interquartile mean and probability of improvement, each with an interval.

After Agarwal et al. 2021, Deep Reinforcement Learning at the Edge of the Statistical Precipice (arXiv 2108.13264): a
handful of runs needs robust aggregates and honest intervals. Scores are arrays (runs, tasks); a vector is runs on one
task. Intervals are stratified bootstraps: runs are resampled within each task, independently from task to task, and
tasks are kept as they are.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import trim_mean

from gradweave.statistics.bootstrap import Estimate, FloatArray, percentile_interval

__all__ = ["interquartile_mean", "probability_of_improvement", "stratified_interval"]


def interquartile_mean(samples: npt.ArrayLike, axis: int | None = None) -> Any:
    """Mean of the middle half: the lowest and the highest floor(n / 4) of n numbers are left out (IQM).

    Less at the mercy of one lucky run than the mean, less wasteful than the median.

    Args:
        samples: any array.
        axis: which axis to reduce; None: all numbers together.

    Raises:
        ValueError: there is nothing to average, or a number is NaN.

    Example:
        >>> float(interquartile_mean([0.0, 1.0, 2.0, 100.0]))
        1.5
    """
    array = np.asarray(samples, np.float64)
    if array.ndim == 0 or (array.size if axis is None else array.shape[axis]) == 0:
        raise ValueError(f"an array of shape {np.shape(samples)} has nothing to average along axis {axis}.")
    if np.isnan(array).any():  # which would sort as the highest, and be cut as the best run
        raise ValueError("a score is NaN: leave it out and say so, or give the run the score that failing is worth.")
    return trim_mean(array, 0.25, axis=axis)


def stratified_interval(
    statistic: Callable[..., Any],
    *scores: npt.ArrayLike,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """A statistic of the scores of one or more algorithms, with a stratified bootstrap percentile interval.

    Args:
        statistic: of as many arrays (runs, tasks) as there are `scores`, returning a number or an array; for instance
            `interquartile_mean` or `probability_of_improvement`.
        scores: (runs, tasks) or (runs,), one array for each algorithm; they may differ in their number of runs.
        confidence: in (0, 1).
        num_resamples: at least 1.
        seed: of the resampling.

    Raises:
        ValueError: fewer than two runs, algorithms with different numbers of tasks, a NaN, or an option out of range.
    """
    arrays = _checked_scores(*scores)
    if not 0 < confidence < 1 or num_resamples < 1:
        raise ValueError(
            f"confidence={confidence} must lie strictly between 0 and 1, num_resamples={num_resamples} be at least 1."
        )
    rng = np.random.default_rng(seed)
    resampled = []
    for _ in range(num_resamples):
        drawn = [np.take_along_axis(array, rng.integers(len(array), size=array.shape), axis=0) for array in arrays]
        resampled.append(np.asarray(statistic(*drawn), np.float64))
    return Estimate(np.asarray(statistic(*arrays), np.float64), *percentile_interval(np.stack(resampled), confidence))


def probability_of_improvement(scores_a: npt.ArrayLike, scores_b: npt.ArrayLike) -> float:
    """How likely a run of A beats a run of B: the mean over tasks of P(a > b) + P(a = b) / 2. In [0, 1]; 1/2 when
    equal.

    Raises:
        ValueError: fewer than two runs of either, different numbers of tasks, or a score is NaN.

    Example:
        >>> probability_of_improvement([1.0, 3.0], [2.0, 2.0])
        0.5
    """
    a, b = _checked_scores(scores_a, scores_b)
    wins = (a[:, None] > b[None]).mean((0, 1)) + 0.5 * (a[:, None] == b[None]).mean((0, 1))
    return float(wins.mean())


def _checked_scores(*scores: npt.ArrayLike) -> list[FloatArray]:
    arrays = [np.asarray(one, np.float64) for one in scores]
    shapes = [array.shape for array in arrays]
    if any(array.ndim not in (1, 2) or len(array) < 2 for array in arrays):
        raise ValueError(
            f"scores of shape {shapes} were given; accepted is (runs, tasks) or (runs,) with at least 2 runs."
        )
    arrays = [array[:, None] if array.ndim == 1 else array for array in arrays]
    if len({array.shape[1] for array in arrays}) != 1:
        raise ValueError(
            f"scores of shape {shapes} differ in their number of tasks; compare algorithms on the same tasks."
        )
    if any(np.isnan(array).any() for array in arrays):
        raise ValueError("a score is NaN: leave it out and say so, or give the run the score that failing is worth.")
    return arrays
