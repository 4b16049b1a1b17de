"""How good is each estimator? Mean, variance, signal-to-noise, bias and error of paired gradient samples, with
intervals.

All statistics but cosine and sign are those of `core.estimator_statistics`; the reference that bias, error, cosine and
sign are judged by is the mean of one of the estimators over the same samples, the longest unroll unless another is
named. A sample's own window would make it resemble that mean even where there is nothing but noise, so that its cosine
and sign are judged by the mean of all other samples. Samples are resampled together (BCa bootstrap), reference
included, so that a difference from the reference is judged by its own, smaller spread.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from gradweave.analysis.bootstrap import Estimate, FloatArray, bca_interval, resampled_counts
from gradweave.analysis.seeds import VarianceRatio, variance_ratio

__all__ = ["EstimatorSummary", "summarize"]

_MAX_ELEMENTS = 2**22
"""Numbers in the references of one batch of resamples: 32 MiB."""


class EstimatorSummary(NamedTuple):
    """Statistics of one estimator with their intervals; fields hold one number for each meta-parameter, `cosine` one in
    all.

    Attributes:
        mean: sample mean.
        standard_error: of the mean.
        variance: of one sample.
        snr: |mean| / sqrt(variance), the signal-to-noise of one sample. Its interval is that of mean / sqrt(variance),
            folded at 0, so that it reaches down to 0 unless the mean's sign is sure.
        bias: mean - mean of the reference.
        mse: variance + bias ** 2. The squared bias is itself biased up by the sampling variance of the means.
        cosine: mean cosine between one sample and the reference without it, over all meta-parameters together. 0 in
            expectation for noise without a mean.
        sign_agreement: fraction of samples with the sign of the reference without them; 1/2 for such noise.
        variance_ratio: variance relative to the baseline's, as it is and free of scale.
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
        ValueError: nothing to summarise, arrays of different shapes, fewer than two samples, or an unknown reference.
    """
    for name in (reference, baseline):
        _check(estimates, name)
    names = list(estimates)
    place = 0 if reference is None else names.index(reference)
    base = place if baseline is None else names.index(baseline)
    stacked = np.stack([estimates[name] for name in names], axis=1)
    count = len(stacked)
    values = _statistics(stacked, place, np.ones((1, count)))
    resampled = _statistics(stacked, place, resampled_counts(count, num_resamples, seed=seed))
    without_one = _statistics(stacked, place, 1 - np.eye(count))
    found = {}
    for name, value in values.items():
        found[name] = Estimate(value[0], *bca_interval(value[0], resampled[name], [without_one[name]], confidence))
    found["snr"] = _folded(found["snr"])
    options = {"confidence": confidence, "num_resamples": num_resamples, "seed": seed}
    summaries = {}
    for index, name in enumerate(names):
        own = {field: Estimate(*(np.asarray(end[index]) for end in estimate)) for field, estimate in found.items()}
        ratio = variance_ratio(stacked[:, index], stacked[:, base], **options)  # type: ignore[arg-type]
        summaries[name] = EstimatorSummary(**own, variance_ratio=ratio)
    return summaries


def _statistics(samples: FloatArray, reference: int, counts: FloatArray) -> dict[str, FloatArray]:
    """Every statistic on resamples in which sample i occurs counts[:, i] times: (resamples, estimators[,
    meta-parameters]).
    """
    num_samples = counts.sum(1)[:, None, None]

    def average(quantity: FloatArray) -> FloatArray:
        return np.tensordot(counts, quantity, axes=1) / num_samples

    centre = samples.mean(0)  # taken out first, because squares of large means would swallow the variance
    shift = average(samples - centre)
    with np.errstate(divide="ignore", invalid="ignore"):  # of a single draw there is no variance
        spread = (average((samples - centre) ** 2) - shift**2) * num_samples / (num_samples - 1)
        variance = np.maximum(spread, 0.0)
        mean = centre + shift
        snr = np.where((variance == 0) & (mean == 0), 0.0, mean / np.sqrt(variance))
    bias = mean - mean[:, reference, None]
    size = max(1, _MAX_ELEMENTS // samples[:, reference].size)
    parts = [_agreement(samples, reference, counts[start : start + size]) for start in range(0, len(counts), size)]
    cosine, sign_agreement = (np.concatenate(part) for part in zip(*parts, strict=True))
    return {
        "mean": mean,
        "standard_error": np.sqrt(variance / num_samples),
        "variance": variance,
        "snr": snr,
        "bias": bias,
        "mse": variance + bias**2,
        "cosine": cosine,
        "sign_agreement": sign_agreement,
    }


def _agreement(samples: FloatArray, reference: int, counts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Cosine (resamples, estimators) and agreement in sign (resamples, estimators, meta-parameters) with the reference
    of all other draws; one that a resample has several times is left out as often.
    """
    true = samples[:, reference]
    others = (counts @ true)[:, None] - counts[..., None] * true  # (resamples, samples, meta-parameters), a sum
    shares = (counts / counts.sum(1, keepdims=True))[..., None]
    cosine = np.tensordot(shares * _unit(others), _unit(samples), axes=((1, 2), (0, 2)))
    same = sum(
        np.moveaxis(shares * (np.sign(others) == sign), 2, 0) @ np.moveaxis(1.0 * (np.sign(samples) == sign), 2, 0)
        for sign in (-1, 0, 1)
    )
    return cosine, np.moveaxis(np.asarray(same), 0, 2)


def _unit(vectors: FloatArray) -> FloatArray:
    """Vectors of length one along the last axis; 0 stays 0."""
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norm > 0, norm, 1.0)


def _folded(signed: Estimate) -> Estimate:
    """The interval of |x| from that of x."""
    ends = np.abs(signed.low), np.abs(signed.high)
    crosses = (signed.low <= 0) & (signed.high >= 0)
    return Estimate(np.abs(signed.value), np.where(crosses, 0.0, np.minimum(*ends)), np.maximum(*ends))


def _check(estimates: Mapping[str, FloatArray], reference: str | None) -> None:
    shapes = {name: np.shape(samples) for name, samples in estimates.items()}
    if not shapes or len(set(shapes.values())) != 1:
        raise ValueError(f"estimates have shapes {shapes}; give at least one estimator, and of all the same samples.")
    shape = next(iter(shapes.values()))
    if len(shape) != 2 or shape[0] < 2:
        raise ValueError(
            f"estimates of shape {shape} were given; accepted is (samples, meta-parameters), 2 samples or more."
        )
    if reference is not None and reference not in estimates:
        raise ValueError(f"the reference {reference!r} is none of the estimators; accepted are {', '.join(estimates)}.")
