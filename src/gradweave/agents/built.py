"""Parts that a learner's package builds from a configuration, for `gradweave.training` to join with the tuning."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import PyTree

from gradweave.agents.agent import Agent
from gradweave.config.schema import Config
from gradweave.core import AbstractBijector, Fixed, Interval, Positive

__all__ = ["BuiltLearner", "configured_bijectors", "configured_eta"]


class BuiltLearner(NamedTuple):
    """A learner as a configuration describes it.

    Attributes:
        agent: learner and policy.
        eta: initial meta-parameters, in their natural range.
        spec: a bijector for each of them, shaped like `eta`; `Fixed` for those that are not learned.
        init_params: `(example_key, *, key) -> params`, fresh parameters for observations such as a reset with
            `example_key` gives (only their shapes count).
        distance: `(state, target state, batch) -> scalar` for `gradweave.Bootstrapped`; None if the learner has none.
    """

    agent: Agent
    eta: PyTree
    spec: PyTree
    init_params: Callable[..., PyTree]
    distance: Callable[..., Any] | None = None


def configured_eta(config: Config) -> dict[str, Any]:
    """The hyper-parameters of a configuration's learner by their names, as scalars, but for those without effect."""
    names = config.hyperparameters
    return {name: jnp.asarray(getattr(config.inner, name), jnp.result_type(float)) for name in names}


def configured_bijectors(config: Config) -> dict[str, AbstractBijector]:
    """The bijector of each hyper-parameter, by name: into its range if it is learned, else `Fixed`."""
    bijectors: dict[str, AbstractBijector] = {}
    bounds = {"discount": config.meta.max_discount, "learning_rate": config.meta.max_learning_rate}
    for name, limits in config.hyperparameters.items():
        upper = bounds.get(name) or limits.upper
        learned = Positive() if math.isinf(upper) else Interval(limits.lower, upper)
        bijectors[name] = learned if name in config.meta.learned else Fixed()
    return bijectors
