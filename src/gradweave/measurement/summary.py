"""How good is each estimator? Mean, variance, signal-to-noise, bias and error of paired gradient samples, with
intervals.

Mean, variance, signal-to-noise and bias are those of `core.estimator_statistics`; the reference that bias, error,
cosine and sign are taken against is the mean of one of the estimators over the same samples, the longest unroll unless
another is named. A sample's own window would make it resemble that mean even where there is nothing but noise, so that
its cosine and sign are taken against the mean of all other samples. Samples are resampled together (bootstrap: BCa, but
percentiles for cosine and sign), reference included, so that a difference from the reference has its own,
smaller spread.

Squares of means and of biases are free of the bias by noise (`pairs`). They may come out negative, and so may
their intervals' ends: reported values are cut off where a square ends, at 0.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from gradweave.statistics.bootstrap import (
    Estimate,
    FloatArray,
    bca_interval,
    percentile_interval,
    resampled_counts,
    resampled_moments,
)
from gradweave.statistics.paired import VarianceRatio, variance_ratio

__all__ = ["EstimatorSummary", "OverallSummary", "summarize"]

_NOT_SMOOTH = ("cosine", "sign_agreement", "overall sign_agreement")
"""Statistics of signs or directions, which jump where a reference passes zero: the correction of BCa does them harm."""
_MAX_ELEMENTS = 2**22
"""Numbers in the references of one batch of resamples: 32 MiB."""


class OverallSummary(NamedTuple):
    """Statistics of one estimator over all meta-parameters together, as a vector of unconstrained values. Those with
    large gradients weigh most.

    Attributes:
        mean: length of the mean.
        bias: length of the mean difference from the reference.
        variance: of one sample, summed over meta-parameters.
        snr: mean / sqrt(variance).
        mse: mean squared distance of one sample from the reference's mean.
        sign_agreement: mean over meta-parameters.
    """

    mean: Estimate
    bias: Estimate
    variance: Estimate
    snr: Estimate
    mse: Estimate
    sign_agreement: Estimate


class EstimatorSummary(NamedTuple):
    """Statistics of one estimator with their intervals; fields hold one number for each meta-parameter, `cosine` one in
    all.

    Attributes:
        mean: sample mean.
        standard_error: of the mean.
        variance: of one sample.
        snr: |mean| / sqrt(variance), the signal-to-noise of one sample. Its interval is that of mean / sqrt(variance),
            folded at 0, so that it reaches down to 0 unless the mean's sign is sure. Unlike the overall one it is not
            freed of the noise of the mean: of n samples without a mean it is about 0.8 / sqrt(n).
        bias: mean - mean of the reference.
        mse: variance + bias ** 2, the mean squared error of one sample. The sampling variance of the bias, which may be
            many times the variance of a short horizon where the reference is a long one, is taken off its square.
        cosine: mean cosine between one sample and the reference without it, over all meta-parameters together. 0 in
            expectation for noise without a mean.
        sign_agreement: fraction of samples with the sign of the reference without them; 1/2 for such noise. A sample or
            a reference of exactly 0 counts half.
        variance_ratio: variance relative to the baseline's, as it is and free of scale.
        overall: all meta-parameters together.
    """

    mean: Estimate
    standard_error: Estimate
    variance: Estimate
    snr: Estimate
    bias: Estimate
    mse: Estimate
    cosine: Estimate
    sign_agreement: Estimate
    variance_ratio: VarianceRatio
    overall: OverallSummary


def summarize(
    estimates: Mapping[str, FloatArray],
    *,
    reference: str | None = None,
    baseline: str | None = None,
    confidence: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, EstimatorSummary]:
    """Statistics of several estimators that were sampled on the same data.

    Args:
        estimates: (samples, meta-parameters) by name, row i of all from the same window; from `estimator_samples`.
        reference: the name of the estimator that is taken for true; by default the first.
        baseline: the name of the estimator that variances are compared with; by default the reference.
        confidence: of the intervals, in (0, 1).
        num_resamples: at least 1.
        seed: of the resampling.

    Raises:
        ValueError: nothing to summarise, arrays of different shapes, fewer than two samples, or an unknown name.
    """
    _check(estimates, reference=reference, baseline=baseline)
    names = list(estimates)
    place = 0 if reference is None else names.index(reference)
    base = place if baseline is None else names.index(baseline)
    stacked = np.stack([estimates[name] for name in names], axis=1)
    count = len(stacked)
    values = _statistics(stacked, place, np.ones((1, count)))
    # A resample has the noise of the samples once more.
    resampled = _statistics(stacked, place, resampled_counts(count, num_resamples, seed=seed), noise=2)
    without_one = _statistics(stacked, place, 1 - np.eye(count))
    found = {}
    for name, value in values.items():
        if name in _NOT_SMOOTH:
            ends = percentile_interval(resampled[name], confidence)
        else:
            ends = bca_interval(value[0], resampled[name], [without_one[name]], confidence)
        found[name] = Estimate(value[0], *ends)
    found["snr"] = _folded(found["snr"])
    for prefix in ("", "overall "):  # no error is below the variance
        pairs = zip(found[f"{prefix}mse"], found[f"{prefix}variance"], strict=True)
        found[f"{prefix}mse"] = Estimate(*(np.maximum(error, spread) for error, spread in pairs))
    for name in ("overall mean", "overall bias", "overall snr"):
        found[name] = Estimate(*(np.sqrt(np.maximum(end, 0.0)) for end in found[name]))
    options = {"confidence": confidence, "num_resamples": num_resamples, "seed": seed}
    summaries = {}
    for index, name in enumerate(names):
        own = {field: Estimate(*(np.asarray(end[index]) for end in estimate)) for field, estimate in found.items()}
        ratio = variance_ratio(stacked[:, index], stacked[:, base], **options)  # type: ignore[arg-type]
        overall = OverallSummary(*(own.pop(f"overall {field}") for field in OverallSummary._fields))
        summaries[name] = EstimatorSummary(**own, variance_ratio=ratio, overall=overall)
    return summaries


def _statistics(samples: FloatArray, reference: int, counts: FloatArray, *, noise: int = 1) -> dict[str, FloatArray]:
    """Every statistic on resamples in which sample i occurs counts[:, i] times: (resamples, estimators[,
    meta-parameters]). Squares are freed of that multiple of their noise; of overall lengths they are the squares.
    """
    num_samples = counts.sum(1)[:, None, None]

    mean, variance = resampled_moments(samples, counts)
    bias, bias_variance = resampled_moments(samples - samples[:, reference, None], counts)
    bias_squared = bias**2 - noise * bias_variance / num_samples
    snr = _ratio(mean, np.sqrt(variance))
    squared = (mean**2 - noise * variance / num_samples).sum(-1)
    total = variance.sum(-1)
    size = max(1, _MAX_ELEMENTS // samples[:, reference].size)
    parts = [_agreement(samples, reference, counts[start : start + size]) for start in range(0, len(counts), size)]
    cosine, sign_agreement = (np.concatenate(part) for part in zip(*parts, strict=True))
    return {
        "mean": mean,
        "standard_error": np.sqrt(variance / num_samples),
        "variance": variance,
        "snr": snr,
        "bias": bias,
        "mse": variance + bias_squared,
        "cosine": cosine,
        "sign_agreement": sign_agreement,
        "overall mean": squared,
        "overall bias": bias_squared.sum(-1),
        "overall variance": total,
        "overall snr": _ratio(squared, total),
        "overall mse": total + bias_squared.sum(-1),
        "overall sign_agreement": sign_agreement.mean(-1),
    }


def _ratio(signal: FloatArray, noise: FloatArray) -> FloatArray:
    """0 where there is neither."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((noise == 0) & (signal == 0), 0.0, signal / noise)


