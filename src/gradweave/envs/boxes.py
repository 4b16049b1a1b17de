"""Actions that are numbers within bounds: a policy acts from -1 to 1, a suite in its own units."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

__all__ = ["Bounds", "bounds_of", "within"]

Bounds = tuple[tuple[float, ...], tuple[float, ...]]
"""Least and greatest action, number by number."""


def bounds_of(name: str, space: Any) -> Bounds:
    """Bounds of the actions in `space`, which has `shape`, `low` and `high`.

    Raises:
        ValueError: the actions are no vector, or a side of it has no bound; `name` is the environment's.
    """
    shape = getattr(space, "shape", None)
    if not isinstance(shape, tuple) or len(shape) != 1 or not hasattr(space, "low"):
        raise ValueError(
            f"{name} has actions in {space!r}, but discrete ones or a vector are wanted: choose another environment"
        )
    low, high = (np.broadcast_to(np.asarray(bound, float), shape) for bound in (space.low, space.high))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError(
            f"{name} has actions in {space!r}, but bounds on each side are wanted: choose another environment"
        )
    return tuple(low.tolist()), tuple(high.tolist())


def within(bounds: Bounds, action: Float[Array, " size"]) -> Float[Array, " size"]:
    """The action that -1 to 1 stands for, in 32 bits; actions outside are clipped."""
    low, high = (jnp.asarray(bound, jnp.float32) for bound in bounds)
    share = (jnp.clip(action.astype(jnp.float32), -1.0, 1.0) + 1.0) / 2.0
    return low + share * (high - low)
