"""The squashed Gaussian against numerical integrals in SciPy, and at the ends of its range."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from gradweave.rl import Gaussian, TanhGaussian

HEAD, MASK = TanhGaussian(2), jnp.ones(2, bool)
MEAN, STD = np.array([0.4, -1.1]), np.array([0.5, 1.3])
OTHER_MEAN, OTHER_STD = np.array([-0.2, -0.7]), np.array([0.8, 0.9])


def said(mean, std):
    """The outputs with these moments."""
    return jnp.concatenate([jnp.asarray(mean), jnp.log(jnp.expm1(jnp.asarray(std) - 1e-3))])


OUTPUTS, OTHER = said(MEAN, STD), said(OTHER_MEAN, OTHER_STD)


def expected(function, index):
    """The mean of a function of u, number by number."""
    normal = stats.norm(MEAN[index], STD[index])
    low, high = normal.ppf([1e-15, 1 - 1e-15])
    return integrate.quad(lambda u: normal.pdf(u) * function(u), low, high, limit=200)[0]


@pytest.mark.slow
def test_its_density_is_that_of_the_tangent_and_integrates_to_one():
    one = TanhGaussian(1)
    for index in range(2):
        outputs = said(MEAN[index : index + 1], STD[index : index + 1])
        density = jax.jit(jax.vmap(lambda a, outputs=outputs: jnp.exp(one.log_prob(outputs, MASK[:1], a[None]))))
        # In u, where the density of the action has no peaks at the ends.
        nodes, weights = np.polynomial.legendre.leggauss(400)
        before = 9.0 * nodes
        mass = np.asarray(density(np.tanh(before))) * (1 - np.tanh(before) ** 2)
        np.testing.assert_allclose(9.0 * weights @ mass, 1.0, rtol=1e-9)
        np.testing.assert_allclose(mass, stats.norm(MEAN[index], STD[index]).pdf(before), rtol=1e-6, atol=1e-12)
    action = jnp.array([0.3, -0.95])
    log_density = stats.norm(MEAN, STD).logpdf(np.arctanh(action)) - np.log(1 - action**2)
    np.testing.assert_allclose(HEAD.log_prob(OUTPUTS, MASK, action), log_density.sum(), rtol=1e-12)


@pytest.mark.slow
def test_its_entropy_and_divergence_are_the_integrals():
    log_slope = lambda u: 2 * (np.log(2) - u - np.logaddexp(0, -2 * u))  # noqa: E731
    entropy = sum(stats.norm(MEAN[i], STD[i]).entropy() + expected(log_slope, i) for i in range(2))
    np.testing.assert_allclose(HEAD.entropy(OUTPUTS, MASK), entropy, atol=2e-6)

    def log_ratio(i):
        return lambda u: stats.norm(MEAN[i], STD[i]).logpdf(u) - stats.norm(OTHER_MEAN[i], OTHER_STD[i]).logpdf(u)

    divergence = sum(expected(log_ratio(i), i) for i in range(2))
    np.testing.assert_allclose(HEAD.kl(OUTPUTS, OTHER, MASK), divergence, rtol=1e-8)
    np.testing.assert_allclose(HEAD.kl(OUTPUTS, OUTPUTS, MASK), 0.0, atol=1e-12)


def test_its_derivatives_are_differences():
    action = jnp.array([0.3, -0.95])

    def every_function(outputs):
        return HEAD.log_prob(outputs, MASK, action) + HEAD.entropy(outputs, MASK) + HEAD.kl(outputs, OTHER, MASK)

    slopes = jax.jit(jax.grad(every_function))(OUTPUTS)
    value, step = jax.jit(every_function), 1e-6
    found = [(value(OUTPUTS + h) - value(OUTPUTS - h)) / (2 * step) for h in step * jnp.eye(4)]
    np.testing.assert_allclose(slopes, found, rtol=1e-6)


@pytest.mark.slow
def test_samples_are_tangents_of_the_gaussians_and_the_mode_is_the_median():
    key = jax.random.key(0)
    draw = lambda head, key: head.sample(jnp.tile(OUTPUTS, (500, 1)), jnp.tile(MASK, (500, 1)), key=key)  # noqa: E731
    with jax.debug_key_reuse(False):
        samples, plain = draw(HEAD, key), draw(Gaussian(2), key)
    np.testing.assert_array_equal(samples, jnp.tanh(plain))
    np.testing.assert_allclose((samples < HEAD.mode(OUTPUTS, MASK)).mean(0), 0.5, atol=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("mean", [-30.0, 0.0, 30.0])
def test_everything_is_finite_at_the_ends_in_single_precision(mean):
    head, outputs = TanhGaussian(1), jnp.array([mean, 0.2], jnp.float32)

    def every_function(outputs, action):
        mask = jnp.ones(1, bool)
        return head.log_prob(outputs, mask, action) + head.entropy(outputs, mask) + head.kl(outputs, outputs + 1, mask)

    for action in (-1.0, 1.0):
        given = (outputs, jnp.array([action], jnp.float32))
        assert jnp.isfinite(every_function(*given)) and jnp.isfinite(jax.hessian(every_function)(*given)).all()
