"""Policy heads: from a network's outputs to a policy.

A head turns them into a distribution over actions: categorical over those that a mask allows, or Gaussian over vectors.
Losses and agents ask the head for samples, log-probabilities, entropies and divergences, and know no distribution. All
methods act on the last axis; any axes before it are batch axes.
"""

import abc
import math
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from gradweave.envs import ONE_DEVICE, DeviceAxis
from gradweave.rl import categorical

__all__ = ["AbstractPolicyHead", "Categorical", "Gaussian"]

_MIN_STD = 1e-3  # keeps log-probabilities, and their second derivatives, finite
_LOG_2PI = math.log(2 * math.pi)


def _drawn(draw: Any, like: Array, key: Key[Array, ""], axis: DeviceAxis) -> Array:
    """Random numbers of a shape and type; with an `axis` for the whole batch, of which this device takes its part."""
    if axis.name is None:
        return cast(Array, draw(key, like.shape, like.dtype))
    return axis.own(draw(key, (like.shape[0] * axis.size, *like.shape[1:]), like.dtype))


class AbstractPolicyHead(eqx.Module):
    """A family of distributions over actions.

    Attributes:
        num_outputs: numbers that the network puts out for one action.
    """

    num_outputs: eqx.AbstractVar[int]

    @abc.abstractmethod
    def sample(
        self,
        outputs: Float[Array, "*batch num_outputs"],
        mask: Bool[Array, "*batch num_actions"],
        *,
        key: Key[Array, ""],
        axis: DeviceAxis = ONE_DEVICE,
    ) -> Array:
        """Draw one action for each entry of the batch; one key serves all, with an `axis` on all devices together."""

    def uniform(
        self,
        outputs: Float[Array, "*batch num_outputs"],
        mask: Bool[Array, "*batch num_actions"],
        *,
        key: Key[Array, ""],
        axis: DeviceAxis = ONE_DEVICE,
    ) -> Array:
        """Draw as `sample`, uniformly among the allowed actions, whatever the outputs are: those of 0 mean that. A head
        of another kind has to say for itself what is uniform, as those of vectors do, within -1 to 1.
        """
        return self.sample(jnp.zeros_like(outputs), mask, key=key, axis=axis)

    @abc.abstractmethod
    def mode(self, outputs: Float[Array, "*batch num_outputs"], mask: Bool[Array, "*batch num_actions"]) -> Array:
        """Return the most probable action."""

    @abc.abstractmethod
    def log_prob(
        self, outputs: Float[Array, "*batch num_outputs"], mask: Bool[Array, "*batch num_actions"], action: Array
    ) -> Float[Array, "*batch"]:
        """Return the log-probability, or log-density, of an action."""

    @abc.abstractmethod
    def entropy(
        self, outputs: Float[Array, "*batch num_outputs"], mask: Bool[Array, "*batch num_actions"]
    ) -> Float[Array, "*batch"]:
        """Return the (differential) entropy in nats."""

    @abc.abstractmethod
    def kl(
        self,
        outputs: Float[Array, "*batch num_outputs"],
        other: Float[Array, "*batch num_outputs"],
        mask: Bool[Array, "*batch num_actions"],
    ) -> Float[Array, "*batch"]:
        """Return the divergence KL(p ‖ q) in nats of p, given by `outputs`, from q, given by `other`."""


