"""The conditions under which a suite's own code runs: JAX as its authors had it, whatever the caller has chosen.

Jumanji and Gymnax add booleans to integers and write 32-bit constants next to numbers of default width. Under strict
promotion the first is an error, and under `jax_enable_x64` the second is. So their code runs in 32 bits with standard
promotion, which also means that the same key gives the same episode in either precision; the observation is
translated to the caller's precision afterwards. Suites are imported under the same conditions, because some of their
constants take the width that is in force then.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["as_before", "floats", "foreign_code", "settled"]


@contextmanager
def foreign_code() -> Iterator[None]:
    """Within this context, 32 bits and standard promotion; what is traced here stays so when it is run."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


def settled(state: Any) -> Any:
    """A first state with arrays of definite types in place of Python numbers and weak types."""
    arrays = jax.tree.map(jnp.asarray, state)
    return jax.tree.map(lambda array: jax.lax.convert_element_type(array, array.dtype), arrays)


def as_before(next_state: Any, state: Any) -> Any:
    """`next_state` in the types of `state`, so that a scan can carry it."""
    return jax.tree.map(lambda new, old: jnp.asarray(new).astype(old.dtype), next_state, state)


def floats(values: Any) -> Float[Array, "..."]:
    """Numbers in the caller's floating-point type."""
    return jnp.asarray(values).astype(jnp.result_type(float))
