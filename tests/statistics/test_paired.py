"""Variance ratios and cosines of means: by hand, and their intervals against what they promise."""

import numpy as np
import pytest

from gradweave.statistics.paired import cosine_of_means, variance_ratio

REPETITIONS = 600


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_interval_of_a_paired_variance_ratio_covers_the_truth(confidence):
    rng = np.random.default_rng(1)
    a = rng.standard_normal((100, REPETITIONS))
    b = 2 * (0.8 * a + 0.6 * rng.standard_normal((100, REPETITIONS)))
    ratio = variance_ratio(a, b, confidence=confidence, num_resamples=500).leaves
    assert abs(((ratio.low <= 0.25) & (ratio.high >= 0.25)).mean() - confidence) < 0.035
    apart = variance_ratio(a, b, confidence=confidence, num_resamples=500, paired=False).leaves
    assert (apart.high - apart.low).mean() > 1.3 * (ratio.high - ratio.low).mean()


def test_variance_ratio_by_hand():
    a = np.array([[0.0, 3.0], [2.0, 7.0], [4.0, 5.0]])  # variances 4, 4; means 2, 5
    b = np.array([[1.0, 4.0], [2.0, 5.0], [3.0, 9.0]])  # variances 1, 7; means 2, 6
    ratio = variance_ratio(a, b, num_resamples=50)
    assert ratio.total.value == pytest.approx(1)
    assert ratio.total_scale_free.value == pytest.approx((8 / (29 - 8 / 3)) / (8 / (40 - 8 / 3)))
    assert ratio.leaves.value == pytest.approx([4, 4 / 7])
    free = [(4 / (4 - 4 / 3)) / (1 / (4 - 1 / 3)), (4 / (25 - 4 / 3)) / (7 / (36 - 7 / 3))]
    assert ratio.leaves_scale_free.value == pytest.approx(free)


def test_scale_free_ratio_does_not_see_the_scale():
    rng = np.random.default_rng(7)
    a = 1 + rng.standard_normal((200, 2))
    ratio = variance_ratio(3 * a, a, num_resamples=200)
    assert ratio.total.value == pytest.approx(9)
    assert ratio.total.low == pytest.approx(9)  # pairs move together: nothing is left to chance
    assert ratio.leaves_scale_free.high == pytest.approx([1, 1])
    assert ratio.total_scale_free.low == pytest.approx(1)


def test_of_one_leaf_the_total_is_the_leaf():
    rng = np.random.default_rng(8)
    ratio = variance_ratio(rng.standard_normal(50) + 0.2, 2 * rng.standard_normal(50) + 1, num_resamples=100)
    for total, leaf in ((ratio.total, ratio.leaves), (ratio.total_scale_free, ratio.leaves_scale_free)):
        np.testing.assert_array_equal(np.array(total), np.array(leaf).ravel())


@pytest.mark.slow
@pytest.mark.parametrize("num_leaves", [1, 4])
@pytest.mark.parametrize(("signal_a", "signal_b"), [(0.5, 0.5), (0.2, 0.05), (0.05, 0.2), (0.05, 0.02), (0.02, 0.05)])
def test_scale_free_intervals_hold_the_truth_however_small_the_means(num_leaves, signal_a, signal_b):
    rng = np.random.default_rng(9)
    truth = (signal_b / signal_a) ** 2
    held, held_leaves = [], []
    for seed in range(150):
        b = rng.standard_normal((320, num_leaves))
        a = 0.7 * b + 0.51**0.5 * rng.standard_normal((320, num_leaves))
        ratio = variance_ratio(a + signal_a, b + signal_b, num_resamples=300, seed=seed)
        for found, hits in ((ratio.total_scale_free, held), (ratio.leaves_scale_free, held_leaves)):
            hits.append(np.mean((found.low <= truth) & (found.high >= truth)))
    assert np.mean(held) > 0.9
    assert np.mean(held_leaves) > 0.9


def test_where_no_mean_is_seen_the_scale_free_ratio_is_open():
    rng = np.random.default_rng(10)
    noise = rng.standard_normal((100, 3))
    loud, quiet = noise - noise.mean(0), noise - noise.mean(0) + 2  # without a mean to the last digit, and with one
    assert variance_ratio(loud, loud[::-1], num_resamples=200).total_scale_free.low == 0
    assert variance_ratio(loud, loud[::-1], num_resamples=200).total_scale_free.high == np.inf
    assert np.isnan(variance_ratio(loud, loud[::-1], num_resamples=200).total_scale_free.value)
    assert variance_ratio(loud, quiet, num_resamples=200).total_scale_free.value == np.inf
    assert variance_ratio(quiet, loud, num_resamples=200).total_scale_free.value == 0


