"""A running mean and variance of observations, by which the network's inputs are normalised (van Hasselt et al. 2016).

Every number of a view, and every scalar, is shifted by its mean and divided by its standard deviation over all steps of
all environments since training began, then clipped. The statistics change between rollouts only: a rollout is acted
with those of the steps before it, and learning from it normalises by the very same numbers, so that a policy
says of a recorded observation what it said when it acted. They are data: nothing is differentiated through them, within
a window neither.

Means and squared deviations are kept for each environment, so that they can be split over devices as they are. Two sets
of steps are joined as in Chan, Golub & LeVeque 1979 ("Updating formulae and a pairwise algorithm for computing sample
variances"): no difference of large squares is taken.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradweave.envs import ONE_DEVICE, DeviceAxis, Observation
from gradweave.rl.trajectory import Trajectory

__all__ = [
    "Normalization",
    "ObservationStatistics",
    "normalized",
    "normalized_trajectory",
    "pooled",
    "with_observations",
]

_SMALLEST_STD = 1e-4  # numbers that never change must not be blown up
_LARGEST = 10.0  # of the network's inputs, in standard deviations; as in public implementations of PPO


class ObservationStatistics(NamedTuple):
    """Statistics of each environment's observations; pytrees of (view, scalars) with a leading axis batch."""

    mean: Any
    """Of every number, over this environment's steps."""
    squares: Any
    """Sums of squared deviations from `mean`."""
    num_steps: Float[Array, " batch"]
    """Steps taken in each environment."""

    @staticmethod
    def new(observation: Observation) -> "ObservationStatistics":
        """Before the first step; `observation` is of all environments, and only its shapes and dtypes count."""
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, _float_of(leaf)), _numbers(observation))
        return ObservationStatistics(nothing, nothing, jnp.zeros(observation.view.shape[0], jnp.result_type(float)))


class Normalization(NamedTuple):
    """Means and standard deviations that normalise observations; pytrees of (view, scalars) without a batch axis."""

    mean: Any
    std: Any


def with_observations(statistics: ObservationStatistics, observations: Observation) -> ObservationStatistics:
    """With the observations of further steps, axes (time, batch, ...)."""
    before, added = statistics.num_steps, observations.view.shape[0]
    share = added / (before + added)

    def mean_of(mean: Array, seen: Array) -> Array:
        return mean + _like(share, mean) * (seen.mean(0) - mean)

    def squares_of(squares: Array, mean: Array, seen: Array) -> Array:
        new = seen.mean(0)
        return squares + ((seen - new) ** 2).sum(0) + _like(before * share, mean) * (new - mean) ** 2

    seen = jax.tree.map(lambda leaf: leaf.astype(_float_of(leaf)), _numbers(observations))
    return ObservationStatistics(
        jax.tree.map(mean_of, statistics.mean, seen),
        jax.tree.map(squares_of, statistics.squares, statistics.mean, seen),
        before + added,
    )


def pooled(statistics: ObservationStatistics, axis: DeviceAxis = ONE_DEVICE) -> Normalization:
    """Mean and standard deviation over the environments of all devices; 0 and 1 before the first step."""
    counts = statistics.num_steps
    total = axis.sum(counts.sum())
    known, weights = total > 0, counts / jnp.maximum(total, 1.0)
    mean = jax.tree.map(lambda leaf: axis.sum((_like(weights, leaf) * leaf).sum(0)), statistics.mean)

    def std_of(squares: Array, own: Array, mean: Array) -> Array:
        within = axis.sum(squares.sum(0)) / jnp.maximum(total, 1.0)
        variance = within + axis.sum((_like(weights, own) * (own - mean) ** 2).sum(0))
        return jnp.where(known, jnp.sqrt(jnp.maximum(variance, _SMALLEST_STD**2)), 1.0)

    return Normalization(mean, jax.tree.map(std_of, statistics.squares, statistics.mean, mean))


def normalized(normalization: Normalization | None, observations: Observation) -> Observation:
    """(x - mean) / std of views and scalars, clipped to ten standard deviations; any axes may stand before them.

    Whole numbers and booleans become floats. Action masks are kept. None returns the observations as they are.
    """
    if normalization is None:
        return observations

    def scaled(leaf: Array, mean: Array, std: Array) -> Array:
        dtype = _float_of(leaf)
        return jnp.clip((leaf.astype(dtype) - mean) / std, -_LARGEST, _LARGEST).astype(dtype)

    view, scalars = jax.tree.map(scaled, _numbers(observations), normalization.mean, normalization.std)
    return observations._replace(view=view, scalars=scalars)


def normalized_trajectory(normalization: Normalization, trajectory: Trajectory) -> Trajectory:
    """The trajectory with all of its observations normalised, the final ones included."""
    final = trajectory.final_observations
    return trajectory._replace(
        observations=normalized(normalization, trajectory.observations),
        final_observations=None if final is None else normalized(normalization, final),
    )


def _numbers(observation: Observation) -> tuple[Array, Array]:
    return observation.view, observation.scalars


def _float_of(leaf: Array) -> Any:
    """The dtype of a leaf's mean: its own, or a float for whole numbers and booleans."""
    return leaf.dtype if jnp.issubdtype(leaf.dtype, jnp.inexact) else jnp.result_type(float)


def _like(per_env: Array, leaf: Array) -> Array:
    """One number for each environment, to be multiplied with (batch, ...)."""
    return per_env.reshape(per_env.shape + (1,) * (leaf.ndim - 1)).astype(leaf.dtype)
