"""The adapter against Jumanji itself, stepped by hand; termination and truncation; what is refused."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradweave.envs import BoardOrVector, JumanjiEnvironment, Observation, make_environment, snake
from gradweave.envs.foreign import foreign_code

with foreign_code():
    import jumanji
    from jumanji import specs
    from jumanji.env import Environment
    from jumanji.environments import Connector, MultiCVRP, SearchAndRescue, Snake, Tetris
    from jumanji.types import restart, termination, transition, truncation
    from jumanji.wrappers import AutoResetWrapper

ACTION = jnp.zeros((), jnp.int32)


@lru_cache
def compiled(environment: JumanjiEnvironment) -> tuple[Callable, Callable]:
    """Reset and step, compiled once for all tests."""
    return jax.jit(environment.reset), jax.jit(environment.step)


TIME_LIMIT = 12
RANDOM, CIRCLE = (lambda seed: np.random.default_rng(seed).integers(0, 4, 20)), (lambda seed: np.tile([0, 1, 2, 3], 5))


@pytest.fixture(scope="module")
def by_hand() -> Callable[[int, np.ndarray], list]:
    """States and time steps of Jumanji's Snake, in a Python loop, in 32 bits; to the end of the episode."""
    env = Snake(4, 4, TIME_LIMIT)
    reset, step = jax.jit(env.reset), jax.jit(env.step)

    def play(seed: int, actions: np.ndarray) -> list:
        with foreign_code():
            steps = [reset(jax.random.PRNGKey(seed))]
            for action in actions:
                steps.append(step(steps[-1][0], jnp.asarray(action, jnp.int32)))
                if steps[-1][1].last():
                    break
            return jax.device_get(steps)

    return play


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("choose", [RANDOM, CIRCLE], ids=["random", "circle"])
def test_snake_is_jumanjis_snake(seed: int, choose: Callable[[int], np.ndarray], by_hand: Callable) -> None:
    actions = choose(seed)
    expected = by_hand(seed, actions)
    assert expected[-1][1].last()

    environment = snake(4, 4, TIME_LIMIT)
    reset, step = compiled(environment)
    state, observation = reset(key=jax.random.key(seed))
    for index, (expected_state, timestep) in enumerate(expected):
        if index:
            state, result = step(state, jnp.asarray(actions[index - 1], jnp.int32), key=jax.random.key(0))
            observation = result.observation
            assert float(result.reward) == float(timestep.reward)
            assert bool(result.terminated) == bool(timestep.last())
            assert not result.truncated
        jax.tree.map(np.testing.assert_array_equal, state, expected_state)
        np.testing.assert_array_equal(observation.view, timestep.observation.grid)
        np.testing.assert_array_equal(observation.action_mask, timestep.observation.action_mask)
        np.testing.assert_allclose(observation.scalars, [index / TIME_LIMIT], rtol=1e-14)


def test_the_episodes_compared_end_in_both_ways_and_eat(by_hand: Callable) -> None:
    episodes = [by_hand(seed, choose(seed)) for seed in range(6) for choose in (RANDOM, CIRCLE)]
    lengths = {len(episode) - 1 for episode in episodes}
    assert TIME_LIMIT in lengths and len(lengths) > 2
    assert sum(float(timestep.reward) for episode in episodes for _, timestep in episode) > 0


@pytest.mark.slow
def test_the_time_limit_of_snake_is_a_termination() -> None:
    environment = snake(3, 3, time_limit=1)
    reset, step = compiled(environment)
    state, observation = reset(key=jax.random.key(0))
    action = jnp.argmax(observation.action_mask).astype(jnp.int32)
    _, result = step(state, action, key=jax.random.key(0))
    assert result.terminated and not result.truncated and not environment.can_truncate
    np.testing.assert_array_equal(result.observation.scalars, [1.0])


def test_grid_only_hides_the_time() -> None:
    _, hidden = compiled(snake(4, 4, TIME_LIMIT, grid_only=True))[0](key=jax.random.key(0))
    _, shown = compiled(snake(4, 4, TIME_LIMIT))[0](key=jax.random.key(0))
    assert hidden.scalars.shape == (0,)
    assert hidden.scalars.dtype == jnp.float64
    np.testing.assert_array_equal(hidden.view, shown.view)


@pytest.mark.slow
def test_an_episode_is_the_same_in_either_precision() -> None:
    def play() -> list:
        environment = snake(4, 4, TIME_LIMIT)
        reset, step = compiled(environment)
        state, observation = reset(key=jax.random.key(5))
        seen = [observation]
        for action in (1, 2, 3, 0):
            state, result = step(state, jnp.asarray(action, jnp.int32), key=jax.random.key(0))
            seen.append(result.observation)
        return seen

    double = play()
    with jax.enable_x64(False):
        single = play()
    assert double[0].view.dtype == jnp.float64
    assert single[0].view.dtype == jnp.float32
    jax.tree.map(lambda one, two: np.testing.assert_array_equal(np.float32(one), np.float32(two)), double, single)


