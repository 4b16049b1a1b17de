"""The masked categorical: finite in every derivative, and right where it can be checked."""

import itertools
import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from gradweave.rl import MASKED_LOG_PROB, entropy, kl, log_prob, log_probs, mode, probs, sample

NUM_ACTIONS = 4
MASKS = [jnp.asarray(mask) for mask in itertools.product([False, True], repeat=NUM_ACTIONS)]
LOGITS = {
    "equal": [0.0, 0.0, 0.0, 0.0],
    "usual": [0.3, -1.2, 2.0, 0.7],
    "large": [1e4, -1e4, 1e4, 0.0],
    "small": [-1e4, -1e4, -1e4, -1e4],
}


def probs_by_loop(logits, mask):
    """Plain Python; a mask that allows nothing leaves no choice, and all actions are as likely."""
    if not any(mask):
        return [1 / len(logits)] * len(logits)
    allowed = [i for i in range(len(logits)) if mask[i]]
    peak = max(logits[i] for i in allowed)
    weights = [math.exp(logits[i] - peak) if i in allowed else 0.0 for i in range(len(logits))]
    return [w / sum(weights) for w in weights]


def entropy_by_loop(logits, mask):
    return -sum(p * math.log(p) for p in probs_by_loop(logits, mask) if p > 0)


number = st.floats(-20, 20, allow_nan=False)


@pytest.mark.slow
@hypothesis.settings(deadline=None, max_examples=60, derandomize=True)
@hypothesis.given(
    st.lists(number, min_size=NUM_ACTIONS, max_size=NUM_ACTIONS),
    st.lists(number, min_size=NUM_ACTIONS, max_size=NUM_ACTIONS),
    st.lists(st.booleans(), min_size=NUM_ACTIONS, max_size=NUM_ACTIONS),
)
def test_all_quantities_match_slow_loops(logits, other, mask):
    p, q = probs_by_loop(logits, mask), probs_by_loop(other, mask)
    arrays = jnp.asarray(logits), jnp.asarray(mask)
    np.testing.assert_allclose(probs(*arrays), p, rtol=1e-12)
    np.testing.assert_allclose(entropy(*arrays), entropy_by_loop(logits, mask), rtol=1e-11, atol=1e-14)
    divergence = sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)
    np.testing.assert_allclose(kl(arrays[0], jnp.asarray(other), arrays[1]), divergence, rtol=1e-9, atol=1e-13)
    for action in range(NUM_ACTIONS):
        expected = math.log(p[action]) if p[action] > 0 else MASKED_LOG_PROB
        np.testing.assert_allclose(log_prob(*arrays, jnp.asarray(action)), expected, rtol=1e-11, atol=1e-14)
    assert int(mode(*arrays)) == max(range(NUM_ACTIONS), key=lambda i: (p[i] > 0, logits[i] if mask[i] else 0, -i))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("kind", LOGITS)
def test_value_gradient_and_hessian_are_finite_for_every_mask(kind, dtype):
    logits = jnp.asarray(LOGITS[kind], dtype)
    masks = jnp.stack(MASKS)
    assert masks.shape == (2**NUM_ACTIONS, NUM_ACTIONS) and not jnp.any(masks[0])

    def everything(logits, mask):
        """All quantities of one policy, one after another."""
        divergences = kl(logits, logits[::-1], mask), kl(logits[::-1], logits, mask)
        actions = jnp.arange(NUM_ACTIONS)
        all_log_probs = jax.vmap(log_prob, (None, None, 0))(logits, mask, actions)
        return jnp.stack([entropy(logits, mask), *divergences, *all_log_probs])

    for derivative in (everything, jax.jacobian(everything), jax.hessian(everything)):
        result = jax.jit(jax.vmap(derivative, (None, 0)))(logits, masks)
        assert result.dtype == dtype
        assert jnp.all(jnp.isfinite(result))


@pytest.mark.parametrize("mask", [MASKS[0b1101], MASKS[0b0110], MASKS[-1]], ids=["three", "two", "all"])
def test_derivatives_are_right_and_zero_for_masked_logits(mask):
    logits = jnp.asarray(LOGITS["usual"])
    p = np.array(probs_by_loop(LOGITS["usual"], mask.tolist()))
    # The textbook derivatives: of log p_a, 1[i = a] - p_i; of the entropy, -p_i (log p_i + H).
    log_p = np.log(np.where(p > 0, p, 1.0))
    expected = -p * (log_p + entropy_by_loop(LOGITS["usual"], mask.tolist()))
    gradient = jax.grad(entropy)(logits, mask)
    np.testing.assert_allclose(gradient, expected, rtol=1e-10, atol=1e-14)
    assert jnp.all((gradient != 0) == (p > 0))
    for action in np.flatnonzero(p):
        gradient = jax.grad(log_prob)(logits, mask, jnp.asarray(action))
        np.testing.assert_allclose(gradient, np.eye(NUM_ACTIONS)[action] - p, rtol=1e-10, atol=1e-14)
    # Fisher information: the Hessian of log p is minus the covariance of the one-hot action.
    hessian = jax.jit(jax.hessian(log_prob))(logits, mask, jnp.asarray(int(np.flatnonzero(p)[0])))
    np.testing.assert_allclose(hessian, -(np.diag(p) - np.outer(p, p)), rtol=1e-10, atol=1e-14)


