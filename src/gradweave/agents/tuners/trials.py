"""A trial: some windows with one value, and their returns."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from gradweave.agents.tuners.base import Seen

__all__ = ["Trial"]


class Trial(NamedTuple):
    """Windows and returns of a trial so far.

    Attributes:
        windows: since it began.
        num_episodes: that ended in it.
        sum_returns: of these.
    """

    windows: Int[Array, ""]
    num_episodes: Float[Array, ""]
    sum_returns: Float[Array, ""]

    @classmethod
    def new(cls, dtype: DTypeLike) -> "Trial":
        """Before the first window."""
        return cls(jnp.zeros((), jnp.int32), jnp.zeros((), dtype), jnp.zeros((), dtype))

    def after(self, seen: Seen) -> "Trial":
        """With one more window."""
        dtype = self.sum_returns.dtype
        return Trial(
            self.windows + 1,
            self.num_episodes + seen.episodes.num_episodes.astype(dtype),
            self.sum_returns + seen.episodes.sum_returns.astype(dtype),
        )

    def over(self, period: int) -> Bool[Array, ""]:
        """Whether it lasted for a number of windows, and on until an episode had ended."""
        return (self.windows >= period) & (self.num_episodes > 0)

    @property
    def mean_return(self) -> Float[Array, ""]:
        """Of the episodes that ended; 0 before the first one."""
        return self.sum_returns / jnp.maximum(self.num_episodes, 1)
