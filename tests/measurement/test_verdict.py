"""The verdict in words: against moments worked out by hand, pure noise, and estimators the samples do not have."""

import numpy as np
import pytest

from gradweave.core import (
    AdaptiveMix,
    Bootstrapped,
    HorizonMix,
    TruncationMix,
    Unrolled,
    uniform_weights,
)
from gradweave.measurement.cross_fitting import cross_fitted_mix
from gradweave.measurement.sampling import GradientSamples
from gradweave.measurement.verdict import sampled_verdict, verdict

NAMES = ("discount", "learning_rate", "lambda_", "value_cost")


def draws(count=64):
    samples = np.random.default_rng(0).standard_normal((count, 4)) + np.array([0, 1, -0.5, 0])
    samples[:, 3] = 0
    return samples


def test_sign_and_windows_are_those_of_the_moments():
    samples = draws()
    lines = verdict("HorizonMix", NAMES, samples).lines
    assert "noise" in lines["discount"]
    assert lines["value_cost"].startswith("0 ")
    for place, sign in ((1, "positive"), (2, "negative")):
        ratio = abs(samples[:, place].mean()) / samples[:, place].std(ddof=1)
        line = lines[NAMES[place]]
        assert line.startswith(sign) and f"s = {ratio:.2g}:" in line and f" {np.ceil(4 / ratio**2):.0f} windows" in line


def test_a_mean_without_noise_takes_one_window():
    assert verdict("Unrolled", ("rate",), np.full((8, 1), -2.0)).lines["rate"].endswith(" 1 window")


def test_noise_is_told_from_noise_as_often_as_intervals_miss():
    names = [f"rate {index}" for index in range(300)]
    lines = verdict("HorizonMix", names, np.random.default_rng(1).standard_normal((64, 300))).lines
    told = np.mean([not line.startswith("not told") for line in lines.values()])
    assert 0.02 < told < 0.09


@pytest.mark.parametrize("count", [7, 64])
def test_lines_fit_a_narrow_terminal(count):
    found = verdict("HorizonMix", NAMES, draws(count))
    assert all(line.startswith("no verdict") for line in found.lines.values()) == (count == 7)
    rows = found.text(60).splitlines()
    assert max(map(len, rows)) <= 60
    assert [row.split()[0] for row in rows[-4:]] == ["discount", "learning_rate", "lambda", "value_cost"]
    assert "\n" not in found.text().split(found.heading)[0] and len(found.text().splitlines()) == 5


def samples_of(count=32, length=3):
    table = np.random.default_rng(2).standard_normal((count, length, length, 2)) + 0.3
    return GradientSamples(("discount", "lambda_"), table * np.tri(length)[..., None])  # none of later updates


def test_the_estimator_is_the_one_that_the_agent_trains_with():
    samples = samples_of()
    horizons = samples.contributions.sum(2)
    weights = np.array([0.25, 0.75])
    expected = [
        (HorizonMix(weights), 0.25 * horizons[:, 0] + 0.75 * horizons[:, 1]),
        (Unrolled(), horizons[:, 1]),
        (AdaptiveMix(2), cross_fitted_mix(samples._replace(contributions=samples.contributions[:, :2, :2])).estimates),
    ]
    for estimator, estimates in expected:
        name = type(estimator).__name__
        found = sampled_verdict(estimator, 2, samples)
        assert found == verdict(name, samples.names, estimates)


@pytest.mark.parametrize(
    ("estimator", "length", "count"),
    [
        (Bootstrapped(1), 3, 32),
        (TruncationMix(uniform_weights(4)), 4, 32),
        (AdaptiveMix(3), 3, 3),
    ],
)
def test_no_verdict_on_what_the_samples_do_not_have(estimator, length, count):
    assert sampled_verdict(estimator, length, samples_of(count)) is None
