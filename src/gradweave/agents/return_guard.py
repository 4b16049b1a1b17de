"""Going back to the last good state when returns have fallen for long."""

from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gradweave.agents.running import RunningMean
from gradweave.agents.state import chosen, learning_part, part_of_the_way
from gradweave.rl import EpisodeTotals

if TYPE_CHECKING:
    from gradweave.agents.state import SelfTuningState

__all__ = ["GuardMemory", "ReturnGuard"]

_WEIGHT_KNOWN = 0.5  # of a running mean, before it counts: half of its final weight
_MOST_DOUBLINGS = 16  # of the patience
_SHARE = 0.1  # of a run whose length is known: its patience and its running mean are not longer
_LEAST_MEMORY = 4.0  # windows, below which returns that only scatter look lost in every fourth run


class GuardMemory(NamedTuple):
    """State of a guard between windows.

    Attributes:
        recent: running mean return of the episodes that ended, over windows.
        spread: running mean of the squared distance of a window's mean return from `recent` before it.
        known: whether `first` and `best` have been seen.
        first: the mean when it was first known.
        best: the highest mean so far.
        chance: root of `spread` at the time of `best`.
        low: consecutive windows with a mean too low.
        restores: number of times that the state of `best` was restored after `patience`.
        saved: the state of learning (`learning_part`) before the window of `best`; before that, the first state.
        scale: factor on the moves of the meta-optimiser.
    """

    recent: RunningMean
    spread: RunningMean
    known: Bool[Array, ""]
    first: Float[Array, ""]
    best: Float[Array, ""]
    chance: Float[Array, ""]
    low: Int[Array, ""]
    restores: Int[Array, ""]
    saved: Any
    scale: Float[Array, ""]


