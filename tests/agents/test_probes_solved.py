"""Each probe environment is solved to its known value by learning, rollouts, targets, loss and optimiser included."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optax import sgd

from gradweave.agents import ActorCriticEta, SelfTuning, actor_critic_agent, bundled_apply, inner_optimizer
from gradweave.core import Fixed, ReverseMode, Unrolled, unconstrain
from gradweave.envs import (
    AbstractProbe,
    ChosenReward,
    ConstantReward,
    DelayedReward,
    MaskedAction,
    MatchedReward,
    ObservedReward,
    TerminatedReward,
    TruncatedReward,
    VectorEnvironment,
)
from gradweave.rl import actor_critic_network, probs
from gradweave.training.evaluation import evaluate

DISCOUNT = 0.5
PROBES = [
    ConstantReward(),
    ObservedReward(),
    ChosenReward(),
    MatchedReward(),
    MaskedAction(),
    DelayedReward(),
    TruncatedReward(3),
    TerminatedReward(3),
]


def learner(probe: AbstractProbe[Any]) -> SelfTuning:
    """Plain actor-critic: everything fixed, no entropy bonus, so that the best policy is the only fixed point."""
    spec = ActorCriticEta(Fixed(), Fixed(), Fixed(), Fixed(), Fixed())
    eta = ActorCriticEta(*(jnp.asarray(value) for value in (DISCOUNT, 0.9, 0.0, 0.5, 0.01)))
    return SelfTuning(
        agent=actor_critic_agent(bundled_apply, inner_optimizer("adam")),
        environment=VectorEnvironment(probe, 8),
        initial_raw=unconstrain(eta, spec),
        spec=spec,
        estimator=Unrolled(),
        mode=ReverseMode(),
        meta_optimizer=sgd(0.0),
        num_inner_steps=5,
        num_steps=6,
    )


@pytest.mark.slow
@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: type(probe).__name__)
def test_the_probe_is_solved(probe: AbstractProbe[Any]) -> None:
    agent = learner(probe)
    known = probe.optimal_values(DISCOUNT)
    example = jax.tree.map(lambda leaf: leaf[0], known.observations)
    network = actor_critic_network(
        example, probe.num_actions, policy_layers=(16,), value_layers=(16,), key=jax.random.key(0)
    )
    state = jax.jit(lambda params: agent.init(params, key=jax.random.key(1)))(network)
    learned = jax.jit(lambda state: jax.lax.scan(lambda state, _: (agent.step(state)[0], None), state, length=100)[0])(
        state
    )

    outputs = jax.vmap(lambda observation: learned.learner.params(observation))(known.observations)
    before = jax.vmap(lambda observation: network(observation))(known.observations)
    scale = float(jnp.abs(known.values).max())
    # A policy that still explores a little earns a little less than the best.
    assert np.asarray(outputs.value) == pytest.approx(np.asarray(known.values), abs=0.05 * scale)
    assert np.abs(np.asarray(before.value) - np.asarray(known.values)).max() > 0.1 * scale  # it had to be learned
    if probe.num_actions > 1:
        chances = probs(outputs.logits, known.observations.action_mask)
        assert float(chances.max(-1).min()) > 0.95
    played = evaluate(
        agent,
        learned.learner.params,
        learned.raw,
        key=jax.random.key(2),
        greedy=True,
        num_episodes=64,
        max_steps=20,
    )
    assert float(played.returns.mean()) == pytest.approx(probe.optimal_return, abs=3 / math.sqrt(64))
    if probe.num_actions > 1:
        assert float(played.returns.min()) == pytest.approx(probe.optimal_return)
