"""From rows of the tables of estimators and modes to the objects that they name."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradweave.config.estimators import EstimatorRow, MixWeights
from gradweave.config.specs import Row, Spec, resolve
from gradweave.core import (
    AbstractEstimator,
    AbstractMode,
    AdaptiveMix,
    HorizonMix,
    LeastError,
    SignalToNoise,
    TruncationMix,
    geometric_weights,
    uniform_weights,
)

__all__ = ["adaptive_mix", "horizon", "horizon_mix", "make_estimator", "make_mode", "mix_weights", "truncation_mix"]


def make_estimator(spec: Spec[EstimatorRow], **context: Any) -> AbstractEstimator:
    """The estimator that a choice names.

    Args:
        spec: from `parse_estimator`.
        context: inputs of rows beside the argument: `num_inner_steps`, `distance`.
    """
    row = spec.row
    argument = () if row.argument is None else (spec.argument,)
    estimator: AbstractEstimator = resolve(row.constructor)(*argument, **{name: context[name] for name in row.needs})
    return estimator


def make_mode(spec: Spec[Row]) -> AbstractMode:
    """The mode that a choice from `parse_mode` names."""
    mode: AbstractMode = resolve(spec.row.constructor)(*(() if spec.row.argument is None else (spec.argument,)))
    return mode


def mix_weights(weights: MixWeights, num_inner_steps: int) -> Float[Array, " steps"]:
    """The weights of a mix as an array."""
    if weights == "uniform":
        return uniform_weights(num_inner_steps)
    if isinstance(weights, float):
        return geometric_weights(num_inner_steps, weights)
    return jnp.asarray(weights, jnp.result_type(float))


def horizon(length: int, *, num_inner_steps: int) -> HorizonMix:
    """g_k alone: the outer loss after `length` updates of the window."""
    return HorizonMix(jax.nn.one_hot(length - 1, num_inner_steps, dtype=jnp.result_type(float)))


def horizon_mix(weights: MixWeights, *, num_inner_steps: int) -> HorizonMix:
    """`HorizonMix` with weights as they are written."""
    return HorizonMix(mix_weights(weights, num_inner_steps))


def truncation_mix(weights: MixWeights, *, num_inner_steps: int) -> TruncationMix:
    """`TruncationMix` with weights as they are written."""
    return TruncationMix(mix_weights(weights, num_inner_steps))


def adaptive_mix(criterion: str, *, num_inner_steps: int) -> AdaptiveMix:
    """`AdaptiveMix` with a criterion by its name."""
    return AdaptiveMix(num_inner_steps, {"signal-to-noise": SignalToNoise, "least-error": LeastError}[criterion]())
