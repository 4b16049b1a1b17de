"""An entropy cost that keeps a part of the entropy which the policy began with."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gradweave.agents.tuners.base import AbstractTuner, Seen
from gradweave.agents.tuners.target_entropy import mean_entropy

__all__ = ["EntropyShare", "EntropyShareState"]


class EntropyShareState(NamedTuple):
    """Entropy of the policy at the start.

    Attributes:
        begun: whether a window has been seen.
        first: mean entropy of the first window, in nats; 0 before it.
    """

    begun: Bool[Array, ""]
    first: Float[Array, ""]


class EntropyShare(AbstractTuner):
    """Raises the entropy cost while less than a share of the first window's entropy is left, and lowers it otherwise.

    With two shares, least and most, the cost stays as it is while the entropy lies between them.

    As `TargetEntropy`, without a number of nats to know beforehand: a fresh policy over discrete actions is nearly
    uniform over the allowed ones. The logarithm of the cost moves by `rate` times (share - entropy / first entropy),
    with the nearest share there is between least and most. A first entropy of 0 or below, which a continuous policy can
    have, says nothing: the cost then stays as it is.

    ```python
    agent = SelfTuning(..., tuners={"entropy_cost": gw.EntropyShare(0.5)})
    ```

    Attributes:
        share: of the entropy that is to remain, in (0, 1]; or the least and the most, not falling.
        rate: step of the logarithm for a window and the whole entropy, above 0.
        lowest: lower end of the cost, above 0: a cost of 0 could not grow again.
        highest: its upper end.

    Reference: Haarnoja et al. 2018 (arXiv 1812.05905), section 5; Christodoulou 2019 (arXiv 1910.07207), section 3,
    whose target for discrete actions is a share of log(number of actions).
    """

    share: float | tuple[float, float] = eqx.field(static=True)
    rate: float = eqx.field(static=True, default=0.5)
    lowest: float = eqx.field(static=True, default=1e-6)
    highest: float = eqx.field(static=True, default=1.0)

    def __check_init__(self) -> None:
        least, most = self._shares
        if not (0 < least <= most <= 1 and self.rate > 0 and 0 < self.lowest < self.highest):
            raise ValueError(
                f"{self}: needs share in (0, 1], least and most not falling, rate > 0 and 0 < lowest < highest."
            )

    @property
    def _shares(self) -> tuple[float, float]:
        return self.share if isinstance(self.share, tuple) else (self.share, self.share)

    def start(self, value: Float[Array, ""]) -> tuple[Float[Array, ""], EntropyShareState]:
        return value, EntropyShareState(jnp.zeros((), bool), jnp.zeros((), value.dtype))

    def move(
        self, value: Float[Array, ""], state: EntropyShareState, seen: Seen
    ) -> tuple[Float[Array, ""], EntropyShareState]:
        entropy = mean_entropy(self, seen).astype(value.dtype)
        first = jnp.where(state.begun, state.first, entropy)
        left = entropy / jnp.where(first > 0, first, 1)
        missing = jnp.clip(left, *self._shares) - left
        moved = jnp.clip(jnp.maximum(value, self.lowest) * jnp.exp(self.rate * missing), self.lowest, self.highest)
        return jnp.where(first > 0, moved, value), EntropyShareState(jnp.ones((), bool), first)
