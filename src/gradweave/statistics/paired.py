"""How much signal is in noisy gradients: ratios of variances, and cosines of means, without the bias by noise.

The squared norm of a mean of n samples exceeds that of the true mean by tr(C) / n in expectation, C the covariance of
one sample, and in a bootstrap resample by as much again. Where means are small against their noise this is most of the
norm, and a quantity divided by it looks sharper than it is. So tr(C) / n is subtracted here, twice in resamples. What
is left may be negative: then the data do not tell the mean from zero, and a quantity that is divided by it may be
anything, as its interval says.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gradweave.statistics.bootstrap import Estimate, FloatArray, check_samples, resampled_counts, resampled_moments

__all__ = ["VarianceRatio", "cosine_of_means", "variance_ratio"]


class VarianceRatio(NamedTuple):
    """var(A) / var(B) of two gradient estimators. Below 1: A is the less noisy. Every field with its interval.

    Attributes:
        total: of the summed variances of all leaves.
        total_scale_free: the same after each sum has been divided by the squared norm of its estimator's mean, free of
            noise as above, which makes estimators of different magnitude comparable: it is the inverse ratio of their
            squared signal-to-noise.
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

    A scale-free ratio divides by squared means. Where A's cannot be told from zero it may be infinite, where B's cannot
    it may be 0, and the interval reaches that far; where neither can be, the value is NaN.

    Args:
        samples_a: (samples,) or (samples, leaves): gradients by estimator A.
        samples_b: the same by estimator B, as many leaves.
        paired: sample i of both comes from the same data, and pairs are resampled; this makes the interval
            narrow.
        confidence: in (0, 1).
        num_resamples: at least 1.
        seed: of the resampling.

    Returns:
        Ratios with intervals; infinite where only B's variance is 0, NaN where both are. Free of scale they are NaN
        where either is silent, without mean or noise.

    Raises:
        ValueError: fewer than two samples, different numbers of leaves, or pairs that do not match.
    """
    a, b = _checked(samples_a, samples_b, paired, confidence, num_resamples)
    counts_a = counts_b = resampled_counts(len(a), num_resamples, seed=seed)
    if not paired:
        counts_b = resampled_counts(len(b), num_resamples, seed=seed + 1)
    value, _ = _ratios(_moments(a, np.ones((1, len(a))), 1), _moments(b, np.ones((1, len(b))), 1))
    found, open_ended = _ratios(_moments(a, counts_a, 2), _moments(b, counts_b, 2))
    ends = _interval(found, open_ended, (0.0, np.inf), confidence)
    count = a.shape[1]
    places = (0, 1, slice(2, 2 + count), slice(2 + count, None))
    return VarianceRatio(*(Estimate(*(np.asarray(end[place]) for end in (value[0], *ends))) for place in places))


def cosine_of_means(
    samples_a: npt.ArrayLike,
    samples_b: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Cosine of the angle between the true means of two paired gradient estimators, with a bootstrap interval.

    The cosine of the sample means is pulled towards 0 by the noise in their norms, and towards 1 by the noise that
    pairs share; here both are taken out.

    Args:
        samples_a: (samples, leaves): gradients by estimator A.
        samples_b: by estimator B, sample i from the same data as A's.
        confidence: in (0, 1).
        num_resamples: at least 1.
        seed: of the resampling.

    Returns:
        In [-1, 1]; the value is NaN, and the interval goes from -1 to 1, where a mean cannot be told from zero.

    Raises:
        ValueError: fewer than two samples, or pairs that do not match.
    """
    a, b = _checked(samples_a, samples_b, True, confidence, num_resamples)
    value, _ = _cosines(a, b, np.ones((1, len(a))), 1)
    found, unknown = _cosines(a, b, resampled_counts(len(a), num_resamples, seed=seed), 2)
    low, high = _interval(found[:, None], unknown[:, None], (-1.0, 1.0), confidence)
    return Estimate(*(np.asarray(end[0]) for end in (value, low, high)))


class _Moments(NamedTuple):
    """Of resamples, (resamples, leaves): unbiased variances, and squared means without the bias by noise."""

    variance: FloatArray
    square: FloatArray


