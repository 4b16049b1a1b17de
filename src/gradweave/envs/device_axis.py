"""How the environments of one learner are split over devices, as seen from inside `jax.shard_map`.

Each device holds `num_envs / size` of the environments; parameters, meta-parameters and optimisers are the same on all.
Whatever is a mean or a sum over environments is therefore finished by a collective over the axis, and nothing else
changes: JAX's tracking of what varies over the axis (`check_vma`) then makes every derivative, of any order and in any
mode, that of the whole batch.

Random numbers belong to an environment and not to a device. They are drawn for all environments and each device takes
its own, so that the same seed gives the same experience however many devices there are. (Drawing the rest is wasted,
but small beside stepping and learning.)

Without a name everything here is the identity: a program for one device is the same as if this file did not exist.
"""

from typing import NamedTuple, TypeVar

import jax
from jaxtyping import Array, PyTree

__all__ = ["ONE_DEVICE", "DeviceAxis"]

Leaf = TypeVar("Leaf", bound=PyTree)


class DeviceAxis(NamedTuple):
    """A named axis of devices, bound by `jax.shard_map`; by default there is only one device and no axis."""

    name: str | None = None
    size: int = 1
    """Devices along the axis."""

    def mean(self, value: Array) -> Array:
        """Mean over the devices of each one's average over its environments; the same on all devices."""
        return value if self.name is None else jax.lax.pmean(value, self.name)

    def sum(self, value: Array) -> Array:
        """Sum over the devices; the same on all devices."""
        return value if self.name is None else jax.lax.psum(value, self.name)

    def own(self, everything: Array) -> Array:
        """This device's part of an array whose leading axis runs over all environments."""
        if self.name is None:
            return everything
        count = everything.shape[0] // self.size
        return jax.lax.dynamic_slice_in_dim(everything, jax.lax.axis_index(self.name) * count, count)

    def varying(self, tree: Leaf) -> Leaf:
        """The same values, typed as different on each device.

        For the first carry of a loop that makes it differ, and for parameters before they meet a batch: the derivative
        through this point is a sum over devices, which is then taken once and not at every use.
        """
        if self.name is None:
            return tree
        marked: Leaf = jax.tree.map(self._marked, tree)
        return marked

    def _marked(self, leaf: Array) -> Array:
        try:
            return jax.lax.pcast(leaf, self.name, to="varying")
        except ValueError:  # it varies already
            return leaf


ONE_DEVICE = DeviceAxis()
"""No axis: one device has all environments."""
