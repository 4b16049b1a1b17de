"""A quadratic in the logarithm, whose central difference is exact, under returns that drift."""

import jax.numpy as jnp
import numpy as np
import pytest

from gradweave.agents.tuners import LiveEvolution, Seen
from gradweave.rl import EpisodeTotals


def earned(value, best: float, window: int, drift: float) -> float:
    return -((float(jnp.log(value)) - np.log(best)) ** 2) + drift * window


def play(tuner: LiveEvolution, start: float, best: float, windows: int, drift: float):
    """The states before each window, and the values that were used."""
    value, state = tuner.start(jnp.asarray(start))
    states, values = [], []
    for window in range(windows):
        states.append(state)
        values.append(float(value))
        total = jnp.asarray(3 * earned(value, best, window, drift))  # three episodes
        seen = Seen({}, EpisodeTotals(jnp.asarray(3.0), total, jnp.asarray(3.0)), None)
        value, state = tuner.move(value, state, seen)
    return states, values


def test_the_slope_is_that_of_the_returns_whatever_their_drift() -> None:
    sigma, start, best = 0.3, 0.01, 0.05
    tuner = LiveEvolution(sigma, period=2)
    states, values = play(tuner, start, best, 9, drift=7.0)
    np.testing.assert_allclose(values[:8], start * np.exp(sigma * np.array([1, 1, -1, -1, -1, -1, 1, 1])), rtol=1e-12)
    slope = -2 * (np.log(start) - np.log(best))
    np.testing.assert_allclose(states[8].squares / states[8].weight, slope**2, rtol=1e-9)
    # The first move is a whole `rate` upwards.
    np.testing.assert_allclose(states[8].centre, np.log(start) + tuner.rate, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("start", [1e-4, 0.9])
def test_the_best_value_is_found(start: float) -> None:
    states, _ = play(LiveEvolution(0.2, period=1, rate=0.3), start, 0.02, 320, drift=0.5)
    assert abs(float(states[-1].centre) - np.log(0.02)) < 0.3


@pytest.mark.slow
def test_it_stays_between_its_ends() -> None:
    states, values = play(LiveEvolution(0.1, period=1, rate=1.0, lowest=0.01, highest=0.1), 0.5, 5.0, 40, drift=0.0)
    assert float(jnp.exp(states[-1].centre)) == pytest.approx(0.1)
    assert max(values) <= 0.1 * np.exp(0.1) * (1 + 1e-9)


def test_a_range_in_units_of_returns_is_not_cut() -> None:
    value, state = LiveEvolution(0.3).start(jnp.asarray(50.0))
    assert float(jnp.exp(state.centre)) == pytest.approx(50.0)
    assert float(value) == pytest.approx(50.0 * np.exp(0.3))


def test_a_trial_goes_on_until_an_episode_has_ended() -> None:
    value, state = LiveEvolution(period=1).start(jnp.asarray(0.1))
    nothing = Seen({}, EpisodeTotals(*[jnp.zeros(())] * 3), None)
    for _ in range(3):
        value, state = LiveEvolution(period=1).move(value, state, nothing)
    assert (int(state.place), int(state.trial.windows)) == (0, 3)


@pytest.mark.parametrize("bad", [{"sigma": 0.0}, {"period": 0}, {"rate": -1.0}, {"lowest": 2.0, "highest": 1.0}])
def test_what_cannot_work_is_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match="sigma"):
        LiveEvolution(**bad)
