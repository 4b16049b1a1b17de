"""An entropy cost as the multiplier of a constraint."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gradweave.agents.tuners.base import AbstractTuner, Seen

__all__ = ["TargetEntropy", "mean_entropy"]


class TargetEntropy(AbstractTuner):
    """Raises the entropy cost while the policy is less random than wanted, and lowers it while it is more random.

    The logarithm of the cost moves by `rate` times (target - mean entropy of the window). The mean entropy is the
    "entropy" that the learner reports of its inner updates.

    ```python
    agent = SelfTuning(..., tuners={"entropy_cost": gw.TargetEntropy(0.5)})
    ```

    Attributes:
        target: entropy of the policy, in nats, above 0.
        rate: step of the logarithm for a window and a nat, above 0.
        lowest: lower end of the cost, above 0: a cost of 0 could not grow again.
        highest: its upper end.

    Reference: Haarnoja et al. 2018 (arXiv 1812.05905), section 5, whose temperature is such a multiplier.
    """

    target: float = eqx.field(static=True)
    rate: float = eqx.field(static=True, default=0.03)
    lowest: float = eqx.field(static=True, default=1e-6)
    highest: float = eqx.field(static=True, default=1.0)

    def __check_init__(self) -> None:
        if not (self.target > 0 and self.rate > 0 and 0 < self.lowest < self.highest):
            raise ValueError(f"{self}: needs target > 0, rate > 0 and 0 < lowest < highest.")

    def move(self, value: Float[Array, ""], state: PyTree, seen: Seen) -> tuple[Float[Array, ""], PyTree]:
        missing = self.target - mean_entropy(self, seen)
        raised = jnp.maximum(value, self.lowest) * jnp.exp(self.rate * missing).astype(value.dtype)
        return jnp.clip(raised, self.lowest, self.highest), state


def mean_entropy(tuner: AbstractTuner, seen: Seen) -> Float[Array, ""]:
    """Of the policy over a window, in nats, as the learner reports it of its inner updates.

    Raises:
        ValueError: it does not report it.
    """
    if "entropy" not in seen.inner:
        name = type(tuner).__name__
        raise ValueError(f"{name} reads 'entropy' of the learner's aux, which has only {sorted(seen.inner)}.")
    return seen.inner["entropy"].mean()
