"""A learning rate for a run of known length, against closed forms and the rule written out in Python."""

import itertools
import math
import random
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from gradweave.agents.tuners import KLAnneal, Seen
from gradweave.rl import EpisodeTotals

NO_EPISODES = EpisodeTotals(*[jnp.zeros(())] * 3)


def rates(tuner: KLAnneal, first: float, divergences: Sequence[float]) -> list[float]:
    """The first window's learning rate, and the one after each window."""
    value, state = tuner.start(jnp.asarray(first))
    move = jax.jit(lambda value, state, *seen: tuner.move(value, state, Seen({}, NO_EPISODES, *seen)))
    found = [float(value)]
    for number, divergence in enumerate(divergences):
        value, state = move(value, state, jnp.asarray(divergence), jnp.asarray(number))
        found.append(float(value))
    return found


def test_a_rate_that_moves_the_policy_is_only_annealed() -> None:
    """Whatever happens in the first half of the first tenth, or later. 100 windows of 0.005 are half a nat."""
    divergences = [0.0] * 5 + [0.0051] * 5 + [1e-6] * 90
    found = rates(KLAnneal(100, goal=0.1), 3e-3, divergences)
    expected = [3e-3 * min(1.0, (100 - done) / 50) for done in range(100)]
    assert found[:100] == pytest.approx(expected)
    assert found[100] == pytest.approx(1e-6)


def test_a_rate_that_does_not_is_raised_tenfold_at_most_and_not_before_a_tenth() -> None:
    """Then by the square root of what is missing to the goal, until half of it is reached."""
    found = rates(KLAnneal(50, goal=0.1), 1e-6, [0.0] * 4 + [1e-7, 1e-5, 0.001, 0.04, 0.05, 0.001, 0.001])
    factors = [after / before for before, after in itertools.pairwise(found)]
    assert factors == pytest.approx([1, 1, 1, 1, 10, 10, 10, math.sqrt(0.1 / 0.04), 1, 1, 1], rel=1e-5)


@pytest.mark.parametrize("first", [1e-6, 1e-5, 1e-4, 1e-3])
def test_where_divergences_are_quadratic_it_ends_near_the_goal(first: float) -> None:
    """The divergence of a step is c rate^2: the wanted rate is sqrt(goal / c)."""
    tuner, curvature = KLAnneal(200, goal=0.1), 1e3
    value, state = tuner.start(jnp.asarray(first))
    for number in range(100):
        seen = Seen({}, NO_EPISODES, curvature * value**2, jnp.asarray(number))
        value, state = tuner.move(value, state, seen)
    wanted = math.sqrt(0.1 / curvature)
    assert wanted / math.sqrt(2) <= float(value) <= wanted * 1.001
    assert bool(state.settled) and float(state.rate) == float(value)


def test_a_policy_that_moves_too_far_lowers_it_at_once() -> None:
    found = rates(KLAnneal(100, goal=0.1), 1e-2, [1.1, 1.0, math.inf, math.nan])
    assert found == pytest.approx([1e-2, 1e-2 / 1.5, 1e-2 / 1.5, 1e-2 / 2.25, 1e-2 / 2.25])


@pytest.mark.parametrize("number", [0, 7, 20, 95])
def test_an_infinite_divergence_leaves_a_finite_state(number: int) -> None:
    """Since a state that is not finite stops the run."""
    tuner = KLAnneal(100)
    value, state = tuner.start(jnp.asarray(1e-2))
    value, state = tuner.move(value, state, Seen({}, NO_EPISODES, jnp.asarray(math.inf), jnp.asarray(number)))
    assert all(bool(jnp.isfinite(leaf)) for leaf in jax.tree.leaves((value, state)))
    assert float(state.rate) == pytest.approx(1e-2 / 1.5)


def test_what_is_annealed_is_not_raised() -> None:
    """A rate whose goal was not reached by the middle of the run goes down with the others."""
    found = rates(KLAnneal(100, goal=0.1), 1e-6, [1e-3] * 9 + [1e-2] * 91)
    assert found[50] == max(found) == pytest.approx(2e-2)
    assert all(after < before for before, after in itertools.pairwise(found[50:]))


