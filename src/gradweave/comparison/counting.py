"""Environments that count their own steps, so that a budget counts steps taken, not steps planned."""

from typing import Any, NamedTuple, cast

import jax.numpy as jnp
from jaxtyping import Array, Int, Key, Shaped

from gradweave.envs import Observation, VectorEnvironment, VectorStep

__all__ = ["Counted", "CountingEnvironment"]


class Counted(NamedTuple):
    """The state of environments, and how many steps they have taken in all."""

    state: Any
    num_steps: Int[Array, ""]


class CountingEnvironment(VectorEnvironment[Any]):
    """`VectorEnvironment` whose state counts every step of every environment."""

    @classmethod
    def of(cls, environment: VectorEnvironment[Any]) -> "CountingEnvironment":
        """The same environments, counting."""
        return cls(environment.environment, environment.num_envs, environment.axis)

    @property
    def _plain(self) -> VectorEnvironment[Any]:
        return VectorEnvironment(self.environment, self.num_envs, self.axis)

    def reset(self, *, key: Key[Array, ""]) -> tuple[Any, Observation]:
        """Begin an episode in every environment, and begin to count."""
        state, observation = self._plain.reset(key=key)
        return Counted(state, jnp.zeros((), jnp.int32)), observation

    def step(
        self, state: Any, actions: Shaped[Array, "num_envs *action"], *, key: Key[Array, ""]
    ) -> tuple[Any, VectorStep]:
        """Take one action in every environment, and count them."""
        counted = cast(Counted, state)
        inner, step = self._plain.step(counted.state, actions, key=key)
        return Counted(inner, counted.num_steps + step.reward.shape[0]), step
