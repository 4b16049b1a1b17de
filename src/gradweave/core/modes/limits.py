"""Operations that a mode cannot differentiate, reported in the words of this library, with the mode that can."""

import contextlib
from collections.abc import Iterator

from gradweave.core.modes.base import AbstractMode

__all__ = ["named_limits"]


@contextlib.contextmanager
def named_limits(mode: AbstractMode) -> Iterator[None]:
    """Turn JAX's refusal to differentiate a while loop backwards into one that names the mode that serves.

    Raises:
        TypeError: the loop is where this mode needs a reverse derivative.
    """
    try:
        yield
    except ValueError as error:
        if "Reverse-mode differentiation does not work" not in str(error):
            raise
        raise TypeError(
            f"{type(mode).__name__} needs a reverse derivative of a while loop (jax.lax.while_loop, or fori_loop with "
            "bounds that are not constants), which JAX does not have; give mode=ForwardMode() and an estimator that it "
            "serves alone (Bootstrapped needs a gradient of the outer loss in every mode), or write the loop as "
            "jax.lax.scan or with constant bounds."
        ) from error
