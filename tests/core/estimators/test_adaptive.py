"""The mix that adapts: moments are those of the data, weights what the formulas say, and they are worth having."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradweave as gw
from gradweave.core.estimators.adaptive import HorizonMoments

from ..problems import quadratic
from .test_means_and_variances import moments_of_shift

L = 4


def run(estimator, case, num_windows, seed=0):
    """Independent windows from one state, so that moments are stationary: the last memory and all gradients."""

    def window(memory, key):
        inner, outer = jax.random.split(key)
        data = (jax.vmap(case.draw)(jax.random.split(k, L)) for k in (inner, outer))
        result = gw.meta_gradient(
            case.problem, case.raw, case.spec, case.state, *data, estimator=estimator, estimator_state=memory
        )
        return result.estimator_state, (result.grad, memory.weights)

    memory = estimator.init(case.raw, case.spec, case.state)
    return jax.jit(lambda memory, keys: jax.lax.scan(window, memory, keys))(
        memory, jax.random.split(jax.random.key(seed), num_windows)
    )


@pytest.mark.slow
def test_running_moments_are_those_of_the_algebra():
    case, num_windows = quadratic(), 20_000
    memory, _ = run(gw.AdaptiveMix(L, decay=0.99999), case, num_windows)
    (mean, covariance), _ = moments_of_shift(case, L)
    row = list(case.raw).index("shift")
    error = np.sqrt(np.diag(covariance) / num_windows)
    # decay 0.99999 is a plain mean over the first 100,000 windows
    assert float(memory.concentration) == pytest.approx(1 / num_windows)
    assert (np.abs(memory.mean[row] - mean) < 3 * error).all()
    spread = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / num_windows)
    assert (np.abs(memory.covariance[row] - covariance) < 3 * spread).all()


@pytest.mark.slow
def test_running_moments_are_a_weighted_mean_in_a_loop():
    case, decay, num_windows = quadratic(), 0.8, 12
    memory, _ = run(gw.AdaptiveMix(L, decay=decay), case, num_windows)
    every = []
    for key in jax.random.split(jax.random.key(0), num_windows):
        inner, outer = jax.random.split(key)
        data = (jax.vmap(case.draw)(jax.random.split(k, L)) for k in (inner, outer))
        every.append(gw.horizon_gradients(case.problem, case.raw, case.spec, case.state, *data)["rate"])
    every, shares = np.array(every), []
    for n in range(1, num_windows + 1):
        rate = max(1 - decay, 1 / n)
        shares = [share * (1 - rate) for share in shares] + [rate]
    shares = np.array(shares)
    mean = shares @ every
    np.testing.assert_allclose(memory.mean[0], mean, rtol=1e-9)
    np.testing.assert_allclose(memory.covariance[0], (every - mean).T @ (shares[:, None] * (every - mean)), rtol=1e-8)
    assert float(memory.concentration) == pytest.approx((shares**2).sum())


def formula(criterion, mean, covariance, num_samples):
    """The weights in numpy, without safeguards."""
    shrunk = covariance * (1 - criterion.shrinkage) + np.diag(np.diag(covariance)) * criterion.shrinkage
    if isinstance(criterion, gw.SignalToNoise):
        raw = np.linalg.solve(shrunk, mean * np.sign(mean[-1]))
    else:
        bias = mean - mean[-1]
        noise = (
            np.array([(e := np.eye(len(mean))[k] - np.eye(len(mean))[-1]) @ covariance @ e for k in range(len(mean))])
            / num_samples
        )
        bias = np.sign(bias) * np.sqrt(np.maximum(bias**2 - noise, 0))
        raw = np.linalg.solve(shrunk / criterion.num_averaged + np.outer(bias, bias), np.ones(len(mean)))
    raw = np.maximum(raw, 0)
    return raw / raw.sum()


@pytest.mark.slow
@pytest.mark.parametrize(
    "criterion", [gw.SignalToNoise(), gw.SignalToNoise(0.9), gw.LeastError(num_averaged=1.0), gw.LeastError(0.5)]
)
def test_weights_are_those_of_the_formula(criterion):
    memory, _ = run(gw.AdaptiveMix(L, criterion, decay=0.98, warmup=10), quadratic(), 300)
    seen = []
    for row in range(2):
        q = float(memory.concentration)
        expected = formula(criterion, np.asarray(memory.mean[row]), np.asarray(memory.covariance[row]) / (1 - q), 1 / q)
        np.testing.assert_allclose(memory.weights[row], expected, rtol=1e-5, atol=1e-7)
        seen.append(expected)
    assert not np.allclose(seen[0], 1 / L, atol=0.02) and not np.allclose(seen[0], seen[1], atol=0.02)


@pytest.mark.slow
def test_weights_come_from_earlier_windows_only_and_from_none_during_the_warmup():
    case = quadratic()
    memory, (gradients, weights) = run(gw.AdaptiveMix(L, warmup=5), case, 8)
    np.testing.assert_array_equal(weights[:5], np.full((5, 2, L), 1 / L))
    assert not np.allclose(weights[5], 1 / L)
    # Another last window: the estimate changes, its weights do not.
    _, (_, longer) = run(gw.AdaptiveMix(L, warmup=5), case, 8)
    np.testing.assert_array_equal(weights, longer)
    np.testing.assert_allclose(np.asarray(memory.weights).sum(1), 1, rtol=1e-12)
    assert (np.asarray(memory.weights) >= 0).all() and np.isfinite(gradients["rate"]).all()


@pytest.mark.slow
def test_known_moments_give_the_best_mix_of_its_kind():
    mean, covariance = moments_of_shift(quadratic(), L)[0]
    moments = HorizonMoments(jnp.asarray(mean), jnp.asarray(covariance), jnp.asarray(1e12))
    others = [np.eye(L)[k] for k in range(L)] + [np.full(L, 1 / L), np.asarray(gw.geometric_weights(L, 0.6))]
    for averaged in (1.0, 50.0):
        w = np.asarray(gw.LeastError(1e-9, averaged)(moments))
        error = lambda w: w @ covariance @ w / averaged + (w @ mean - mean[-1]) ** 2  # noqa: B023, E731
        assert all(error(w) < error(other) for other in others)
    for case in (quadratic(), agreeing()):
        mean, covariance = moments_of_shift(case, L)[0]
        w = np.asarray(
            gw.SignalToNoise(1e-9)(HorizonMoments(jnp.asarray(mean), jnp.asarray(covariance), jnp.asarray(1e12)))
        )
        # In the direction of the longest horizon: from this start the three shorter ones point the other way.
        ratio = lambda w: np.sign(mean[-1]) * (w @ mean) / np.sqrt(w @ covariance @ w)  # noqa: B023, E731
        assert all(ratio(w) >= ratio(other) - 1e-12 for other in others)


def test_horizons_that_point_the_other_way_are_left_out():
    moments = HorizonMoments(jnp.array([0.5, 0.1, -0.2, -0.4]), jnp.eye(4), jnp.asarray(1e6))
    np.testing.assert_allclose(gw.SignalToNoise()(moments), [0, 0, 1 / 3, 2 / 3], rtol=1e-6)


@pytest.mark.slow
def test_a_bias_within_its_error_counts_as_none():
    mean = jnp.array([0.9, 1.0])
    biased, unsure = (
        gw.LeastError(1.0, 1.0)(HorizonMoments(mean, jnp.diag(jnp.array([1e-4, 4e-4])), jnp.asarray(n)))
        for n in (1e6, 0.01)
    )
    np.testing.assert_allclose(unsure, [0.8, 0.2], rtol=1e-6)  # by the variances alone
    assert biased[0] < 0.1


def test_horizons_alike_up_to_rounding_share_their_weight():
    # The variance of their difference comes out as -2e-12, below that of a bias of exactly 0.
    covariance = jnp.array([[1.0, 1 + 1e-12], [1 + 1e-12, 1.0]])
    weights = gw.LeastError()(HorizonMoments(jnp.ones(2), covariance, jnp.asarray(4.0)))
    np.testing.assert_allclose(weights, [0.5, 0.5], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("criterion", [gw.SignalToNoise(), gw.LeastError()])
def test_without_noise_or_signal_the_longest_horizon_has_all_weight(criterion):
    for mean, covariance in (
        (jnp.arange(3.0), jnp.zeros((3, 3))),
        (jnp.zeros(3), jnp.zeros((3, 3))),
        (jnp.arange(3.0), jnp.diag(jnp.array([1.0, 1.0, 0.0]))),
    ):
        np.testing.assert_array_equal(criterion(HorizonMoments(mean, covariance, jnp.asarray(10.0))), [0, 0, 1])
    np.testing.assert_array_equal(criterion(HorizonMoments(jnp.ones(1), jnp.ones((1, 1)), jnp.asarray(10.0))), [1])


@pytest.mark.slow
def test_the_mix_has_the_signal_to_noise_of_the_best_fixed_ones_on_the_noisy_quadratic():
    case = agreeing()
    _, (adaptive, _) = run(gw.AdaptiveMix(L), case, 6000)
    mean, covariance = moments_of_shift(case, L)[0]
    adaptive = np.asarray(adaptive["shift"])[1000:]
    found = adaptive.mean() / adaptive.std()
    ratios = []
    for weights in (
        gw.uniform_weights(L),
        gw.geometric_weights(L, 0.5),
        gw.geometric_weights(L, 0.9),
        jnp.eye(L)[0],
        jnp.eye(L)[-1],
    ):
        w = np.asarray(weights)
        ratios.append(w @ mean / np.sqrt(w @ covariance @ w))
    assert found > max(ratios) - 3 / np.sqrt(adaptive.size)
    assert found > 1.2 * np.median(ratios)


def agreeing():
    """The quadratic from its optimum: all horizons find the shift too large."""
    case = quadratic()
    return case._replace(state=jnp.zeros(3))
