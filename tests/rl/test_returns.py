"""λ-returns and advantages against slow loops, rlax, known limits, and finite differences."""

import importlib
import warnings

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from gradweave.rl import generalized_advantages, lambda_returns, trajectory_discounts, trajectory_lambda

NUM_STEPS = 7


def lambda_returns_by_loop(rewards, discounts, next_values, lambdas):
    """The definition, one step at a time, in plain Python floats."""
    result = [0.0] * len(rewards)
    following = float(next_values[-1])
    for t in reversed(range(len(rewards))):
        mixture = (1 - lambdas[t]) * float(next_values[t]) + lambdas[t] * following
        following = float(rewards[t]) + float(discounts[t]) * mixture
        result[t] = following
    return np.array(result)


def advantages_by_double_loop(rewards, discounts, values, next_values, lambdas):
    """The sum of temporal-difference errors written out for every start."""
    result = []
    for start in range(len(rewards)):
        total, weight = 0.0, 1.0
        for t in range(start, len(rewards)):
            total += weight * (rewards[t] + discounts[t] * next_values[t] - values[t])
            weight *= discounts[t] * lambdas[t]
        result.append(total)
    return np.array(result)


def random_inputs(seed, num_steps=NUM_STEPS):
    rng = np.random.default_rng(seed)
    rewards, values, next_values = rng.normal(size=(3, num_steps))
    discounts, lambdas = rng.uniform(size=(2, num_steps))
    return [jnp.asarray(x) for x in (rewards, discounts, values, next_values, lambdas)]


number = st.floats(-10, 10, allow_nan=False)
fraction = st.floats(0, 1, allow_nan=False)


@st.composite
def trajectories(draw):
    # Three lengths, on either side of the longest scan that is unrolled, so that little is compiled.
    num_steps = draw(st.sampled_from([1, 5, 12]))
    lists = [st.lists(kind, min_size=num_steps, max_size=num_steps) for kind in (number, number, number, fraction)]
    rewards, values, next_values, lambdas = (draw(kind) for kind in lists)
    ends = draw(st.lists(st.sampled_from(["", "", "", "end", "cut"]), min_size=num_steps, max_size=num_steps))
    discount = draw(fraction)
    return rewards, values, next_values, lambdas, ends, discount


@pytest.mark.slow
@hypothesis.settings(deadline=None, max_examples=60, derandomize=True)
@hypothesis.given(trajectories())
def test_both_match_slow_loops_on_any_trajectory(trajectory):
    rewards, values, next_values, lambdas, ends, discount = trajectory
    rewards, values, next_values = (jnp.asarray(x, float) for x in (rewards, values, next_values))
    terminations = jnp.asarray([end == "end" for end in ends])
    truncations = jnp.asarray([end == "cut" for end in ends])
    discounts = trajectory_discounts(discount, terminations)
    cut_lambdas = trajectory_lambda(jnp.asarray(lambdas, float), truncations)
    slow_discounts = [0.0 if end == "end" else discount for end in ends]
    slow_lambdas = [0.0 if end == "cut" else lambda_ for end, lambda_ in zip(ends, lambdas, strict=True)]

    returns = jax.jit(lambda_returns)(rewards, discounts, next_values, cut_lambdas)
    advantages = jax.jit(generalized_advantages)(rewards, discounts, values, next_values, cut_lambdas)

    expected = lambda_returns_by_loop(rewards, slow_discounts, next_values, slow_lambdas)
    np.testing.assert_allclose(returns, expected, rtol=1e-12, atol=1e-12)
    expected = advantages_by_double_loop(
        *(np.asarray(x) for x in (rewards, slow_discounts, values, next_values, slow_lambdas))
    )
    np.testing.assert_allclose(advantages, expected, rtol=1e-10, atol=1e-10)


