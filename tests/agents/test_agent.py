"""Learners that are no actor-critic, continuous actions and networks that remember, through the whole loop."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import Array, Float, Key

import gradweave as gw
from gradweave.agents import Agent, SelfTuning, actor_critic_agent, bundled_apply, inner_optimizer
from gradweave.envs import AbstractEnvironment, MatchedReward, Observation, Step, VectorEnvironment
from gradweave.rl import Gaussian, NetworkOutput, actor_critic_network
from gradweave.training.evaluation import evaluate, play_episode

from . import small_ppo
from .material import ETA, LEARNED, quick_jit

NUM_ENVS, NUM_STEPS, LENGTH = 4, 3, 2


def self_tuning(agent, environment, eta, spec, **changes):
    fields = {
        "agent": agent,
        "environment": VectorEnvironment(environment, NUM_ENVS),
        "initial_raw": gw.unconstrain(eta, spec),
        "spec": spec,
        "estimator": gw.HorizonMix(gw.uniform_weights(LENGTH)),
        "mode": gw.ReverseMode("step"),
        "meta_optimizer": optax.adam(0.02),
        "num_inner_steps": LENGTH,
        "num_steps": NUM_STEPS,
    }
    return SelfTuning(**(fields | changes))


def network(environment, num_outputs, **options):
    _, example = environment.reset(key=jax.random.key(0))
    return jax.jit(
        lambda key: actor_critic_network(
            example, num_outputs, policy_layers=(8,), value_layers=(8,), **options, key=key
        )
    )(jax.random.key(1))


def differences(agent, state, window):
    """Central differences of the mean outer loss of a window, by a Python loop over its recorded batches."""

    # Compiled for one step and called for each: whole windows take many times as long to compile.
    @quick_jit
    def update(learner, raw, batch):
        return agent.problem.update(learner, gw.constrain(raw, agent.spec), batch)[0]

    outer_loss = quick_jit(lambda learner, batch: agent.problem.outer_loss(learner, batch)[0])

    def mean_loss(raw):
        learner, losses = state.learner, []
        for k in range(LENGTH):
            batch, following = (jax.tree.map(lambda leaf, at=at: leaf[at], window.batches) for at in (k, k + 1))
            learner = update(learner, raw, batch)
            losses.append(outer_loss(learner, following))
        return jnp.stack(losses).mean()

    zeros = jax.tree.map(jnp.zeros_like, state.raw)
    found = []
    for index, leaf in enumerate(jax.tree.leaves(state.raw)):
        leaves = jax.tree.leaves(zeros)
        leaves[index] = jnp.ones_like(leaf)
        found.append(
            float(gw.finite_difference(mean_loss, state.raw, jax.tree.unflatten(jax.tree.structure(zeros), leaves)))
        )
    return np.array(found)


class Recall(AbstractEnvironment[Array]):
    """A sign is shown in the first of two steps and asked for in the second, which pays 1 for the right answer."""

    num_actions: int = 2
    can_truncate: bool = False

    def reset(self, *, key: Key[Array, ""]) -> tuple[Array, Observation]:
        state = jnp.stack([jax.random.randint(key, (), 0, 2, dtype=int), jnp.zeros((), int)])
        return state, self.observe(state)

    def step(self, state: Array, action: Array, *, key: Key[Array, ""]) -> tuple[Array, Step]:
        del key
        asked = state[1] == 1
        reward = jnp.where(asked & (action == state[0]), 1.0, 0.0)
        state = state + jnp.array([0, 1])
        return state, Step(self.observe(state), reward, asked, jnp.array(False))

    def observe(self, state: Array) -> Observation:
        shown = jnp.where(state[1] == 0, 2.0 * state[0].astype(float) - 1.0, 0.0)
        return Observation(jnp.stack([shown, state[1].astype(float)]), jnp.zeros(0), jnp.ones(2, bool))


PPO_ETA = small_ppo.Eta(jnp.array(0.7), jnp.array(0.2), jnp.array(0.02))
PPO_SPEC = small_ppo.Eta(gw.Interval(), gw.Positive(), gw.Positive())


@pytest.mark.slow
@pytest.mark.parametrize("mode", [gw.ReverseMode("step"), gw.ForwardMode()], ids=["reverse", "forward"])
def test_the_meta_gradient_of_ppo_is_that_of_differences(mode):
    environment = Recall()
    agent = self_tuning(small_ppo.AGENT, environment, PPO_ETA, PPO_SPEC, mode=mode)
    state = quick_jit(lambda key: agent.init(network(environment, 2), key=key))(jax.random.key(2))
    window = quick_jit(lambda state: agent.collect_window(state, key=jax.random.key(3)))(state)
    grad = quick_jit(lambda *args: agent.window_gradient(*args).grad)(state, window)
    expected = differences(agent, state, window)
    np.testing.assert_allclose(np.array(jax.tree.leaves(grad)), expected, rtol=1e-4, atol=1e-8)
    assert abs(expected[0]) > 1e-6 and abs(expected[2]) > 1e-6, "discount and learning rate matter"


@pytest.mark.slow
def test_ppo_learns_a_probe_and_is_evaluated():
    environment = MatchedReward()
    agent = self_tuning(small_ppo.AGENT, environment, PPO_ETA, PPO_SPEC)
    agent = dataclasses.replace(agent, environment=VectorEnvironment(environment, 16))
    state = agent.init(network(environment, 2), key=jax.random.key(2))
    run = jax.jit(lambda state: jax.lax.scan(lambda carry, _: agent.step(carry), state, length=60))
    state, metrics = run(state)
    assert metrics.finite.all() and set(metrics.inner) == {"loss"}
    assert metrics.eta.learning_rate[0] != metrics.eta.learning_rate[-1]
    played = evaluate(
        agent, state.learner.params, state.raw, key=jax.random.key(4), greedy=True, num_episodes=32, max_steps=5
    )
    np.testing.assert_allclose(played.returns.mean(), environment.optimal_return, atol=0.05)
    observations, rewards = play_episode(
        agent, state.learner.params, state.raw, key=jax.random.key(5), greedy=True, max_steps=5
    )
    assert len(rewards) == observations.view.shape[0] >= 1


def test_what_a_learner_cannot_do_is_said():
    with pytest.raises(ValueError, match=r"Agent\(init=None\)"):
        dataclasses.replace(small_ppo.AGENT, init=None)
    with pytest.raises(ValueError, match=r"Agent\.sampling"):
        self_tuning(small_ppo.AGENT, MatchedReward(), PPO_ETA, PPO_SPEC, sampling_correction=gw.SamplingCorrection(0.5))
    agent = self_tuning(small_ppo.AGENT, MatchedReward(), PPO_ETA, PPO_SPEC, mode=gw.MixedMode())
    with pytest.raises(TypeError, match="ReverseMode"):
        jax.eval_shape(lambda key: agent.step(agent.init(network(MatchedReward(), 2), key=key)), jax.random.key(0))


class Target(AbstractEnvironment[Float[Array, ""]]):
    """A target is shown; the action is a number, and the reward minus its squared distance from the target."""

    num_actions: int = 1
    can_truncate: bool = False

    def reset(self, *, key: Key[Array, ""]) -> tuple[Float[Array, ""], Observation]:
        state = jax.random.uniform(key, (), minval=-1.0, maxval=1.0)
        return state, Observation(state[None], jnp.zeros(0), jnp.ones(1, bool))

    def step(self, state: Array, action: Float[Array, " 1"], *, key: Key[Array, ""]) -> tuple[Array, Step]:
        del key
        _, observation = self.reset(key=jax.random.key(0))
        reward = -((action[0] - state) ** 2)
        return state, Step(observation, reward, jnp.array(True), jnp.array(False))


@pytest.mark.slow
def test_a_gaussian_policy_learns_to_hit_a_target():
    environment, head = Target(), Gaussian(1)
    agent = actor_critic_agent(bundled_apply, inner_optimizer("adam"), head=head)
    eta = ETA._replace(learning_rate=jnp.array(0.02), entropy_cost=jnp.array(0.001))
    agent = self_tuning(agent, environment, eta, LEARNED, mode=gw.MixedMode())
    agent = dataclasses.replace(agent, environment=VectorEnvironment(environment, 32))
    state = agent.init(network(environment, head.num_outputs), key=jax.random.key(2))
    assert state.batch.trajectory.actions.dtype == jnp.float64
    state, metrics = jax.jit(lambda state: jax.lax.scan(lambda carry, _: agent.step(carry), state, length=150))(state)
    assert metrics.finite.all()
    play = lambda **kind: evaluate(  # noqa: E731
        agent, state.learner.params, state.raw, key=jax.random.key(4), num_episodes=64, max_steps=2, **kind
    )
    assert play(greedy=True).returns.mean() > -0.05 > -0.3 > play(greedy=False, uniform=True).returns.mean()


class Recurrent(eqx.Module):
    """A GRU cell in front of a feed-forward network's heads."""

    cell: eqx.nn.GRUCell
    heads: eqx.Module


