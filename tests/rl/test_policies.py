"""Policy heads against SciPy, against samples, and, for the categorical one, against the functions it stands for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from gradweave.rl import Categorical, Gaussian, TanhGaussian, categorical

MASK = jnp.ones((5, 2), bool)
OUTPUTS = jax.random.normal(jax.random.key(0), (5, 4))
OTHER = jax.random.normal(jax.random.key(1), (5, 4))


def moments(outputs):
    mean, raw = np.split(np.asarray(outputs), 2, axis=-1)
    return mean, np.log1p(np.exp(raw)) + 1e-3


def test_a_gaussian_is_scipys():
    head, (mean, std) = Gaussian(2), moments(OUTPUTS)
    assert head.num_outputs == 4
    actions = jax.random.normal(jax.random.key(2), (5, 2))
    normal = scipy.stats.norm(mean, std)
    np.testing.assert_allclose(head.log_prob(OUTPUTS, MASK, actions), normal.logpdf(actions).sum(-1), rtol=1e-12)
    np.testing.assert_allclose(head.entropy(OUTPUTS, MASK), normal.entropy().sum(-1), rtol=1e-12)
    np.testing.assert_array_equal(head.mode(OUTPUTS, MASK), mean)


def test_its_divergence_is_the_mean_log_ratio_and_zero_from_itself():
    head = Gaussian(2)
    (mean, std), (other, other_std) = moments(OUTPUTS), moments(OTHER)
    # By Gauss-Hermite quadrature, exact for the quadratic that the log-ratio is.
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    points = mean[..., None] + std[..., None] * nodes
    ratio = scipy.stats.norm(mean[..., None], std[..., None]).logpdf(points)
    ratio = ratio - scipy.stats.norm(other[..., None], other_std[..., None]).logpdf(points)
    expected = (ratio @ weights / weights.sum()).sum(-1)
    np.testing.assert_allclose(head.kl(OUTPUTS, OTHER, MASK), expected, rtol=1e-9)
    np.testing.assert_allclose(head.kl(OUTPUTS, OUTPUTS, MASK), 0.0, atol=1e-12)


def test_its_samples_have_its_moments():
    draw = jax.jit(jax.vmap(lambda key: Gaussian(2).sample(OUTPUTS, MASK, key=key)))
    samples = np.asarray(draw(jax.random.split(jax.random.key(3), 20_000)))
    mean, std = moments(OUTPUTS)
    np.testing.assert_allclose((samples.mean(0) - mean) / std, 0.0, atol=0.03)
    np.testing.assert_allclose(samples.std(0) / std, 1.0, atol=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [-60.0, 0.0, 60.0])
def test_second_derivatives_are_finite_at_any_scale(scale):
    head = Gaussian(1)
    outputs, mask = jnp.array([0.3, scale]), jnp.ones(1, bool)

    def every_function(outputs):
        return (
            head.log_prob(outputs, mask, jnp.array([0.1]))
            + head.entropy(outputs, mask)
            + head.kl(outputs, outputs + 0.1, mask)
        )

    assert jnp.isfinite(jax.hessian(every_function)(outputs)).all()


@pytest.mark.slow
def test_a_categorical_head_is_the_functions_of_its_module():
    head, mask = Categorical(4), jax.random.bernoulli(jax.random.key(4), 0.6, (5, 4))
    actions = categorical.mode(OUTPUTS, mask)
    np.testing.assert_array_equal(head.mode(OUTPUTS, mask), actions)
    key = jax.random.key(5)
    np.testing.assert_array_equal(
        head.sample(OUTPUTS, mask, key=jax.random.clone(key)), categorical.sample(OUTPUTS, mask, key=key)
    )
    np.testing.assert_array_equal(head.log_prob(OUTPUTS, mask, actions), categorical.log_prob(OUTPUTS, mask, actions))
    np.testing.assert_array_equal(head.entropy(OUTPUTS, mask), categorical.entropy(OUTPUTS, mask))
    np.testing.assert_array_equal(head.kl(OUTPUTS, OTHER, mask), categorical.kl(OUTPUTS, OTHER, mask))


@pytest.mark.parametrize("head", [Gaussian(2), TanhGaussian(2)])
def test_random_play_in_a_box_is_uniform_whatever_the_network_says(head):
    far = OUTPUTS + 5.0
    draw = jax.jit(jax.vmap(lambda key: head.uniform(far, MASK, key=key)))
    drawn = np.asarray(draw(jax.random.split(jax.random.key(5), 4_000)))
    assert drawn.shape == (4_000, 5, 2)
    assert scipy.stats.kstest(drawn.ravel(), scipy.stats.uniform(-1, 2).cdf).pvalue > 0.01


def test_random_play_among_actions_is_among_the_allowed_ones():
    mask = jnp.array([[True, False, True]])
    draw = jax.jit(jax.vmap(lambda key: Categorical(3).uniform(jnp.array([[9.0, 0.0, 0.0]]), mask, key=key)))
    drawn = np.asarray(draw(jax.random.split(jax.random.key(6), 4_000)))
    np.testing.assert_allclose(np.bincount(drawn.ravel(), minlength=3) / 4_000, [0.5, 0.0, 0.5], atol=0.03)