def _moments(samples: FloatArray, counts: FloatArray, times: int) -> _Moments:
    mean, variance = resampled_moments(samples, counts)
    return _Moments(variance, mean**2 - times * variance / len(samples))


def _ratios(a: _Moments, b: _Moments) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Total, scale-free total, leaves, scale-free leaves, on the last axis; and where noise leaves any number open."""
    variance_a, variance_b = _with_total(a.variance), _with_total(b.variance)
    square_a, square_b = _with_total(a.square), _with_total(b.square)
    seen_a, seen_b = square_a > 0, square_b > 0
    with np.errstate(divide="ignore", invalid="ignore"):  # a variance of 0: documented above
        raw = variance_a / variance_b
        free = np.where(seen_a & seen_b, raw * (square_b / square_a), np.where(seen_a, 0.0, np.inf))
    noisy = (variance_a > 0) & (variance_b > 0)
    unknown = ~seen_a & ~seen_b
    silent = (~seen_a & (variance_a == 0)) | (~seen_b & (variance_b == 0))  # neither mean nor noise
    free = np.where(unknown | silent | np.isnan(raw), np.nan, free)
    places = [raw[:, :1], free[:, :1], raw[:, 1:], free[:, 1:]]
    never = np.zeros_like(noisy)
    open_ended = [never[:, :1], (unknown & noisy)[:, :1], never[:, 1:], (unknown & noisy)[:, 1:]]
    return np.concatenate(places, axis=1), np.concatenate(open_ended, axis=1)


def _with_total(leaves: FloatArray) -> FloatArray:
    return np.concatenate([leaves.sum(1, keepdims=True), leaves], axis=1)


def _cosines(a: FloatArray, b: FloatArray, counts: FloatArray, times: int) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """On each resample, and where a norm is lost in noise."""
    (mean_a, shared), (mean_b, _) = resampled_moments(a, counts, b), resampled_moments(b, counts)
    inner = (mean_a * mean_b).sum(1) - times * shared.sum(1) / len(a)
    squares = [_moments(samples, counts, times).square.sum(1) for samples in (a, b)]
    seen = (squares[0] > 0) & (squares[1] > 0)
    norms = np.sqrt(np.where(seen, squares[0] * squares[1], 1.0))
    return np.where(seen, np.clip(inner / norms, -1.0, 1.0), np.nan), ~seen


def _interval(
    found: FloatArray, unknown: npt.NDArray[np.bool_], ends: tuple[float, float], confidence: float
) -> tuple[FloatArray, FloatArray]:
    """Percentile interval of resamples, of which those that are unknown count as the lowest and as the highest; those
    that are NaN otherwise, as 0 / 0 where a resample is one draw several times, are left out.
    """
    bounds = []
    for end, level in zip(ends, ((1 - confidence) / 2, (1 + confidence) / 2), strict=True):
        columns = np.where(unknown, end, found).T
        kept = [column[~np.isnan(column)] for column in columns]
        quantiles = [np.quantile(one, level, method="inverted_cdf") if len(one) else np.nan for one in kept]
        bounds.append(np.asarray(quantiles, np.float64))
    return bounds[0], bounds[1]


def _checked(
    samples_a: npt.ArrayLike, samples_b: npt.ArrayLike, paired: bool, confidence: float, num_resamples: int
) -> Sequence[FloatArray]:
    arrays = [np.asarray(samples, np.float64) for samples in (samples_a, samples_b)]
    for array in arrays:
        if array.ndim not in (1, 2):
            raise ValueError(
                f"samples of shape {array.shape} were given; accepted are (samples,) and (samples, leaves): flatten "
                "the leaves."
            )
    arrays = [array[:, None] if array.ndim == 1 else array for array in arrays]
    if arrays[0].shape[1:] != arrays[1].shape[1:]:
        raise ValueError(
            f"samples of A have shape {arrays[0].shape}, of B {arrays[1].shape}; they must agree in all but the first "
            "axis."
        )
    check_samples(arrays, paired, confidence, num_resamples)
    return arrays
