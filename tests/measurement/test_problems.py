"""Samples of any meta-problem: against meta-gradients of the same windows, by hand, and what is refused."""

import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradweave as gw
from gradweave.measurement.cross_fitting import cross_fitted_mix
from gradweave.measurement.problems import measure_problem, sample_estimator
from gradweave.measurement.sampling import estimator_samples, single_estimates

LENGTH = 3
SPEC = {"rate": gw.Positive(), "shift": gw.Unbounded(), "held": gw.Fixed()}
PROBLEM = gw.MetaProblem(
    lambda x, eta, batch: (x - eta["rate"] * eta["held"] * (x - batch - eta["shift"]) ** 3, None),
    lambda x, batch: ((x - batch) ** 2, None),
)
STATE = jnp.asarray(0.5)
STUDY = Path(__file__).parents[2] / "experiments" / "noisy-quadratic"


def raw():
    return gw.unconstrain({"rate": jnp.asarray(0.1), "shift": jnp.asarray(0.3), "held": jnp.asarray(0.7)}, SPEC)


def draw(key, length=LENGTH):
    inner, outer = jax.random.normal(key, (2, length))
    return inner, outer


@pytest.fixture(name="samples", scope="module")
def make_samples():
    return measure_problem(PROBLEM, raw(), SPEC, STATE, draw, key=jax.random.key(1), num_samples=6, batch_size=4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator", [gw.Unrolled(), gw.Truncated(2), gw.HorizonMix(gw.geometric_weights(LENGTH, 0.5))]
)
def test_samples_are_meta_gradients_of_the_drawn_windows(samples, estimator):
    assert samples.names == ("rate", "shift")
    found = estimator_samples(samples, {"it": estimator})["it"]
    for row, key in zip(found, jax.random.split(jax.random.key(1), 6), strict=True):
        grad = gw.meta_gradient(PROBLEM, raw(), SPEC, STATE, *draw(key), estimator=estimator).grad
        np.testing.assert_allclose(row, [grad["rate"], grad["shift"]], rtol=1e-9)
    same = sample_estimator(
        PROBLEM, raw(), SPEC, STATE, draw, estimator, key=jax.random.key(1), num_samples=6, batch_size=None
    )
    np.testing.assert_allclose(same, found, rtol=1e-9)


def test_horizons_and_windows_are_shorter_windows(samples):
    key = jax.random.split(jax.random.key(1), 6)[2]
    inner, outer = draw(key)
    grad = gw.meta_gradient(PROBLEM, raw(), SPEC, STATE, inner[:2], outer[:2]).grad
    np.testing.assert_allclose(single_estimates(samples)["horizon 2"][2], [grad["rate"], grad["shift"]], rtol=1e-9)


@pytest.mark.slow
def test_online_windows_have_one_batch_more():
    def online(key):
        return jax.random.normal(key, (LENGTH + 1,)), None

    found = measure_problem(PROBLEM, raw(), SPEC, STATE, online, key=jax.random.key(1), num_samples=2)
    key = jax.random.split(jax.random.key(1), 2)[1]
    grad = gw.meta_gradient(PROBLEM, raw(), SPEC, STATE, *online(key)).grad
    np.testing.assert_allclose(found.horizons[1, -1], [grad["rate"], grad["shift"]], rtol=1e-9)
    options = {"key": jax.random.key(1), "num_samples": 2, "num_windows": 2}
    with pytest.raises(ValueError, match="outer batches"):
        sample_estimator(PROBLEM, raw(), SPEC, STATE, online, gw.Unrolled(), **options)


@pytest.mark.slow
def test_persistent_evolution_strategies_see_through_several_windows():
    def still(key):
        del key
        return draw(jax.random.key(5), 4)

    options = {"key": jax.random.key(2), "num_samples": 600, "num_windows": 2}
    estimator = gw.PersistentEvolutionStrategies(0.01, num_pairs=4)
    found = sample_estimator(PROBLEM, raw(), SPEC, STATE, still, estimator, **options)
    truth = gw.meta_gradient(PROBLEM, raw(), SPEC, STATE, *still(jax.random.key(0))).grad
    error = found.std(0, ddof=1) / 600**0.5
    assert (np.abs(found.mean(0) - [truth["rate"], truth["shift"]]) < 3 * error).all()
    with pytest.raises(ValueError, match="not 3 windows"):
        sample_estimator(
            PROBLEM, raw(), SPEC, STATE, still, estimator, key=jax.random.key(2), num_samples=2, num_windows=3
        )


@pytest.mark.parametrize(("spec", "num_samples"), [(SPEC, 1), (dict.fromkeys(SPEC, gw.Fixed()), 4)])
def test_what_cannot_be_measured_is_refused(spec, num_samples):
    start = gw.unconstrain({"rate": jnp.asarray(0.1), "shift": jnp.asarray(0.3), "held": jnp.asarray(0.7)}, spec)
    with pytest.raises(ValueError, match="at least"):
        measure_problem(PROBLEM, start, spec, STATE, draw, key=jax.random.key(0), num_samples=num_samples)


@pytest.mark.slow
def test_the_closed_form_of_the_noisy_quadratic(monkeypatch):
    """Against 20,000 samples: means within four standard errors, covariances within a few per cent."""
    monkeypatch.syspath_prepend(STUDY)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    try:
        spec = importlib.util.spec_from_file_location("noisy_quadratic_run", STUDY / "run.py")
        study = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(study)
        closed = sys.modules["closed_form"]
    finally:
        for name in ("sweep", "closed_form"):
            sys.modules.pop(name, None)
    samples = measure_problem(*study.problem(5), key=jax.random.key(3), num_samples=20_000)
    for steps in (np.ones(5), np.array([0.1, 0.5, 1.0, 2.0, 0.3])):
        weighted = np.einsum("nkjp,j->nkp", samples.contributions, steps)
        for index, moments in enumerate(closed.horizon_moments(steps).values()):
            own = weighted[:, :, index]
            z = (own.mean(0) - moments.mean) / (own.std(0) / len(own) ** 0.5)
            assert np.abs(z).max() < 4
            scale = np.sqrt(np.outer(np.diag(moments.covariance), np.diag(moments.covariance)))
            assert (np.abs(np.cov(own, rowvar=False) - moments.covariance) / scale).max() < 0.06
    cross = cross_fitted_mix(samples)
    found = study.exact_weights(closed.horizon_moments(np.ones(5))["shift"], gw.SignalToNoise(), 20_000)
    np.testing.assert_allclose(cross.weights[1], found, atol=0.02)
