"""Two Colors: a world that does not stay as it is, for meta-parameters that have to follow.

An agent walks on a small board with a blue and a red object. Stepping on one collects it, pays +1 or -1, and puts it
somewhere else. Which colour pays is swapped every `swap_every` steps. The observation does not say which: the agent has
to notice, and to explore again, which is what a learned entropy cost is for.

After Flennerhag et al. 2021 (arXiv 2109.04504) and Luketina et al. 2022, "Meta-Gradients in Non-Stationary
Environments": 5 x 5, swaps every 100,000 steps, one stream. Here the stream is cut every two phases, so that returns of
episodes can be compared; the agent begins anew somewhere else, which the roles of the colours do not notice.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from gradweave.envs.environment import AbstractEnvironment, Step
from gradweave.envs.observation import Observation

__all__ = ["TwoColors", "TwoColorsState"]

_MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))


class TwoColorsState(NamedTuple):
    """State of an episode."""

    places: Int[Array, "3 2"]
    """Row and column of the agent, of the blue object and of the red one."""
    step_count: Int[Array, ""]
    """Steps taken in this episode of two phases."""


class TwoColors(AbstractEnvironment[TwoColorsState]):
    """Collect the colour that pays; `view` holds row and column of agent, blue and red, each one-hot.

    Actions are up, down, left and right; walls stop. In the first phase of an episode blue pays +1 and red -1.

    Attributes:
        size: rows and columns of the board, at least 2.
        swap_every: steps of a phase, at least 1.
        step_cost: whether a step on which nothing is collected pays -0.04, as in a public replication of Flennerhag et
            al. 2021 (MagiFeeney/Bootstrapped-Meta-Learning), and not 0: avoiding both objects is then no rest.
    """

    size: int = eqx.field(static=True, default=5)
    swap_every: int = eqx.field(static=True, default=100_000)
    step_cost: bool = eqx.field(static=True, default=False)
    num_actions: int = eqx.field(static=True, default=len(_MOVES), init=False)
    can_truncate: bool = eqx.field(static=True, default=True, init=False)

    def __check_init__(self) -> None:
        """Refuse boards without room for three, and phases without a step."""
        if self.size < 2 or self.swap_every < 1:
            raise ValueError(f"size = {self.size} and swap_every = {self.swap_every}: give at least 2, and at least 1")

    def reset(self, *, key: Key[Array, ""]) -> tuple[TwoColorsState, Observation]:
        """Put the three on different squares."""
        squares = jax.random.permutation(key, jnp.arange(self.size**2, dtype=jnp.int32))[:3]
        state = TwoColorsState(self._places(squares), jnp.zeros((), jnp.int32))
        return state, self._observe(state)

    def step(
        self, state: TwoColorsState, action: Int[Array, ""], *, key: Key[Array, ""]
    ) -> tuple[TwoColorsState, Step]:
        """Walk, and collect what lies there."""
        agent = state.places[0] + jnp.asarray(_MOVES, jnp.int32)[action]
        agent = jnp.clip(agent, 0, self.size - 1)
        found: Bool[Array, " 2"] = (state.places[1:] == agent).all(-1)
        other = jnp.where(found[0], state.places[2], state.places[1])
        fresh = self._free_square(agent, other, key)
        objects = jnp.where(found[:, None], fresh, state.places[1:])
        pays = jnp.asarray([1.0, -1.0], jnp.result_type(float))
        reward = jnp.where(found, pays * self._sign(state.step_count), jnp.zeros_like(pays)).sum()
        if self.step_cost:
            reward = jnp.where(found.any(), reward, jnp.full_like(reward, -0.04))
        after = TwoColorsState(jnp.concatenate([agent[None], objects]), state.step_count + 1)
        truncated = after.step_count >= 2 * self.swap_every
        return after, Step(self._observe(after), reward, jnp.zeros((), bool), truncated)

    def _sign(self, step_count: Int[Array, ""]) -> Float[Array, ""]:
        """Reward for blue: 1 or -1."""
        first = step_count % (2 * self.swap_every) < self.swap_every
        return jnp.where(first, 1.0, -1.0).astype(jnp.result_type(float))

    def _free_square(self, agent: Int[Array, " 2"], other: Int[Array, " 2"], key: Key[Array, ""]) -> Int[Array, " 2"]:
        """A square at random where neither the agent nor the other object is."""
        squares = self._places(jnp.arange(self.size**2, dtype=jnp.int32))
        taken = (squares == agent).all(-1) | (squares == other).all(-1)
        chosen = jax.random.categorical(key, jnp.where(taken, -jnp.inf, 0.0))
        return squares[chosen]

    def _places(self, squares: Int[Array, " squares"]) -> Int[Array, "squares 2"]:
        return jnp.stack([squares // self.size, squares % self.size], axis=-1)

    def _observe(self, state: TwoColorsState) -> Observation:
        floats = jnp.result_type(float)
        view = jax.nn.one_hot(state.places, self.size, dtype=floats).reshape(-1)
        return Observation(view, jnp.zeros(0, floats), jnp.ones(self.num_actions, bool))
