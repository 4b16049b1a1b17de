"""The product of categorical policies against a table of every combination of choices."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradweave.rl import MultiDiscrete

SIZES = (3, 2, 4)
HEAD = MultiDiscrete(SIZES)
LOGITS, OTHER = jax.random.normal(jax.random.key(0), (2, 9))
MASK = jnp.array([True, False, True, False, False, True, True, True, False])  # the second choice's allows nothing
ALLOWED = [[0, 2], [0, 1], [0, 1, 2]]


def table(logits):
    """The probability of every combination."""
    parts = [np.exp(np.asarray(part)) for part in np.split(np.asarray(logits), [3, 5])]
    parts[1] = np.ones(2)  # nothing to choose
    parts = [part / part[allowed].sum() for part, allowed in zip(parts, ALLOWED, strict=True)]
    return {
        choice: np.prod([p[a] for p, a in zip(parts, choice, strict=True)]) for choice in itertools.product(*ALLOWED)
    }


@pytest.mark.slow
def test_log_probabilities_entropy_and_divergence_are_those_of_the_joint_distribution():
    joint, other = table(LOGITS), table(OTHER)
    choices = jnp.array(list(joint))
    found = jax.vmap(lambda action: HEAD.log_prob(LOGITS, MASK, action))(choices)
    np.testing.assert_allclose(np.exp(found), list(joint.values()), rtol=1e-12)
    np.testing.assert_allclose(sum(joint.values()), 1.0, rtol=1e-12)
    p, q = (np.array(list(one.values())) for one in (joint, other))
    np.testing.assert_allclose(HEAD.entropy(LOGITS, MASK), -(p * np.log(p)).sum(), rtol=1e-12)
    np.testing.assert_allclose(HEAD.kl(LOGITS, OTHER, MASK), (p * np.log(p / q)).sum(), rtol=1e-12)
    assert HEAD.mode(LOGITS, MASK).tolist() == list(max(joint, key=joint.get))
    assert HEAD.log_prob(LOGITS, MASK, jnp.array([1, 0, 0])) < -1e8, "a masked action"


def test_nothing_is_learned_of_a_choice_without_an_allowed_action():
    def function(logits):
        action = jnp.array([0, 1, 0])
        return HEAD.log_prob(logits, MASK, action) + HEAD.entropy(logits, MASK) + HEAD.kl(logits, OTHER, MASK)

    gradient = jax.grad(function)(LOGITS)
    np.testing.assert_array_equal(gradient[3:5], 0.0)
    assert (gradient[jnp.array([0, 2, 5, 6, 7])] != 0).all()


@pytest.mark.slow
def test_samples_have_the_joint_frequencies():
    count = 20_000
    rows = jnp.tile(LOGITS, (count, 1)), jnp.tile(MASK, (count, 1))
    samples = np.asarray(HEAD.sample(*rows, key=jax.random.key(1)))
    assert samples.shape == (count, 3)
    joint = table(LOGITS)
    for choice, expected in joint.items():
        assert abs((samples == choice).all(-1).mean() - expected) < 0.015
    assert {tuple(sample) for sample in samples.tolist()} <= set(joint)


@pytest.mark.slow
def test_its_second_derivatives_are_finite_whatever_is_masked():
    def every_function(logits):
        action = jnp.array([0, 1, 0])
        return HEAD.log_prob(logits, MASK, action) + HEAD.entropy(logits, MASK) + HEAD.kl(logits, OTHER, MASK)

    assert jnp.isfinite(jax.hessian(every_function)(LOGITS)).all()


def test_no_choice_is_refused():
    with pytest.raises(ValueError, match="nothing to choose"):
        MultiDiscrete(())
