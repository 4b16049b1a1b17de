"""What estimators, called by their names, would have returned on measured windows."""

from collections.abc import Iterable

from gradweave.analysis.bootstrap import FloatArray
from gradweave.analysis.estimator_names import EstimatorName, parse_estimator
from gradweave.analysis.measure import GradientSamples, estimator_samples
from gradweave.analysis.mixes import cross_fitted_mix
from gradweave.core import (
    AbstractLinearEstimator,
    HorizonMix,
    LeastError,
    Truncated,
    Unrolled,
    WindowMix,
    geometric_weights,
    uniform_weights,
)

__all__ = ["first_steps", "named_estimates"]


def named_estimates(samples: GradientSamples, names: Iterable[str]) -> dict[str, FloatArray]:
    """(samples, meta-parameters) for each name that `parse_estimator` knows; adaptive mixes are cross-fitted.

    Raises:
        ConfigError: an unknown name, or one that does not fit the windows.
    """
    return {name: _estimates(samples, parse_estimator(name, samples.num_inner_steps)) for name in names}


def first_steps(samples: GradientSamples, num_inner_steps: int) -> GradientSamples:
    """The same windows as if they had ended after fewer updates."""
    return samples._replace(contributions=samples.contributions[:, :num_inner_steps, :num_inner_steps])


def _estimates(samples: GradientSamples, name: EstimatorName) -> FloatArray:
    if name.family == "adaptive-mix":
        return cross_fitted_mix(samples).estimates
    if name.family == "adaptive-mix:least-error":
        return cross_fitted_mix(samples, LeastError()).estimates
    if name.family == "horizon":
        return samples.horizons[:, int(name.number or 1) - 1]
    estimator = _linear(name, samples.num_inner_steps)
    return estimator_samples(samples, {name.text: estimator})[name.text]


def _linear(name: EstimatorName, length: int) -> AbstractLinearEstimator:
    if name.family == "unrolled":
        return Unrolled()
    if name.family == "truncated":
        return Truncated(int(name.number or 1))
    weights = uniform_weights(length) if name.number is None else geometric_weights(length, name.number)
    return HorizonMix(weights) if name.family == "horizon-mix" else WindowMix(weights)
