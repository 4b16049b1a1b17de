"""Which value each step bootstraps from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradweave.envs import Observation
from gradweave.rl import Trajectory, next_values


def make_trajectory(truncations, *, keep_final):
    num_steps = truncations.shape[0]

    def observations(num):
        shape = (num, *truncations.shape[1:])
        return Observation(jnp.zeros((*shape, 2)), jnp.zeros((*shape, 0)), jnp.ones((*shape, 3), bool))

    return Trajectory(
        observations=observations(num_steps + 1),
        actions=jnp.zeros(truncations.shape, int),
        rewards=jnp.zeros(truncations.shape),
        terminations=jnp.zeros(truncations.shape, bool),
        truncations=truncations,
        final_observations=observations(num_steps) if keep_final else None,
    )


def test_final_values_are_taken_exactly_at_truncations():
    trajectory = make_trajectory(jnp.asarray([False, True, False]), keep_final=True)
    result = next_values(trajectory, jnp.asarray([0.0, 1.0, 2.0, 3.0]), jnp.asarray([10.0, 20.0, 30.0]))
    np.testing.assert_array_equal(result, [1.0, 20.0, 3.0])


def test_without_final_observations_it_is_the_value_one_step_later():
    trajectory = make_trajectory(jnp.zeros(3, bool), keep_final=False)
    result = next_values(trajectory, jnp.asarray([0.0, 1.0, 2.0, 3.0]), None)
    np.testing.assert_array_equal(result, [1.0, 2.0, 3.0])


def test_batches_by_vmap_and_by_hand_agree():
    truncations = jnp.asarray([[False, True], [True, False], [False, False]])
    trajectory = make_trajectory(truncations, keep_final=True)
    values, final_values = jnp.arange(8.0).reshape(4, 2), 10.0 * jnp.arange(6.0).reshape(3, 2)
    direct = next_values(trajectory, values, final_values)
    mapped = jax.vmap(next_values, 1, 1)(trajectory, values, final_values)
    np.testing.assert_array_equal(direct, mapped)
    np.testing.assert_array_equal(direct, [[2.0, 10.0], [20.0, 5.0], [6.0, 7.0]])


def test_derivatives_go_to_the_value_that_was_used():
    trajectory = make_trajectory(jnp.asarray([False, True, False]), keep_final=True)
    by_values, by_final = jax.grad(lambda *v: jnp.sum(next_values(trajectory, *v)), (0, 1))(jnp.ones(4), jnp.ones(3))
    np.testing.assert_array_equal(by_values, [0.0, 1.0, 0.0, 1.0])
    np.testing.assert_array_equal(by_final, [0.0, 1.0, 0.0])


def test_wrong_lengths_and_missing_final_values_are_refused():
    kept = make_trajectory(jnp.zeros(3, bool), keep_final=True)
    bare = make_trajectory(jnp.zeros(3, bool), keep_final=False)
    with pytest.raises(ValueError, match=r"values has 3 .*give 4"):
        next_values(kept, jnp.zeros(3), jnp.zeros(3))
    with pytest.raises(ValueError, match="final_values is None"):
        next_values(kept, jnp.zeros(4), None)
    with pytest.raises(ValueError, match=r"final_values .*must be None"):
        next_values(bare, jnp.zeros(4), jnp.zeros(3))
