"""Many environments side by side, each reset as soon as its episode ends.

The step is a vmap of the environment's own step. The reset is often the dearest part of a step (it draws a whole new
board) and most steps end no episode, so it stands behind a `lax.cond` outside the vmap: it is computed when at least
one of the environments ended, and not at all otherwise. Inside another vmap (an axis of seeds, say) JAX turns that cond
into a select, and the reset is then paid for at every step; `jax.lax.map` over seeds avoids it.
"""

from typing import Generic, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, Shaped

from gradweave.envs.device_axis import ONE_DEVICE, DeviceAxis
from gradweave.envs.environment import AbstractEnvironment, State
from gradweave.envs.observation import Observation

__all__ = ["VectorEnvironment", "VectorStep"]


class VectorStep(NamedTuple):
    """One transition of every environment; every field has a leading axis num_envs."""

    observation: Observation
    """Each agent's next observation: where the episode ended, the first one of the next episode."""
    final_observation: Observation
    """Observation after the action, before any reset; equal to `observation` where the episode goes on."""
    reward: Float[Array, " num_envs"]
    terminated: Bool[Array, " num_envs"]
    truncated: Bool[Array, " num_envs"]


class VectorEnvironment(eqx.Module, Generic[State]):
    """`num_envs` independent copies of `environment`, with automatic resets.

    ```python
    environments = VectorEnvironment(snake(6, 6), num_envs=64)
    state, observation = environments.reset(key=jax.random.key(0))
    state, step = environments.step(state, jnp.zeros(64, jnp.int32), key=jax.random.key(1))
    ```

    Attributes:
        environment: the environment that is copied.
        num_envs: how many there are in all.
        axis: the devices over which they are split, when this runs inside a `jax.shard_map` over such an axis; every
            array below then has a leading axis `num_own`, and the same key on every device gives the environments what
            it would give them on a single one.
    """

    environment: AbstractEnvironment[State]
    num_envs: int = eqx.field(static=True)
    axis: DeviceAxis = eqx.field(static=True, default=ONE_DEVICE)

    def __check_init__(self) -> None:
        """Refuse an empty batch, and one that cannot be split evenly."""
        if self.num_envs < 1:
            raise ValueError(f"num_envs = {self.num_envs} is not a batch: give a number of environments of at least 1")
        if self.num_envs % self.axis.size:
            raise ValueError(
                f"num_envs = {self.num_envs} cannot be split over {self.axis.size} devices: give a multiple of "
                f"{self.axis.size}"
            )

    @property
    def num_own(self) -> int:
        """Environments of one device."""
        return self.num_envs // self.axis.size

    def reset(self, *, key: Key[Array, ""]) -> tuple[State, Observation]:
        """Begin an episode in every environment; each has its own key."""
        keys = self.axis.own(jax.random.split(key, self.num_envs))
        # Parts that are the same in every first state are computed as constants, but will differ soon.
        return self.axis.varying(jax.vmap(lambda key: self.environment.reset(key=key))(keys))

    def step(
        self, state: State, actions: Shaped[Array, "num_envs *action"], *, key: Key[Array, ""]
    ) -> tuple[State, VectorStep]:
        """Take one action in every environment, then reset those whose episode ended.

        Args:
            state: states of all environments, leading axis num_own.
            actions: one action for each.
            key: split into one key for each environment's step and another for its reset.

        Returns:
            The states to go on from, after resets, and the transitions.
        """
        step_key, reset_key = jax.random.split(key)
        step_keys = self.axis.own(jax.random.split(step_key, self.num_envs))
        stepped, step = self.axis.varying(
            jax.vmap(lambda *args: self.environment.step(*args[:2], key=args[2]))(state, actions, step_keys)
        )
        ended = step.terminated | step.truncated
        # A lambda, because JAX hashes its argument here, and a method's hash is that of the environment's arrays.
        next_state, observation = jax.lax.cond(
            jnp.any(ended),
            lambda *args: self._reset_where(*args),
            _keep,
            *(reset_key, ended, (stepped, step.observation)),
        )
        return next_state, VectorStep(observation, step.observation, step.reward, step.terminated, step.truncated)

    def _reset_where(
        self, key: Key[Array, ""], ended: Bool[Array, " num_envs"], stepped: tuple[State, Observation]
    ) -> tuple[State, Observation]:
        """State and observation of fresh episodes where `ended`, of the running ones elsewhere."""

        def select(fresh: Array, running: Array) -> Array:
            return jnp.where(ended.reshape(ended.shape + (1,) * (fresh.ndim - 1)), fresh, running)

        selected: tuple[State, Observation] = jax.tree.map(select, self.reset(key=key), stepped)
        return selected


def _keep(
    key: Key[Array, ""], ended: Bool[Array, " num_envs"], stepped: tuple[State, Observation]
) -> tuple[State, Observation]:
    """Nothing ended: go on from where the step led."""
    del key, ended
    return stepped
