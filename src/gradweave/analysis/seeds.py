"""Statistics over few seeds: interquartile mean, probability of improvement, ratios of variances, each with an
interval.

After Agarwal et al. 2021, Deep Reinforcement Learning at the Edge of the Statistical Precipice (arXiv 2108.13264): a
handful of runs needs robust aggregates and honest intervals. Scores are arrays (runs, tasks); a vector is runs on one
task. Intervals are stratified bootstraps: runs are resampled within each task, independently from task to task, and
tasks are kept as they are.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gradweave.analysis.bootstrap import Estimate, FloatArray, bootstrap_interval, percentile_interval

__all__ = ["VarianceRatio", "interquartile_mean", "probability_of_improvement", "stratified_interval", "variance_ratio"]


def interquartile_mean(samples: npt.ArrayLike, axis: int | None = None) -> Any:
    """Mean of the middle half: the lowest and the highest floor(n / 4) of n numbers are left out (IQM).

    Less at the mercy of one lucky run than the mean, less wasteful than the median.

    Args:
        samples: any array.
        axis: which axis to reduce; None: all numbers together.

    Raises:
        ValueError: there is nothing to average.

    Example:
        >>> float(interquartile_mean([0.0, 1.0, 2.0, 100.0]))
        1.5
    """
    array = np.asarray(samples, np.float64)
    array = array.reshape(-1) if axis is None else np.moveaxis(array, axis, -1)
    count = array.shape[-1]
    if count == 0:
        raise ValueError(f"an array of shape {np.shape(samples)} has nothing to average along axis {axis}.")
    cut = count // 4
    return np.sort(array, axis=-1)[..., cut : count - cut].mean(-1)


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
        ValueError: fewer than two runs, algorithms with different numbers of tasks, or an option out of range.
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
        ValueError: fewer than two runs of either, or different numbers of tasks.

    Example:
        >>> probability_of_improvement([1.0, 3.0], [2.0, 2.0])
        0.5
    """
    a, b = _checked_scores(scores_a, scores_b)
    wins = (a[:, None] > b[None]).mean((0, 1)) + 0.5 * (a[:, None] == b[None]).mean((0, 1))
    return float(wins.mean())


class VarianceRatio(NamedTuple):
    """var(A) / var(B) of two gradient estimators. Below 1: A is the less noisy. Every field with its interval.

    Attributes:
        total: of the summed variances of all leaves.
        total_scale_free: the same after each sum has been divided by the squared norm of its estimator's mean, which
            makes estimators of different magnitude comparable: it is the inverse ratio of their squared
            signal-to-noise.
        leaves: one ratio for each leaf, (leaves,).
        leaves_scale_free: of variance over squared mean, leaf by leaf.
    """

    total: Estimate
    total_scale_free: Estimate
    leaves: Estimate
    leaves_scale_free: Estimate


def variance_ratio(
    samples_a: npt.ArrayLike,
    samples_b: npt.ArrayLike,
    *,
    paired: bool = True,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> VarianceRatio:
    """Ratio of the variances of two estimators, with bootstrap percentile intervals.

    A scale-free ratio divides by squared means: where a mean is not clearly away from zero its interval is very wide,
    and that is the truth about it.

    Args:
        samples_a: (samples,) or (samples, leaves): gradients by estimator A.
        samples_b: the same by estimator B, as many leaves.
        paired: sample i of both comes from the same data, and pairs are resampled; this is what makes the interval
            narrow.
        confidence: in (0, 1).
        num_resamples: at least 1.
        seed: of the resampling.

    Returns:
        Ratios with intervals; infinite where only B's variance is 0, NaN where both are.

    Raises:
        ValueError: fewer than two samples, different numbers of leaves, or pairs that do not match.
    """
    a, b = (_columns(samples) for samples in (samples_a, samples_b))
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(
            f"samples of A have shape {a.shape}, of B {b.shape}; they must agree in all but the first axis."
        )

    def ratios(a: FloatArray, b: FloatArray, axis: int) -> FloatArray:
        return _ratios(_spread(a, axis), _spread(b, axis))

    with np.errstate(divide="ignore", invalid="ignore"):  # a variance of 0: documented above
        value, low, high = bootstrap_interval(
            ratios, a, b, paired=paired, confidence=confidence, num_resamples=num_resamples, seed=seed
        )
    count = a.shape[1]
    places = (0, 1, slice(2, 2 + count), slice(2 + count, None))
    return VarianceRatio(*(Estimate(*(np.asarray(end[place]) for end in (value, low, high))) for place in places))


def _spread(samples: FloatArray, axis: int) -> tuple[FloatArray, FloatArray]:
    """(variances, squared means) over `axis`, leaves last."""
    return samples.var(axis, ddof=1), samples.mean(axis) ** 2


def _ratios(a: tuple[FloatArray, FloatArray], b: tuple[FloatArray, FloatArray]) -> FloatArray:
    """Total, scale-free total, leaves, scale-free leaves, on the last axis."""
    (variance_a, square_a), (variance_b, square_b) = a, b
    total = variance_a.sum(-1, keepdims=True) / variance_b.sum(-1, keepdims=True)
    scale = square_b.sum(-1, keepdims=True) / square_a.sum(-1, keepdims=True)
    leaves = variance_a / variance_b
    return np.concatenate([total, total * scale, leaves, leaves * (square_b / square_a)], axis=-1)


def _columns(samples: npt.ArrayLike) -> FloatArray:
    array = np.asarray(samples, np.float64)
    if array.ndim not in (1, 2):
        raise ValueError(
            f"samples of shape {array.shape} were given; accepted are (samples,) and (samples, leaves): flatten the "
            "leaves."
        )
    return array[:, None] if array.ndim == 1 else array


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
    return arrays
