"""One of a few values, by the returns that are earned with it."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gradweave.agents.state import chosen
from gradweave.agents.tuners.base import AbstractTuner, Seen
from gradweave.agents.tuners.trials import Trial

__all__ = ["ReturnChoice", "ReturnChoiceState"]

_ROUNDING = 1000.0  # of a score's precision, far above the rounding errors of a discounted sum


class ReturnChoiceState(NamedTuple):
    """The candidate in use, its trial, and statistics of all candidates' returns.

    Attributes:
        candidate: the index of the one in use.
        trial: its windows and returns.
        counts: discounted number of trials, one for each candidate.
        sums: discounted sum of the mean returns, one for each candidate.
        lowest: mean return of any trial.
        highest: mean return of any trial.
    """

    candidate: Int[Array, ""]
    trial: Trial
    counts: Float[Array, " candidates"]
    sums: Float[Array, " candidates"]
    lowest: Float[Array, ""]
    highest: Float[Array, ""]


class ReturnChoice(AbstractTuner):
    """Tries values in turn and prefers those that earn more (a discounted upper confidence bound over candidates).

    A trial lasts `period` windows, and on until an episode has ended. Its score is the mean return of the episodes that
    ended in it. Older scores count less, because the best value changes while a policy learns.

    ```python
    agent = SelfTuning(..., tuners={"learning_rate": gw.ReturnChoice((1e-4, 3e-4, 1e-3))})
    ```

    Attributes:
        values: the candidates, at least two; the first one is where it starts.
        period: windows of a trial, at least 1.
        memory: weight of a score after each further trial, in (0, 1).
        exploration: weight of the confidence bound, in units of the range of scores seen so far; at least 0.

    Reference: discounted UCB, Garivier & Moulines 2011 (arXiv 0805.3415); for learning rates of agents scored by
    returns, Donâncio et al. 2024 (arXiv 2410.12598).
    """

    values: tuple[float, ...] = eqx.field(static=True)
    period: int = eqx.field(static=True, default=10)
    memory: float = eqx.field(static=True, default=0.95)
    exploration: float = eqx.field(static=True, default=0.3)

    def __check_init__(self) -> None:
        if len(set(self.values)) < 2 or len(set(self.values)) < len(self.values):
            raise ValueError(f"ReturnChoice(values={self.values}): give at least two different candidates.")
        if self.period < 1 or not 0 < self.memory < 1 or self.exploration < 0:
            raise ValueError(f"{self}: needs period >= 1, memory in (0, 1) and exploration >= 0.")

    def start(self, value: Float[Array, ""]) -> tuple[Float[Array, ""], ReturnChoiceState]:
        first, nothing = jnp.zeros((), jnp.int32), jnp.zeros((), value.dtype)
        untried = jnp.zeros(len(self.values), value.dtype)
        state = ReturnChoiceState(first, Trial.new(value.dtype), untried, untried, nothing, nothing)
        return jnp.asarray(self.values[0], value.dtype), state

    def move(
        self, value: Float[Array, ""], state: ReturnChoiceState, seen: Seen
    ) -> tuple[Float[Array, ""], ReturnChoiceState]:
        state = state._replace(trial=state.trial.after(seen))
        after = chosen(state.trial.over(self.period), self._next_trial(state), state)
        return jnp.asarray(self.values, value.dtype)[after.candidate], after

    def _next_trial(self, state: ReturnChoiceState) -> ReturnChoiceState:
        """The state after a trial has ended."""
        score = state.trial.mean_return
        first = state.counts.sum() == 0
        lowest = jnp.where(first, score, jnp.minimum(state.lowest, score))
        highest = jnp.where(first, score, jnp.maximum(state.highest, score))
        counts = (self.memory * state.counts).at[state.candidate].add(1)
        sums = (self.memory * state.sums).at[state.candidate].add(score)
        # Scores that are all alike have means that differ by rounding, which must not choose.
        finest = jnp.maximum(_ROUNDING * jnp.finfo(score.dtype).eps * jnp.abs(lowest), jnp.finfo(score.dtype).tiny)
        spread = jnp.maximum(highest - lowest, finest)
        means = (sums / jnp.where(counts > 0, counts, 1) - lowest) / spread
        bonus = self.exploration * jnp.sqrt(jnp.log(jnp.maximum(counts.sum(), 1)) / jnp.where(counts > 0, counts, 1))
        index = jnp.argmax(jnp.where(counts > 0, means + bonus, jnp.inf)).astype(jnp.int32)
        return ReturnChoiceState(index, Trial.new(score.dtype), counts, sums, lowest, highest)
