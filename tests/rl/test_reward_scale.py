"""The running scale of rewards against a slow loop, in other units, split over devices, and in a rollout."""

import jax
import jax.numpy as jnp
import numpy as np

from gradweave.envs import DeviceAxis, TerminatedReward, VectorEnvironment
from gradweave.rl import Acted, RewardScale, init_rollout, rollout, scaled_rewards

DISCOUNT = 0.8
REWARDS = jax.random.normal(jax.random.key(0), (12, 4)).at[:2].set(0.0) - 3.0 * jnp.arange(4.0)
ENDED = jax.random.bernoulli(jax.random.key(1), 0.3, (12, 4))


def scanned(rewards, ended, axis=DeviceAxis()):  # noqa: B008
    def step(scale, at):
        found, scale = scaled_rewards(scale, *at, DISCOUNT, axis)
        return scale, found

    return jax.lax.scan(step, RewardScale.empty(rewards.shape[1]), (rewards, ended))[1]


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


def test_devices_share_one_scale():
    split = jax.vmap(lambda *part: scanned(*part, DeviceAxis("parts", 2)), in_axes=1, out_axes=1, axis_name="parts")
    found = split(REWARDS.reshape(12, 2, 2), ENDED.reshape(12, 2, 2))
    np.testing.assert_allclose(found.reshape(12, 4), scanned(REWARDS, ENDED), rtol=1e-12)


def test_a_rollout_learns_from_scaled_rewards_and_counts_the_environments_own():
    env, end = VectorEnvironment(TerminatedReward(3), 4), {}

    def policy(observations, memory, key):
        del key
        return Acted(jnp.zeros(4, jnp.int32), memory)

    for scales in (False, True):
        start = init_rollout(env, scales_rewards=scales, key=jax.random.key(0))
        end[scales] = rollout(policy, env, start, 7, reward_discount=DISCOUNT, key=jax.random.key(1))
    plain, scaled = end[False][1].rewards, end[True][1].rewards
    ended = end[True][1].terminations
    np.testing.assert_allclose(scaled, scanned(plain, ended), rtol=1e-12)
    assert end[False][2] == end[True][2] and float(end[True][2].sum_returns) > 0
    assert end[False][0].reward_scale is None
    assert float(end[True][0].reward_scale.num_steps.sum()) == 28
