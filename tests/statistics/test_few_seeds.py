"""Bootstrap intervals against scipy and against their promise; aggregates against scipy and by hand."""

import numpy as np
import pytest
import scipy.stats

from gradweave.statistics.bootstrap import bca_interval, bootstrap_interval, percentile_interval, resampled_counts
from gradweave.statistics.few_seeds import interquartile_mean, probability_of_improvement, stratified_interval

REPETITIONS = 600


def variance_quotient(a, b, axis):
    return a.var(axis, ddof=1) / b.var(axis, ddof=1)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_intervals_of_a_skewed_mean_cover_the_truth(method, confidence):
    samples = np.random.default_rng(0).exponential(size=(60, REPETITIONS))
    estimate = bootstrap_interval(np.mean, samples, method=method, confidence=confidence, num_resamples=600)
    covered = ((estimate.low <= 1) & (estimate.high >= 1)).mean()
    assert abs(covered - confidence) < 0.035
    # and is no wider than it has to be: twice the normal quantile times the standard error
    width = 2 * scipy.stats.norm.ppf((1 + confidence) / 2) / np.sqrt(60)
    assert (estimate.high - estimate.low).mean() == pytest.approx(width, rel=0.1)


@pytest.mark.slow
def test_stratified_interval_covers_the_truth():
    rng = np.random.default_rng(2)
    hits = 0
    for seed in range(400):
        scores = rng.standard_normal((12, 3)) + np.array([0.0, 5.0, 10.0])
        _, low, high = stratified_interval(np.mean, scores, confidence=0.9, num_resamples=200, seed=seed)
        hits += bool(low <= 5.0 <= high)
    assert abs(hits / 400 - 0.9) < 0.05


@pytest.mark.parametrize(("num_seeds", "expected"), [(3, 0.75), (5, 0.90), (10, 0.92), (20, 0.94)])
def test_interval_of_an_interquartile_mean_over_few_seeds(num_seeds, expected):
    # Resampling knows no spread beyond that of the seeds there are: a handful of them promises 95 % and holds less.
    scores = np.random.default_rng(num_seeds).standard_normal((num_seeds, REPETITIONS))
    _, low, high = bootstrap_interval(interquartile_mean, scores, num_resamples=400)
    assert abs(((low <= 0) & (high >= 0)).mean() - expected) < 0.04
    # on one task the stratified interval is this one
    one = stratified_interval(interquartile_mean, scores[:, 0], num_resamples=400)
    np.testing.assert_allclose(one, (one.value, low[0], high[0]), atol=0.35)


@pytest.mark.slow
def test_interval_of_a_probability_of_improvement_covers_the_truth():
    rng = np.random.default_rng(8)
    truth = scipy.stats.norm.cdf(1 / np.sqrt(2))  # P(a > b) of two unit normals, one apart
    hits = 0
    for seed in range(150):
        scores = rng.standard_normal((2, 12)) + np.array([[1.0], [0.0]])
        _, low, high = stratified_interval(probability_of_improvement, *scores, num_resamples=100, seed=seed)
        hits += bool(low <= truth <= high)
    assert abs(hits / 150 - 0.93) < 0.05


@pytest.mark.parametrize(("method", "name"), [("percentile", "percentile"), ("bca", "BCa")])
def test_intervals_are_those_of_scipy(method, name):
    rng = np.random.default_rng(3)
    a = rng.exponential(size=(40, 3))
    b = a + rng.standard_normal((40, 3))
    for samples, paired in (((a,), True), ((a, b), True), ((a, b[:30]), False)):
        statistic = np.mean if len(samples) == 1 else variance_quotient
        options = {"confidence_level": 0.9, "method": name, "n_resamples": 20_000, "axis": 0, "paired": paired}
        expected = scipy.stats.bootstrap(
            samples, statistic, rng=np.random.default_rng(5), **options
        ).confidence_interval
        options = {"paired": paired, "method": method, "confidence": 0.9, "num_resamples": 20_000}
        _, low, high = bootstrap_interval(statistic, *samples, **options)
        # two draws of 20 000 resamples: what is left is their noise
        np.testing.assert_allclose(low, expected.low, rtol=0.03)
        np.testing.assert_allclose(high, expected.high, rtol=0.03)


def test_quantiles_are_those_of_numpy():
    resampled = np.random.default_rng(4).standard_normal((101, 2, 3))
    low, high = percentile_interval(resampled, 0.83)
    np.testing.assert_allclose(low, np.quantile(resampled, 0.085, axis=0))
    np.testing.assert_allclose(high, np.quantile(resampled, 0.915, axis=0))


