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

    As `TargetEntropy`, without a number of nats to know beforehand: a fresh policy over discrete actions is nearly
    uniform over the allowed ones. The logarithm of the cost moves by `rate` times (share - entropy / first entropy)
    and stays between `lowest` and `highest`. A first entropy of 0 or below, which a continuous policy can have, says
    nothing: the cost then stays as it is.

    ```python
    agent = SelfTuning(..., tuners={"entropy_cost": gw.EntropyShare(0.5)})
    ```

    Attributes:
        share: of the entropy that is to remain, in (0, 1].
        rate: step of the logarithm for a window and the whole entropy, above 0.
        lowest: lower end of the cost, above 0: a cost of 0 could not grow again.
        highest: its upper end. A policy is nearly uniform before anything is learned, whatever the cost, which then
            falls to the lower end: narrow bounds keep it where it will be wanted.

    Reference: Haarnoja et al. 2018 (arXiv 1812.05905), section 5; Christodoulou 2019 (arXiv 1910.07207), section 3,
    whose target for discrete actions is a share of log(number of actions).
    """

    share: float = eqx.field(static=True)
    rate: float = eqx.field(static=True, default=0.5)
    lowest: float = eqx.field(static=True, default=1e-6)
    highest: float = eqx.field(static=True, default=1.0)

    def __check_init__(self) -> None:
        if not (0 < self.share <= 1 and self.rate > 0 and 0 < self.lowest < self.highest):
            raise ValueError(f"{self}: needs share in (0, 1], rate > 0 and 0 < lowest < highest.")

    def start(self, value: Float[Array, ""]) -> tuple[Float[Array, ""], EntropyShareState]:
        return value, EntropyShareState(jnp.zeros((), bool), jnp.zeros((), value.dtype))

    def move(
        self, value: Float[Array, ""], state: EntropyShareState, seen: Seen
    ) -> tuple[Float[Array, ""], EntropyShareState]:
        entropy = mean_entropy(self, seen).astype(value.dtype)
        first = jnp.where(state.begun, state.first, entropy)
        missing = self.share - entropy / jnp.where(first > 0, first, 1)
        moved = jnp.clip(jnp.maximum(value, self.lowest) * jnp.exp(self.rate * missing), self.lowest, self.highest)
        return jnp.where(first > 0, moved, value), EntropyShareState(jnp.ones((), bool), first)


def share_within(argument: float | tuple[float, float, float]) -> EntropyShare:
    """The tuner of a share, or of a share and the two ends of the cost."""
    share, *ends = argument if isinstance(argument, tuple) else (argument,)
    return EntropyShare(share, **dict(zip(("lowest", "highest"), ends, strict=False)))
