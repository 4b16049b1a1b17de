"""Several choices in one step, each among actions of its own: a product of categorical policies."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from gradweave.envs import ONE_DEVICE, DeviceAxis
from gradweave.rl import categorical
from gradweave.rl.policies import AbstractPolicyHead

__all__ = ["MultiDiscrete"]


class MultiDiscrete(AbstractPolicyHead):
    """Independent choices; the outputs are the logits of the first, then of the second, and so on, and so is the mask.

    An action is a vector of integers, one for each choice. Log-probabilities, entropies and divergences are sums over
    the choices, each as in `gradweave.rl.categorical`; where a choice's mask allows nothing it is drawn evenly, and
    nothing is learned from it.

    Attributes:
        sizes: of how many actions each choice is, at least 1.
    """

    sizes: tuple[int, ...] = eqx.field(static=True)
    num_outputs: int = eqx.field(static=True)

    def __init__(self, sizes: tuple[int, ...]) -> None:
        if not sizes or any(size < 1 for size in sizes):
            raise ValueError(f"MultiDiscrete(sizes={sizes}) leaves nothing to choose: give sizes of at least 1")
        self.sizes, self.num_outputs = tuple(sizes), sum(sizes)

    def sample(
        self,
        outputs: Float[Array, "*batch num_outputs"],
        mask: Bool[Array, "*batch num_actions"],
        *,
        key: Key[Array, ""],
        axis: DeviceAxis = ONE_DEVICE,
    ) -> Array:
        return categorical.sample(*self._choices(outputs, mask), key=key, axis=axis)

    def mode(self, outputs: Float[Array, "*batch num_outputs"], mask: Bool[Array, "*batch num_actions"]) -> Array:
        return categorical.mode(*self._choices(outputs, mask))

    def log_prob(
        self, outputs: Float[Array, "*batch num_outputs"], mask: Bool[Array, "*batch num_actions"], action: Array
    ) -> Float[Array, "*batch"]:
        return categorical.log_prob(*self._choices(outputs, mask), action).sum(-1)

    def entropy(
        self, outputs: Float[Array, "*batch num_outputs"], mask: Bool[Array, "*batch num_actions"]
    ) -> Float[Array, "*batch"]:
        return categorical.entropy(*self._choices(outputs, mask)).sum(-1)

    def kl(
        self,
        outputs: Float[Array, "*batch num_outputs"],
        other: Float[Array, "*batch num_outputs"],
        mask: Bool[Array, "*batch num_actions"],
    ) -> Float[Array, "*batch"]:
        (logits, allowed), (others, _) = self._choices(outputs, mask), self._choices(other, mask)
        return categorical.kl(logits, others, allowed).sum(-1)

    def _choices(self, outputs: Array, mask: Array) -> tuple[Array, Array]:
        """Logits and masks, (*batch, choices, most actions); the filling of shorter choices is not allowed."""
        logits, allowed = self._apart(outputs, 0.0), self._apart(mask, False)
        none = ~allowed.any(axis=-1, keepdims=True)
        exists = jnp.arange(max(self.sizes)) < jnp.array(self.sizes)[:, None]
        # Where a choice's mask allows nothing, all of its own actions are as likely, and none of the filling.
        return jnp.where(none, 0.0, logits), allowed | (exists & none)

    def _apart(self, row: Array, filling: float | bool) -> Array:
        most, ends = max(self.sizes), [sum(self.sizes[: index + 1]) for index in range(len(self.sizes))]
        parts = [row[..., end - size : end] for end, size in zip(ends, self.sizes, strict=True)]
        nothing = [(0, 0)] * (row.ndim - 1)
        padded = [jnp.pad(part, [*nothing, (0, most - part.shape[-1])], constant_values=filling) for part in parts]
        return jnp.stack(padded, axis=-2)
