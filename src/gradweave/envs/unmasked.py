"""An environment whose action mask is hidden: every action may be taken, and the environment decides its effect.

Whether an agent is told which actions are allowed changes the problem. On Jumanji's Snake an action that the mask
forbids ends the episode: random play collects 0.13 fruits on a 6 x 6 board without the mask and 6.5 with it, so that a
masked agent survives without foresight. The programs of Bonnet et al. 2022 (arXiv 2211.10550) have no mask.
"""

from typing import Generic

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Key, Shaped

from gradweave.envs.environment import AbstractEnvironment, State, Step
from gradweave.envs.observation import Observation

__all__ = ["Unmasked"]


class Unmasked(AbstractEnvironment[State], Generic[State]):
    """`environment`, with a mask that allows every action; states, rewards and ends are unchanged.

    ```python
    environment = Unmasked(snake(6, 6, 500))
    ```
    """

    environment: AbstractEnvironment[State]
    num_actions: int = eqx.field(static=True)
    can_truncate: bool = eqx.field(static=True)
    continuous: bool = eqx.field(static=True)
    action_sizes: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(self, environment: AbstractEnvironment[State]) -> None:
        self.environment = environment
        self.num_actions = environment.num_actions
        self.can_truncate = environment.can_truncate
        self.continuous = environment.continuous
        self.action_sizes = environment.action_sizes

    def reset(self, *, key: Key[Array, ""]) -> tuple[State, Observation]:
        """Begin an episode of the environment."""
        state, observation = self.environment.reset(key=key)
        return state, _unmasked(observation)

    def step(self, state: State, action: Shaped[Array, "*action"], *, key: Key[Array, ""]) -> tuple[State, Step]:
        """Take one action, which the environment may not have allowed."""
        next_state, step = self.environment.step(state, action, key=key)
        return next_state, step._replace(observation=_unmasked(step.observation))


def _unmasked(observation: Observation) -> Observation:
    return observation._replace(action_mask=jnp.ones_like(observation.action_mask))
