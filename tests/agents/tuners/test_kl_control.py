"""The learning rate that moves a policy by a wanted divergence, against the closed form."""

import math
from typing import Any

import jax.numpy as jnp
import pytest

from gradweave.agents.tuners import KLControl, Seen
from gradweave.rl import EpisodeTotals

NO_EPISODES = EpisodeTotals(*[jnp.zeros(())] * 3)


def after(tuner: KLControl, rate: float, divergence: float) -> float:
    moved, _ = tuner.move(jnp.asarray(rate), None, Seen({}, NO_EPISODES, jnp.asarray(divergence)))
    return float(moved)


@pytest.mark.parametrize("start", [1e-6, 1e-2])
def test_it_ends_where_the_divergence_is_within_a_factor_of_two_of_its_target(start: float) -> None:
    """To second order the divergence of a step is c rate^2: the wanted rate is sqrt(target / c)."""
    tuner, curvature, rate = KLControl(target=0.02), 3e4, start
    for _ in range(60):
        rate = after(tuner, rate, curvature * rate**2)
    wanted = math.sqrt(0.02 / curvature)
    assert wanted / math.sqrt(2) <= rate <= wanted * math.sqrt(2)


def test_steps_and_ends() -> None:
    tuner = KLControl(target=0.01, factor=1.5, lowest=1e-6, highest=1e-2)
    for divergence, factor in ((0.0201, 1 / 1.5), (0.02, 1), (0.005, 1), (0.0049, 1.5), (0.0, 1.5), (math.nan, 1)):
        assert after(tuner, 1e-3, divergence) == pytest.approx(1e-3 * factor)
    assert after(tuner, 9e-3, 0.0) == pytest.approx(1e-2) and after(tuner, 1.2e-6, 1.0) == pytest.approx(1e-6)


@pytest.mark.parametrize(("configured", "first"), [(0.1, 1e-2), (0.0, 1e-6), (3e-4, 3e-4)])
def test_no_window_has_a_rate_outside_the_ends(configured: float, first: float) -> None:
    rate, _ = KLControl().start(jnp.asarray(configured))
    assert float(rate) == pytest.approx(first)


def test_with_two_divergences_it_stays_between_them_and_is_raised_to_their_geometric_mean() -> None:
    """By the square root of what is missing, since a divergence is quadratic in the rate, to tenfold."""
    tuner = KLControl((0.001, 0.1))
    for divergence, factor in (
        *((0.001, 1), (0.01, 1), (0.1, 1), (math.nan, 1)),
        *((0.0009, math.sqrt(0.01 / 0.0009)), (1e-5, 10), (0.0, 10)),
        *((0.11, 1 / 1.5), (4.0, 1 / 1.5)),
    ):
        assert after(tuner, 1e-4, divergence) == pytest.approx(1e-4 * factor), divergence


def test_with_two_divergences_it_leaves_a_hopeless_rate_in_a_few_windows() -> None:
    tuner, curvature, rate = KLControl((0.001, 0.1)), 1e5, 1e-6
    for _ in range(3):
        rate = after(tuner, rate, curvature * rate**2)
    assert 0.001 <= curvature * rate**2 <= 0.1


@pytest.mark.parametrize(
    "bad",
    [
        {"target": 0.0},
        {"target": (0.01, 0.01)},
        {"target": (0.0, 0.01)},
        {"factor": 1.0},
        {"lowest": 0.0},
        {"lowest": 0.1},
    ],
)
def test_numbers_that_cannot_work_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs target"):
        KLControl(**bad)
