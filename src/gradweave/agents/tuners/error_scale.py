"""A clip range for values that knows how far they are usually wrong."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gradweave.agents.tuners.base import AbstractTuner, Seen

__all__ = ["ErrorScale"]


class ErrorScale(AbstractTuner):
    """Sets a clip range to `scale` times the root of the value loss over the last window.

    A clip range of values has the unit of returns. One of 0.2 where returns are in the hundreds keeps a critic from
    learning them within a run; this one cuts what moves further than values are usually wrong. The value loss is the
    "value_loss" that the learner reports of its inner updates, a mean over samples, gradient steps and updates of the
    window: the squared error, and where values are clipped the larger one of that and the clipped values' own. A window
    without a finite loss, or with none, leaves the range as it is.

    ```python
    agent = SelfTuning(..., tuners={"value_clip_range": gw.ErrorScale(1.0)})
    ```

    Attributes:
        scale: above 0.

    Reference: our own rule, with evidence in docs/auto.md.
    """

    scale: float = eqx.field(static=True, default=1.0)

    def __check_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"{self}: needs scale > 0.")

    def move(self, value: Float[Array, ""], state: PyTree, seen: Seen) -> tuple[Float[Array, ""], PyTree]:
        if "value_loss" not in seen.inner:
            raise ValueError(
                f"ErrorScale reads 'value_loss' of the learner's aux, which has only {sorted(seen.inner)}."
            )
        moved = self.scale * jnp.sqrt(seen.inner["value_loss"].mean()).astype(value.dtype)
        return jnp.where(jnp.isfinite(moved) & (moved > 0), moved, value), state
