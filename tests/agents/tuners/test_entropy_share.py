"""The entropy cost of a bandit whose best policy is known in closed form."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from gradweave.agents.tuners import EntropyShare, Seen, share_within
from gradweave.rl import EpisodeTotals

from .test_target_entropy import NO_EPISODES, REWARDS, entropy


def seen(entropies: float) -> Seen:
    return Seen({"entropy": jnp.full(3, entropies)}, NO_EPISODES, None)


@pytest.mark.parametrize("start", [1e-5, 0.8])
def test_it_keeps_the_share_of_the_first_entropy(start: float) -> None:
    uniform = float(np.log(len(REWARDS)))
    wanted = scipy.optimize.brentq(lambda cost: entropy(cost) - 0.4 * uniform, 1e-3, 10)
    tuner = EntropyShare(0.4)
    cost, state = tuner.start(jnp.asarray(start))
    cost, state = tuner.move(cost, state, seen(uniform))
    assert float(cost) == pytest.approx(start * np.exp(0.5 * (0.4 - 1)))
    for _ in range(300):
        cost, state = tuner.move(cost, state, seen(entropy(float(cost))))
    np.testing.assert_allclose(cost, wanted, rtol=1e-3)
    np.testing.assert_allclose(state.first, uniform)


def test_the_cost_stays_between_its_ends() -> None:
    tuner = share_within((0.5, 0.003, 0.03))
    begun = tuner.start(jnp.asarray(0.02))[1]._replace(begun=jnp.asarray(True), first=jnp.asarray(1.0))
    for cost, left, end in ((0.0031, 1.0, 0.003), (1e-5, 0.5, 0.003), (0.029, 0.0, 0.03), (0.4, 0.5, 0.03)):
        assert float(tuner.move(jnp.asarray(cost), begun, seen(left))[0]) == pytest.approx(end)
    assert share_within(0.4) == EntropyShare(0.4)


def test_an_entropy_that_says_nothing_moves_nothing() -> None:
    tuner = EntropyShare(0.4)
    cost, state = tuner.start(jnp.asarray(0.1))
    for entropies in (-0.5, 0.3):
        cost, state = tuner.move(cost, state, seen(entropies))
    assert float(cost) == 0.1


def test_a_cost_of_zero_can_grow_and_ends_hold() -> None:
    tuner = EntropyShare(0.5)
    begun = tuner.start(jnp.asarray(0.0))[1]._replace(begun=jnp.asarray(True), first=jnp.asarray(1.0))
    assert float(tuner.move(jnp.asarray(0.0), begun, seen(0.0))[0]) == pytest.approx(1e-6 * np.exp(0.25))
    assert float(tuner.move(jnp.asarray(0.99), begun, seen(0.0))[0]) == 1.0


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs share in \(0, 1\]"):
        EntropyShare(1.5)
    with pytest.raises(ValueError, match="lowest < highest"):
        share_within((0.5, 0.1, 0.1))
    tuner = EntropyShare(0.5)
    with pytest.raises(ValueError, match=r"EntropyShare reads 'entropy' .* only \['loss'\]"):
        cost, state = tuner.start(jnp.asarray(0.1))
        tuner.move(cost, state, Seen({"loss": jnp.zeros(2)}, EpisodeTotals(*[jnp.zeros(())] * 3), None))