def test_quantiles_beside_infinite_numbers():
    resampled = np.array([-np.inf, 1.0, 2.0, 3.0, np.inf])
    assert percentile_interval(resampled, 0.6) == (-np.inf, np.inf)
    assert percentile_interval(resampled, 0.5) == (1, 3)
    assert percentile_interval(resampled, 0.4) == pytest.approx((1.2, 2.8))


def test_bca_without_bias_and_skewness_is_percentile():
    resampled = np.linspace(-1, 1, 2001)[:, None]
    jackknifed = [np.array([[-1.0], [0.0], [1.0]])]
    ends = bca_interval(np.zeros(1), resampled, jackknifed, 0.9)
    np.testing.assert_allclose(ends, percentile_interval(resampled, 0.9), atol=1e-3)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_constant_samples_have_an_interval_of_no_width(method):
    assert bootstrap_interval(np.mean, np.full(5, 3.0), method=method) == (3.0, 3.0, 3.0)


def test_counts_resample_like_indices():
    counts = resampled_counts(7, 5000, seed=1)
    assert (counts.sum(1) == 7).all()
    assert counts.mean() == 1
    # the number of times that one draw occurs is binomial(7, 1/7)
    assert counts.var() == pytest.approx(6 / 7, rel=0.03)


def test_intervals_are_reproducible_and_batches_do_not_show(monkeypatch):
    samples = np.random.default_rng(6).standard_normal(50)
    first = bootstrap_interval(np.mean, samples, seed=3)
    assert first == bootstrap_interval(np.mean, samples, seed=3)
    assert first != bootstrap_interval(np.mean, samples, seed=4)
    monkeypatch.setattr("gradweave.statistics.bootstrap._MAX_ELEMENTS", 50 * 7)
    assert bootstrap_interval(np.mean, samples, seed=3) == first


@pytest.mark.parametrize("count", [1, 3, 4, 5, 10, 17])
def test_interquartile_mean_is_a_trimmed_mean(count):
    scores = np.random.default_rng(count).standard_normal((count, 3))
    assert interquartile_mean(scores) == pytest.approx(scipy.stats.trim_mean(scores, 0.25, axis=None))
    np.testing.assert_allclose(interquartile_mean(scores, axis=0), scipy.stats.trim_mean(scores, 0.25, axis=0))


def test_probability_of_improvement_by_hand():
    # task 1: a beats b in (3, 1), (3, 2), (2, 1) and ties in (2, 2): 3.5 of 4; task 2: never
    a = np.array([[3.0, 0.0], [2.0, 0.0]])
    b = np.array([[1.0, 9.0], [2.0, 9.0]])
    assert probability_of_improvement(a, b) == pytest.approx((3.5 / 4 + 0) / 2)
    assert probability_of_improvement(b, a) == pytest.approx(1 - 3.5 / 8)
    assert probability_of_improvement([5.0, 6.0, 7.0], [1.0, 2.0]) == 1
    estimate = stratified_interval(probability_of_improvement, [5.0, 6.0, 7.0], [1.0, 2.0], num_resamples=20)
    assert estimate == (1.0, 1.0, 1.0)


def test_stratified_resampling_keeps_tasks_apart():
    scores = np.tile([[0.0, 100.0]], (6, 1))  # no spread within a task, a large one between them
    assert stratified_interval(interquartile_mean, scores, num_resamples=50) == (50.0, 50.0, 50.0)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: bootstrap_interval(np.mean), "no sample"),
        (lambda: bootstrap_interval(np.mean, [1.0]), "at least 2"),
        (lambda: bootstrap_interval(variance_quotient, [1.0, 2.0], [1.0, 2.0, 3.0]), "paired=False"),
        (lambda: bootstrap_interval(np.mean, [1.0, 2.0], confidence=1.0), "strictly between 0 and 1"),
        (lambda: bootstrap_interval(np.mean, [1.0, 2.0], num_resamples=0), "at least 1"),
        (lambda: interquartile_mean([]), "nothing to average"),
        (lambda: stratified_interval(np.mean, [[1.0]]), "at least 2 runs"),
        (lambda: stratified_interval(np.mean, [1.0, 2.0], confidence=0.0), "strictly between"),
        (lambda: probability_of_improvement(np.ones((2, 2)), np.ones((2, 3))), "number of tasks"),
        (lambda: probability_of_improvement([1.0, np.nan], [1.0, 2.0]), "is NaN"),
        (lambda: interquartile_mean([1.0, 2.0, 3.0, np.nan]), "is NaN"),
    ],
)
def test_bad_input_is_explained(call, match):
    with pytest.raises(ValueError, match=match):
        call()
