"""The cross-fitted mix, estimators by name, samples kept on the disk."""

import time

import jax.numpy as jnp
import numpy as np
import pytest

from gradweave.config.estimators import measurable_estimator
from gradweave.core import SignalToNoise
from gradweave.core.estimators.adaptive import HorizonMoments
from gradweave.errors import ConfigError
from gradweave.measurement.cross_fitting import cross_fitted_mix
from gradweave.measurement.estimates import compare, first_steps, named_estimates
from gradweave.measurement.sample_store import SampleStore, current_source
from gradweave.measurement.sampling import GradientSamples, default_estimators, estimator_samples

LENGTH = 3


def random_samples(count=40, seed=0):
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((count, LENGTH, LENGTH, 2)) * np.tri(LENGTH)[..., None]
    return GradientSamples(("discount", "lambda_"), table + 0.3 * np.tri(LENGTH)[..., None])


@pytest.mark.slow
def test_weights_of_a_fold_come_from_the_others():
    samples = random_samples(10)
    found = cross_fitted_mix(samples, num_folds=2)
    others = samples.horizons[1::2, :, 0]  # sample 0 lies in the fold of even numbers
    moments = HorizonMoments(jnp.asarray(others.mean(0)), jnp.asarray(np.cov(others, rowvar=False)), jnp.asarray(5.0))
    expected = np.asarray(SignalToNoise()(moments)) @ samples.horizons[0, :, 0]
    assert found.estimates[0, 0] == pytest.approx(expected, rel=1e-6)
    assert found.weights.shape == (2, LENGTH)
    np.testing.assert_allclose(found.weights.sum(1), 1)


@pytest.mark.slow
def test_cross_fitting_does_not_flatter():
    # Pure noise has no signal; weights chosen on the very samples they are scored on would find some.
    rng = np.random.default_rng(3)
    ratios = []
    for _ in range(60):
        table = rng.standard_normal((30, LENGTH, LENGTH, 1)) * np.tri(LENGTH)[..., None]
        estimates = cross_fitted_mix(GradientSamples(("discount",), table)).estimates[:, 0]
        ratios.append(estimates.mean() / estimates.std(ddof=1))
    assert abs(np.mean(ratios)) < 3 * np.std(ratios) / 60**0.5


def test_a_mix_needs_four_samples():
    with pytest.raises(ValueError, match="at least 4"):
        cross_fitted_mix(random_samples(3))
    assert cross_fitted_mix(random_samples(4)).estimates.shape == (4, 2)


@pytest.mark.parametrize("num_folds", [1, 6])
def test_too_few_or_too_many_folds(num_folds):
    with pytest.raises(ValueError, match="between 2 and 5"):
        cross_fitted_mix(random_samples(10), num_folds=num_folds)


@pytest.mark.slow
def test_names_mean_estimators():
    samples = random_samples()
    names = ("unrolled", "truncated:1", "horizon:2", "horizon-mix:uniform", "truncation-mix:0.5", "adaptive-mix")
    found = named_estimates(samples, (*names, "adaptive-mix:least-error"))
    usual = estimator_samples(samples, default_estimators(LENGTH))
    np.testing.assert_allclose(found["unrolled"], usual["unrolled"])
    np.testing.assert_allclose(found["truncated:1"], usual["truncated 1"])
    np.testing.assert_allclose(found["horizon:2"], samples.horizons[:, 1])
    np.testing.assert_allclose(found["horizon-mix:uniform"], usual["horizon-mix uniform"])
    np.testing.assert_allclose(found["truncation-mix:0.5"], usual["truncation-mix 0.5"])
    np.testing.assert_allclose(found["adaptive-mix"], cross_fitted_mix(samples).estimates)
    assert not np.allclose(found["adaptive-mix"], found["adaptive-mix:least-error"])


