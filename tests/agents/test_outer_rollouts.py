"""Outer rollouts of their own, against a Python loop: what they are collected with, counted and evaluated."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradweave as gw
from gradweave.agents import OuterObjective, SelfTuning, actor_critic_agent, bundled_apply, inner_optimizer
from gradweave.envs import VectorEnvironment

from .material import ETA, LEARNED, NUM_ENVS, NUM_STEPS, Ladder, network, quick_jit

NUM_INNER = 3


def make(*, estimator, mode, outer_rollout="own", spec=LEARNED, objective=None):
    objective = OuterObjective(value_cost=0.5, entropy_cost=0.01) if objective is None else objective
    return SelfTuning(
        agent=actor_critic_agent(bundled_apply, inner_optimizer("sgd"), objective),
        environment=VectorEnvironment(Ladder(), NUM_ENVS),
        initial_raw=gw.unconstrain(ETA, spec),
        spec=spec,
        estimator=estimator,
        mode=mode,
        meta_optimizer=optax.adam(0.05),
        num_inner_steps=NUM_INNER,
        num_steps=NUM_STEPS,
        outer_rollout=outer_rollout,
    )


PARAMS = network(jax.random.key(1), outer_critic=False)


def collected_by_loop(agent, state):
    """(x_0 .. x_L, inner batches, outer batches, rollout state, next batch), update by update."""
    window_key = jax.random.split(jax.random.clone(state.key))[1]
    eta, learner, running, batch = agent.eta(state.raw), state.learner, state.rollout, state.batch
    states, inner, outer = [learner], [], []
    for step_key in jax.random.split(window_key, NUM_INNER):
        inner_key, outer_key = jax.random.split(step_key)
        inner.append(batch)
        learner, _ = agent.problem.update(learner, eta, batch)
        running, evaluated, _ = agent.collect(learner.params, state.raw, running, key=outer_key)
        running, batch, _ = agent.collect(learner.params, state.raw, running, key=inner_key)
        outer.append(evaluated)
        states.append(learner)
    stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)  # noqa: E731
    return states, stack(inner), stack(outer), running, batch


def same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("estimator", "mode"),
    [
        (gw.Unrolled(), gw.MixedMode()),
        (gw.HorizonMix(gw.uniform_weights(NUM_INNER)), gw.MixedMode()),
        (gw.HorizonMix(gw.uniform_weights(NUM_INNER)), gw.ForwardMode()),
        (gw.Truncated(2), gw.ReverseMode()),
        (gw.Bootstrapped(1), gw.MixedMode()),
    ],
    ids=["unrolled-mixed", "mix-mixed", "mix-forward", "truncated-reverse", "bootstrapped"],
)
def test_a_meta_step_is_that_of_a_loop(estimator, mode):
    agent = make(estimator=estimator, mode=mode)
    state = agent.init(PARAMS, key=jax.random.key(4))
    stepped, metrics = quick_jit(lambda state: agent.step(state))(state)
    states, inner, outer, running, batch = collected_by_loop(agent, state)
    same(stepped.learner, states[-1])
    same(stepped.rollout.observation, running.observation)
    same(stepped.batch, batch)
    # Reverse mode through nothing but the two functions, on the loop's batches.
    plain = gw.MetaProblem(agent.problem.update, agent.problem.outer_loss)
    if not isinstance(estimator, gw.Bootstrapped):
        expected = gw.meta_gradient(
            plain, state.raw, LEARNED, state.learner, inner, outer, estimator=estimator, mode=gw.ReverseMode()
        )
        same(metrics.grad, expected.grad)
    assert any(jnp.abs(leaf) > 0 for leaf in jax.tree.leaves(metrics.grad))


def test_every_step_is_counted():
    agents = {name: make(estimator=gw.Unrolled(), mode=gw.MixedMode(), outer_rollout=name) for name in ("next", "own")}
    per_rollout = NUM_ENVS * NUM_STEPS
    assert agents["next"].environment_steps(2) == (1 + 2 * NUM_INNER) * per_rollout
    assert agents["own"].environment_steps(2) == (1 + 2 * 2 * NUM_INNER) * per_rollout


def test_episodes_of_outer_rollouts_are_reported():
    agent = make(estimator=gw.Unrolled(), mode=gw.MixedMode())
    state = agent.init(PARAMS, key=jax.random.key(4))
    _, metrics = quick_jit(lambda state: agent.step(state))(state)
    _, inner, outer, _, batch = collected_by_loop(agent, state)
    collected = [outer.trajectory, jax.tree.map(lambda leaf: leaf[1:], inner.trajectory)]
    ended = sum(float((one.terminations | one.truncations).sum()) for one in collected)
    ended += float((batch.trajectory.terminations | batch.trajectory.truncations).sum())
    assert metrics.episodes.num_episodes == ended > 0


def test_plain_learning_collects_nothing_for_an_outer_loss():
    fixed = type(LEARNED)(*[gw.Fixed()] * 5)
    own, following = (
        make(estimator=gw.Unrolled(), mode=gw.MixedMode(), outer_rollout=name, spec=fixed) for name in ("own", "next")
    )
    assert own.environment_steps(3) == following.environment_steps(3)
    states = [
        quick_jit(lambda state, agent=agent: agent.step(state))(agent.init(PARAMS, key=jax.random.key(2)))[0]
        for agent in (own, following)
    ]
    same(*(jax.tree.map(lambda leaf: leaf, state.learner) for state in states))


def test_the_outer_objective_annotates_the_rollouts_that_it_reads():
    objective = OuterObjective(kl_cost=1.0, standardize_advantages=True)
    agent = make(estimator=gw.HorizonMix(gw.uniform_weights(NUM_INNER)), mode=gw.MixedMode(), objective=objective)
    state = agent.init(PARAMS, key=jax.random.key(4))
    window = agent.collect_window(state, key=jax.random.key(0))
    assert window.batches.anchor_logits is None and window.outer_batches.anchor_logits.shape[0] == NUM_INNER
    _, metrics = quick_jit(lambda state: agent.step(state))(state)
    assert metrics.outer["outer_kl"] > 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"outer_rollout": "other"}, 'give "next" or "own"'),
        ({"sampling_correction": gw.SamplingCorrection(0.5)}, "outer_rollout=.next."),
    ],
)
def test_what_cannot_be_is_refused(changes, words):
    agent = make(estimator=gw.Unrolled(), mode=gw.MixedMode())
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(agent, **changes)