class ReturnGuard(eqx.Module):
    """Restores the learner and the meta-parameters of the best running mean return when it is lost for long.

    Returns are lost while their running mean lies below first + `fraction` (best - first), where first is its first
    value: half of the best for returns that begin near zero, and the middle for negative ones. Both the gain, best -
    first, and the loss, best - mean, have to be more than single windows' returns scattered about the running mean when
    it was best: chance alone is to restore nothing, nor may a policy be held where it began, which often has to get
    worse before it learns. When that has lasted for `patience` windows, parameters, meta-parameters and the states of
    optimisers, estimator and tuners are those of the best mean again, and all later moves of the meta-optimiser are
    smaller by `slowdown`. When the same state is lost again, it takes twice as long as before. The episodes that are
    running go on, so that the first update after it uses a rollout of the policy that was lost (V-trace takes the
    first update of a window for one on its own policy, and corrects nothing there), and so do the running scales of
    rewards and observations.

    With `num_windows` the patience and the memory of the running mean, 1 / (1 - `decay`) windows, are a tenth of the
    run at most, the memory at least four windows. The last window then ends with the state of the best mean where the
    mean is less than that by more than chance: nobody goes on and finds it again. Of runs whose returns only scatter
    8 in 100 of 40 windows are put back before their end, 3 of 20, 2 of 60, and one in 400 of 100.

    ```python
    agent = SelfTuning(..., guard=gw.ReturnGuard())
    ```

    Attributes:
        fraction: of the gain, in (0, 1).
        patience: windows, at least 1, the first time.
        slowdown: of the meta-optimiser's moves, in (0, 1].
        decay: of the running mean, in [0, 1), for a window in which an episode ended.
        num_windows: meta-steps of the whole run, at least 1; None when it has no planned end.
    """

    fraction: float = eqx.field(static=True, default=0.5)
    patience: int = eqx.field(static=True, default=50)
    slowdown: float = eqx.field(static=True, default=0.5)
    decay: float = eqx.field(static=True, default=0.95)
    num_windows: int | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        if not (0 < self.fraction < 1 and self.patience >= 1 and 0 < self.slowdown <= 1 and 0 <= self.decay < 1):
            raise ValueError(
                f"{self}: needs fraction in (0, 1), patience >= 1, slowdown in (0, 1] and decay in [0, 1)."
            )
        if self.num_windows is not None and self.num_windows < 1:
            raise ValueError(f"{self}: needs num_windows >= 1, or None.")

    @property
    def _patience(self) -> int:
        return self.patience if self.num_windows is None else max(1, min(self.patience, int(_SHARE * self.num_windows)))

    @property
    def _decay(self) -> float:
        if self.num_windows is None:
            return self.decay
        return min(self.decay, 1 - 1 / max(_LEAST_MEMORY, _SHARE * self.num_windows))

    def start(self, state: "SelfTuningState") -> GuardMemory:
        """The memory beside a first state."""
        zero = jnp.zeros((), jnp.result_type(float))
        none = jnp.zeros((), jnp.int32)
        return GuardMemory(
            RunningMean.empty(),
            RunningMean.empty(),
            jnp.zeros((), bool),
            zero,
            zero,
            zero,
            none,
            none,
            _carried(state),
            jnp.ones_like(zero),
        )

    def watch(
        self, before: "SelfTuningState", after: "SelfTuningState", episodes: EpisodeTotals
    ) -> tuple["SelfTuningState", Bool[Array, ""]]:
        """(the state to go on with, whether it was restored).

        Args:
            before: the state before a window.
            after: after it, with the memory of `before`.
            episodes: totals over the episodes that ended in the window.
        """
        memory: GuardMemory = before.guard
        after = after._replace(learned=part_of_the_way(memory.scale, before.learned, after.learned))
        count = episodes.num_episodes
        earned = episodes.sum_returns / jnp.maximum(count, 1)
        recent = memory.recent.add(earned, self._decay, count)
        surprise = jnp.where(memory.recent.weight > 0, earned - memory.recent.mean(0.0), 0.0)
        spread = memory.spread.add(surprise**2, self._decay, count)
        mean, counts = recent.mean(0.0), recent.weight >= _WEIGHT_KNOWN
        first = jnp.where(memory.known, memory.first, mean)
        better = counts & (~memory.known | (mean >= memory.best))
        best = jnp.where(better, mean, memory.best)
        # Not of now: a policy that is lost within a few windows scatters most of all.
        chance = jnp.where(better, jnp.sqrt(spread.mean(0.0)), memory.chance)
        told = (best - first > chance) & (best - mean > chance)
        lost = counts & memory.known & told & (mean < first + self.fraction * (best - first))
        low = jnp.where(lost, memory.low + 1, 0)
        restores = jnp.where(better, 0, memory.restores)
        given_up = low >= self._patience << jnp.minimum(restores, _MOST_DOUBLINGS)
        restored = given_up
        if self.num_windows is not None:
            restored |= (after.num_meta_steps == self.num_windows) & counts & memory.known & told
        # Episodes that ended in it were begun by earlier policies, and its last update may be the one that loses it.
        saved = chosen(better, _carried(before), memory.saved)
        # The mean starts afresh, at the restored state's return.
        fresh = RunningMean(best * recent.weight, recent.weight)
        kept = memory._replace(
            recent=chosen(restored, fresh, recent),
            spread=spread,
            known=memory.known | counts,
            first=first,
            best=best,
            chance=chance,
            low=jnp.where(restored, 0, low),
            restores=restores + given_up.astype(jnp.int32),
            saved=saved,
            scale=jnp.where(given_up, self.slowdown * memory.scale, memory.scale),
        )
        carried = chosen(restored, memory.saved, _carried(after))._asdict()
        goes_on: Any = {name: value for name, value in carried.items() if value is not None}
        return after._replace(**{**goes_on, "guard": kept}), restored


def _carried(state: "SelfTuningState") -> "SelfTuningState":
    """The saved part of a state: without the environments, the count of windows and the guard's own memory."""
    nothing: Any = None
    return learning_part(state)._replace(num_meta_steps=nothing, guard=nothing)
