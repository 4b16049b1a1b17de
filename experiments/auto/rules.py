"""A rule that was tried for auto: a share of the first entropy, the cost within bounds."""

from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PyTree

import gradweave as gw


class ShareWithin(gw.AbstractTuner):
    """`EntropyShare` between a lowest and a highest cost.

    Attributes:
        numbers: the share, the lowest and the highest cost.
    """

    numbers: tuple[float, float, float] = eqx.field(static=True)

    @property
    def _rule(self) -> gw.EntropyShare:
        share, lowest, highest = self.numbers
        return gw.EntropyShare(share, lowest=lowest, highest=highest)

    def start(self, value: Float[Array, ""]) -> tuple[Float[Array, ""], PyTree]:
        return self._rule.start(value)

    def move(self, value: Float[Array, ""], state: PyTree, seen: Any) -> tuple[Float[Array, ""], PyTree]:
        return self._rule.move(value, state, seen)
