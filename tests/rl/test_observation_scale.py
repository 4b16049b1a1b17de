"""Running statistics of observations against NumPy: far from zero, before there are any, and split over devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradweave.envs import DeviceAxis, Observation
from gradweave.rl import ObservationStatistics, normalized, pooled, with_observations

VIEWS = jax.random.normal(jax.random.key(0), (3, 5, 4, 2, 3)) * jnp.arange(1.0, 5.0)[:, None, None] + 7.0
SEEN = Observation(VIEWS, 3.0 * VIEWS[..., 0, :1] - 1.0, jnp.ones((3, 5, 4, 2), bool))


def after(seen: Observation) -> ObservationStatistics:
    """Three rollouts of five steps."""
    statistics = ObservationStatistics.new(jax.tree.map(lambda leaf: leaf[0, 0], seen))
    for index in range(3):
        statistics = with_observations(statistics, jax.tree.map(lambda leaf, i=index: leaf[i], seen))
    return statistics


def test_mean_and_deviation_are_numpys_over_all_steps():
    found = pooled(after(SEEN))
    for leaf, mean, std in zip((SEEN.view, SEEN.scalars), found.mean, found.std, strict=True):
        steps = np.asarray(leaf).reshape(-1, *leaf.shape[3:])
        np.testing.assert_allclose(mean, steps.mean(0), rtol=1e-12)
        np.testing.assert_allclose(std, steps.std(0), rtol=1e-12)
    seen = normalized(found, SEEN)
    np.testing.assert_allclose(seen.view, (SEEN.view - found.mean[0]) / found.std[0], rtol=1e-12)
    np.testing.assert_array_equal(seen.action_mask, SEEN.action_mask)


def test_numbers_far_from_zero_lose_no_digits():
    """A difference of large squares would have none left."""
    far = SEEN._replace(view=SEEN.view + 1e9)
    np.testing.assert_allclose(pooled(after(far)).std[0], pooled(after(SEEN)).std[0], rtol=1e-6)


def test_before_the_first_step_and_where_nothing_changes():
    first = jax.tree.map(lambda leaf: leaf[0, 0], SEEN)
    nothing = pooled(ObservationStatistics.new(first))
    np.testing.assert_array_equal(normalized(nothing, first).view, jnp.clip(first.view, -10, 10))
    constant = pooled(after(SEEN._replace(view=jnp.full_like(SEEN.view, 4.0))))
    moved = normalized(constant, first._replace(view=jnp.full_like(first.view, 4.0).at[0].add(1.0)))
    np.testing.assert_array_equal(moved.view[0], 10.0)
    np.testing.assert_array_equal(moved.view[1:], 0.0)
    assert normalized(None, first) is first


def test_devices_share_one_mean():
    split = jax.vmap(
        lambda seen: pooled(after(seen), DeviceAxis("parts", 2)), in_axes=2, axis_name="parts", out_axes=None
    )
    parts = jax.tree.map(lambda leaf: leaf.reshape(*leaf.shape[:2], 2, 2, *leaf.shape[3:]), SEEN)
    for one, other in zip(jax.tree.leaves(split(parts)), jax.tree.leaves(pooled(after(SEEN))), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.bool])
def test_whole_numbers_are_normalised_as_real_ones(dtype):
    views = jax.random.randint(jax.random.key(1), VIEWS.shape, 0, 2 if dtype == jnp.bool else 200).astype(dtype)
    whole = SEEN._replace(view=views)
    real = whole._replace(view=views.astype(jnp.float64))
    begun = ObservationStatistics.new(jax.tree.map(lambda leaf: leaf[0, 0], whole))
    assert begun.mean[0].dtype == begun.squares[0].dtype == jnp.float64
    found = normalized(pooled(after(whole)), whole)
    np.testing.assert_array_equal(found.view, normalized(pooled(after(real)), real).view)
    assert found.view.dtype == jnp.float64 and 0.9 < float(found.view.std()) < 1.1