def test_equal_games_are_equal_so_that_nothing_is_compiled_twice() -> None:
    assert snake(4, 4, 10) == snake(4, 4, 10)
    assert hash(snake(4, 4, 10)) == hash(snake(4, 4, 10))
    assert snake(4, 4, 10) != snake(4, 4, 11)


class ToyState(NamedTuple):
    key: jax.Array
    count: jax.Array


class ToyObservation(NamedTuple):
    count: jax.Array


class Toy(Environment):
    """Action 0 goes on, 1 terminates, 2 truncates with a discount of 0.9."""

    @property
    def observation_spec(self):
        return specs.Spec(ToyObservation, "ToyObservation", count=specs.Array((), jnp.int32))

    @property
    def action_spec(self):
        return specs.DiscreteArray(3)

    def reset(self, key):
        return ToyState(key, jnp.int32(0)), restart(ToyObservation(jnp.int32(0)))

    def step(self, state, action):
        state = ToyState(state.key, state.count + 1)
        ends = (
            transition,
            termination,
            lambda reward, observation: truncation(reward, observation, jnp.asarray(0.9, float)),
        )
        return state, jax.lax.switch(action, ends, jnp.asarray(2, float), ToyObservation(state.count))


@pytest.mark.parametrize("can_truncate", [True, False])
def test_the_discount_tells_a_termination_from_a_truncation(can_truncate: bool) -> None:
    environment = JumanjiEnvironment(Toy(), can_truncate=can_truncate)
    state, first = environment.reset(key=jax.random.key(0))
    np.testing.assert_array_equal(first.view, [0.0])
    flags = []
    for action in range(3):
        _, result = environment.step(state, jnp.asarray(action, jnp.int32), key=jax.random.key(1))
        np.testing.assert_array_equal(result.observation.view, [1.0])
        assert result.reward == 2.0
        flags.append((bool(result.terminated), bool(result.truncated)))
    assert flags == [(False, False), (True, False), (not can_truncate, can_truncate)]


def test_truncation_is_assumed_possible_unless_known_otherwise() -> None:
    assert JumanjiEnvironment(Toy()).can_truncate
    assert not JumanjiEnvironment(Snake(3, 3)).can_truncate


@pytest.mark.slow
def test_a_board_is_seen_as_a_board_and_the_rest_as_numbers() -> None:
    environment = make_environment("jumanji:Game2048-v1", board_size=3)
    state, observation = compiled(environment)[0](key=jax.random.key(0))
    np.testing.assert_array_equal(observation.view, np.asarray(state.board, float)[..., None])
    np.testing.assert_array_equal(observation.action_mask, state.action_mask)
    assert observation.scalars.shape == (0,)
    assert observation.view.sum() > 0

    environment = make_environment("jumanji:SlidingTilePuzzle-v0")
    state, observation = compiled(environment)[0](key=jax.random.key(0))
    np.testing.assert_array_equal(observation.view[..., 0], np.asarray(state.puzzle, float))
    np.testing.assert_array_equal(observation.scalars, [*np.asarray(state.empty_tile_position), 0.0])


def test_without_a_board_all_numbers_make_a_vector_and_the_mask_is_kept() -> None:
    environment = make_environment("jumanji:Knapsack-v1")
    state, observation = compiled(environment)[0](key=jax.random.key(0))
    expected = np.concatenate([state.weights, state.values, np.zeros(50)])
    np.testing.assert_allclose(observation.view, expected, rtol=1e-7)
    _, result = compiled(environment)[1](state, jnp.asarray(7, jnp.int32), key=jax.random.key(0))
    assert result.observation.view[107] == 1.0
    assert not result.observation.action_mask[7]


def test_a_mask_of_another_shape_allows_everything() -> None:
    class Masked(NamedTuple):
        action_mask: jax.Array

    seen = BoardOrVector(num_actions=3)(Masked(jnp.zeros((3, 2), bool)))
    np.testing.assert_array_equal(seen.action_mask, [True] * 3)
    assert BoardOrVector(num_actions=3)(Masked(jnp.zeros(3, bool))).action_mask.all(), "nothing is allowed"
    seen = BoardOrVector(num_actions=3)(Masked(jnp.array([True, False, True])))
    np.testing.assert_array_equal(seen.action_mask, [True, False, True])


def test_a_view_of_ones_own() -> None:
    def observe(observation: ToyObservation) -> Observation:
        count = observation.count.astype(float)
        return Observation(jnp.stack([count, -count]), jnp.zeros(0), jnp.array([True, True, False]))

    environment = JumanjiEnvironment(Toy(), observe)
    state, _ = environment.reset(key=jax.random.key(0))
    _, result = environment.step(state, ACTION, key=jax.random.key(0))
    np.testing.assert_array_equal(result.observation.view, [1.0, -1.0])
    np.testing.assert_array_equal(result.observation.action_mask, [True, True, False])


