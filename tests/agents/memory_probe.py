"""A probe of memory: a sign is shown once and asked for later. Also a small network that remembers."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from gradweave.envs import AbstractEnvironment, Observation, Step
from gradweave.rl import ActorCriticNetwork, actor_critic_network


class Cue(AbstractEnvironment[Array]):
    """A sign is shown in the first of `num_steps` steps and asked for in the last, which pays 1 for the right answer.

    Without a memory the best return is 1/2. With `can_truncate`, half of the episodes are cut off instead of ending.
    """

    num_steps: int = eqx.field(static=True, default=3)
    can_truncate: bool = eqx.field(static=True, default=False)
    num_actions: int = eqx.field(static=True, default=2)

    def reset(self, *, key: Key[Array, ""]) -> tuple[Array, Observation]:
        state = jnp.stack([jax.random.randint(key, (), 0, 2, dtype=int), jnp.zeros((), int)])
        return state, self.observe(state)

    def step(self, state: Array, action: Array, *, key: Key[Array, ""]) -> tuple[Array, Step]:
        del key
        last = state[1] == self.num_steps - 1
        reward = jnp.where(last & (action == state[0]), 1.0, 0.0)
        cut = last & (state[0] == 1) & self.can_truncate
        state = state + jnp.array([0, 1])
        return state, Step(self.observe(state), reward, last & ~cut, cut)

    def observe(self, state: Array) -> Observation:
        shown = jnp.where(state[1] == 0, 2.0 * state[0].astype(float) - 1.0, 0.0)
        asked = (state[1] == self.num_steps - 1).astype(float)
        return Observation(jnp.stack([shown, asked]), jnp.zeros(0), jnp.ones(2, bool))


def remembering(memory: str, **options) -> ActorCriticNetwork:
    """A small network for the probe."""
    _, example = Cue().reset(key=jax.random.key(0))
    sizes = {"policy_layers": (6,), "value_layers": (5,), "memory_size": 4} | options
    draw = functools.partial(actor_critic_network, example, 2, memory=memory, **sizes)
    return jax.jit(lambda key: draw(key=key))(jax.random.key(1))
