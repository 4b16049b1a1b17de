"""A learning rate by how far updates move the policy."""

import math
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gradweave.agents.tuners.base import AbstractTuner, Seen

__all__ = ["KLControl"]

_MOST_RAISED = 10.0


class _Band(NamedTuple):
    """The direction in which the rate moves, 1, -1 or 0; whether the least divergence has ever been reached."""

    direction: Int[Array, ""]
    reached: Bool[Array, ""]


class KLControl(AbstractTuner):
    """Raises the learning rate when a window moved the policy by less than half a target, lowers it beyond twice.

    With two divergences, a least and a most, it stays as it is between them. Outside, it moves until the divergence has
    come back to their geometric mean: a rate that works is left alone, and a hopeless one is not left at the edge.
    Before the least has been reached for the first time it is raised to where the mean would be, were divergences
    quadratic in the rate, tenfold at most, so that a hopeless first rate costs a few windows. A policy that has learned
    all hardly moves either; then, it is raised by `factor`, as it is lowered.

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

    def start(self, value: Float[Array, ""]) -> tuple[Float[Array, ""], _Band | None]:
        state = _Band(jnp.zeros((), jnp.int32), jnp.zeros((), bool)) if isinstance(self.target, tuple) else None
        return jnp.clip(value, self.lowest, self.highest), state

    def move(self, value: Float[Array, ""], state: _Band | None, seen: Seen) -> tuple[Float[Array, ""], _Band | None]:
        assert seen.divergence is not None
        least, most = self._band
        direction = jnp.where(seen.divergence < least, 1, jnp.where(seen.divergence > most, -1, 0))
        raised: Any = self.factor
        if state is not None:
            aim = math.sqrt(least * most)
            away = jnp.where(state.direction > 0, seen.divergence < aim, seen.divergence > aim)
            direction = jnp.where((direction == 0) & away, state.direction, direction)
            state = _Band(direction.astype(state.direction.dtype), state.reached | (seen.divergence >= least))
            missing = jnp.minimum(jnp.sqrt(aim / seen.divergence), _MOST_RAISED)
            raised = jnp.where(state.reached, self.factor, missing)
        factor = jnp.where(direction > 0, raised, jnp.where(direction < 0, 1 / self.factor, 1.0))
        return jnp.clip(value * factor.astype(value.dtype), self.lowest, self.highest), state
