"""Estimates on measured windows, of estimators called by their names."""

from collections.abc import Iterable, Sequence

from gradweave.config.estimators import measurable_estimator
from gradweave.core import AbstractEstimator, AbstractLinearEstimator, AdaptiveMix
from gradweave.measurement.cross_fitting import cross_fitted_mix
from gradweave.measurement.sampling import GradientSamples, default_estimators, estimator_samples, single_estimates
from gradweave.measurement.summary import EstimatorSummary, summarize
from gradweave.statistics.bootstrap import LEAST_SAMPLES, FloatArray, without_intervals
from gradweave.training.estimators import make_estimator

__all__ = ["compare", "estimates_of", "first_steps", "named_estimates"]


def named_estimates(samples: GradientSamples, names: Iterable[str]) -> dict[str, FloatArray]:
    """(samples, meta-parameters) for each name that `measurable_estimator` knows; adaptive mixes are cross-fitted.

    Raises:
        ConfigError: an unknown name, or one that does not fit the windows.
    """
    return {name: _estimates(samples, name) for name in names}


def compare(
    samples: GradientSamples, length: int, names: Sequence[str] = (), *, seed: int = 0
) -> tuple[dict[str, EstimatorSummary], dict[str, EstimatorSummary]]:
    """Statistics of estimators on windows of `length` updates, against the longest horizon of the samples.

    Args:
        samples: of windows of `length` updates or more.
        length: L of the estimators.
        names: as for `measurable_estimator`, the first one the baseline that variances are compared with; by default a
            selection.
        seed: of the bootstrap.

    Returns:
        Those of the named estimators, and those of every "horizon k" and "truncation m" by itself. Of fewer than
        `LEAST_SAMPLES` samples the ends of intervals are NaN.

    Raises:
        ConfigError: a name that is unknown or does not fit.
    """
    cut, reference = first_steps(samples, length), "the reference"
    chosen = named_estimates(cut, names) if names else estimator_samples(cut, default_estimators(length))
    results = []
    for estimates, baseline in ((chosen, next(iter(chosen))), (single_estimates(cut), f"horizon {length}")):
        together = {**estimates, reference: samples.horizons[:, -1]}
        found = summarize(together, reference=reference, baseline=baseline, seed=seed)
        if samples.num_samples < LEAST_SAMPLES:
            found = {name: without_intervals(summary) for name, summary in found.items()}
        results.append({name: summary for name, summary in found.items() if name != reference})
    return results[0], results[1]


def estimates_of(estimator: AbstractEstimator, samples: GradientSamples) -> FloatArray | None:
    """Estimates of an estimator of L updates on windows of L: (samples, meta-parameters).

    Adaptive mixes are cross-fitted. None where samples do not have it: of estimators that are neither linear nor an
    adaptive mix, and of fewer than four samples for an adaptive mix.
    """
    if isinstance(estimator, AdaptiveMix):
        if samples.num_samples < 4:
            return None
        return cross_fitted_mix(samples, estimator.criterion).estimates
    if isinstance(estimator, AbstractLinearEstimator):
        return estimator_samples(samples, {"own": estimator})["own"]
    return None


def first_steps(samples: GradientSamples, num_inner_steps: int) -> GradientSamples:
    """The same windows as if they had ended after fewer updates."""
    return samples._replace(contributions=samples.contributions[:, :num_inner_steps, :num_inner_steps])


def _estimates(samples: GradientSamples, name: str) -> FloatArray:
    spec = measurable_estimator(name, samples.num_inner_steps)
    estimator = make_estimator(spec, num_inner_steps=samples.num_inner_steps)
    estimates = estimates_of(estimator, samples)
    if estimates is None:  # of a measurable one
        raise ValueError(f"{name} was given {samples.num_samples} samples; an adaptive mix needs at least 4.")
    return estimates