def test_vectors_of_several_agents_are_one_vector() -> None:
    with foreign_code():
        env = SearchAndRescue()
        state, _ = jax.jit(env.reset)(jax.random.PRNGKey(1))
    environment = JumanjiEnvironment(env)
    assert environment.continuous and environment.num_actions == 4
    action = jnp.array([0.5, -1.0, 2.0, 0.25], jnp.float32)  # beyond 1 it is clipped
    after, result = jax.jit(environment.step)(state, action, key=jax.random.key(0))
    with foreign_code():
        theirs, timestep = jax.jit(env.step)(state, jnp.array([[0.5, -1.0], [1.0, 0.25]], jnp.float32))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-6), after, theirs)
    np.testing.assert_allclose(result.reward, timestep.reward.sum(), rtol=1e-6)
    assert result.observation.view.shape == (sum(leaf.size for leaf in jax.tree.leaves(timestep.observation)),)


def test_whole_numbers_of_several_vehicles_are_several_choices() -> None:
    with foreign_code():
        env = MultiCVRP()
        state, before = jax.jit(env.reset)(jax.random.PRNGKey(1))
    environment = JumanjiEnvironment(env)
    assert environment.action_sizes == (21, 21) and environment.num_actions == 42
    mask = np.asarray(before.observation.action_mask)
    seen = environment.observe(before.observation)
    np.testing.assert_array_equal(seen.action_mask, mask.ravel())
    action = np.array([np.flatnonzero(row)[-1] for row in mask])
    _, result = jax.jit(environment.step)(state, jnp.asarray(action), key=jax.random.key(0))
    with foreign_code():
        _, timestep = jax.jit(env.step)(state, jnp.asarray(action, jnp.int16))
    np.testing.assert_allclose(result.reward, timestep.reward, rtol=1e-6)
    np.testing.assert_array_equal(result.observation.action_mask, timestep.observation.action_mask.ravel())


def test_what_cannot_be_adapted_is_refused_with_a_way_out() -> None:
    class Unbounded(Toy):
        @property
        def action_spec(self) -> specs.Array:
            return specs.BoundedArray((2,), jnp.float32, -jnp.inf, jnp.inf)

    with foreign_code():
        resetting = AutoResetWrapper(jumanji.make("Game2048-v1"))
    with pytest.raises(ValueError, match=r"Unbounded has actions.*gradweave environments"):
        JumanjiEnvironment(Unbounded())
    with pytest.raises(ValueError, match=r"Game2048 comes in a AutoResetWrapper.*env\.unwrapped"):
        JumanjiEnvironment(resetting)


@pytest.mark.parametrize(
    ("size", "message"), [((1, 4, 10), "num_rows = 1"), ((4, 0, 10), "num_cols = 0"), ((4, 4, 0), "time_limit = 0")]
)
def test_a_board_too_small_is_refused(size: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        snake(*size)


def test_a_combination_is_one_action_with_a_mask_of_its_own() -> None:
    """Of Tetris a turn and a column; from the same state Jumanji steps to the same state."""
    with foreign_code():
        env = Tetris(6, 6)
    ours = JumanjiEnvironment(env)
    assert (ours.num_actions, ours.action_sizes) == (24, None)
    state, seen = jax.jit(lambda key: ours.reset(key=key))(jax.random.key(0))
    with foreign_code():
        reference, first = jax.jit(env.reset)(jax.random.key_data(jax.random.key(0)))
        turn, column = 1, 2
        _, then = jax.jit(env.step)(reference, jnp.array([turn, column], jnp.int32))
    np.testing.assert_array_equal(seen.action_mask, np.ravel(first.observation.action_mask))
    assert not seen.action_mask.all()
    _, step = jax.jit(lambda *args: ours.step(*args, key=jax.random.key(1)))(state, jnp.int32(turn * 6 + column))
    np.testing.assert_array_equal(step.observation.view[..., 0], then.observation.grid)
    np.testing.assert_array_equal(step.reward, then.reward)


@pytest.mark.slow
def test_choices_of_several_agents_stay_apart_and_their_rewards_are_added() -> None:
    from jumanji.environments.routing.connector.generator import RandomWalkGenerator

    with foreign_code():
        env = Connector(RandomWalkGenerator(5, 3))
    ours = JumanjiEnvironment(env)
    assert (ours.num_actions, ours.action_sizes) == (15, (5, 5, 5))
    state, seen = jax.jit(lambda key: ours.reset(key=key))(jax.random.key(0))
    with foreign_code():
        reference, first = jax.jit(env.reset)(jax.random.key_data(jax.random.key(0)))
        mask = np.asarray(first.observation.action_mask)
        action = jnp.asarray(4 - mask[:, ::-1].argmax(-1), jnp.int32)
        _, then = jax.jit(env.step)(reference, action)
    np.testing.assert_array_equal(seen.action_mask, mask.ravel())
    _, step = jax.jit(lambda *args: ours.step(*args, key=jax.random.key(1)))(state, action)
    assert then.reward.shape == (3,) and float(step.reward) != float(then.reward[0])
    np.testing.assert_allclose(step.reward, np.sum(then.reward), rtol=1e-6)
    np.testing.assert_array_equal(step.observation.view[..., 0], then.observation.grid)
