"""V-trace against rlax, a slow loop over the paper's sum, lambda-returns, and finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradweave.rl import lambda_returns, leaky_weights, vtrace

NUM_STEPS = 7


def inputs(seed=0, *, ends=True):
    """Rewards, discounts, values, next values, ratios on either side of 1, lambdas."""
    rng = np.random.default_rng(seed)
    rewards, values, last = rng.normal(size=(3, NUM_STEPS))
    discounts, lambdas = rng.uniform(0.3, 1.0, size=(2, NUM_STEPS))
    if ends:
        discounts[2] = 0.0
    next_values = np.append(values[1:], last[-1])
    ratios = np.exp(rng.normal(size=NUM_STEPS))
    assert 0 < (ratios > 1).sum() < NUM_STEPS
    return [jnp.asarray(each) for each in (rewards, discounts, values, next_values, ratios, lambdas)]


def paper_sum(rewards, discounts, values, next_values, ratios, lambdas, alpha, clip_rho, clip_c):
    """v_s + sum_t gamma^(t-s) (prod c) delta_t (equation 1), and the advantages, in plain Python."""
    leaky = lambda clip, t: alpha * min(clip, ratios[t]) + (1 - alpha) * ratios[t]  # noqa: E731
    returns = []
    for s in range(len(rewards)):
        total, weight = float(values[s]), 1.0
        for t in range(s, len(rewards)):
            total += weight * leaky(clip_rho, t) * (rewards[t] + discounts[t] * next_values[t] - values[t])
            weight *= discounts[t] * lambdas[t] * leaky(clip_c, t)
        returns.append(total)
    advantages = []
    for s in range(len(rewards)):
        inside = s + 1 < len(rewards) and lambdas[s] > 0
        later = lambdas[s] * returns[s + 1] + (1 - lambdas[s]) * next_values[s] if inside else next_values[s]
        advantages.append(leaky(clip_rho, s) * (rewards[s] + discounts[s] * later - values[s]))
    return np.array(returns, float), np.array(advantages, float)


@pytest.mark.parametrize(("alpha", "clip_rho", "clip_c"), [(1.0, 1.0, 1.0), (0.6, 1.5, 0.8)])
def test_it_is_the_sum_of_the_paper(alpha, clip_rho, clip_c):
    found = jax.jit(vtrace)(*inputs(), alpha=alpha, clip_rho=clip_rho, clip_c=clip_c)
    returns, advantages = paper_sum(*map(np.asarray, inputs()), alpha, clip_rho, clip_c)
    np.testing.assert_allclose(found.returns, returns, rtol=1e-12)
    np.testing.assert_allclose(found.advantages, advantages, rtol=1e-12)


def test_a_cut_episode_bootstraps_from_what_it_led_to():
    """Behind the cut lies another episode: nothing of it counts, as if the trajectory had ended there."""
    rewards, discounts, values, next_values, ratios, lambdas = inputs(1, ends=False)
    cut, next_values, lambdas = 3, next_values.at[3].set(5.0), lambdas.at[3].set(0.0)
    whole = jax.jit(vtrace)(rewards, discounts, values, next_values, ratios, lambdas, alpha=0.7)
    short = [each[: cut + 1] for each in (rewards, discounts, values, next_values, ratios, lambdas)]
    returns, advantages = paper_sum(*map(np.asarray, short), 0.7, 1.0, 1.0)
    np.testing.assert_allclose(whole.returns[: cut + 1], returns, rtol=1e-12)
    np.testing.assert_allclose(whole.advantages[: cut + 1], advantages, rtol=1e-12)


@pytest.mark.filterwarnings("ignore")  # rlax and its dependencies use what has been deprecated
@pytest.mark.parametrize("alpha", [None, 0.6], ids=["clipped", "leaky"])
def test_it_matches_rlax(alpha):
    import rlax

    rewards, discounts, values, next_values, ratios, lambdas = inputs()
    options = {} if alpha is None else {"alpha": alpha}
    function = rlax.vtrace_td_error_and_advantage if alpha is None else rlax.leaky_vtrace_td_error_and_advantage

    @jax.jit
    def both():
        clips = {"clip_rho_threshold": 1.3, "clip_pg_rho_threshold": 1.3, **options}
        theirs = function(values, next_values, rewards, discounts, ratios, lambda_=lambdas, **clips)
        ours = vtrace(rewards, discounts, values, next_values, ratios, lambdas, clip_rho=1.3, **options)
        return ours, theirs

    with jax.numpy_dtype_promotion("standard"):  # rlax multiplies by its mask
        ours, theirs = both()
    np.testing.assert_allclose(ours.returns - values, theirs.errors, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(ours.advantages, theirs.pg_advantage, rtol=1e-12, atol=1e-14)


def test_on_policy_it_is_the_lambda_return():
    rewards, discounts, values, next_values, ratios, lambdas = inputs()
    found = jax.jit(vtrace)(rewards, discounts, values, next_values, jnp.ones_like(ratios), lambdas, alpha=0.3)
    expected = lambda_returns(rewards, discounts, next_values, lambdas)
    np.testing.assert_allclose(found.returns, expected, rtol=1e-12)
    np.testing.assert_allclose(found.advantages, expected - values, rtol=1e-12, atol=1e-14)


def test_every_argument_has_the_derivative_of_differences():
    """alpha's is nonzero, and zero where no ratio is clipped."""

    @jax.jit
    def total(*numbers):
        *arrays, alpha, clip_rho, clip_c = numbers
        found = vtrace(*arrays, alpha=alpha, clip_rho=clip_rho, clip_c=clip_c)
        weights = jnp.arange(1.0, NUM_STEPS + 1)
        return found.returns @ weights + found.advantages @ weights[::-1]

    numbers = [*inputs(), *(jnp.asarray(number) for number in (0.6, 1.2, 0.9))]
    gradients = jax.jit(jax.grad(total, argnums=tuple(range(len(numbers)))))(*numbers)
    for index, (number, gradient) in enumerate(zip(numbers, gradients, strict=True)):
        direction = jnp.asarray(np.random.default_rng(index).normal(size=number.shape))
        moved = [total(*numbers[:index], number + h * direction, *numbers[index + 1 :]) for h in (1e-6, -1e-6)]
        difference = float(moved[0] - moved[1]) / 2e-6
        np.testing.assert_allclose(float(jnp.sum(gradient * direction)), difference, rtol=1e-6)
        assert abs(difference) > 1e-3
    numbers[4] = jnp.full(NUM_STEPS, 0.5)
    slope = jax.jit(jax.grad(lambda alpha: functools.partial(total, *numbers[:6])(alpha, 1.2, 0.9)))(0.6)
    assert slope == 0


def test_weights_leak():
    ratios = jnp.array([0.5, 1.0, 3.0])
    np.testing.assert_allclose(leaky_weights(ratios, 1.0, 1.0), [0.5, 1.0, 1.0])
    np.testing.assert_allclose(leaky_weights(ratios, 1.0, 0.0), ratios)
    np.testing.assert_allclose(leaky_weights(ratios, 2.0, 0.25), [0.5, 1.0, 2.75])


@pytest.mark.parametrize(("place", "dtype"), [(2, jnp.bfloat16), (3, jnp.int32), (0, jnp.float32), (5, jnp.float32)])
def test_mixed_dtypes_are_computed_in_the_widest(place, dtype):
    mixed = inputs()
    mixed[place] = mixed[place].astype(dtype)
    with jax.numpy_dtype_promotion("standard"):
        found = vtrace(*mixed)
    expected = vtrace(*(each.astype(jnp.float64) for each in mixed))
    assert found.returns.dtype == found.advantages.dtype == jnp.float64
    np.testing.assert_allclose(found.returns, expected.returns, rtol=1e-12)
    np.testing.assert_allclose(found.advantages, expected.advantages, rtol=1e-12)
