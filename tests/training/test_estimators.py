"""Rows of the tables of estimators and modes against the classes that they build."""

import jax.numpy as jnp
import numpy as np
import pytest

from gradweave.config.estimators import ESTIMATORS, EstimatorRow, parse_estimator
from gradweave.config.modes import MODES, parse_mode
from gradweave.core import (
    AbstractEstimator,
    AbstractLinearEstimator,
    AbstractMode,
    AdaptiveMix,
    HorizonMix,
    LeastError,
    ReverseMode,
    TruncationMix,
    euclidean_distance,
    geometric_weights,
    uniform_weights,
)
from gradweave.core.estimators.base import chosen_mode
from gradweave.training.estimators import make_estimator, make_mode

LENGTH = 4


def built(text: str) -> AbstractEstimator:
    return make_estimator(parse_estimator(text, LENGTH), num_inner_steps=LENGTH, distance=euclidean_distance)


def first_text(row: EstimatorRow) -> str:
    needed = row.argument is not None and row.argument.default is None
    return f"{row.name}:2" if needed else row.name


@pytest.mark.parametrize("row", ESTIMATORS, ids=lambda row: row.name)
def test_a_row_says_of_its_class_what_is_true(row: EstimatorRow) -> None:
    estimator = built(first_text(row))
    estimator.check(LENGTH)
    assert isinstance(estimator, AbstractLinearEstimator) == row.linear
    served = []
    for mode in MODES:
        try:
            chosen_mode(estimator, make_mode(parse_mode(mode.name, ESTIMATORS[0], LENGTH)))
            served.append(mode.name)
        except TypeError:
            pass
    assert set(served) == set(row.modes)


@pytest.mark.parametrize("row", MODES, ids=lambda row: row.name)
def test_every_mode_is_built(row: EstimatorRow) -> None:
    assert isinstance(make_mode(parse_mode(row.name, ESTIMATORS[0], LENGTH)), AbstractMode)


def test_arguments_arrive() -> None:
    assert make_mode(parse_mode("reverse:3", ESTIMATORS[0], LENGTH)) == ReverseMode(3)
    values = {
        ("truncated:3", "length"): 3,
        ("trace:0.25", "decay"): 0.25,
        ("bootstrapped:2", "target_steps"): 2,
        ("random-truncation:0.75", "probability"): 0.75,
        ("adaptive-mix", "num_inner_steps"): LENGTH,
        ("bootstrapped:2", "distance"): euclidean_distance,
    }
    for (text, field), value in values.items():
        assert getattr(built(text), field) == value
    least = built("adaptive-mix:least-error")
    assert isinstance(least, AdaptiveMix) and isinstance(least.criterion, LeastError)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("", uniform_weights(LENGTH)),
        (":uniform", uniform_weights(LENGTH)),
        (":geometric:0.3", geometric_weights(LENGTH, 0.3)),
        (":0.3", geometric_weights(LENGTH, 0.3)),
        (":0.4,0.3,0.2,0.1", jnp.array([0.4, 0.3, 0.2, 0.1])),
    ],
)
def test_weights_are_those_that_are_written(weights: str, expected: jnp.ndarray) -> None:
    for name, kind in (("horizon-mix", HorizonMix), ("truncation-mix", TruncationMix)):
        estimator = built(name + weights)
        assert type(estimator) is kind
        np.testing.assert_array_equal(estimator.weights, expected)  # type: ignore[attr-defined]


def test_a_horizon_is_a_mix_of_one() -> None:
    estimator = built("horizon:2")
    assert isinstance(estimator, HorizonMix)
    assert estimator.weights.tolist() == [0, 1, 0, 0]