def test_without_a_count_of_windows_it_says_so() -> None:
    value, state = KLAnneal(100).start(jnp.asarray(1e-3))
    with pytest.raises(ValueError, match="num_windows"):
        KLAnneal(100).move(value, state, Seen({}, NO_EPISODES, jnp.asarray(0.1)))


def test_many_side_by_side_in_single_precision_are_each_alone() -> None:
    """As in a comparison, whose members begin with rates of their own."""
    tuner = KLAnneal(60)
    firsts = jnp.asarray([1e-6, 1e-4, 3e-3, 0.1], jnp.float32)
    values, states = jax.vmap(tuner.start)(firsts)
    seen = [[1e-6 * 10**place, 1e-4, 0.02 * place, 0.05][row] for place in range(4) for row in range(4)] * 4
    together, alone = [], [rates(tuner, float(first), seen[:60]) for first in firsts]
    for number, divergence in enumerate(seen[:60]):
        each = Seen({}, NO_EPISODES, jnp.asarray(divergence, jnp.float32), jnp.asarray(number))
        values, states = jax.vmap(lambda value, state, each=each: tuner.move(value, state, each))(values, states)
        together.append([float(value) for value in values])
    assert values.dtype == jnp.float32
    for place, found in enumerate(alone):
        assert [row[place] for row in together] == pytest.approx(found[1:], rel=1e-5)


def test_what_is_no_number_or_rounded_below_zero_does_no_harm() -> None:
    found = rates(KLAnneal(20, goal=0.1), 1e-4, [math.nan, -1e-9, math.nan, -1e-9, 0.06])
    assert found == pytest.approx([1e-4, 1e-4, 1e-3, 1e-3, 1e-2, 1e-2])


def test_the_place_in_the_run_is_what_the_window_says() -> None:
    """So that a tuner that a guard has put back anneals with the run, and not with its own memory."""
    tuner = KLAnneal(100)
    value, state = tuner.start(jnp.asarray(1e-3))
    value, _ = tuner.move(value, state, Seen({}, NO_EPISODES, jnp.asarray(0.1), jnp.asarray(89)))
    assert float(value) == pytest.approx(1e-3 * 0.2)


@pytest.mark.parametrize(("configured", "first"), [(0.1, 2e-2), (0.0, 1e-6), (3e-4, 3e-4)])
def test_no_window_has_a_rate_outside_the_ends(configured: float, first: float) -> None:
    rate, _ = KLAnneal(10).start(jnp.asarray(configured))
    assert float(rate) == pytest.approx(first)


@pytest.mark.parametrize("windows", [1, 7, 30, 45, 230])
def test_it_is_the_rule_written_out(windows: int) -> None:
    rng = random.Random(windows)
    for _ in range(3):
        scale = 10 ** rng.uniform(-7, -1)
        divergences = [scale * rng.lognormvariate(0, 1.5) * 1.05**number for number in range(windows)]
        divergences = [min(d, 3.0) for d in divergences]
        first = 10 ** rng.uniform(-6, -1)
        assert rates(KLAnneal(windows), first, divergences) == pytest.approx(written_out(windows, first, divergences))


def written_out(windows: int, first: float, divergences: Sequence[float]) -> list[float]:
    """The docstring of KLAnneal in Python floats."""
    rate = min(max(first, 1e-6), 2e-2)
    found, looked_at, raised, settled = [rate], [], False, False
    for done, divergence in enumerate(divergences, start=1):
        if done > windows / 20:
            looked_at.append(divergence)
        if not settled and done >= windows / 10 and len(looked_at) >= max(1, windows / 50):
            mean = sum(looked_at) / len(looked_at)
            if mean >= (0.05 if raised else 0.5 / windows):
                settled = True
            elif done < windows / 2:
                rate, looked_at, raised = rate * min(10.0, max(1.0, math.sqrt(0.1 / mean))), [], True
        if divergence > 1.0:
            rate /= 1.5
        rate = min(max(rate, 1e-6), 2e-2)
        found.append(max(rate * min(1.0, (windows - done) / (windows / 2)), 1e-6))
    return found


@pytest.mark.parametrize(
    "bad",
    [
        {"windows": 0},
        {"goal": 0.0},
        {"lowest": 0.0},
        {"lowest": 0.1},
    ],
)
def test_numbers_that_cannot_work_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs windows"):
        KLAnneal(**{"windows": 10, **bad})