def test_variance_ratio_of_a_silent_estimator_is_infinite():
    silent, noisy = np.ones(9), np.arange(9.0)
    assert variance_ratio(noisy, silent, num_resamples=9).total.value == np.inf
    assert variance_ratio(silent, noisy, num_resamples=9).total.value == 0


@pytest.mark.parametrize("order", [1, -1])
def test_free_of_scale_there_is_no_ratio_to_an_estimator_that_is_always_zero(order):
    pair = [np.zeros(50), 1 + np.random.default_rng(4).standard_normal(50)][::order]
    ratio = variance_ratio(*pair, num_resamples=50)
    assert ratio.total.value == (0 if order == 1 else np.inf)
    assert np.isnan(ratio.total_scale_free).all()


def test_two_samples_have_a_ratio_without_nan():
    samples = np.array([[1.0, 2.0], [2.0, 5.0]])  # half of the resamples are one draw twice: 0 / 0
    ratio = variance_ratio(samples, samples, num_resamples=50)
    assert ratio.total == (1, 1, 1)


def test_cosine_of_means_by_hand():
    rng = np.random.default_rng(3)
    a, b = rng.normal([1.0, 0.0, 0.5], size=(50, 3)), rng.normal([0.5, 0.5, 0.0], size=(50, 3))
    shared = sum(np.cov(a[:, leaf], b[:, leaf])[0, 1] for leaf in range(3)) / 50
    norms = [(x.mean(0) ** 2).sum() - x.var(0, ddof=1).sum() / 50 for x in (a, b)]
    expected = (a.mean(0) @ b.mean(0) - shared) / np.sqrt(norms[0] * norms[1])
    found = cosine_of_means(a, b, num_resamples=100)
    assert found.value == pytest.approx(expected)
    assert found.low < found.value < found.high
    assert cosine_of_means(a, -3 * a, num_resamples=100) == (pytest.approx(-1), pytest.approx(-1), pytest.approx(-1))


@pytest.mark.slow
@pytest.mark.parametrize(("signal_a", "signal_b"), [(0.3, 0.5), (0.15, 0.3), (0.1, 0.2), (0.02, 0.02)])
def test_interval_of_a_cosine_of_means_holds_the_truth(signal_a, signal_b):
    rng = np.random.default_rng(4)
    truth = 0.95
    a = signal_a * np.array([truth, (1 - truth**2) ** 0.5, 0.0, 0.0])
    b = signal_b * np.array([1.0, 0.0, 0.0, 0.0])
    hits = []
    for seed in range(150):
        noise = rng.standard_normal((320, 4))
        one = noise + b
        other = 0.5 * noise + 0.75**0.5 * rng.standard_normal((320, 4)) + a
        _, low, high = cosine_of_means(other, one, num_resamples=300, seed=seed)
        hits.append(low <= truth <= high)
    assert np.mean(hits) > 0.9


def test_noise_has_no_direction():
    rng = np.random.default_rng(5)
    noise = rng.standard_normal((64, 4))
    noise -= noise.mean(0)
    found = cosine_of_means(noise, noise + 1, num_resamples=100)
    assert np.isnan(found.value)
    assert (found.low, found.high) == (-1, 1)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: variance_ratio(np.ones((4, 2)), np.ones((4, 3))), "all but the first axis"),
        (lambda: variance_ratio(np.ones((4, 2, 2)), np.ones((4, 2, 2))), "flatten the leaves"),
        (lambda: variance_ratio(np.ones(4), np.ones(5)), "paired=False"),
        (lambda: variance_ratio(np.ones(1), np.ones(1)), "at least 2"),
        (lambda: cosine_of_means(np.ones((4, 2)), np.ones((5, 2))), "cannot be paired"),
        (lambda: cosine_of_means(np.ones((4, 2)), np.ones((4, 2)), confidence=1.0), "strictly between"),
    ],
)
def test_bad_input_is_explained(call, match):
    with pytest.raises(ValueError, match=match):
        call()
