"""Rollouts against a Python loop over single environments, and what happens around the ends of episodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Int, Key

from gradweave.envs import AbstractEnvironment, Observation, Step, VectorEnvironment
from gradweave.rl import Acted, init_rollout, rollout

NUM_ENVS, NUM_STEPS, GOAL, TIME_LIMIT = 3, 25, 5, 6


class Walk(AbstractEnvironment[Int[Array, "2"]]):
    """Walk up to two cells a step; the episode ends at GOAL or beyond and is cut off after TIME_LIMIT steps."""

    num_actions: int = 3
    can_truncate: bool = True

    def reset(self, *, key: Key[Array, ""]) -> tuple[Int[Array, "2"], Observation]:
        del key
        state = jnp.zeros(2, int)
        return state, self.observe(state)

    def step(
        self, state: Int[Array, "2"], action: Int[Array, ""], *, key: Key[Array, ""]
    ) -> tuple[Int[Array, "2"], Step]:
        del key
        state = state + jnp.stack([action, jnp.ones_like(action)])
        terminated = state[0] >= GOAL
        truncated = (state[1] >= TIME_LIMIT) & ~terminated & self.can_truncate
        reward = 0.5 + state[0].astype(float) ** 2
        return state, Step(self.observe(state), reward, terminated, truncated)

    def observe(self, state: Int[Array, "2"]) -> Observation:
        numbers = state.astype(float)
        return Observation(numbers[:1], numbers[1:], jnp.ones(3, bool))


def random_actions(observation, key):
    """Random, and dependent on the observation, so that a shift by one step would show."""
    drawn = jax.random.randint(key, (NUM_ENVS,), 0, 3, dtype=int)
    return (drawn + observation.view[:, 0].astype(int)) % 3


def random_policy(observation, memory, key):
    """The same; what it records is the observation that it saw."""
    return Acted(random_actions(observation, key), memory, observation.view[:, 0])


def looped(state, num_steps, key):
    """What rollout should record, with plain numbers: positions, clocks and sums of rewards for each environment."""
    rows = []
    walkers = [[0, 0] for _ in range(NUM_ENVS)]
    for step_key in jax.random.split(key, num_steps):
        policy_key, _ = jax.random.split(step_key)
        view = jnp.asarray([[float(position)] for position, _ in walkers])
        actions = random_actions(state.observation._replace(view=view), policy_key).tolist()
        for i, action in enumerate(actions):
            seen = tuple(walkers[i])
            position, clock = seen[0] + action, seen[1] + 1
            ended, cut = position >= GOAL, clock >= TIME_LIMIT and position < GOAL
            walkers[i] = [0, 0] if ended or cut else [position, clock]
            rows.append((seen, action, 0.5 + position**2, ended, cut, (position, clock)))
    columns = [np.array(column).reshape(num_steps, NUM_ENVS, -1) for column in zip(*rows, strict=True)]
    return columns, np.array(walkers)


@pytest.fixture(scope="module")
def collected():
    env = VectorEnvironment(Walk(), NUM_ENVS)
    key = jax.random.key(3)
    start = init_rollout(env, key=jax.random.key(0))
    jitted = jax.jit(lambda state, key: rollout(random_policy, env, state, NUM_STEPS, key=key))
    end, trajectory, totals = jitted(start, jax.random.clone(key))
    columns, walkers = looped(start, NUM_STEPS, key)
    return end, trajectory, totals, columns, walkers


@pytest.mark.slow
def test_every_field_matches_the_loop(collected):
    _, trajectory, _, (seen, actions, rewards, ended, cut, led_to), walkers = collected
    assert ended.any() and cut.any()
    np.testing.assert_array_equal(trajectory.actions, actions[..., 0])
    np.testing.assert_array_equal(trajectory.rewards, rewards[..., 0])
    np.testing.assert_array_equal(trajectory.terminations, ended[..., 0])
    np.testing.assert_array_equal(trajectory.truncations, cut[..., 0])
    all_seen = np.concatenate([seen, walkers[None]])
    np.testing.assert_array_equal(trajectory.observations.view, all_seen[..., :1])
    np.testing.assert_array_equal(trajectory.observations.scalars, all_seen[..., 1:])
    np.testing.assert_array_equal(trajectory.final_observations.view, led_to[..., :1])
    np.testing.assert_array_equal(trajectory.final_observations.scalars, led_to[..., 1:])


@pytest.mark.slow
def test_after_an_end_the_next_observation_is_of_a_new_episode(collected):
    _, trajectory, *_ = collected
    stopped = np.asarray(trajectory.terminations | trajectory.truncations)
    assert stopped.any()
    np.testing.assert_array_equal(trajectory.observations.scalars[1:][stopped], 0)
    assert np.all(trajectory.final_observations.scalars[stopped] > 0)
    np.testing.assert_array_equal(
        trajectory.observations.view[1:][~stopped], trajectory.final_observations.view[~stopped]
    )


def test_totals_are_those_of_whole_episodes(collected):
    end, _, totals, (_, _, rewards, ended, cut, _), walkers = collected
    sums, lengths, num_episodes, running = 0.0, 0, 0, np.zeros(NUM_ENVS)
    steps = np.zeros(NUM_ENVS)
    for t in range(NUM_STEPS):
        running += rewards[t, :, 0]
        steps += 1
        for i in np.flatnonzero(ended[t, :, 0] | cut[t, :, 0]):
            num_episodes += 1
            sums += running[i]
            lengths += steps[i]
            running[i] = steps[i] = 0
    assert num_episodes > 5
    assert (float(totals.num_episodes), float(totals.sum_returns), float(totals.sum_lengths)) == (
        num_episodes,
        sums,
        lengths,
    )
    np.testing.assert_array_equal(end.episode_return, running)
    np.testing.assert_array_equal(end.episode_length, steps)
    np.testing.assert_array_equal(end.episode_length, walkers[:, 1])


def greedy_policy(observation, memory, key):
    assert memory is None
    del key
    return Acted((observation.view[:, 0].astype(int) + jnp.arange(NUM_ENVS)) % 3)


@pytest.mark.slow
def test_two_short_rollouts_make_a_long_one():
    env = VectorEnvironment(Walk(), NUM_ENVS)
    start = init_rollout(env, key=jax.random.key(0))
    run = jax.jit(lambda state, n, key: rollout(greedy_policy, env, state, n, key=key), static_argnums=1)
    end, whole, totals = run(start, 8, jax.random.key(1))
    middle, first, first_totals = run(start, 4, jax.random.key(2))
    last, second, second_totals = run(middle, 4, jax.random.key(3))

    assert float(totals.num_episodes) > float(first_totals.num_episodes) > 0
    np.testing.assert_array_equal(first.observations.view[-1], second.observations.view[0])
    joined = [jnp.concatenate([a, b]) for a, b in zip(first[1:5], second[1:5], strict=True)]
    for got, expected in zip(joined, whole[1:5], strict=True):
        np.testing.assert_array_equal(got, expected)
    for got, expected in zip(
        jax.tree.leaves((last, jax.tree.map(jnp.add, first_totals, second_totals))),
        jax.tree.leaves((end, totals)),
        strict=True,
    ):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.slow
def test_final_observations_are_not_kept_when_the_environment_never_truncates():
    env = VectorEnvironment(Walk(can_truncate=False), NUM_ENVS)
    state = init_rollout(env, key=jax.random.key(0))
    state, trajectory, _ = rollout(greedy_policy, env, state, 8, key=jax.random.key(1))
    assert trajectory.final_observations is None
    assert not jnp.any(trajectory.truncations)
    assert trajectory.observations.view.shape == (9, NUM_ENVS, 1)


def test_a_rollout_of_no_steps_is_refused():
    env = VectorEnvironment(Walk(), NUM_ENVS)
    state = init_rollout(env, key=jax.random.key(0))
    with pytest.raises(ValueError, match="num_steps = 0 collects nothing"):
        rollout(greedy_policy, env, state, 0, key=jax.random.key(1))


def counting_policy(observation, memory, key):
    """Remembers how often it acted in the running episode."""
    return Acted(random_actions(observation, key), memory + 1, memory)


@pytest.mark.parametrize("num_rollouts", [1, 2])
def test_memory_is_carried_from_step_to_step_and_begins_anew_with_an_episode(num_rollouts):
    env, fresh = VectorEnvironment(Walk(), NUM_ENVS), jnp.zeros((), int)
    state = init_rollout(env, memory=fresh, key=jax.random.key(0))
    run = jax.jit(lambda state, key: rollout(counting_policy, env, state, NUM_STEPS, memory=fresh, key=key))
    recorded, ends, expected = [], [], np.zeros(NUM_ENVS, int)
    for key in jax.random.split(jax.random.key(1), num_rollouts):
        before = state.memory
        state, trajectory, _ = run(state, key)
        np.testing.assert_array_equal(trajectory.memory, before)
        recorded += list(np.asarray(trajectory.record))
        ends += list(np.asarray(trajectory.terminations | trajectory.truncations))
    assert np.any(ends)
    for seen, ended in zip(recorded, ends, strict=True):
        np.testing.assert_array_equal(seen, expected)
        expected = np.where(ended, 0, expected + 1)
    np.testing.assert_array_equal(state.memory, expected)


def test_what_a_policy_records_is_kept_step_by_step():
    env = VectorEnvironment(Walk(), NUM_ENVS)
    state = init_rollout(env, key=jax.random.key(0))
    _, trajectory, _ = jax.jit(lambda state: rollout(random_policy, env, state, NUM_STEPS, key=jax.random.key(1)))(
        state
    )
    np.testing.assert_array_equal(trajectory.record, trajectory.observations.view[:-1, :, 0])
