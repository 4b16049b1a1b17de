"""A meta-parameter that is kept within two ends, and otherwise left as it is."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gradweave.agents.tuners.base import AbstractTuner, Seen

__all__ = ["Bounds"]


class Bounds(AbstractTuner):
    """Begins at the nearer end where a meta-parameter was configured outside of two ends, and stays.

    A value that works is left alone, and one that no problem wants is not kept.

    ```python
    agent = SelfTuning(..., tuners={"entropy_cost": gw.Bounds((0.003, 0.1))})
    ```

    Attributes:
        ends: the lowest and the highest value.
    """

    ends: tuple[float, float] = eqx.field(static=True)

    def __check_init__(self) -> None:
        if not self.ends[0] < self.ends[1]:
            raise ValueError(f"{self}: needs a lowest end below the highest.")

    def start(self, value: Float[Array, ""]) -> tuple[Float[Array, ""], PyTree]:
        return jnp.clip(value, *self.ends), None

    def move(self, value: Float[Array, ""], state: PyTree, seen: Seen) -> tuple[Float[Array, ""], PyTree]:
        # A run that goes on may have been given other ends.
        return jnp.clip(value, *self.ends), state
