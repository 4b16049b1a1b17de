"""The guard against its rule in a slow loop, and beside an agent that it leaves alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradweave as gw
from gradweave.agents import SelfTuningState
from gradweave.rl import EpisodeTotals

GUARD = gw.ReturnGuard(fraction=0.5, patience=3, slowdown=0.25, decay=0.6)


def first_state(guard=GUARD):
    """A learner that counts its windows, and a meta-parameter that moves by 1 in each."""
    state = SelfTuningState(
        learner=jnp.array(0.0),
        learned={"discount": jnp.array(0.0)},
        fixed=None,
        meta_optimizer_state=None,
        estimator_state=None,
        rollout=None,
        batch=None,
        key=None,
        num_meta_steps=jnp.array(0, jnp.int32),
    )
    return state._replace(guard=guard.start(state))


def watched(returns, counts, guard=GUARD):
    """(learner, meta-parameter, restored) after every window, by the guard."""
    end, found = scanned(jnp.asarray(returns), jnp.asarray(counts), guard)
    assert int(end.num_meta_steps) == len(returns)
    return [np.asarray(part) for part in found]


def scanned(returns, counts, guard):
    """(state after them, what `watched` returns)."""

    def window(state, seen):
        moved = state._replace(
            learner=state.learner + 1,
            learned={"discount": state.learned["discount"] + 1},
            num_meta_steps=state.num_meta_steps + 1,
        )
        mean, count = seen
        after, restored = guard.watch(state, moved, EpisodeTotals(count, mean * count, count))
        return after, (after.learner, after.learned["discount"], restored)

    return jax.lax.scan(window, first_state(guard), (returns, counts))


def looped(returns, counts, decay=0.6, patience=3, num_windows=None):
    learner = value = total = weight = squares = 0.0
    scale, low, restores, chance, best, first, saved, found = 1.0, 0, 0, 0.0, None, None, (0.0, 0.0), []
    for window, (earned, count) in enumerate(zip(returns, counts, strict=True)):
        before = (learner, value)
        learner, value = learner + 1, value + scale
        if count:
            surprise = earned - total / weight if weight else 0.0
            squares = decay * squares + (1 - decay) * surprise**2
            total, weight = decay * total + (1 - decay) * earned, decay * weight + 1 - decay
        mean = total / weight if weight else 0.0
        new_saved, back = saved, False
        if weight >= 0.5:
            first = mean if first is None else first
            if best is None or mean >= best:
                best, restores, new_saved, chance = mean, 0, before, np.sqrt(squares / weight)
            told = min(best - mean, best - first) > chance
            low = low + 1 if told and mean < first + 0.5 * (best - first) else 0
            given_up = low >= patience * 2**restores
            back = given_up or (window + 1 == num_windows and told)
        if back:
            (learner, value), low, total = saved, 0, best * weight
            scale, restores = (scale / 4, restores + 1) if given_up else (scale, restores)
        saved = new_saved
        found.append((learner, value, back))
    return [np.array(part) for part in zip(*found, strict=True)]


@pytest.mark.parametrize("offset", [0.0, -1000.0])
def test_it_follows_its_rule_in_a_loop(offset):
    rng = np.random.default_rng(0)
    returns = offset + 10 * np.sin(np.arange(300) / 20) * np.arange(300) + rng.normal(0, 5, 300)
    counts = rng.integers(0, 3, 300).astype(float)
    expected = looped(returns, counts)
    for one, other in zip(watched(returns, counts), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)
    assert 2 <= expected[2].sum() < 100


@pytest.mark.parametrize(
    ("num_windows", "decay", "patience"), [(25, 0.75, 2), (60, 1 - 1 / 6, 3), (300, 0.9, 3), (4, 0.75, 1)]
)
def test_the_length_of_the_run_bounds_its_patience_and_its_memory(num_windows, decay, patience):
    rng = np.random.default_rng(3)
    returns = 10 * np.sin(np.arange(300) / 20) * np.arange(300) + rng.normal(0, 5, 300)
    guard = dataclasses.replace(GUARD, decay=0.9, num_windows=num_windows)
    expected = looped(returns, np.ones(300), decay, patience, num_windows)
    for one, other in zip(watched(returns, np.ones(300), guard), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)
    assert expected[2].any()


def test_a_planned_run_ends_with_its_best_state():
    returns = [0.0] * 5 + [10.0] * 20 + [8.0] * 3
    _, _, restored = watched(returns, np.ones(28))
    assert not restored.any()  # more than half of what was gained is still there
    learner, _, restored = watched(returns, np.ones(28), dataclasses.replace(GUARD, num_windows=28))
    np.testing.assert_array_equal(np.flatnonzero(restored), [27])
    assert learner[-1] == 24  # before the window of the best mean
    # One that goes on for longer than was planned is left alone.
    _, _, restored = watched(returns, np.ones(28), dataclasses.replace(GUARD, num_windows=25))
    assert not restored.any()


def test_a_policy_that_is_lost_in_the_last_window_is_found_again() -> None:
    """By how much returns scattered while it was good: the fall itself is the largest scatter of all."""
    rng = np.random.default_rng(5)
    returns = np.concatenate([np.zeros(5), 500 + rng.normal(0, 20, 30), [20.0]])
    learner, _, restored = watched(returns, np.ones(36), gw.ReturnGuard(num_windows=36))
    np.testing.assert_array_equal(np.flatnonzero(restored), [35])
    assert 5 < learner[-1] < 36


def test_a_planned_run_that_ends_at_its_best_is_left_alone():
    returns = np.random.default_rng(4).normal(0, 1, 60) + np.minimum(np.arange(60), 40)
    _, _, restored = watched(returns, np.ones(60), gw.ReturnGuard(num_windows=60))
    assert not restored.any()


def test_a_policy_that_was_lost_is_found_again():
    learner, value, restored = watched([0.0, 0.0, *[10.0] * 8, *[0.0] * 6, 10.0], [1.0] * 17)
    assert restored.sum() == 1
    (when,) = np.flatnonzero(restored)
    assert learner[when] == 9 and value[when] == 9  # before the window of the best mean
    assert learner[when + 1] == 10 and value[when + 1] == 9.25  # a quarter of the step


def test_without_a_loss_it_changes_nothing():
    learner, value, restored = watched(np.linspace(0, 10, 40), [1.0] * 40)
    assert not restored.any()
    np.testing.assert_array_equal(learner, np.arange(1, 41))
    np.testing.assert_array_equal(value, np.arange(1, 41))


@pytest.mark.parametrize("offset", [20.0, -500.0])
def test_chance_restores_nothing(offset):
    returns = offset + np.random.default_rng(1).normal(0, 8, 3000)
    _, _, restored = watched(returns, np.ones(3000), gw.ReturnGuard())
    assert not restored.any()
    # And what is learned and lost is found again by the same guard.
    returns[1000:1200] += 300
    _, _, restored = watched(returns, np.ones(3000), gw.ReturnGuard())
    assert 1250 <= np.flatnonzero(restored)[0] < 1300


def test_chance_restores_little_in_a_run_of_few_windows() -> None:
    rng = np.random.default_rng(7)
    runs = rng.normal(0, 1, (200, 20))
    guard = gw.ReturnGuard(num_windows=20)
    _, (_, _, restored) = jax.vmap(lambda returns: scanned(returns, jnp.ones(20), guard))(jnp.asarray(runs))
    assert restored.any(axis=1).sum() < 20  # without the least memory about eighty


def test_a_policy_is_not_held_where_it_began():
    rng = np.random.default_rng(2)
    dip = np.concatenate([np.full(30, 20.0), np.full(300, 10.0), np.linspace(10, 300, 200)])
    _, _, restored = watched(dip + rng.normal(0, 2, dip.size), np.ones(dip.size), gw.ReturnGuard())
    assert not restored.any()


def test_what_is_lost_again_and_again_is_left_alone_for_longer():
    _, _, restored = watched([0.0, 0.0, *[10.0] * 8, *[0.0] * 100], [1.0] * 110)
    waited = np.diff(np.flatnonzero(restored))
    # As long as it takes the running mean, which begins at the best again, to be low, and 3, 6, 12, ... windows.
    np.testing.assert_array_equal(np.diff(waited), [6, 12, 24])


@pytest.mark.parametrize(
    "bad", [{"fraction": 1.0}, {"patience": 0}, {"slowdown": 0.0}, {"decay": 1.0}, {"num_windows": 0}]
)
def test_what_cannot_work_is_refused(bad):
    with pytest.raises(ValueError, match=r"needs (fraction|num_windows)"):
        dataclasses.replace(GUARD, **bad)
