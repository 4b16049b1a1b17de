"""The Discounting Chain: which discount an agent ought to have, as an environment.

The first action picks one of several chains, and nothing after it matters. Each chain pays once, chain i in step
`delays[i]` of the episode; all pay 1, except the best one, which pays 1.1. Seen from the start, chain i is worth
r_i γ^(delays[i] - 1), so an agent with too small a discount takes an early chain although a later one pays more.

From Osband et al. 2020, "Behaviour Suite for Reinforcement Learning" (arXiv 1908.03568), with their five delays and
100 steps. One deviation: the chain is shown as a one-hot vector, not as one number.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from gradweave.envs.environment import Step
from gradweave.envs.observation import Observation
from gradweave.envs.probe import AbstractProbe, OptimalValues

__all__ = ["DiscountingChain", "DiscountingChainState"]


class DiscountingChainState(NamedTuple):
    """State of an episode."""

    chain: Int[Array, ""]
    """The chain that was chosen; -1 before the first step."""
    step_count: Int[Array, ""]
    """Steps taken so far."""


class DiscountingChain(AbstractProbe[DiscountingChainState]):
    """Choose a chain, then wait; `view` is the chosen chain, one-hot, and `scalars` the fraction of the steps taken.

    The default best chain is the one that pays last, and is worth choosing for γ above 0.99904; see
    `chain_values`.
    """

    best_chain: int = eqx.field(static=True)
    delays: tuple[int, ...] = eqx.field(static=True)
    num_steps: int = eqx.field(static=True)
    num_actions: int = eqx.field(static=True)
    can_truncate: bool = eqx.field(static=True)
    optimal_return: float = eqx.field(static=True)

    def __init__(
        self, best_chain: int = 4, *, delays: tuple[int, ...] = (1, 3, 10, 30, 100), num_steps: int = 100
    ) -> None:
        """Build the chains.

        Args:
            best_chain: the chain that pays 1.1.
            delays: the step, from 1 to num_steps, in which each chain pays.
            num_steps: steps in an episode.

        Raises:
            ValueError: a best chain that does not exist, or a reward that never comes.
        """
        if not 0 <= best_chain < len(delays):
            raise ValueError(f"best_chain = {best_chain} does not exist: give a number from 0 to {len(delays) - 1}")
        if not all(1 <= delay <= num_steps for delay in delays):
            raise ValueError(f"delays = {delays} leave an episode: give numbers from 1 to num_steps = {num_steps}")
        self.best_chain = best_chain
        self.delays = delays
        self.num_steps = num_steps
        self.num_actions = len(delays)
        self.can_truncate = False
        self.optimal_return = 1.1

    def reset(self, *, key: Key[Array, ""]) -> tuple[DiscountingChainState, Observation]:
        """Begin an episode: no chain yet."""
        del key
        state = DiscountingChainState(jnp.full((), -1, jnp.int32), jnp.zeros((), jnp.int32))
        return state, self._observe(state)

    def step(
        self, state: DiscountingChainState, action: Int[Array, ""], *, key: Key[Array, ""]
    ) -> tuple[DiscountingChainState, Step]:
        """Choose the chain in the first step; be paid in step `delays[chain]`."""
        del key
        chain = jnp.where(state.step_count == 0, action.astype(jnp.int32), state.chain)
        state = DiscountingChainState(chain, state.step_count + 1)
        paid = state.step_count == jnp.asarray(self.delays, jnp.int32)[chain]
        rewards = self._rewards()
        return state, Step(
            self._observe(state),
            jnp.where(paid, rewards[chain], jnp.zeros_like(rewards[chain])),
            terminated=state.step_count >= self.num_steps,
            truncated=jnp.zeros((), bool),
        )

    def chain_values(self, discount: float) -> Float[Array, " num_chains"]:
        """Value of each chain at the start: r_i γ^(delays[i] - 1). The best policy takes the greatest."""
        delays = jnp.asarray(self.delays, jnp.result_type(float))
        return self._rewards() * discount ** (delays - 1)

    def optimal_values(self, discount: float) -> OptimalValues:
        """The start, worth the greatest of `chain_values`; then every chain at every time: r γ^(steps to go - 1)."""
        chains, counts = jnp.meshgrid(
            jnp.arange(self.num_actions, dtype=jnp.int32), jnp.arange(1, self.num_steps, dtype=jnp.int32), indexing="ij"
        )
        chains, counts = chains.ravel(), counts.ravel()
        to_go = (jnp.asarray(self.delays, jnp.int32)[chains] - counts).astype(jnp.result_type(float))
        later = self._rewards()[chains] * discount ** jnp.maximum(to_go - 1, 0)
        values = jnp.concatenate([self.chain_values(discount).max()[None], jnp.where(to_go > 0, later, 0 * later)])
        states = DiscountingChainState(
            jnp.concatenate([jnp.full(1, -1, jnp.int32), chains]), jnp.concatenate([jnp.zeros(1, jnp.int32), counts])
        )
        return OptimalValues(jax.vmap(self._observe)(states), values)

    def _observe(self, state: DiscountingChainState) -> Observation:
        floats = jnp.result_type(float)
        view = (jnp.arange(self.num_actions, dtype=jnp.int32) == state.chain).astype(floats)
        progress = state.step_count.astype(floats) / self.num_steps
        return Observation(view, progress[None], jnp.ones(self.num_actions, bool))

    def _rewards(self) -> Float[Array, " num_chains"]:
        ordinary = jnp.ones(self.num_actions, jnp.result_type(float))
        return ordinary.at[self.best_chain].set(self.optimal_return)