@pytest.mark.parametrize("name", ["unroll", "truncated:4", "horizon-mix:2", "trace", "bootstrapped"])
def test_what_samples_do_not_hold_is_refused(name):
    with pytest.raises(ConfigError) as raised:
        measurable_estimator(name, LENGTH)
    assert raised.value.field == "--estimators"
    assert "truncat" in raised.value.accepted or "WEIGHTS" in raised.value.accepted


def test_estimators_of_a_short_window_are_compared_with_a_long_one():
    samples = random_samples()
    summaries, single = compare(samples, 2, ("truncated:1", "unrolled"))
    assert list(summaries) == ["truncated:1", "unrolled"]
    assert list(single) == ["horizon 1", "horizon 2", "truncation 1", "truncation 2"]
    short = first_steps(samples, 2)
    assert short.contributions.shape == (40, 2, 2, 2)
    expected = short.horizons[:, 1].mean(0) - samples.horizons[:, 2].mean(0)
    np.testing.assert_allclose(summaries["unrolled"].bias.value, expected)
    assert summaries["truncated:1"].variance_ratio.total.value == 1


def test_a_store_keeps_refuses_and_goes_on(tmp_path):
    settings = {"run": "a", "seed": 1, "weights": (1, 2)}
    store = SampleStore(tmp_path / "new" / "samples.npz", settings, seconds_between=60.0)
    assert store.known() is None
    samples = np.random.default_rng(0).standard_normal((3, 2))
    store.keep(samples)
    assert store.known() is None, "the first writing waits"
    store.keep(samples, now=True)
    store.keep(samples[:1])
    np.testing.assert_array_equal(store.known(), samples)
    np.testing.assert_array_equal(SampleStore(tmp_path / "new" / "samples.npz", settings).known(), samples)
    with pytest.raises(ConfigError, match="seed = 2"):
        SampleStore(tmp_path / "new" / "samples.npz", {**settings, "seed": 2}).known()
    eager = SampleStore(tmp_path / "new" / "samples.npz", settings, seconds_between=0.0)
    time.sleep(0.01)
    eager.keep(samples[:2])
    assert len(eager.known()) == 2
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["samples.npz"]
    whole = (tmp_path / "new" / "samples.npz").read_bytes()
    for broken in (b"PK, but not really", b"", whole[:-30]):
        (tmp_path / "new" / "samples.npz").write_bytes(broken)
        with pytest.raises(ConfigError, match="unreadable"):
            store.known()
    store.remove()
    store.remove()
    assert store.known() is None


def test_a_store_names_the_code_that_drew_its_samples(tmp_path):
    path, samples = tmp_path / "samples.npz", np.ones((3, 2))
    np.savez(path, samples=samples[:1], settings=np.array('{"seed": 1}'))  # as it was before sources were kept
    unknown, first, second = ({"commit": commit, "modified": False} for commit in (None, "a", "b"))
    unknown["modified"] = None
    reader = SampleStore(path, {"seed": 1})
    assert len(reader.known()) == 1
    assert reader.sources == [unknown]
    for count, source, expected in ((2, first, [unknown, first]), (3, second, [unknown, first, second])):
        store = SampleStore(path, {"seed": 1}, source=source)
        known = store.known()
        store.keep(known, now=True)
        assert source not in store.sources, "nothing was drawn yet"
        store.keep(samples[:count], now=True)
        reader.known()
        assert reader.sources == store.sources == expected


def test_a_store_says_why_it_cannot_be_read(tmp_path):
    (tmp_path / "link.npz").symlink_to("elsewhere.npz")
    with pytest.raises(ConfigError, match=r"symbolic link, which is not followed\)"):
        SampleStore(tmp_path / "link.npz", {}).known()


def test_a_new_store_has_one_source(tmp_path):
    source = current_source()
    assert set(source) == {"commit", "modified"}
    store = SampleStore(tmp_path / "samples.npz", {}, source=source)
    assert store.known() is None and store.sources == []
    for count in (1, 2):
        store.keep(np.ones((count, 2)), now=True)
    store.known()
    assert store.sources == [source]
