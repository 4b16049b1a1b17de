"""A bandit over three values whose returns are known, the best of which changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradweave.agents.tuners import ReturnChoice, Seen
from gradweave.rl import EpisodeTotals

VALUES = (1e-4, 3e-4, 1e-3)


def windows(tuner: ReturnChoice, returns: np.ndarray) -> np.ndarray:
    """The value of every window; returns: (windows, candidates), that of one episode with each candidate."""

    def one(carry, earned):
        value, state = carry
        # One episode in a window, whose return is that of the value in use.
        total = earned[jnp.argmin(jnp.abs(jnp.asarray(VALUES) - value))]
        seen = Seen({}, EpisodeTotals(jnp.ones(()), total, jnp.ones(())), None)
        return tuner.move(value, state, seen), value

    _, values = jax.lax.scan(one, tuner.start(jnp.asarray(0.5)), jnp.asarray(returns))
    return np.asarray(values)


def test_the_best_candidate_is_used_most_and_a_new_best_one_is_found() -> None:
    noise = np.random.default_rng(0).normal(0, 1, (6000, 3))
    means = np.where(np.arange(6000)[:, None] < 3000, [2.0, 10.0, 4.0], [4.0, 2.0, 10.0])
    values = windows(ReturnChoice(VALUES, period=5), means + noise)
    share = [np.mean(values[part] == best) for part, best in ((slice(300, 3000), 3e-4), (slice(3500, None), 1e-3))]
    assert min(share) > 0.6, share
    assert set(values[:15]) == set(VALUES)  # each is tried once, five windows long, before any is chosen again
    assert list(values[:6]) == [1e-4] * 5 + [3e-4]


@pytest.mark.parametrize("earned", [-500.0, 21.3, 0.0])
def test_returns_that_are_all_alike_prefer_no_candidate(earned: float) -> None:
    """A game that is never won, in single precision: rounding must not choose."""
    tuner = ReturnChoice(VALUES, period=1)
    three = EpisodeTotals(*(jnp.asarray(number, jnp.float32) for number in (3, 3 * earned, 3)))

    def one(carry, _):
        value, state = carry
        return tuner.move(value, state, Seen({}, three, None)), value

    _, values = jax.lax.scan(one, tuner.start(jnp.asarray(0.5, jnp.float32)), length=300)
    counts = [int(jnp.sum(jnp.isclose(values, candidate))) for candidate in VALUES]
    assert min(counts) > 80, counts


@pytest.mark.slow
def test_a_trial_goes_on_until_an_episode_has_ended() -> None:
    tuner = ReturnChoice(VALUES, period=2)
    value, state = tuner.start(jnp.asarray(0.5))
    nothing = Seen({}, EpisodeTotals(*[jnp.zeros(())] * 3), None)
    for _ in range(5):
        value, state = tuner.move(value, state, nothing)
    assert float(value) == 1e-4 and int(state.trial.windows) == 5
    value, state = tuner.move(value, state, nothing._replace(episodes=EpisodeTotals(*[jnp.ones(())] * 3)))
    assert float(value) == 3e-4 and int(state.trial.windows) == 0


@pytest.mark.parametrize("bad", [{"values": (1.0,)}, {"values": (1.0, 1.0)}, {"period": 0}, {"memory": 1.0}])
def test_what_cannot_work_is_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match=r"candidates|period"):
        ReturnChoice(**{"values": VALUES, **bad})
