"""Bootstrap intervals: how far a statistic of a sample may be from that of the population it came from.

Percentile and BCa (bias-corrected and accelerated) intervals after Efron 1987 (Better Bootstrap Confidence Intervals,
JASA 82), vectorised over the values of a statistic. With z_q the normal quantile, F the distribution of the
resampled statistic, t its value on the sample and a the acceleration, estimated from the jackknife, BCa reads off F at
the levels

    Phi(z0 + (z0 + z_q) / (1 - a (z0 + z_q))),    z0 = Phi^-1(F(t)),    q = (1 - c) / 2 and (1 + c) / 2.

Both are unchanged by a monotone transformation of the statistic, so that a ratio needs no logarithm. Where a is not
finite, as of a variance of two draws, of which the jackknife leaves one, BCa is the percentile interval. Nothing here
uses JAX.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

__all__ = [
    "LEAST_SAMPLES",
    "Estimate",
    "bca_interval",
    "bootstrap_interval",
    "check_samples",
    "percentile_interval",
    "resampled_counts",
    "resampled_moments",
    "without_intervals",
]

FloatArray: TypeAlias = npt.NDArray[np.float64]

_MAX_ELEMENTS = 2**22
"""Numbers in one batch of resamples: 32 MiB."""


class Estimate(NamedTuple):
    """A statistic's value on the sample with the ends of its confidence interval, each an array shaped like the
    statistic.
    """

    value: FloatArray
    low: FloatArray
    high: FloatArray


LEAST_SAMPLES: Final = 8
"""A bootstrap of fewer independent draws has intervals that are far too short, of two draws none at all."""

_Estimates = TypeVar("_Estimates", bound=tuple[Any, ...])


def without_intervals(estimates: _Estimates) -> _Estimates:
    """The same `Estimate`, or named tuple of estimates however deep, with NaN for the ends of each interval."""
    if isinstance(estimates, Estimate):
        unknown = np.full(np.shape(estimates.value), np.nan)
        return type(estimates)(estimates.value, unknown, unknown)
    return type(estimates)(*map(without_intervals, estimates))


def bootstrap_interval(
    statistic: Callable[..., Any],
    *samples: npt.ArrayLike,
    paired: bool = True,
    method: Literal["percentile", "bca"] = "percentile",
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """A statistic of one or more samples with a bootstrap confidence interval.

    Args:
        statistic: `statistic(*samples, axis=...)`, which reduces the axis it is told, as `np.mean`, `np.var` and
            `interquartile_mean` do. It is called with many resamples stacked in front.
        samples: arrays whose first axis counts independent draws; further axes are carried along.
        paired: draw i of every sample belongs together, and pairs are resampled; False resamples each sample by itself.
        method: "bca" corrects for bias and skewness, which helps means of skewed data and variances; it needs a
            statistic that is smooth in the data. "percentile" takes any, and covers better where the correction itself
            is poorly known, as for ratios of variances of heavy-tailed draws.
        confidence: probability with which the interval is to hold the truth, in (0, 1).
        num_resamples: resamples drawn, at least 1.
        seed: of the resampling; the same seed gives the same interval.

    Returns:
        The value on the samples and the interval's ends.

    Raises:
        ValueError: fewer than two draws, samples of different lengths that are to be paired, or an option out of range.

    Example:
        >>> estimate = bootstrap_interval(np.mean, [1.0, 2.0, 3.0, 4.0])
        >>> float(estimate.value), bool(estimate.low < 2.5 < estimate.high)
        (2.5, True)
    """
    arrays = [np.asarray(sample, np.float64) for sample in samples]
    check_samples(arrays, paired, confidence, num_resamples)
    if method not in ("bca", "percentile"):
        raise ValueError(f'method={method!r} is unknown; accepted are "percentile" and "bca".')
    value = np.asarray(statistic(*arrays, axis=0), np.float64)
    resampled = _resample(statistic, arrays, paired, num_resamples, np.random.default_rng(seed))
    if method == "percentile":
        return Estimate(value, *percentile_interval(resampled, confidence))
    return Estimate(value, *bca_interval(value, resampled, _jackknife(statistic, arrays, paired), confidence))


def percentile_interval(resampled: FloatArray, confidence: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """(low, high): the quantiles of a resampled statistic, over its first axis, that leave out equal shares at both
    ends.
    """
    ordered = np.sort(resampled, axis=0)
    levels = (np.full(resampled.shape[1:], level) for level in ((1 - confidence) / 2, (1 + confidence) / 2))
    low, high = (_quantile(ordered, level) for level in levels)
    return low, high


def bca_interval(
    value: FloatArray, resampled: FloatArray, jackknifed: Sequence[FloatArray], confidence: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """(low, high) by the formula at the head of this file.

    Args:
        value: the statistic on the sample, any shape.
        resampled: on each resample; leading axis of resamples.
        jackknifed: for each sample, the statistic without draw i; leading axis of draws. Paired samples count as one.
        confidence: in (0, 1).
    """
    below = ((resampled < value).mean(0) + (resampled <= value).mean(0)) / 2
    # All resamples on one side of the value would send z0 to infinity: as if half a resample lay on the other.
    edge = 0.5 / len(resampled)
    centre = ndtri(np.clip(below, edge, 1 - edge))
    cubes, squares = np.zeros_like(value), np.zeros_like(value)
    for left_out in jackknifed:
        count = len(left_out)
        with np.errstate(invalid="ignore"):  # non-finite values are dealt with below
            influence = (count - 1) * (left_out.mean(0) - left_out)
        cubes += (influence**3).sum(0) / count**3
        squares += (influence**2).sum(0) / count**2
    acceleration = cubes / np.where(squares > 0, 6 * squares**1.5, 1.0)
    known = np.isfinite(acceleration)
    acceleration = np.where(known, acceleration, 0.0)
    ordered = np.sort(resampled, axis=0)
    ends = []
    for tail in ((1 - confidence) / 2, (1 + confidence) / 2):
        shifted = centre + ndtri(tail)
        level = ndtr(centre + shifted / (1 - acceleration * shifted))
        ends.append(_quantile(ordered, np.where(known, level, tail)))
    return ends[0], ends[1]


def resampled_counts(num_draws: int, num_resamples: int, *, seed: int = 0) -> FloatArray:
    """How often each draw occurs in each resample, (resamples, draws): rows sum to `num_draws`.

    Where a statistic is made of sums over the draws, one product with this matrix resamples all of it.
    """
    rng = np.random.default_rng(seed)
    return rng.multinomial(num_draws, np.full(num_draws, 1 / num_draws), size=num_resamples).astype(np.float64)


def resampled_moments(
    samples: FloatArray, counts: FloatArray, others: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Means, and unbiased variances, elementwise, on resamples in which draw i occurs counts[:, i] times.

    Args:
        samples: (draws, ...).
        counts: (resamples, draws), from `resampled_counts`, or all draws but one.
        others: shaped like `samples`: covariances with these take the place of variances.

    Returns:
        both (resamples, ...); the second is not finite where a resample has a single draw.
    """
    size = counts.sum(1).reshape(-1, *[1] * (samples.ndim - 1))
    centre = samples.mean(0)  # taken out first, because squares of large means would swallow the variance
    apart = samples - centre
    other = apart if others is None else others - others.mean(0)

    def average(quantity: FloatArray) -> FloatArray:
        return np.tensordot(counts, quantity, axes=1) / size

    shift = average(apart)
    shared = shift if others is None else average(other)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = (average(apart * other) - shift * shared) * size / (size - 1)
    return centre + shift, np.maximum(spread, 0.0) if others is None else spread


