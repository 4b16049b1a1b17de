"""Estimates of an adaptive mix on measured windows, with weights chosen on other samples.

In training `AdaptiveMix` weighs the horizons of a window by moments of the windows *before*. Samples at one moment have
no order, so they are divided into folds: the weights for a fold come from the moments of all others (cross-fitting).
That is the state which the weights of a long run at fixed parameters settle at. Intervals that are made of these
estimates hold given the weights that were found: other samples would have given other weights.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradweave.core import AbstractMixCriterion, SignalToNoise
from gradweave.core.estimators.adaptive import HorizonMoments
from gradweave.measurement.sampling import GradientSamples
from gradweave.statistics.bootstrap import FloatArray

__all__ = ["CrossFitted", "cross_fitted_mix"]


class CrossFitted(NamedTuple):
    """Estimates of an adaptive mix.

    Attributes:
        estimates: (samples, meta-parameters).
        weights: (meta-parameters, L), the mean over folds.
    """

    estimates: FloatArray
    weights: FloatArray


def cross_fitted_mix(
    samples: GradientSamples, criterion: AbstractMixCriterion | None = None, *, num_folds: int | None = None
) -> CrossFitted:
    """The adaptive mix of each sample's horizons, weighed by the moments of the other folds.

    Args:
        samples: of an agent or a problem, at least 4; independent, so that neighbours may lie in different folds.
        criterion: as for `AdaptiveMix`; `SignalToNoise()` by default.
        num_folds: from 2 to half the number of samples; by default 5, or as many as there may be.

    Raises:
        ValueError: fewer than 4 samples, or `num_folds` is out of range.
    """
    count = samples.num_samples
    if count < 4:
        raise ValueError(
            f"{count} samples were given; an adaptive mix needs at least 4, so that each fold has two others."
        )
    num_folds = min(5, count // 2) if num_folds is None else num_folds
    if not 2 <= num_folds <= count // 2:
        raise ValueError(f"num_folds={num_folds} must lie between 2 and {count // 2}, half the {count} samples.")
    criterion = SignalToNoise() if criterion is None else criterion
    horizons = samples.horizons
    fold = np.arange(count) % num_folds
    estimates = np.empty((count, horizons.shape[2]))
    weights = []
    for index in range(num_folds):
        kept, held_out = horizons[fold != index], horizons[fold == index]
        weights.append(_weights(kept, criterion))
        estimates[fold == index] = np.einsum("pk,nkp->np", weights[-1], held_out)
    return CrossFitted(estimates, np.mean(weights, axis=0))


def _weights(horizons: FloatArray, criterion: AbstractMixCriterion) -> FloatArray:
    """(meta-parameters, L), by the moments of (samples, L, meta-parameters)."""
    floats = jnp.result_type(float)
    rows = []
    for column in np.moveaxis(horizons, 2, 0):
        mean, covariance = column.mean(0), np.atleast_2d(np.cov(column, rowvar=False))
        scale = np.sqrt(np.diagonal(covariance).max()) or 1.0  # weights do not depend on it, single precision does
        moments = HorizonMoments(
            jnp.asarray(mean / scale, floats),
            jnp.asarray(covariance / scale**2, floats),
            jnp.asarray(len(column), floats),
        )
        rows.append(np.asarray(jax.device_get(criterion(moments)), np.float64))
    return np.stack(rows)
