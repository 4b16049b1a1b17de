"""Probes of what lies ahead: is a later reward discounted rightly, and is a cut told from an end?

| probe | known answer |
|---|---|
| `DelayedReward` | the first observation is worth γ, the second 1 |
| `TruncatedReward` | every observation is worth 1 / (1 - γ): the reward would never have stopped |
| `TerminatedReward` | with n steps to go, (1 - γⁿ) / (1 - γ) |

The last two look exactly alike and pay exactly alike; only the flags differ. An agent that merges the flags gives both
the same values.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from gradweave.envs.environment import Step
from gradweave.envs.observation import Observation
from gradweave.envs.probe import AbstractProbe, OptimalValues, ProbeState, observation_of

__all__ = ["DelayedReward", "TerminatedReward", "TruncatedReward"]


class DelayedReward(AbstractProbe[ProbeState]):
    """Two steps, one action: reward 0, then 1. The first observation (0) is worth γ, the second (1) is worth 1."""

    num_actions: int = eqx.field(static=True, default=1)
    can_truncate: bool = eqx.field(static=True, default=False)
    optimal_return: float = eqx.field(static=True, default=1.0)

    def reset(self, *, key: Key[Array, ""]) -> tuple[ProbeState, Observation]:
        """Begin an episode."""
        del key
        return _start(), _progress(jnp.zeros((), jnp.int32), 1)

    def step(self, state: ProbeState, action: Int[Array, ""], *, key: Key[Array, ""]) -> tuple[ProbeState, Step]:
        """Reward 1 and the end in the second step."""
        del action, key
        taken = state.step_count + 1
        terminated = taken >= 2
        reward = terminated.astype(jnp.result_type(float))
        step = Step(_progress(taken, 1), reward, terminated, truncated=jnp.zeros((), bool))
        return state._replace(step_count=taken), step

    def optimal_values(self, discount: float) -> OptimalValues:
        """Two observations, worth γ and 1."""
        return _along(2, 1, jnp.asarray([discount, 1.0], jnp.result_type(float)))


class TruncatedReward(AbstractProbe[ProbeState]):
    """Reward 1 at every step, for ever, but each episode is cut off after `num_steps`: worth 1 / (1 - γ) everywhere.

    The fraction of `num_steps` that has passed is seen, so that an agent *can* learn the wrong values: those of
    `TerminatedReward`.
    """

    num_steps: int = eqx.field(static=True)
    num_actions: int = eqx.field(static=True)
    can_truncate: bool = eqx.field(static=True)
    optimal_return: float = eqx.field(static=True)

    def __init__(self, num_steps: int = 5) -> None:
        """Episodes of `num_steps` steps, at least 1."""
        if num_steps < 1:
            raise ValueError(f"num_steps = {num_steps} makes no episode: give a whole number of at least 1")
        self.num_steps = num_steps
        self.num_actions = 1
        self.can_truncate = True
        self.optimal_return = float(num_steps)

    def reset(self, *, key: Key[Array, ""]) -> tuple[ProbeState, Observation]:
        """Begin an episode."""
        del key
        return _start(), _progress(jnp.zeros((), jnp.int32), self.num_steps)

    def step(self, state: ProbeState, action: Int[Array, ""], *, key: Key[Array, ""]) -> tuple[ProbeState, Step]:
        """Reward 1; cut off after `num_steps`."""
        del action, key
        state, ended, step = _paid_step(state, self.num_steps)
        return state, step._replace(truncated=ended)

    def optimal_values(self, discount: float) -> OptimalValues:
        """`num_steps + 1` observations, that at the cut included: the last step bootstraps from it."""
        values = jnp.full(self.num_steps + 1, 1 / (1 - discount), jnp.result_type(float))
        return _along(self.num_steps + 1, self.num_steps, values)


class TerminatedReward(AbstractProbe[ProbeState]):
    """Reward 1 at every step, until the episode really ends after `num_steps`: the twin of `TruncatedReward`.

    With n steps to go an observation is worth 1 + γ + ... + γⁿ⁻¹ = (1 - γⁿ) / (1 - γ).
    """

    num_steps: int = eqx.field(static=True)
    num_actions: int = eqx.field(static=True)
    can_truncate: bool = eqx.field(static=True)
    optimal_return: float = eqx.field(static=True)

    def __init__(self, num_steps: int = 5) -> None:
        """Episodes of `num_steps` steps, at least 1."""
        if num_steps < 1:
            raise ValueError(f"num_steps = {num_steps} makes no episode: give a whole number of at least 1")
        self.num_steps = num_steps
        self.num_actions = 1
        self.can_truncate = False
        self.optimal_return = float(num_steps)

    def reset(self, *, key: Key[Array, ""]) -> tuple[ProbeState, Observation]:
        """Begin an episode."""
        del key
        return _start(), _progress(jnp.zeros((), jnp.int32), self.num_steps)

    def step(self, state: ProbeState, action: Int[Array, ""], *, key: Key[Array, ""]) -> tuple[ProbeState, Step]:
        """Reward 1; the end after `num_steps`."""
        del action, key
        state, ended, step = _paid_step(state, self.num_steps)
        return state, step._replace(terminated=ended)

    def optimal_values(self, discount: float) -> OptimalValues:
        """`num_steps` observations, worth the less the later they are."""
        to_go = self.num_steps - jnp.arange(self.num_steps).astype(jnp.result_type(float))
        return _along(self.num_steps, self.num_steps, (1 - discount**to_go) / (1 - discount))


def _start() -> ProbeState:
    """The first state of an episode; nothing is drawn."""
    return ProbeState(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def _paid_step(state: ProbeState, num_steps: int) -> tuple[ProbeState, Bool[Array, ""], Step]:
    """One step with reward 1: the next state, whether it was the last, and the step with both flags down."""
    taken = state.step_count + 1
    down = jnp.zeros((), bool)
    step = Step(_progress(taken, num_steps), jnp.ones((), jnp.result_type(float)), terminated=down, truncated=down)
    return state._replace(step_count=taken), taken >= num_steps, step


def _progress(taken: Int[Array, ""], num_steps: int) -> Observation:
    """The observation: the fraction of steps taken."""
    return observation_of((taken.astype(jnp.result_type(float)) / num_steps)[None], jnp.ones(1, bool))


def _along(num_cases: int, num_steps: int, values: Float[Array, " num_cases"]) -> OptimalValues:
    """The first `num_cases` observations of an episode, beside their values."""
    taken = jnp.arange(num_cases, dtype=jnp.int32)
    return OptimalValues(jax.vmap(lambda count: _progress(count, num_steps))(taken), values)
