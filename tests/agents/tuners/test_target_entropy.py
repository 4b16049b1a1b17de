"""The entropy cost of a bandit whose best policy is known in closed form."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from gradweave.agents.tuners import Seen, TargetEntropy
from gradweave.rl import EpisodeTotals

NO_EPISODES = EpisodeTotals(*[jnp.zeros(())] * 3)
REWARDS = np.array([1.0, 0.6, 0.0])


def entropy(cost: float) -> float:
    """Of the policy that maximises reward + cost x entropy: a softmax of rewards / cost."""
    logits = REWARDS / cost
    policy = np.exp(logits - logits.max())
    policy /= policy.sum()
    return float(-(policy * np.log(np.maximum(policy, 1e-300))).sum())


@pytest.mark.parametrize("start", [1e-5, 0.8])
def test_it_finds_the_multiplier_of_the_constraint(start: float) -> None:
    wanted = scipy.optimize.brentq(lambda cost: entropy(cost) - 0.5, 1e-3, 10)
    tuner, cost = TargetEntropy(0.5, rate=0.5), jnp.asarray(start)
    for _ in range(200):
        cost, _ = tuner.move(cost, None, Seen({"entropy": jnp.full(3, entropy(float(cost)))}, NO_EPISODES, None))
    np.testing.assert_allclose(cost, wanted, rtol=1e-3)


def test_a_cost_of_zero_can_grow_and_ends_hold() -> None:
    seen = Seen({"entropy": jnp.zeros(2)}, NO_EPISODES, None)
    tuner = TargetEntropy(0.5, rate=0.5)
    assert float(tuner.move(jnp.asarray(0.0), None, seen)[0]) == pytest.approx(1e-6 * np.exp(0.25))
    assert float(tuner.move(jnp.asarray(0.99), None, seen)[0]) == 1.0


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ValueError, match="needs target > 0"):
        TargetEntropy(0.0)
    with pytest.raises(ValueError, match=r"'entropy' .* only \['loss'\]"):
        TargetEntropy(0.5).move(jnp.asarray(0.1), None, Seen({"loss": jnp.zeros(2)}, NO_EPISODES, None))
