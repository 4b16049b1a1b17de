"""A learning rate for a run of known length: left alone if it moves the policy at all, and annealed at the end."""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gradweave.agents.tuners.base import AbstractTuner, Seen, divergence_seen

__all__ = ["KLAnneal", "KLAnnealState"]

_WAIT, _AGAIN, _TAIL = 10, 50, 2  # a tenth of the run, a fiftieth, its second half
_LEAST_PATH = 0.5  # nats of the whole run
_NEAR, _MOST = 0.5, 10.0  # of the goal
_MOST_RAISED, _FACTOR_DOWN = 10.0, 1.5
_LEAST_SEEN = 1e-12


class KLAnnealState(NamedTuple):
    """What `KLAnneal` remembers.

    Attributes:
        rate: the learning rate before annealing.
        sum_divergence: of the windows since the last raise, or since looking began.
        num_windows: how many these are.
        raised: whether the rate has been raised.
        settled: whether it will not be raised again.
    """

    rate: Float[Array, ""]
    sum_divergence: Float[Array, ""]
    num_windows: Float[Array, ""]
    raised: Bool[Array, ""]
    settled: Bool[Array, ""]


class KLAnneal(AbstractTuner):
    """Raises a first learning rate that hardly moves the policy, and anneals it over the second half of the run.

    For a tenth of the run, and at least one window, the rate is not raised: before there is anything to learn from, a
    rate that works may move the policy as little as one that does not. If the whole run at the pace of the second half
    of that tenth would be less than half a nat, the rate is raised to where a window's divergence would be `goal`, were
    it quadratic in the rate, tenfold at most; and so again after each fiftieth of the run, until half of the goal is
    reached or half of the run is over. After that it is never raised. A window that moves the policy by more than ten
    times the goal lowers it by 1.5, at any time. Over the second half of the run it falls linearly to `lowest`.

    A value that is given from outside meanwhile lasts for one window.

    A rate that works is so annealed and otherwise left alone. Which rates work depends on the length of the run, of
    which a rule by divergences alone (`KLControl`) knows nothing: one with which nothing happens in 40 windows may be
    right for 400.

    ```python
    agent = SelfTuning(..., tuners={"learning_rate": gw.KLAnneal(400)})
    ```

    Attributes:
        windows: of the whole run, at least 1.
        goal: divergence of a window's L updates, in nats, above 0, to which a rate that is too low is raised.
        lowest: lower end of the learning rate, above 0.
        highest: its upper end. A rate that is configured outside begins at the nearer end.

    Reference: our own rule, with numbers from docs/auto.md. Rates by divergences: Rudin et al. 2021 (arXiv 2109.11978,
    see `KLControl`). Schulman et al. 2017 (arXiv 1707.06347) anneal PPO's learning rate over the whole run on Atari.
    """

    reads_divergence: ClassVar[bool] = True
    windows: int = eqx.field(static=True)
    goal: float = eqx.field(static=True, default=0.1)
    lowest: float = eqx.field(static=True, default=1e-6)
    highest: float = eqx.field(static=True, default=2e-2)

    def __check_init__(self) -> None:
        if not (self.windows >= 1 and self.goal > 0 and 0 < self.lowest < self.highest):
            raise ValueError(f"{self}: needs windows >= 1, goal > 0 and 0 < lowest < highest.")

    def start(self, value: Float[Array, ""]) -> tuple[Float[Array, ""], KLAnnealState]:
        rate = jnp.clip(value, self.lowest, self.highest)
        nothing, no = jnp.zeros((), rate.dtype), jnp.zeros((), bool)
        return rate, KLAnnealState(rate, nothing, nothing, no, no)

    def move(self, value: Float[Array, ""], state: KLAnnealState, seen: Seen) -> tuple[Float[Array, ""], KLAnnealState]:
        if seen.num_windows is None:
            raise ValueError("KLAnneal reads Seen.num_windows, the number of windows of the run before this one.")
        done = jnp.asarray(seen.num_windows + 1, value.dtype)
        divergence = jnp.asarray(divergence_seen(self, seen), value.dtype)
        state = self._looked(state, divergence, done)
        rate = jnp.where(divergence > _MOST * self.goal, state.rate / _FACTOR_DOWN, state.rate)
        state = state._replace(rate=jnp.clip(rate, self.lowest, self.highest))
        left = jnp.clip(_TAIL * (self.windows - done) / self.windows, 0.0, 1.0)
        return jnp.maximum(state.rate * left, self.lowest), state

    def _looked(self, state: KLAnnealState, divergence: Float[Array, ""], done: Float[Array, ""]) -> KLAnnealState:
        """The state after one window more; its rate may have been raised."""
        counts = (2 * _WAIT * done > self.windows) & jnp.isfinite(divergence) & ~state.settled
        total = state.sum_divergence + jnp.where(counts, divergence, 0)
        number = state.num_windows + counts.astype(state.rate.dtype)
        # Rounding can take the divergence of policies that hardly differ below 0.
        mean = jnp.maximum(total / jnp.maximum(number, 1), _LEAST_SEEN)
        enough = mean >= jnp.where(state.raised, _NEAR * self.goal, _LEAST_PATH / self.windows)
        due = (_WAIT * done >= self.windows) & (number >= 1) & (_AGAIN * number >= self.windows) & ~state.settled
        late = _TAIL * done >= self.windows
        raises = due & ~enough & ~late
        factor = jnp.where(raises, jnp.clip(jnp.sqrt(self.goal / mean), 1.0, _MOST_RAISED), 1.0)
        return KLAnnealState(
            rate=state.rate * factor,
            sum_divergence=jnp.where(raises, 0, total),
            num_windows=jnp.where(raises, 0, number),
            raised=state.raised | raises,
            settled=state.settled | (due & enough) | late,
        )
