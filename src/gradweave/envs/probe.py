"""Probes: environments so small that the best value of every observation is known in closed form.

A probe isolates one failure. An agent that learns the values and the return of a probe has the part right that the
probe is about; where it does not, there is little else that can be wrong.
"""

import abc
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gradweave.envs.environment import AbstractEnvironment
from gradweave.envs.observation import Observation

__all__ = ["AbstractProbe", "OptimalValues", "ProbeState", "observation_of"]

State = TypeVar("State")


class ProbeState(NamedTuple):
    """The state of most probes."""

    context: Int[Array, ""]
    """Number drawn when the episode began."""
    step_count: Int[Array, ""]
    """Steps taken so far."""


class OptimalValues(NamedTuple):
    """The known answer: the possible observations, and their values under the best policy."""

    observations: Observation
    """Everything that an agent has to value, leading axis num_cases; terminal observations are not among them."""
    values: Float[Array, " num_cases"]
    """The greatest expected discounted return from each."""


class AbstractProbe(AbstractEnvironment[State]):
    """An environment whose answer is known."""

    optimal_return: eqx.AbstractVar[float]
    """The greatest expected sum of rewards of one episode, not discounted."""

    @abc.abstractmethod
    def optimal_values(self, discount: float) -> OptimalValues:
        """The best value of each observation, for a discount in [0, 1)."""


def observation_of(
    features: Float[Array, " num_features"] | list[float], mask: Bool[Array, " num_actions"]
) -> Observation:
    """A vector seen by the agent; no scalars."""
    view = jnp.asarray(features, jnp.result_type(float))
    return Observation(view, jnp.zeros(0, view.dtype), mask)