@pytest.fixture(scope="module")
def rlax():
    """Rlax; its import brings in packages that warn of their own use of JAX."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("rlax")


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [5, 12])
def test_both_match_rlax(rlax, num_steps):
    rewards, discounts, values, next_values, lambdas = random_inputs(0, num_steps)
    expected = rlax.lambda_returns(rewards, discounts, next_values, lambdas)
    np.testing.assert_allclose(lambda_returns(rewards, discounts, next_values, lambdas), expected, rtol=1e-12)

    all_values = jnp.append(values, 0.3)
    expected = rlax.truncated_generalized_advantage_estimation(rewards, discounts, 0.8, all_values)
    advantages = generalized_advantages(rewards, discounts, all_values[:-1], all_values[1:], 0.8)
    np.testing.assert_allclose(advantages, expected, rtol=1e-12)


def test_lambda_zero_is_the_one_step_target():
    rewards, discounts, values, next_values, _ = random_inputs(1)
    one_step = rewards + discounts * next_values
    np.testing.assert_allclose(lambda_returns(rewards, discounts, next_values, 0.0), one_step, rtol=1e-14)
    advantages = generalized_advantages(rewards, discounts, values, next_values, 0.0)
    np.testing.assert_allclose(advantages, one_step - values, rtol=1e-14)


def test_lambda_one_is_the_discounted_sum_bootstrapped_at_the_end_only():
    rewards, _, _, next_values, _ = random_inputs(2)
    discount = 0.9
    discounts = jnp.full(NUM_STEPS, discount)
    expected = [
        sum(discount ** (t - start) * float(rewards[t]) for t in range(start, NUM_STEPS))
        + discount ** (NUM_STEPS - start) * float(next_values[-1])
        for start in range(NUM_STEPS)
    ]
    np.testing.assert_allclose(lambda_returns(rewards, discounts, next_values, 1.0), expected, rtol=1e-12)


def test_advantages_are_returns_minus_values_when_values_line_up():
    rewards, discounts, values, _, lambdas = random_inputs(3)
    next_values = jnp.append(values[1:], 0.7)
    returns = lambda_returns(rewards, discounts, next_values, lambdas)
    advantages = generalized_advantages(rewards, discounts, values, next_values, lambdas)
    np.testing.assert_allclose(advantages, returns - values, rtol=1e-12, atol=1e-13)


def test_truncation_bootstraps_and_termination_does_not():
    """Three rewards of 1, an episode that stops after the second, and values of 100 that betray every leak."""
    rewards, next_values = jnp.ones(3), jnp.asarray([10.0, 100.0, 20.0])
    stop, never = jnp.asarray([False, True, False]), jnp.zeros(3, bool)

    ended = lambda_returns(rewards, trajectory_discounts(0.5, stop), next_values, trajectory_lambda(1.0, never))
    np.testing.assert_allclose(ended, [1 + 0.5 * 1, 1, 1 + 0.5 * 20])

    cut = lambda_returns(rewards, trajectory_discounts(0.5, never), next_values, trajectory_lambda(1.0, stop))
    np.testing.assert_allclose(cut, [1 + 0.5 * (1 + 0.5 * 100), 1 + 0.5 * 100, 1 + 0.5 * 20])


@pytest.mark.slow
def test_nothing_of_the_next_episode_reaches_back_over_a_stop():
    rewards, _, values, next_values, _ = random_inputs(4)
    never = jnp.zeros(NUM_STEPS, bool)
    stop = never.at[3].set(True)
    for terminations, truncations in [(stop, never), (never, stop)]:
        discounts, lambdas = trajectory_discounts(0.9, terminations), trajectory_lambda(0.8, truncations)
        jacobian = jax.jacobian(lambda_returns)(rewards, discounts, next_values, lambdas)
        assert not jnp.any(jacobian[:4, 4:])
        assert jnp.all(jacobian[0, :4] != 0)
        jacobian = jax.jacobian(generalized_advantages)(rewards, discounts, values, next_values, lambdas)
        assert not jnp.any(jacobian[:4, 4:])
        assert jnp.all(jacobian[0, :4] != 0)


def total_return(discount, lambda_):
    rewards, _, values, next_values, _ = random_inputs(5)
    terminations = jnp.arange(NUM_STEPS) == 2
    truncations = jnp.arange(NUM_STEPS) == 4
    discounts, lambdas = trajectory_discounts(discount, terminations), trajectory_lambda(lambda_, truncations)
    returns = lambda_returns(rewards, discounts, next_values, lambdas)
    advantages = generalized_advantages(rewards, discounts, values, next_values, lambdas)
    return jnp.sum(returns**2) + jnp.sum(jnp.sin(advantages))


@pytest.mark.slow
@pytest.mark.parametrize("argument", [0, 1])
@pytest.mark.parametrize("differentiate", [jax.grad, jax.jacfwd])
def test_derivatives_in_discount_and_lambda_match_finite_differences(argument, differentiate):
    point = np.array([0.9, 0.7])
    step = 1e-6 * np.eye(2)[argument]
    expected = (total_return(*map(float, point + step)) - total_return(*map(float, point - step))) / 2e-6
    derivative = differentiate(total_return, argument)(*map(jnp.asarray, point))
    assert abs(expected) > 0.1
    np.testing.assert_allclose(derivative, expected, rtol=1e-7)


@pytest.mark.slow
def test_second_derivatives_match_finite_differences_of_first():
    discount, lambda_ = jnp.asarray(0.9), jnp.asarray(0.7)
    slope = jax.jit(jax.grad(total_return))
    expected = (slope(discount, lambda_ + 1e-6) - slope(discount, lambda_ - 1e-6)) / 2e-6
    mixed = jax.jit(jax.grad(jax.grad(total_return), 1))(discount, lambda_)
    assert abs(expected) > 0.1
    np.testing.assert_allclose(mixed, expected, rtol=1e-6)


@pytest.mark.slow
def test_values_are_differentiated_as_well():
    """Where a stop_gradient would sit in a usual implementation."""
    rewards, discounts, values, next_values, lambdas = random_inputs(6)
    jacobian = jax.jacobian(lambda_returns, 2)(rewards, discounts, next_values, lambdas)
    np.testing.assert_allclose(jnp.diag(jacobian)[:-1], (discounts * (1 - lambdas))[:-1], rtol=1e-12)
    np.testing.assert_allclose(jacobian[-1, -1], discounts[-1], rtol=1e-12)
    jacobian = jax.jacobian(generalized_advantages, 2)(rewards, discounts, values, next_values, lambdas)
    np.testing.assert_allclose(jnp.diag(jacobian), -jnp.ones(NUM_STEPS))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtype_follows_the_inputs_and_batches_go_through_vmap(dtype):
    inputs = [x.astype(dtype) for x in random_inputs(7, 6)]
    rewards, discounts, values, next_values, lambdas = (jnp.stack([x, 2 * x], axis=1) for x in inputs)
    returns = jax.vmap(lambda_returns, 1, 1)(rewards, discounts, next_values, lambdas)
    advantages = jax.vmap(generalized_advantages, 1, 1)(rewards, discounts, values, next_values, lambdas)
    assert returns.dtype == advantages.dtype == dtype
    alone = lambda_returns(*(x[:, 1] for x in (rewards, discounts, next_values, lambdas)))
    np.testing.assert_allclose(returns[:, 1], alone, rtol=1e-6)
    assert trajectory_discounts(jnp.asarray(0.9, dtype), jnp.zeros(3, bool)).dtype == dtype
    assert trajectory_lambda(jnp.asarray(0.9, dtype), jnp.zeros(3, bool)).dtype == dtype


@pytest.mark.parametrize(
    ("narrow", "places"),
    [
        (jnp.bfloat16, (2, 3)),
        (jnp.float32, (0, 1, 2, 3)),
        (jnp.float32, (4,)),
        (jnp.int32, (0,)),
        (jnp.int32, (2, 3)),
    ],
)
def test_mixed_dtypes_are_computed_in_the_widest(places, narrow):
    """A bfloat16 critic on float32 rewards, float64 meta-parameters on float32 data, whole-number values."""
    whole = [
        jnp.array([1.0, 0.0, 2.0]),
        jnp.ones(3),
        jnp.array([0.0, 1.0, 1.0]),
        jnp.array([1.0, 1.0, 3.0]),
        jnp.ones(3),
    ]
    mixed = [each.astype(narrow) if place in places else each for place, each in enumerate(whole)]
    mixed[4] = 0.5 * mixed[4]
    wide = [each.astype(jnp.float64) for each in mixed]
    with jax.numpy_dtype_promotion("standard"):
        for function, arguments in ((lambda_returns, (0, 1, 3, 4)), (generalized_advantages, (0, 1, 2, 3, 4))):
            found = function(*(mixed[place] for place in arguments))
            assert found.dtype == jnp.float64
            np.testing.assert_array_equal(found, function(*(wide[place] for place in arguments)))
