"""The running scale of rewards against a slow loop, in other units, split over devices, and in a rollout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradweave.envs import DeviceAxis, TerminatedReward, VectorEnvironment
from gradweave.rl import Acted, RewardScale, init_rollout, rollout, scaled_rewards

DISCOUNT = 0.8
REWARDS = jax.random.normal(jax.random.key(0), (12, 4)).at[:2].set(0.0) - 3.0 * jnp.arange(4.0)
ENDED = jax.random.bernoulli(jax.random.key(1), 0.3, (12, 4))


def scanned(rewards, ended, axis=DeviceAxis()):  # noqa: B008
    def step(scale, at):
        found, scale = scaled_rewards(scale, *at, axis)
        return scale, found

    return jax.lax.scan(step, RewardScale.new(DISCOUNT, rewards.shape[1]), (rewards, ended))[1]


def test_rewards_are_divided_by_the_root_mean_square_of_all_returns_so_far():
    returns, squares = np.zeros(4), []
    expected = []
    for rewards, ended in zip(np.asarray(REWARDS), np.asarray(ENDED), strict=True):
        returns = DISCOUNT * returns + rewards
        squares += list(returns**2)
        expected.append(rewards / np.sqrt(np.mean(squares)))
        returns = np.where(ended, 0.0, returns)
    np.testing.assert_allclose(scanned(REWARDS, ENDED), expected, rtol=1e-12)


def test_units_do_not_matter_and_no_reward_is_no_division_by_zero():
    np.testing.assert_allclose(scanned(1e6 * REWARDS, ENDED), scanned(REWARDS, ENDED), rtol=1e-12)
    np.testing.assert_array_equal(scanned(0 * REWARDS, ENDED), 0.0)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.bool])
def test_whole_number_rewards_are_scaled_as_real_ones(dtype):
    whole = jnp.array([[0], [0], [0], [1], [0], [1]]).astype(dtype)
    ended = jnp.zeros(whole.shape, bool)
    expected = scanned(whole.astype(jnp.float64), ended)
    found = scanned(whole, ended)
    assert found.dtype == jnp.float64 and float(found[3, 0]) == 2.0  # the first return, over the root of a quarter
    np.testing.assert_array_equal(found, expected)


def test_devices_share_one_scale():
    split = jax.vmap(lambda *part: scanned(*part, DeviceAxis("parts", 2)), in_axes=1, out_axes=1, axis_name="parts")
    found = split(REWARDS.reshape(12, 2, 2), ENDED.reshape(12, 2, 2))
    np.testing.assert_allclose(found.reshape(12, 4), scanned(REWARDS, ENDED), rtol=1e-12)


def test_a_rollout_learns_from_scaled_rewards_and_counts_the_environments_own():
    env, end = VectorEnvironment(TerminatedReward(3), 4), {}

    def policy(observations, memory, key):
        del key
        return Acted(jnp.zeros(4, jnp.int32), memory)

    for discount in (None, DISCOUNT):
        start = init_rollout(env, reward_discount=discount, key=jax.random.key(0))
        end[discount] = rollout(policy, env, start, 7, key=jax.random.key(1))
    (plain_end, plain, plain_totals), (scaled_end, scaled, totals) = end.values()
    np.testing.assert_allclose(scaled.rewards, scanned(plain.rewards, plain.terminations), rtol=1e-12)
    assert plain_totals == totals and float(totals.sum_returns) > 0
    assert plain_end.reward_scale is None
    assert float(scaled_end.reward_scale.num_steps.sum()) == 28


def test_a_very_long_stream_keeps_its_scale():
    """In single precision one more than 2^24 is 2^24: the count would stand still, and the sum of squares would not."""
    steps = 2.0**24 - 2.0**18
    scale = RewardScale(*(jnp.full(1, number, jnp.float32) for number in (0.0, 0.0, steps, steps)))

    def step(scale, reward):
        return scaled_rewards(scale, reward[None], jnp.ones(1, bool))[1], None

    rewards = jnp.tile(jnp.array([0.0, 0.0, 0.0, 2.0], jnp.float32), 2**19 // 4)  # of mean square 1
    after, _ = jax.jit(lambda scale: jax.lax.scan(step, scale, rewards))(scale)
    assert float(after.sum_squares[0] / after.num_steps[0]) == pytest.approx(1.0, abs=1e-3)