def _quantile(ordered: FloatArray, level: FloatArray) -> FloatArray:
    """Quantiles at a level of their own for each element, linear between neighbours (numpy's default)."""
    position = level * (len(ordered) - 1)
    below = np.floor(position).astype(np.int64)
    above = np.minimum(below + 1, len(ordered) - 1)
    lower, upper = (np.take_along_axis(ordered, np.asarray(index)[None], axis=0)[0] for index in (below, above))
    step = position - below
    with np.errstate(invalid="ignore"):  # infinite neighbours, of which one is then taken as it is
        between = np.where((lower == upper) | (step == 0), lower, lower + step * (upper - lower))
    return np.asarray(np.where(np.isneginf(lower), lower, between))


def _resample(
    statistic: Callable[..., Any], arrays: Sequence[FloatArray], paired: bool, count: int, rng: np.random.Generator
) -> FloatArray:
    largest = max(array.size for array in arrays)
    batch = max(1, _MAX_ELEMENTS // largest)
    parts = []
    for start in range(0, count, batch):
        rows = min(batch, count - start)
        if paired:
            indices = [rng.integers(len(arrays[0]), size=(rows, len(arrays[0])))] * len(arrays)
        else:
            indices = [rng.integers(len(array), size=(rows, len(array))) for array in arrays]
        drawn = [array[index] for array, index in zip(arrays, indices, strict=True)]
        parts.append(np.asarray(statistic(*drawn, axis=1), np.float64))
    return np.concatenate(parts)


def _jackknife(statistic: Callable[..., Any], arrays: Sequence[FloatArray], paired: bool) -> list[FloatArray]:
    if paired:
        return [_leave_one_out(statistic, arrays, range(len(arrays)))]
    return [_leave_one_out(statistic, arrays, [which]) for which in range(len(arrays))]


def _leave_one_out(statistic: Callable[..., Any], arrays: Sequence[FloatArray], which: Sequence[int]) -> FloatArray:
    """The statistic without draw i of the samples in `which`, for every i."""
    results = []
    for index in range(len(arrays[which[0]])):
        kept = [np.delete(array, index, axis=0) if place in which else array for place, array in enumerate(arrays)]
        results.append(np.asarray(statistic(*kept, axis=0), np.float64))
    return np.stack(results)


def check_samples(arrays: Sequence[FloatArray], paired: bool, confidence: float, num_resamples: int) -> None:
    """Raise when samples cannot be resampled.

    Raises:
        ValueError: fewer than two draws, pairs that do not match, or an option out of range.
    """
    if not arrays:
        raise ValueError("no sample was given: pass at least one array of draws.")
    for array in arrays:
        if array.ndim == 0 or len(array) < 2:
            raise ValueError(
                f"a sample of shape {array.shape} has too few draws: its first axis must count at least 2, because "
                "resampling a single draw says nothing about its spread."
            )
    if paired and len({len(array) for array in arrays}) > 1:
        raise ValueError(
            f"samples of {[len(array) for array in arrays]} draws cannot be paired: give as many of each, or "
            "paired=False."
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} must lie strictly between 0 and 1, as 0.95 does.")
    if num_resamples < 1:
        raise ValueError(f"num_resamples={num_resamples} must be at least 1; 2000 are usual.")