def _agreement(samples: FloatArray, reference: int, counts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Cosine (resamples, estimators) and agreement in sign (resamples, estimators, meta-parameters) with the reference
    of all other draws; one that a resample has several times is left out as often.
    """
    true = samples[:, reference]
    others = (counts @ true)[:, None] - counts[..., None] * true  # (resamples, samples, meta-parameters), a sum
    shares = (counts / counts.sum(1, keepdims=True))[..., None]
    cosine = np.tensordot(shares * _unit(others), _unit(samples), axes=((1, 2), (0, 2)))
    signs = np.moveaxis(shares * np.sign(others), 2, 0) @ np.moveaxis(np.sign(samples), 2, 0)
    return cosine, (1 + np.moveaxis(signs, 0, 2)) / 2


def _unit(vectors: FloatArray) -> FloatArray:
    """Vectors of length one along the last axis; 0 stays 0."""
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norm > 0, norm, 1.0)


def _folded(signed: Estimate) -> Estimate:
    """The interval of |x| from that of x."""
    ends = np.abs(signed.low), np.abs(signed.high)
    crosses = (signed.low <= 0) & (signed.high >= 0)
    return Estimate(np.abs(signed.value), np.where(crosses, 0.0, np.minimum(*ends)), np.maximum(*ends))


def _check(estimates: Mapping[str, FloatArray], **named: str | None) -> None:
    shapes = {name: np.shape(samples) for name, samples in estimates.items()}
    if not shapes or len(set(shapes.values())) != 1:
        raise ValueError(f"estimates have shapes {shapes}; give at least one estimator, and of all the same samples.")
    shape = next(iter(shapes.values()))
    if len(shape) != 2 or shape[0] < 2:
        raise ValueError(
            f"estimates of shape {shape} were given; accepted is (samples, meta-parameters), 2 samples or more."
        )
    for role, name in named.items():
        if name is not None and name not in estimates:
            raise ValueError(f"the {role} {name!r} is none of the estimators; accepted are {', '.join(estimates)}.")
