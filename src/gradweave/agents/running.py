"""An exponential mean that is exact from the first value on, carried from window to window."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

__all__ = ["DECAY", "RunningMean"]

DECAY = 0.99  # a memory of about a hundred windows


class RunningMean(NamedTuple):
    """Sum of decayed values over sum of decayed weights."""

    total: Float[Array, ""]
    weight: Float[Array, ""]

    @staticmethod
    def empty() -> "RunningMean":
        """Of no values."""
        return RunningMean(jnp.zeros(()), jnp.zeros(()))

    def add(self, value: Array, decay: float, count: ArrayLike = 1.0) -> "RunningMean":
        """With one value more; a `count` of 0 leaves the mean as it is, at any value."""
        present = jnp.asarray(count) > 0
        value = jnp.where(present, value.astype(self.total.dtype), 0.0)
        total = decay * self.total + (1 - decay) * value
        weight = decay * self.weight + (1 - decay)
        return RunningMean(jnp.where(present, total, self.total), jnp.where(present, weight, self.weight))

    def mean(self, default: float) -> Float[Array, ""]:
        """The mean; `default` as long as there were no values."""
        known = self.weight > 0
        return jnp.where(known, self.total / jnp.where(known, self.weight, 1.0), default)
