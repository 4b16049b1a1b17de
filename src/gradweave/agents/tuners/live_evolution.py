"""A finite difference of returns, taken on the agent that learns."""

import math
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gradweave.agents.state import chosen
from gradweave.agents.tuners.base import AbstractTuner, Seen
from gradweave.agents.tuners.trials import Trial

__all__ = ["LiveEvolution", "LiveEvolutionState"]

_SIGNS = (1.0, -1.0, -1.0, 1.0)  # an even drift from trial to trial cancels
_SQUARES_DECAY = 0.8


class LiveEvolutionState(NamedTuple):
    """The centre, the current trial, and statistics of the returns on both sides.

    Attributes:
        centre: logarithm of the value that is perturbed.
        place: index of the current trial, of four.
        trial: its windows and returns.
        difference: over the trials that are over, mean returns above the centre minus those below.
        squares: running mean of squared slopes.
        weight: of that mean; 0 before the first slope.
    """

    centre: Float[Array, ""]
    place: Int[Array, ""]
    trial: Trial
    difference: Float[Array, ""]
    squares: Float[Array, ""]
    weight: Float[Array, ""]


class LiveEvolution(AbstractTuner):
    """Climbs the returns that are earned with slightly higher and lower values.

    The value is perturbed by a factor exp(sigma) or exp(-sigma) for a whole trial of `period` windows, so that its
    effect over hundreds of updates is seen. Four trials, above, below, below and above, give a central difference of
    the mean return that no even drift of the returns biases; the logarithm moves by `rate` times that slope over its
    running root mean square.

    ```python
    agent = SelfTuning(..., tuners={"entropy_cost": gw.LiveEvolution(0.3)})
    ```

    Attributes:
        sigma: of the perturbation of the logarithm, above 0.
        period: windows of a trial, at least 1; a trial lasts on until an episode has ended.
        rate: step of the logarithm after four trials, above 0.
        lowest: the value that is perturbed stays above it.
        highest: and below this; by default there is no upper end, since value costs and clip ranges know none.

    Reference: one perturbation for a whole unroll, Vicol 2023 (arXiv 2304.11153), there with many copies side by side;
    here one agent tries both signs in turn, so that nothing is learned or played beside.
    """

    sigma: float = eqx.field(static=True, default=0.3)
    period: int = eqx.field(static=True, default=50)
    rate: float = eqx.field(static=True, default=0.2)
    lowest: float = eqx.field(static=True, default=1e-6)
    highest: float = eqx.field(static=True, default=math.inf)

    def __check_init__(self) -> None:
        if self.period < 1 or min(self.sigma, self.rate) <= 0 or not 0 < self.lowest < self.highest:
            raise ValueError(f"{self}: needs sigma and rate above 0, period >= 1 and 0 < lowest < highest.")

    def start(self, value: Float[Array, ""]) -> tuple[Float[Array, ""], LiveEvolutionState]:
        nothing = jnp.zeros((), value.dtype)
        centre = jnp.log(jnp.clip(value, self.lowest, self.highest))
        first = jnp.zeros((), jnp.int32)
        state = LiveEvolutionState(centre, first, Trial.new(value.dtype), nothing, nothing, nothing)
        return self._value(state), state

    def move(
        self, value: Float[Array, ""], state: LiveEvolutionState, seen: Seen
    ) -> tuple[Float[Array, ""], LiveEvolutionState]:
        state = state._replace(trial=state.trial.after(seen))
        after = chosen(state.trial.over(self.period), self._next_trial(state), state)
        return self._value(after), after

    def _next_trial(self, state: LiveEvolutionState) -> LiveEvolutionState:
        """The state after a trial is over."""
        sign = jnp.asarray(_SIGNS, state.centre.dtype)[state.place]
        difference = state.difference + sign * state.trial.mean_return / 2
        last = state.place == len(_SIGNS) - 1
        slope = difference / (2 * self.sigma)
        squares = _SQUARES_DECAY * state.squares + (1 - _SQUARES_DECAY) * slope**2
        weight = _SQUARES_DECAY * state.weight + (1 - _SQUARES_DECAY)
        size = jnp.sqrt(squares / weight)
        step = self.rate * slope / jnp.where(size > 0, size, 1)
        moved = jnp.clip(state.centre + step, jnp.log(self.lowest), jnp.log(self.highest))
        nothing = jnp.zeros_like(slope)
        return LiveEvolutionState(
            centre=jnp.where(last, moved, state.centre),
            place=(state.place + 1) % len(_SIGNS),
            trial=Trial.new(slope.dtype),
            difference=jnp.where(last, nothing, difference),
            squares=jnp.where(last, squares, state.squares),
            weight=jnp.where(last, weight, state.weight),
        )

    def _value(self, state: LiveEvolutionState) -> Float[Array, ""]:
        sign = jnp.asarray(_SIGNS, state.centre.dtype)[state.place]
        return jnp.exp(state.centre + self.sigma * sign)
