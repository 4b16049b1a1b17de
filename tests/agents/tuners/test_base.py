"""Tuners in a whole agent, against the same rules written out over a window's two policies."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradweave as gw
from gradweave.agents import ActorCriticEta
from gradweave.agents.tuners import KLControl, ReturnChoice, TargetEntropy
from gradweave.core.learner import sliced_out

from ..material import network, quick_jit, small_agent

SPEC = ActorCriticEta(gw.Interval(), gw.Fixed(), gw.Fixed(), gw.Fixed(), gw.Fixed())
TUNERS = {
    "learning_rate": KLControl(1e-4),
    "entropy_cost": TargetEntropy(0.4),
    "lambda_": ReturnChoice((0.5, 0.9), period=1),
}


@pytest.fixture(scope="module")
def agent():
    return small_agent(SPEC, optax.adam(0.05), tuners=TUNERS)


def log_policy(params, batch):
    observations = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch.trajectory.observations)
    logits = jax.vmap(lambda observation: params(observation, None))(observations).logits
    return np.asarray(jax.nn.log_softmax(jnp.where(observations.action_mask, logits, -jnp.inf)))


@pytest.mark.slow
def test_each_rule_moves_its_own_meta_parameter(agent) -> None:
    step = quick_jit(lambda state: agent.step(state))
    params = network(jax.random.key(1), outer_critic=False)
    state = agent.init(params, key=jax.random.key(3))
    assert float(state.fixed.lambda_) == 0.5
    plain = dataclasses.replace(agent, tuners={})
    untuned = quick_jit(lambda state: plain.step(state))
    chosen = set()
    for _ in range(4):
        same = state._replace(key=jax.random.clone(state.key), tuner_states=None)
        new, metrics = step(state)
        before, after = (log_policy(each.learner.params, new.batch) for each in (state, new))
        with np.errstate(invalid="ignore"):
            divergence = np.where(before > -np.inf, np.exp(before) * (before - after), 0).sum(-1).mean()
        factor = 1.5 if divergence < 0.5e-4 else 1 / 1.5 if divergence > 2e-4 else 1.0
        old, now = state.fixed, new.fixed
        np.testing.assert_allclose(now.learning_rate, np.clip(old.learning_rate * factor, 1e-6, 1e-2), rtol=1e-9)
        wanted = old.entropy_cost * np.exp(0.03 * (0.4 - metrics.inner["entropy"]))
        np.testing.assert_allclose(now.entropy_cost, wanted, rtol=1e-9)
        assert now.value_cost == old.value_cost
        # The meta-gradient of the others is that of an agent with these values.
        _, alone = untuned(same)
        np.testing.assert_allclose(metrics.grad.discount, alone.grad.discount, rtol=1e-9)
        assert metrics.grad.learning_rate == 0 and metrics.eta.learning_rate == old.learning_rate
        chosen.add(float(now.lambda_))
        state = new
    assert chosen <= {0.5, 0.9} and 0.9 in chosen  # which is tried as soon as an episode has ended


def test_the_trust_region_tries_the_update_that_will_be_made() -> None:
    """The tuner raises the rate in the same window: its old value would let pass what the new one throws too far."""
    free = small_agent(SPEC, optax.sgd(1.0), tuners={"learning_rate": KLControl(10.0, highest=1.0)})
    state = free.init(network(jax.random.key(1), outer_critic=False), key=jax.random.key(3))

    def stepped(agent):
        return quick_jit(lambda state: agent.step(state))(state._replace(key=jax.random.clone(state.key)))

    def next_divergence(new, fixed):
        eta, batch = free.eta(eqx.combine(new.learned, fixed)), sliced_out(new.batch)
        return float(free.agent.divergence(new.learner, free.agent.problem.update(new.learner, eta, batch)[0], batch))

    new, _ = stepped(free)
    assert new.fixed.learning_rate > 1.4 * state.fixed.learning_rate
    old_rate, new_rate = (next_divergence(new, fixed) for fixed in (state.fixed, new.fixed))
    assert new_rate > 1.5 * old_rate
    _, metrics = stepped(dataclasses.replace(free, trust_region=(old_rate * new_rate) ** 0.5))
    assert metrics.kept < 1


def test_rewards_are_scaled_by_returns_of_the_discount_that_a_tuner_begins_with() -> None:
    spec = SPEC._replace(discount=gw.Fixed())
    agent = small_agent(spec, optax.adam(0.05), tuners={"discount": ReturnChoice((0.5, 0.25))})
    agent = dataclasses.replace(agent, agent=dataclasses.replace(agent.agent, reward_discount=0.9))
    state = agent.init(network(jax.random.key(1), outer_critic=False), key=jax.random.key(3))
    np.testing.assert_array_equal(state.rollout.reward_scale.discount, 0.5)


def test_what_cannot_be_tuned_is_refused(agent) -> None:
    with pytest.raises(ValueError, match=r"'discount'.* lambda_, entropy_cost, value_cost"):
        dataclasses.replace(agent, tuners={"discount": KLControl()})
    without = dataclasses.replace(agent.agent, divergence=None)
    with pytest.raises(ValueError, match=r"Agent\.divergence"):
        dataclasses.replace(agent, agent=without)
    with pytest.raises(ValueError, match="leave it or the tuners out"):
        dataclasses.replace(agent, schedule=gw.ScheduleNetwork())
