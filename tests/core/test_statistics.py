"""Statistics of gradient samples against numpy, known cases, and closed-form moments of mixes on a noisy quadratic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradweave as gw


@pytest.mark.slow
def test_every_field_against_numpy():
    generator = np.random.default_rng(0)
    samples = {"a": generator.normal(2.0, 0.5, (50,)), "b": generator.normal(-1.0, 3.0, (50, 2, 3))}
    reference = {"a": np.array(1.9), "b": generator.normal(-1.0, 0.3, (2, 3))}
    found = gw.estimator_statistics(jax.tree.map(jnp.asarray, samples), jax.tree.map(jnp.asarray, reference))
    for name, values in samples.items():
        mean, variance = values.mean(0), values.var(0, ddof=1)
        np.testing.assert_allclose(found.mean[name], mean)
        np.testing.assert_allclose(found.variance[name], variance)
        np.testing.assert_allclose(found.standard_error[name], np.sqrt(variance / 50))
        np.testing.assert_allclose(found.snr[name], np.abs(mean) / np.sqrt(variance))
        np.testing.assert_allclose(found.bias[name], mean - reference[name])
        np.testing.assert_allclose(found.mse[name], variance + (mean - reference[name]) ** 2)
        agreement = (np.sign(values) == np.sign(reference[name])).mean(0)
        np.testing.assert_allclose(found.sign_agreement[name], agreement)
    flat = np.concatenate([samples["a"][:, None], samples["b"].reshape(50, -1)], 1)
    true = np.concatenate([[reference["a"]], reference["b"].ravel()])
    cosines = flat @ true / np.linalg.norm(flat, axis=1) / np.linalg.norm(true)
    np.testing.assert_allclose(found.cosine, cosines.mean())
    assert found.num_samples == 50
    alone = gw.estimator_statistics(jax.tree.map(jnp.asarray, samples))
    assert alone.bias is None and alone.mse is None
    cosines = []
    for i in range(50):
        others = np.delete(flat, i, axis=0).mean(0)
        cosines.append(flat[i] @ others / np.linalg.norm(flat[i]) / np.linalg.norm(others))
    np.testing.assert_allclose(alone.cosine, np.mean(cosines))


@pytest.mark.slow
def test_known_cases():
    constant = gw.estimator_statistics(jnp.full((4, 2), 3.0))
    assert np.isinf(constant.snr).all() and (constant.sign_agreement == 1).all() and np.isclose(constant.cosine, 1)
    silent = gw.estimator_statistics(jnp.zeros((4, 2)))
    assert (silent.snr == 0).all() and silent.cosine == 0 and (silent.sign_agreement == 0.5).all()
    opposed = gw.estimator_statistics(jnp.array([[1.0, 2.0], [2.0, 4.0]]), -jnp.array([1.0, 2.0]))
    assert np.isclose(opposed.cosine, -1) and (opposed.sign_agreement == 0).all()
    square = gw.estimator_statistics(jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([1.0, 0.0]))
    np.testing.assert_allclose(square.cosine, 0.5)
    np.testing.assert_allclose(gw.estimator_statistics(jnp.array([1.0, -1.0, 3.0])).snr, 0.5)  # mean 1, variance 4


@pytest.mark.parametrize("samples", [jnp.ones(1), jnp.ones((1, 3)), jnp.array(1.0), {}])
def test_too_few_samples_are_refused(samples):
    with pytest.raises(ValueError, match="at least 2 samples"):
        gw.estimator_statistics(samples)


def test_references_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="the reference has structure"):
        gw.estimator_statistics({"a": jnp.ones(3)}, {"b": jnp.array(1.0)})
    with pytest.raises(ValueError, match=r"the reference has shapes .* one sample"):
        gw.estimator_statistics({"a": jnp.ones((3, 2))}, {"a": jnp.array(1.0)})


@pytest.mark.parametrize("batch_size", [None, 1, 4, 10])
def test_samples_do_not_depend_on_the_batch_size(batch_size):
    keys = jax.random.split(jax.random.key(0), 10)

    def sample(key):
        draw = jax.random.normal(key, (3,))
        return {"one": draw, "twice": 2 * draw}

    found = gw.gradient_samples(sample, keys, batch_size=batch_size)
    for i in range(10):
        np.testing.assert_allclose(found["one"][i], jax.random.normal(jax.random.split(jax.random.key(0), 10)[i], (3,)))
    np.testing.assert_array_equal(found["twice"], 2 * found["one"])  # one call, one set of data


# ------------------------------------------------------- the noisy quadratic in one dimension, whose moments are known

CURVATURE, RATE, SHIFT, START, SIGMA, TAU, LENGTH = 0.8, 0.3, 0.5, 2.0, 0.7, 0.4, 5
CONTRACTION = 1 - RATE * CURVATURE
PROBLEM = gw.MetaProblem(
    update=lambda x, eta, noise: (x - RATE * CURVATURE * (x - noise - eta), None),
    outer_loss=lambda x, noise: (0.5 * (x - noise) ** 2, None),
)


def moments():
    """Mean and covariance of x_1 .. x_L for independent noise of deviation SIGMA.

    x_k = c^k x_0 + (1 - c^k) s + sum_{j<k} c^(k-1-j) alpha a xi_j.
    """
    k = np.arange(1, LENGTH + 1)
    influence = np.array(
        [[CONTRACTION ** (i - 1 - j) * RATE * CURVATURE if j < i else 0.0 for j in range(LENGTH)] for i in k]
    )
    return CONTRACTION**k * START + (1 - CONTRACTION**k) * SHIFT, SIGMA**2 * influence @ influence.T


def closed_form(kind, weights):
    """(mean, variance) of a mix: g_k = (1 - c^k)(x_k - zeta_k), h_m = (1 - c^m)(x_L - zeta_L), linear in the noise."""
    means, covariance = moments()
    slopes = np.asarray(weights) * (1 - CONTRACTION ** np.arange(1, LENGTH + 1))
    covariance = covariance + TAU**2 * np.eye(LENGTH)
    if kind is gw.HorizonMix:
        return slopes @ means, slopes @ covariance @ slopes
    return slopes.sum() * means[-1], slopes.sum() ** 2 * covariance[-1, -1]


MIXES = [
    (kind, weights)
    for kind in (gw.TruncationMix, gw.HorizonMix)
    for weights in (gw.uniform_weights(LENGTH), gw.geometric_weights(LENGTH, 0.5), jnp.eye(LENGTH)[-1])
]


@pytest.fixture(scope="module")
def sampled():
    def sample(key):
        inner_key, outer_key = jax.random.split(key)
        inner = SIGMA * jax.random.normal(inner_key, (LENGTH,))
        evaluating = TAU * jax.random.normal(outer_key, (LENGTH,))
        args = (PROBLEM, jnp.array(SHIFT), gw.Unbounded(), jnp.array(START), inner, evaluating)
        return [gw.meta_gradient(*args, estimator=kind(weights)).grad for kind, weights in MIXES]

    keys = jax.random.split(jax.random.key(3), 20_000)
    return jax.jit(lambda keys: gw.gradient_samples(sample, keys, batch_size=1000))(keys)


@pytest.mark.parametrize("index", range(len(MIXES)))
def test_measured_moments_agree_with_the_closed_form(sampled, index):
    kind, weights = MIXES[index]
    mean, variance = closed_form(kind, weights)
    found = gw.estimator_statistics(sampled[index], jnp.asarray(mean))
    assert abs(float(found.bias)) < 3 * float(found.standard_error)
    np.testing.assert_allclose(found.standard_error, np.sqrt(variance / 20_000), rtol=0.05)
    # The sample variance of n Gaussian numbers has a relative standard error of sqrt(2 / (n - 1)), here one per cent.
    assert abs(float(found.variance) / variance - 1) < 3 * np.sqrt(2 / 19_999)
    np.testing.assert_allclose(found.snr, abs(mean) / np.sqrt(variance), rtol=0.05)


def test_mixing_trades_variance_for_bias_on_the_quadratic():
    """What the mixes are for: less variance than the full unroll, and another mean."""
    full = closed_form(gw.HorizonMix, jnp.eye(LENGTH)[-1])
    for kind in (gw.TruncationMix, gw.HorizonMix):
        mixed = closed_form(kind, gw.uniform_weights(LENGTH))
        assert mixed[1] < 0.7 * full[1] and abs(mixed[0] - full[0]) > 0.01


@pytest.mark.slow
def test_noise_does_not_resemble_itself():
    """A sample's cosine to a mean that contains it is about 1 / sqrt(n) too high."""
    noise = jax.random.normal(jax.random.key(0), (300, 32, 4))
    found = jax.vmap(gw.estimator_statistics)(noise)
    for values, expected in ((found.cosine, 0.0), (found.sign_agreement.mean(1), 0.5)):
        error = float(values.std()) / np.sqrt(300)
        assert abs(float(values.mean()) - expected) < 4 * error < 0.03
