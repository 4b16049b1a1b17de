"""Running statistics that a self-tuning agent carries from window to window, and what is made of them.

What they say of one window comes from earlier windows only. A statistic of a batch that enters that same batch's loss
would be a function of what is differentiated, and of the noise that it is meant to normalise.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from gradweave.agents.experience import AdvantageMoments

__all__ = ["RunningMean", "WindowStatistics", "advantage_moments", "empty_statistics", "reward_baseline", "with_window"]

_DECAY = 0.99  # a memory of about a hundred windows
_SMALLEST_STD = 1e-4  # rewards that are all alike must not be blown up


class RunningMean(NamedTuple):
    """An exponential mean that is exact from the first value on: sum of decayed values over sum of decayed weights."""

    total: Float[Array, ""]
    weight: Float[Array, ""]

    @staticmethod
    def empty() -> "RunningMean":
        """Of no values."""
        return RunningMean(jnp.zeros(()), jnp.zeros(()))

    def add(self, value: Array, decay: float, count: ArrayLike = 1.0) -> "RunningMean":
        """With one value more; a `count` of 0 leaves the mean as it is, whatever the value."""
        present = jnp.asarray(count) > 0
        value = jnp.where(present, value.astype(self.total.dtype), 0.0)
        total = decay * self.total + (1 - decay) * value
        weight = decay * self.weight + (1 - decay)
        return RunningMean(jnp.where(present, total, self.total), jnp.where(present, weight, self.weight))

    def mean(self, default: float) -> Float[Array, ""]:
        """The mean; `default` as long as there were no values."""
        known = self.weight > 0
        return jnp.where(known, self.total / jnp.where(known, self.weight, 1.0), default)


class WindowStatistics(NamedTuple):
    """What the options of an agent need of earlier windows; None for what no option asks for.

    Attributes:
        advantage: mean outer advantage.
        squared_advantage: mean of its square.
        reward: mean reward per step, the baseline of the sampling correction.
    """

    advantage: RunningMean | None = None
    squared_advantage: RunningMean | None = None
    reward: RunningMean | None = None


def advantage_moments(statistics: WindowStatistics) -> AdvantageMoments:
    """Mean and standard deviation of outer advantages; 0 and 1 before the first window."""
    if statistics.advantage is None or statistics.squared_advantage is None:
        raise ValueError("these statistics have no moments of advantages; the objective does not standardise them.")
    mean = statistics.advantage.mean(0.0)
    variance = jnp.maximum(statistics.squared_advantage.mean(1.0) - mean**2, _SMALLEST_STD**2)
    return AdvantageMoments(mean, jnp.sqrt(variance))


def empty_statistics(*, moments: bool, reward: bool) -> WindowStatistics | None:
    """Before the first window; None when nothing is asked for."""
    if not (moments or reward):
        return None
    empty = RunningMean.empty
    return WindowStatistics(empty() if moments else None, empty() if moments else None, empty() if reward else None)


def with_window(
    statistics: WindowStatistics | None, outer: dict[str, Array], mean_reward: Float[Array, ""]
) -> WindowStatistics | None:
    """With one window more.

    Args:
        statistics: of the windows before.
        outer: auxiliary scalars of the outer loss.
        mean_reward: per step of the window.
    """
    if statistics is None:
        return None
    advantage, squared, reward = statistics
    if advantage is not None and squared is not None:
        advantage = advantage.add(outer["outer_advantage"], _DECAY)
        squared = squared.add(outer["outer_squared_advantage"], _DECAY)
    if reward is not None:
        reward = reward.add(mean_reward, _DECAY)
    return WindowStatistics(advantage, squared, reward)


def reward_baseline(statistics: WindowStatistics | None) -> Float[Array, ""]:
    """The usual reward per step, 0 before the first window."""
    if statistics is None or statistics.reward is None:
        return jnp.zeros(())
    return statistics.reward.mean(0.0)