class Categorical(AbstractPolicyHead):
    """One of `num_outputs` actions; the outputs are logits (`gradweave.rl.categorical`).

    Attributes:
        num_outputs: the number of actions, at least 1.
    """

    num_outputs: int = eqx.field(static=True)

    def sample(
        self,
        outputs: Float[Array, "*batch num_outputs"],
        mask: Bool[Array, "*batch num_actions"],
        *,
        key: Key[Array, ""],
        axis: DeviceAxis = ONE_DEVICE,
    ) -> Array:
        return categorical.sample(outputs, mask, key=key, axis=axis)

    def mode(self, outputs: Float[Array, "*batch num_outputs"], mask: Bool[Array, "*batch num_actions"]) -> Array:
        return categorical.mode(outputs, mask)

    def log_prob(
        self, outputs: Float[Array, "*batch num_outputs"], mask: Bool[Array, "*batch num_actions"], action: Array
    ) -> Float[Array, "*batch"]:
        return categorical.log_prob(outputs, mask, action)

    def entropy(
        self, outputs: Float[Array, "*batch num_outputs"], mask: Bool[Array, "*batch num_actions"]
    ) -> Float[Array, "*batch"]:
        return categorical.entropy(outputs, mask)

    def kl(
        self,
        outputs: Float[Array, "*batch num_outputs"],
        other: Float[Array, "*batch num_outputs"],
        mask: Bool[Array, "*batch num_actions"],
    ) -> Float[Array, "*batch"]:
        return categorical.kl(outputs, other, mask)


class Gaussian(AbstractPolicyHead):
    """A vector of `size` independent normal numbers; masks are ignored.

    The outputs are the means, then `size` numbers s with standard deviation softplus(s) + 0.001. Whether
    these depend on the observation is the network's business.

    Attributes:
        size: length of the action vector, at least 1.
    """

    size: int = eqx.field(static=True)
    num_outputs: int = eqx.field(static=True)

    def __init__(self, size: int) -> None:
        self.size, self.num_outputs = size, 2 * size

    def sample(
        self,
        outputs: Float[Array, "*batch num_outputs"],
        mask: Bool[Array, "*batch num_actions"],
        *,
        key: Key[Array, ""],
        axis: DeviceAxis = ONE_DEVICE,
    ) -> Array:
        mean, std = self.moments(outputs)
        return mean + std * _drawn(jax.random.normal, mean, key, axis)

    def uniform(
        self,
        outputs: Float[Array, "*batch num_outputs"],
        mask: Bool[Array, "*batch num_actions"],
        *,
        key: Key[Array, ""],
        axis: DeviceAxis = ONE_DEVICE,
    ) -> Array:
        mean, _ = self.moments(outputs)
        return 2 * _drawn(jax.random.uniform, mean, key, axis) - 1

    def mode(self, outputs: Float[Array, "*batch num_outputs"], mask: Bool[Array, "*batch num_actions"]) -> Array:
        return self.moments(outputs)[0]

    def log_prob(
        self, outputs: Float[Array, "*batch num_outputs"], mask: Bool[Array, "*batch num_actions"], action: Array
    ) -> Float[Array, "*batch"]:
        mean, std = self.moments(outputs)
        return jnp.sum(-0.5 * ((action - mean) / std) ** 2 - jnp.log(std) - 0.5 * _LOG_2PI, axis=-1)

    def entropy(
        self, outputs: Float[Array, "*batch num_outputs"], mask: Bool[Array, "*batch num_actions"]
    ) -> Float[Array, "*batch"]:
        _, std = self.moments(outputs)
        return jnp.sum(jnp.log(std) + 0.5 * (1.0 + _LOG_2PI), axis=-1)

    def kl(
        self,
        outputs: Float[Array, "*batch num_outputs"],
        other: Float[Array, "*batch num_outputs"],
        mask: Bool[Array, "*batch num_actions"],
    ) -> Float[Array, "*batch"]:
        (mean, std), (other_mean, other_std) = self.moments(outputs), self.moments(other)
        squares = (std**2 + (mean - other_mean) ** 2) / (2 * other_std**2)
        return jnp.sum(jnp.log(other_std) - jnp.log(std) + squares - 0.5, axis=-1)

    def moments(self, outputs: Float[Array, "*batch num_outputs"]) -> tuple[Array, Array]:
        """Return means and standard deviations, (*batch, size) each."""
        mean, raw = jnp.split(outputs, 2, axis=-1)
        return mean, jax.nn.softplus(raw) + _MIN_STD
