"""Noise in a loop of one's own: against Student's t, a gradient known by algebra, and what a run is told."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import gradweave as gw
from gradweave.measurement import noise
from gradweave.measurement.verdict import verdict


def test_intervals_and_words_are_students_where_samples_are_normal():
    draws = np.random.default_rng(0).standard_normal((400, 64)) + 0.25  # half of the means are told from noise
    found = gw.told_from_noise({"rates": draws.T})
    assert len(found.mean) == 400 and found.num_samples == 64
    agree = []
    for index, row in enumerate(draws):
        name = f"rates[{index}]"
        own, student = found.mean[name], stats.ttest_1samp(row, 0.0)
        ends = student.confidence_interval(0.95)
        assert own.value == pytest.approx(row.mean())
        assert found.snr[name].value == pytest.approx(abs(row.mean()) / row.std(ddof=1))
        assert [own.low, own.high] == pytest.approx([*ends], abs=0.25 * (ends.high - ends.low))
        told = not found.verdict.lines[name].startswith("not told")
        agree.append(told == (student.pvalue < 0.05))
    assert np.mean(agree) > 0.93


def test_the_interval_holds_the_gradient_that_algebra_gives():
    """x' = x - eta (x - b), loss (x' - c)^2 / 2, b and c normal: the mean by log(eta) is eta (eta - (1 - eta) x^2)."""
    problem = gw.MetaProblem(
        lambda x, eta, batch: (x - eta["rate"] * (x - batch), None), lambda x, batch: ((x - batch) ** 2 / 2, None)
    )
    spec = {"rate": gw.Positive(), "unused": gw.Fixed()}
    raw = gw.unconstrain({"rate": jnp.float64(0.3), "unused": jnp.float64(1.0)}, spec)

    def sample(key):
        return gw.meta_gradient(problem, raw, spec, jnp.float64(2.0), jax.random.normal(key, (2,)), None).grad

    found = gw.told_from_noise(gw.gradient_samples(sample, jax.random.split(jax.random.key(0), 256)))
    truth = 0.3 * (0.3 - 0.7 * 4.0)
    assert found.mean["rate"].low < truth < found.mean["rate"].high < 0
    assert found.verdict.lines["rate"].startswith("negative, s = ")
    assert found.verdict.lines["unused"] == "0 in every sample"
    with jax.debug_key_reuse(False):
        one = gw.gradient_samples(sample, jax.random.split(jax.random.key(0), 16)[jnp.zeros(16, int)])
    assert gw.told_from_noise(one).verdict.lines["rate"].startswith("the same in every sample, so no verdict")


def test_a_run_is_told_the_same():
    draws = np.random.default_rng(1).standard_normal((32, 2)) + 0.4
    own = gw.told_from_noise({"discount": draws[:, 0], "lambda_": draws[:, 1]}, seed=3)
    assert own.verdict.lines == verdict("HorizonMix", ("discount", "lambda_"), draws, seed=3).lines


def test_it_prints_both_numbers_with_intervals_and_none_of_few(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")  # narrower terminals wrap lines
    draws = np.random.default_rng(2).standard_normal(16) + 1.0
    text = str(gw.told_from_noise(draws))
    assert text.splitlines()[1].startswith("  eta  positive") and text.count("[") == 2
    few = gw.told_from_noise(draws[:7])
    assert "[" not in str(few) and np.isnan(few.mean["eta"].low)
    assert few.verdict.lines["eta"] == "no verdict from fewer than 8 samples"


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        ({"rate": np.ones(1)}, "2 or"),
        ({"rate": np.float64(1.0)}, "2 or"),
        ({"rate": np.ones(8), "decay": np.ones(9)}, "the same number of samples"),
        ({}, "accepted is"),
        ({"rate": np.array([0.0, np.nan, 1.0, np.inf])}, "2 of 4 samples of 'rate' are not finite"),
    ],
)
def test_what_cannot_be_judged_is_refused(samples, says):
    with pytest.raises(ValueError, match=says):
        gw.told_from_noise(samples)


def test_its_example_runs():
    found = doctest.testmod(noise)
    assert (found.failed, found.attempted) == (0, 5)
