"""The adapter against Gymnax itself, stepped by hand; termination and truncation; what is refused."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradweave.envs import GymnaxEnvironment, make_environment
from gradweave.envs.foreign import foreign_code

with foreign_code():
    import gymnax


@pytest.mark.slow
def test_cart_pole_is_gymnaxs_cart_pole() -> None:
    environment = make_environment("gymnax:CartPole-v1", max_steps_in_episode=30)
    step = jax.jit(environment.step)
    with foreign_code():
        theirs, params = gymnax.make("CartPole-v1")
        expected, their_state = theirs.reset_env(jax.random.key(3), params)
    state, observation = environment.reset(key=jax.random.key(3))
    np.testing.assert_array_equal(observation.view, expected)
    for action in (0, 1, 1, 0) + (1,) * 20:
        with foreign_code():
            expected, their_state, reward, done, _ = theirs.step_env(jax.random.key(0), their_state, action, params)
        state, result = step(state, jnp.asarray(action, jnp.int32), key=jax.random.key(0))
        np.testing.assert_allclose(result.observation.view, expected, rtol=1e-6, atol=1e-7)
        assert result.reward == reward
        assert result.terminated == done
        if done:
            break
    assert done and int(state.time) > 4


@pytest.mark.parametrize(("limit", "flags"), [(4, (False, True)), (100, (True, False))])
def test_the_time_limit_truncates_and_a_fall_terminates(limit: int, flags: tuple[bool, bool]) -> None:
    environment = make_environment("gymnax:CartPole-v1", max_steps_in_episode=limit)
    state, _ = environment.reset(key=jax.random.key(0))
    step = jax.jit(environment.step)
    for _ in range(60):
        state, result = step(state, jnp.ones((), jnp.int32), key=jax.random.key(0))
        if result.terminated | result.truncated:
            break
    assert (bool(result.terminated), bool(result.truncated)) == flags
    assert (int(state.time) == limit) == flags[1]
    assert (
        abs(result.observation.view[0]) > 0.02
    )  # not reset: after a reset the cart is within 0.05, and has moved here


def test_a_termination_in_the_last_step_counts_as_one() -> None:
    fall = make_environment("gymnax:CartPole-v1", max_steps_in_episode=100)
    state, _ = fall.reset(key=jax.random.key(0))
    count, result = 0, None
    while result is None or not result.terminated:
        state, result = fall.step(state, jnp.ones((), jnp.int32), key=jax.random.key(0))
        count += 1
    both = make_environment("gymnax:CartPole-v1", max_steps_in_episode=count)
    state, _ = both.reset(key=jax.random.key(0))
    for _ in range(count):
        state, result = both.step(state, jnp.ones((), jnp.int32), key=jax.random.key(0))
    assert result.terminated and not result.truncated


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("Catch-bsuite", (10, 5, 1)),
        ("Breakout-MinAtar", (10, 10, 4)),
        ("CartPole-v1", (4,)),
        ("FrozenLake-misc", (16,)),
    ],
)
def test_what_is_seen(name: str, shape: tuple[int, ...]) -> None:
    _, observation = make_environment(f"gymnax:{name}").reset(key=jax.random.key(0))
    assert observation.view.shape == shape
    assert observation.view.dtype == jnp.float64
    assert observation.action_mask.all()
    if name == "FrozenLake-misc":
        np.testing.assert_array_equal(observation.view, np.eye(16)[0])


@pytest.mark.parametrize(("action", "torque"), [(0.25, 0.5), (-3.0, -2.0)])
def test_continuous_actions_from_minus_one_to_one_span_what_the_environment_takes(action: float, torque: float) -> None:
    environment = make_environment("gymnax:Pendulum-v1")
    assert environment.continuous and environment.num_actions == 1
    with foreign_code():
        theirs, params = gymnax.make("Pendulum-v1")
        _, their_state = theirs.reset_env(jax.random.key(3), params)
        expected, _, reward, *_ = theirs.step_env(jax.random.key(0), their_state, jnp.array([torque]), params)
    state, observation = environment.reset(key=jax.random.key(3))
    _, result = environment.step(state, jnp.array([action]), key=jax.random.key(0))
    np.testing.assert_allclose(result.observation.view, expected, rtol=1e-6)
    np.testing.assert_allclose(result.reward, reward, rtol=1e-6)
    assert observation.view.shape == (3,)


def test_what_cannot_be_adapted_is_refused() -> None:
    with foreign_code():
        from gymnax.environments import spaces

    def old(space: object) -> SimpleNamespace:
        space_of = lambda params: space  # noqa: E731
        return SimpleNamespace(name="Odd", is_truncated=None, action_space=space_of, observation_space=space_of)

    with pytest.raises(ValueError, match=r"Odd.*a vector"):
        GymnaxEnvironment(old(spaces.Box(-1.0, 1.0, (2, 2))), None)
    with pytest.raises(ValueError, match=r"Odd.*bounds on each side"):
        GymnaxEnvironment(old(spaces.Box(-np.inf, 1.0, (2,))), None)
    with pytest.raises(ValueError, match=r"Old .*Gymnax before 1\.0.*gymnax>=1\.0"):
        GymnaxEnvironment(SimpleNamespace(name="Old"), None)
