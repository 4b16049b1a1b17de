"""Running moments of the outer advantages, by which an objective that standardises them divides.

They come from earlier windows. A moment of a batch that enters that same batch's loss would be a function of the
differentiated variables, and of the noise that it is meant to normalise.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from gradweave.agents.actor_critic.experience import AdvantageMoments
from gradweave.agents.running import DECAY, RunningMean

__all__ = ["MomentStatistics", "advantage_moments", "empty_moments", "with_moments"]

_SMALLEST_STD = 1e-4  # rewards that are all alike must not be blown up


class MomentStatistics(NamedTuple):
    """Of earlier windows.

    Attributes:
        advantage: mean outer advantage.
        squared_advantage: mean of its square.
    """

    advantage: RunningMean
    squared_advantage: RunningMean


def empty_moments() -> MomentStatistics:
    """Before the first window."""
    return MomentStatistics(RunningMean.empty(), RunningMean.empty())


def advantage_moments(statistics: MomentStatistics) -> AdvantageMoments:
    """Mean and standard deviation of outer advantages; 0 and 1 before the first window."""
    mean = statistics.advantage.mean(0.0)
    variance = jnp.maximum(statistics.squared_advantage.mean(1.0) - mean**2, _SMALLEST_STD**2)
    return AdvantageMoments(mean, jnp.sqrt(variance))


def with_moments(statistics: MomentStatistics | None, outer: dict[str, Array]) -> MomentStatistics | None:
    """With one window more, whose outer loss reported `outer`; None stays None."""
    if statistics is None:
        return None
    return MomentStatistics(
        statistics.advantage.add(outer["outer_advantage"], DECAY),
        statistics.squared_advantage.add(outer["outer_squared_advantage"], DECAY),
    )
