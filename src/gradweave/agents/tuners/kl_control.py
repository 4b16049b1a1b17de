"""A learning rate by how far updates move the policy."""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gradweave.agents.tuners.base import AbstractTuner, Seen, divergence_seen

__all__ = ["KLControl"]

_MOST_RAISED = 10.0
_LEAST_SEEN = 1e-12


class KLControl(AbstractTuner):
    """Raises the learning rate when a window moved the policy by less than half a target, lowers it beyond twice.

    With two divergences, a least and a most, it stays as it is between them: a rate that works is left alone. Outside,
    it is raised and lowered by `factor`. Until the least is reached for the first time it is raised to where their
    geometric mean would be, were divergences quadratic in the rate, tenfold at most: a first rate that is hopeless is
    left behind within a few windows. Later on, a small divergence can also mean that nothing is left to learn.

    ```python
    agent = SelfTuning(..., tuners={"learning_rate": gw.KLControl(target=0.01)})
    ```

    Attributes:
        target: divergence of a window's L updates, in nats, above 0; or a least and a greater most.
        factor: of one step up or down, above 1.
        lowest: lower end of the learning rate, above 0.
        highest: its upper end. A rate that is configured outside begins at the nearer end: one window with a rate that
            is far too high can leave a policy that is certain, and that no later rate brings back.

    Reference: the adaptive schedule of Rudin et al. 2021 (arXiv 2109.11978), whose numbers (0.01, 1.5, 1e-2) these are;
    there the divergence is that of one minibatch's update.
    """

    reads_divergence: ClassVar[bool] = True
    target: float | tuple[float, float] = eqx.field(static=True, default=0.01)
    factor: float = eqx.field(static=True, default=1.5)
    lowest: float = eqx.field(static=True, default=1e-6)
    highest: float = eqx.field(static=True, default=1e-2)

    def __check_init__(self) -> None:
        least, most = self._band
        if not (0 < least < most and self.factor > 1 and 0 < self.lowest < self.highest):
            raise ValueError(f"{self}: needs target > 0, least < most, factor > 1 and 0 < lowest < highest.")

    @property
    def _band(self) -> tuple[float, float]:
        return self.target if isinstance(self.target, tuple) else (self.target / 2, 2 * self.target)

    def start(self, value: Float[Array, ""]) -> tuple[Float[Array, ""], Bool[Array, ""] | None]:
        """The state is whether the least divergence has been reached yet; none with one target."""
        begun = jnp.zeros((), bool) if isinstance(self.target, tuple) else None
        return jnp.clip(value, self.lowest, self.highest), begun

    def move(
        self, value: Float[Array, ""], state: Bool[Array, ""] | None, seen: Seen
    ) -> tuple[Float[Array, ""], Bool[Array, ""] | None]:
        divergence = divergence_seen(self, seen)
        least, most = self._band
        raised: Any = self.factor
        if state is not None:
            # Rounding can take the divergence of policies that hardly differ below 0.
            missing = jnp.sqrt(math.sqrt(least * most) / jnp.maximum(divergence, _LEAST_SEEN))
            state = state | (divergence >= least)
            raised = jnp.where(state, self.factor, jnp.minimum(missing, _MOST_RAISED))
        lowered = jnp.where(divergence > most, 1 / self.factor, 1.0)
        factor = jnp.where(divergence < least, raised, lowered).astype(value.dtype)
        return jnp.clip(value * factor, self.lowest, self.highest), state