SIZE = 6


def recurrent_apply(params: Recurrent, observation: Observation, conditioning: None, memory: Array) -> NetworkOutput:
    memory = params.cell(observation.view, memory)
    return params.heads(observation._replace(view=memory))._replace(memory=memory)


def recall_agent():
    cell = eqx.nn.GRUCell(2, SIZE, key=jax.random.key(7), dtype=jnp.float64)
    example = Observation(jnp.zeros(SIZE), jnp.zeros(0), jnp.ones(2, bool))
    heads = actor_critic_network(example, 2, policy_layers=(8,), value_layers=(8,), key=jax.random.key(8))
    agent = actor_critic_agent(recurrent_apply, inner_optimizer("adam"), memory=jnp.zeros(SIZE))
    return Recall(), agent, Recurrent(cell, heads)


@pytest.mark.slow
def test_learning_sees_what_was_remembered_while_acting():
    """The network evaluated on a batch says, step by step, what it said while the batch was collected."""
    from gradweave.agents.actor_critic.experience import evaluate_network

    environment, learner, params = recall_agent()
    agent = self_tuning(learner, environment, ETA, LEARNED, mode=gw.MixedMode(), num_steps=5)
    state = agent.init(params, key=jax.random.key(2))
    assert isinstance(learner, Agent) and state.rollout.memory.shape == (NUM_ENVS, SIZE)
    outputs = evaluate_network(recurrent_apply, params, state.batch, learner.memory)
    trajectory, memory = state.batch.trajectory, state.batch.trajectory.memory
    for t in range(5):
        seen = jax.tree.map(lambda leaf, t=t: leaf[t], trajectory.observations)
        said = jax.vmap(lambda one, m: recurrent_apply(params, one, None, m))(seen, memory)
        np.testing.assert_allclose(outputs.steps.logits[t], said.logits, rtol=1e-12)
        memory = jnp.where(trajectory.terminations[t][:, None], 0.0, said.memory)
    np.testing.assert_allclose(memory, state.rollout.memory, rtol=1e-12)