@pytest.mark.slow
def test_the_stopped_gradient_of_the_shift_is_nothing():
    """The derivative through the maximum, which `log_probs` stops, would change nothing to second order."""

    def plain(logits):
        return logits - jax.scipy.special.logsumexp(logits)

    logits, everything = jnp.asarray(LOGITS["usual"]), jnp.ones(NUM_ACTIONS, bool)
    for derivative in (jax.jacfwd, jax.jacrev, jax.hessian):
        ours = jax.jit(derivative(lambda x: log_probs(x, everything)))(logits)
        np.testing.assert_allclose(ours, jax.jit(derivative(plain))(logits), rtol=1e-11, atol=1e-14)
        assert jnp.any(ours != 0)


@pytest.mark.slow
def test_masked_actions_have_probability_zero_and_are_never_sampled():
    logits = jnp.asarray([9.0, 0.0, -3.0, 9.0])
    for mask in MASKS[1:]:
        assert jnp.all((probs(logits, mask) > 0) == mask)
        drawn = sample(jnp.tile(logits, (500, 1)), jnp.tile(mask, (500, 1)), key=jax.random.key(0))
        assert jnp.all(mask[drawn])
        assert bool(mask[mode(logits, mask)])
    np.testing.assert_array_equal(log_probs(logits, MASKS[0b0110])[jnp.asarray([0, 3])], MASKED_LOG_PROB)


def test_where_nothing_is_allowed_all_are_as_likely_and_nothing_is_learned():
    logits, empty = jnp.asarray(LOGITS["usual"]), MASKS[0]
    np.testing.assert_allclose(log_probs(logits, empty), -np.log(4.0), rtol=1e-15)
    np.testing.assert_allclose(entropy(logits, empty), np.log(4.0), rtol=1e-15)
    assert kl(logits, -logits, empty) == 0
    for derivative in (jax.jacobian, jax.hessian):
        for function in (log_probs, entropy, lambda one, mask: kl(one, -one, mask)):
            np.testing.assert_array_equal(derivative(function)(logits, empty), 0.0)
    assert int(mode(logits, empty)) == 0
    drawn = sample(jnp.tile(logits, (500, 1)), jnp.zeros((500, NUM_ACTIONS), bool), key=jax.random.key(0))
    assert set(drawn.tolist()) == {0, 1, 2, 3}


def test_samples_follow_the_probabilities():
    logits, mask = jnp.asarray(LOGITS["usual"]), MASKS[0b1101]
    num_samples = 20_000
    drawn = sample(jnp.tile(logits, (num_samples, 1)), jnp.tile(mask, (num_samples, 1)), key=jax.random.key(1))
    frequencies = np.bincount(drawn, minlength=NUM_ACTIONS) / num_samples
    expected = np.array(probs_by_loop(LOGITS["usual"], mask.tolist()))
    tolerance = 4 * np.sqrt(expected * (1 - expected) / num_samples)
    assert np.all(np.abs(frequencies - expected) <= tolerance)


@pytest.mark.slow
def test_batch_axes_agree_with_vmap():
    keys = jax.random.split(jax.random.key(2), 2)
    logits, other = (jax.random.normal(key, (3, 2, NUM_ACTIONS)) for key in keys)
    mask = jnp.stack(MASKS[:6]).reshape(3, 2, NUM_ACTIONS)
    actions = jnp.arange(6).reshape(3, 2) % NUM_ACTIONS
    for function, arguments in [
        (log_probs, (logits, mask)),
        (log_prob, (logits, mask, actions)),
        (entropy, (logits, mask)),
        (kl, (logits, other, mask)),
        (mode, (logits, mask)),
    ]:
        np.testing.assert_allclose(function(*arguments), jax.vmap(jax.vmap(function))(*arguments), rtol=1e-12)


def test_kl_of_a_policy_from_itself_is_zero_and_flat():
    logits = jnp.asarray(LOGITS["usual"])
    for mask in (MASKS[-1], MASKS[0b1101]):
        value, gradient = jax.value_and_grad(kl)(logits, logits, mask)
        np.testing.assert_allclose(value, 0.0, atol=1e-15)
        np.testing.assert_allclose(gradient, np.zeros(NUM_ACTIONS), atol=1e-15)
        assert float(kl(logits, -logits, mask)) > 0.1


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_masks_leave_everything_finite_in_every_precision(dtype):
    logits, mask = jnp.asarray(LOGITS["usual"], dtype), MASKS[0b1011]
    found = [entropy(logits, mask), kl(logits, 2 * logits, mask)]
    found += [jax.grad(entropy)(logits, mask), jax.grad(kl, (0, 1))(logits, 2 * logits, mask)]
    wide = logits.astype(jnp.float64)
    expected = [entropy(wide, mask), kl(wide, 2 * wide, mask)]
    expected += [jax.grad(entropy)(wide, mask), jax.grad(kl, (0, 1))(wide, 2 * wide, mask)]
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == dtype
        np.testing.assert_allclose(one.astype(jnp.float64), other, atol=20 * float(jnp.finfo(dtype).eps))
    np.testing.assert_array_equal(probs(logits, mask) == 0, ~mask)
