"""Gymnax's environments under gradweave's contract.

Gymnax 1.0 keeps apart what its older versions merged: `step_env` says whether the episode terminated, and
`is_truncated` whether the time limit was reached. An episode that terminates in its very last step counts as
terminated. Gymnax's own `step` resets by itself and is therefore not used.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, Shaped

from gradweave.envs.boxes import Bounds, bounds_of, within
from gradweave.envs.environment import AbstractEnvironment, Step
from gradweave.envs.foreign import as_before, floats, foreign_code, settled
from gradweave.envs.observation import Observation

__all__ = ["GymnaxEnvironment", "from_suite"]


class GymnaxEnvironment(AbstractEnvironment[Any]):
    """A Gymnax environment with discrete actions, or with a vector of continuous ones.

    The view is the observation itself if it has three axes, the observation with a channel axis if it has two, one-hot
    if the observation is one of a number of categories, and otherwise all its numbers in one vector. Every action is
    always allowed. Continuous actions are clipped to -1 to 1, which spans the range that the environment takes.

    ```python
    GymnaxEnvironment(*gymnax.make("CartPole-v1"))
    ```
    """

    num_actions: int = eqx.field(static=True)
    can_truncate: bool = eqx.field(static=True)
    continuous: bool = eqx.field(static=True)
    bounds: Bounds | None = eqx.field(static=True)
    env: Any = eqx.field(static=True)
    num_categories: int | None = eqx.field(static=True)
    params: Any

    def __init__(self, env: Any, params: Any) -> None:
        """Adapt `env` with its `params`, as `gymnax.make` returns them.

        Raises:
            ValueError: the actions are neither discrete nor a vector within bounds, or this Gymnax is too old to tell
                truncation from termination.
        """
        name = getattr(env, "name", type(env).__name__)
        if not hasattr(env, "is_truncated"):
            raise ValueError(
                f"{name} comes from a Gymnax before 1.0, which merges termination and truncation: "
                'upgrade with pip install "gymnax>=1.0"'
            )
        with foreign_code():
            space, seen = env.action_space(params), env.observation_space(params)
        self.bounds = None if hasattr(space, "n") else bounds_of(name, space)
        self.continuous = self.bounds is not None
        self.num_actions = int(space.n) if self.bounds is None else len(self.bounds[0])
        self.can_truncate = True
        self.env = env
        self.num_categories = getattr(seen, "n", None)
        self.params = params

    def reset(self, *, key: Key[Array, ""]) -> tuple[Any, Observation]:
        """Begin an episode."""
        with foreign_code():
            observation, state = self.env.reset_env(key, self.params)
            state = settled(state)
        return state, self._observe(observation)

    def step(self, state: Any, action: Shaped[Array, "*action"], *, key: Key[Array, ""]) -> tuple[Any, Step]:
        """Take one action."""
        action = action.astype(jnp.int32) if self.bounds is None else within(self.bounds, action)
        with foreign_code():
            observation, next_state, reward, terminated, _ = self.env.step_env(key, state, action, self.params)
            next_state = as_before(next_state, state)
            truncated = jnp.asarray(self.env.is_truncated(next_state, self.params), bool)
            terminated = jnp.asarray(terminated, bool)
        reward = floats(reward).reshape(())
        return next_state, Step(self._observe(observation), reward, terminated, truncated & ~terminated)

    def _observe(self, observation: Any) -> Observation:
        """Translate one observation."""
        if self.num_categories is not None:
            observation = jnp.arange(self.num_categories, dtype=jnp.int32) == jnp.asarray(observation, jnp.int32)
        leaves = [floats(leaf) for leaf in jax.tree.leaves(observation)]
        view = leaves[0] if len(leaves) == 1 else jnp.concatenate([leaf.ravel() for leaf in leaves])
        if view.ndim == 2:
            view = view[..., None]
        elif view.ndim != 3:
            view = view.ravel()
        return Observation(view, jnp.zeros(0, view.dtype), jnp.ones(self.num_actions, bool))


def from_suite(name: str, /, **options: Any) -> GymnaxEnvironment:
    """The environment that Gymnax registers as `name`; `options` replace fields of its parameters, in their types, and
    the rest of them are arguments of its class.
    """
    with foreign_code():
        import gymnax

        env, params = gymnax.make(name)
        built = {option: value for option, value in options.items() if not hasattr(params, option)}
        if built:
            env, params = gymnax.make(name, **built)
        fields = {option: value for option, value in options.items() if option not in built}
        params = params.replace(**{option: type(getattr(params, option))(value) for option, value in fields.items()})
    return GymnaxEnvironment(env, params)
