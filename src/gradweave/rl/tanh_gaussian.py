"""A normal distribution squashed into the range of actions by a hyperbolic tangent (Haarnoja et al. 2018, 1801.01290).

a = tanh(u) with u normal, so that actions lie in -1 to 1, the range that environments map affinely to their own, and no
probability is lost to clipping. By the change of variables

    log p(a) = log N(u) - log(1 - tanh(u)^2),     log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)),

where the second form neither underflows nor divides. u is recovered from the action, whose distance from the ends is
bounded by the precision of its dtype: beyond |u| = 8.3 in single precision, neighbouring actions cannot be told apart.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from gradweave.envs import ONE_DEVICE, DeviceAxis
from gradweave.rl.policies import AbstractPolicyHead, Gaussian

__all__ = ["TanhGaussian"]

_NUM_NODES = 32  # of the entropy's quadrature


class TanhGaussian(AbstractPolicyHead):
    """A vector of `size` independent numbers in -1 to 1; masks are ignored.

    The outputs are as those of `Gaussian`, of the numbers before the tangent. The entropy has no closed form: it is the
    normal one's plus the mean of log(1 - tanh(u)^2), by Gauss-Hermite quadrature with 32 nodes for each number, which
    draws nothing and has derivatives. Its error is below 1e-6 for standard deviations up to 1, and below 0.003 up to 3.

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
        return jnp.tanh(self._normal.sample(outputs, mask, key=key, axis=axis))

    def uniform(
        self,
        outputs: Float[Array, "*batch num_outputs"],
        mask: Bool[Array, "*batch num_actions"],
        *,
        key: Key[Array, ""],
        axis: DeviceAxis = ONE_DEVICE,
    ) -> Array:
        return self._normal.uniform(outputs, mask, key=key, axis=axis)

    def mode(self, outputs: Float[Array, "*batch num_outputs"], mask: Bool[Array, "*batch num_actions"]) -> Array:
        """Return the median, the tangent of the mean, as is usual for greedy play; the density's maximum, which lies
        at the ends where the spread is wide, is another action.
        """
        return jnp.tanh(self._normal.mode(outputs, mask))

    def log_prob(
        self, outputs: Float[Array, "*batch num_outputs"], mask: Bool[Array, "*batch num_actions"], action: Array
    ) -> Float[Array, "*batch"]:
        farthest = 1.0 - float(jnp.finfo(action.dtype).eps)
        before = jnp.arctanh(jnp.clip(action, -farthest, farthest))
        return self._normal.log_prob(outputs, mask, before) - _log_slope(before).sum(-1)

    def entropy(
        self, outputs: Float[Array, "*batch num_outputs"], mask: Bool[Array, "*batch num_actions"]
    ) -> Float[Array, "*batch"]:
        nodes, weights = np.polynomial.hermite_e.hermegauss(_NUM_NODES)
        mean, std = self._normal.moments(outputs)
        points = mean[..., None] + std[..., None] * jnp.asarray(nodes, mean.dtype)
        slopes = _log_slope(points) @ jnp.asarray(weights / weights.sum(), mean.dtype)
        return self._normal.entropy(outputs, mask) + slopes.sum(-1)

    def kl(
        self,
        outputs: Float[Array, "*batch num_outputs"],
        other: Float[Array, "*batch num_outputs"],
        mask: Bool[Array, "*batch num_actions"],
    ) -> Float[Array, "*batch"]:
        """Return KL(p ‖ q), which is that before the tangent: one map of both changes no divergence."""
        return self._normal.kl(outputs, other, mask)

    @property
    def _normal(self) -> Gaussian:
        return Gaussian(self.size)


def _log_slope(before: Array) -> Array:
    """log(1 - tanh(u)^2)."""
    return 2.0 * (math.log(2.0) - before - jax.nn.softplus(-2.0 * before))
