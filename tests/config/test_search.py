"""Ranges to search: scales, ends and refusals."""

import random

import pytest

from gradweave.config.learners import LEARNERS
from gradweave.config.search import SearchRange, draw, parse_search, perturbed
from gradweave.errors import ConfigError

HYPERPARAMETERS = LEARNERS["ppo"].hyperparameters


def test_each_range_has_its_scale():
    entries = [
        "learning-rate=1e-5:0.1",
        "discount=0.9:0.999",
        "lambda=0.01:1",
        "clip_range=0.05:0.5",
        "entropy-cost=0:1",
    ]
    found = parse_search(entries, HYPERPARAMETERS)
    assert list(found) == ["learning_rate", "discount", "lambda_", "clip_range", "entropy_cost"]
    assert found["clip_range"].at(0.5) == pytest.approx(0.025**0.5)
    assert found["learning_rate"].at(0.5) == pytest.approx(1e-3)  # the geometric mean
    assert found["discount"].at(0.5) == pytest.approx(0.99)  # that of the distances to 1
    assert found["lambda_"].at(0.5) == pytest.approx(0.505)  # evenly up to 1, and from 0
    assert found["entropy_cost"].at(0.25) == pytest.approx(0.25)
    for limits in found.values():
        assert (limits.at(0.0), limits.at(1.0)) == pytest.approx((limits.low, limits.high))


def test_a_perturbed_value_stays_in_its_range():
    assert SearchRange(0.9, 0.99, below_one=True).times(0.95, 1.2) == pytest.approx(1 - 1.2 * 0.05)
    assert SearchRange(0.9, 0.99, below_one=True).times(0.99, 0.8) == 0.99
    assert SearchRange(0.1, 1.0).times(0.1, 0.8) == 0.1
    rng, ranges = random.Random(0), {"a": SearchRange(0.0, 10.0), "b": SearchRange(0.0, 10.0)}
    moved = [perturbed(ranges, {"a": 1.0, "b": 2.0}, rng) for _ in range(20)]
    assert {round(setting["a"], 9) for setting in moved} == {0.8, 1.2}
    assert {round(setting["b"], 9) for setting in moved} == {1.6, 2.4}


def test_draws_cover_the_range():
    rng, ranges = random.Random(0), {"rate": SearchRange(1e-4, 1.0)}
    values = [draw(ranges, rng)["rate"] for _ in range(400)]
    assert 0.4 < sum(value < 1e-2 for value in values) / 400 < 0.6


@pytest.mark.parametrize(
    ("entries", "remedy"),
    [
        ([], "leave --search out"),
        (["learning_rate"], "two numbers with a colon"),
        (["learning_rate=1e-3"], "two numbers with a colon"),
        (["learning_rate=1:2:3"], "two numbers with a colon"),
        (["learning_rat=1e-4:1e-3"], "did you mean learning_rate=1e-4:1e-3"),
        (["learning_rate=1e-3:1e-4"], "other ends"),
        (["learning_rate=0:1e-3"], "other ends"),
        (["clip_range=0:0.5"], "other ends"),
        (["discount=0.5:1.5"], "other ends"),
        (["discount=0.5:0.9", "discount=0.6:0.9"], "every name once"),
    ],
)
def test_what_cannot_be_searched_is_refused(entries, remedy):
    with pytest.raises(ConfigError, match=remedy):
        parse_search(entries, HYPERPARAMETERS)
