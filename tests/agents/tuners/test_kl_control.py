"""The learning rate that moves a policy by a wanted divergence, against the closed form."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import pytest

from gradweave.agents.tuners import KLControl, Seen
from gradweave.rl import EpisodeTotals

NO_EPISODES = EpisodeTotals(*[jnp.zeros(())] * 3)


def after(tuner: KLControl, rate: float, divergence: float) -> float:
    moved, _ = tuner.move(jnp.asarray(rate), None, Seen({}, NO_EPISODES, jnp.asarray(divergence)))
    return float(moved)


def test_without_a_divergence_it_says_so() -> None:
    with pytest.raises(ValueError, match=r"KLControl reads Seen.divergence, which is None: give the mean KL"):
        KLControl().move(jnp.asarray(1e-3), None, Seen({}, NO_EPISODES, None))


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


def factors(tuner: KLControl, rate: float, divergences: Sequence[float]) -> list[float]:
    """What the rate is multiplied by after each window."""
    value, state = tuner.start(jnp.asarray(rate))
    found = []
    for divergence in divergences:
        before = float(value)
        value, state = tuner.move(value, state, Seen({}, NO_EPISODES, jnp.asarray(divergence)))
        found.append(float(value) / before)
    return found


def test_with_two_divergences_it_stays_between_them() -> None:
    seen = (0.05, 0.001, 0.0009, 0.1, 0.11, 0.0, math.nan)
    assert factors(KLControl((0.001, 0.1)), 1e-3, seen) == pytest.approx([1, 1, 1.5, 1, 1 / 1.5, 1.5, 1])


@pytest.mark.parametrize("rounded", [0.0, -1e-9])
def test_a_divergence_that_rounding_took_below_zero_is_one_too_small(rounded: float) -> None:
    """A sum of p (log p - log q) in single precision, of policies that hardly differ."""
    assert factors(KLControl((0.001, 0.1)), 1e-5, [rounded, rounded]) == pytest.approx([10, 10])


def test_a_first_rate_that_is_too_low_is_raised_by_the_square_root_of_what_is_missing_to_tenfold() -> None:
    """Since a divergence is quadratic in the rate; once the least has been reached, by 1.5."""
    seen = (0.0, 1e-7, math.nan, 0.0004, 0.0009, 0.002, 0.0009)
    expected = [10, 10, 1, 5, math.sqrt(0.01 / 0.0009), 1, 1.5]
    assert factors(KLControl((0.001, 0.1)), 1e-6, seen) == pytest.approx(expected)


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
