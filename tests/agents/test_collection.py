"""Outer rollouts of their own, against a Python loop: what they are collected with, counted and evaluated."""

import dataclasses
import functools

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


MIX = gw.HorizonMix(gw.uniform_weights(NUM_INNER))


@functools.cache
def parameters():
    with jax.ensure_compile_time_eval():  # also where a program that is traced asks first
        return network(jax.random.key(1), outer_critic=False)


@functools.cache
def window_by_loop():
    """(start, x_L, inner batches, outer batches, rollout state, next batch), update by update.

    Nothing of it depends on the estimator or the mode.
    """
    agent = make(estimator=gw.Unrolled(), mode=gw.MixedMode())
    state = quick_jit(lambda key: agent.init(parameters(), key=key))(jax.random.key(4))

    @quick_jit
    def one_update(learner, running, batch, step_key):
        inner_key, outer_key = jax.random.split(step_key)
        learner, _ = agent.problem.update(learner, agent.eta(state.raw), batch)
        running, evaluated, _ = agent.collect(learner.params, state.raw, running, key=outer_key)
        running, batch, _ = agent.collect(learner.params, state.raw, running, key=inner_key)
        return learner, running, batch, evaluated

    window_key = jax.random.split(jax.random.clone(state.key))[1]
    learner, running, batch, inner, outer = state.learner, state.rollout, state.batch, [], []
    for step_key in jax.random.split(window_key, NUM_INNER):
        inner.append(batch)
        learner, running, batch, evaluated = one_update(learner, running, batch, step_key)
        outer.append(evaluated)
    stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)  # noqa: E731
    return state, learner, stack(inner), stack(outer), running, batch


def from_start():
    """`window_by_loop`, with a start that may be stepped from again."""
    state, *rest = window_by_loop()
    return state._replace(key=jax.random.clone(state.key)), *rest


def same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "mode"),
    [(MIX, gw.MixedMode()), (MIX, gw.ForwardMode()), (gw.Truncated(2), gw.ReverseMode())],
    ids=["mix-mixed", "mix-forward", "truncated-reverse"],
)
def test_a_meta_step_is_that_of_a_loop(estimator, mode):
    agent = make(estimator=estimator, mode=mode)
    state, learner, inner, outer, running, batch = from_start()
    # Reverse mode through nothing but the two functions, on the loop's batches.
    plain = gw.MetaProblem(agent.problem.update, agent.problem.outer_loss)
    args = (plain, state.raw, LEARNED, state.learner, inner, outer)
    (stepped, metrics), expected = quick_jit(
        lambda state: (agent.step(state), gw.meta_gradient(*args, estimator=estimator, mode=gw.ReverseMode()).grad)
    )(state)
    same(stepped.learner, learner)
    same(stepped.rollout.observation, running.observation)
    same(stepped.batch, batch)
    same(metrics.grad, expected)
    assert any(jnp.abs(leaf) > 0 for leaf in jax.tree.leaves(metrics.grad))
    # Episodes of outer rollouts are reported.
    collected = [outer.trajectory, jax.tree.map(lambda leaf: leaf[1:], inner.trajectory), batch.trajectory]
    ended = sum(float((one.terminations | one.truncations).sum()) for one in collected)
    assert metrics.episodes.num_episodes == ended > 0


@pytest.mark.slow
def test_estimators_of_a_recorded_window_are_those_of_a_loop():
    state, _, inner, outer, *_ = from_start()
    agents = [make(estimator=estimator, mode=gw.MixedMode()) for estimator in (gw.Unrolled(), gw.Bootstrapped(1))]
    plain = gw.MetaProblem(agents[0].problem.update, agents[0].problem.outer_loss)
    args = (plain, state.raw, LEARNED, state.learner, inner, outer)

    @quick_jit
    def gradients(state):
        window = agents[0].collect_window(state, key=jax.random.split(state.key)[1])
        expected = gw.meta_gradient(*args, estimator=gw.Unrolled(), mode=gw.ReverseMode()).grad
        return [agent.window_gradient(state, window).grad for agent in agents], expected

    (unrolled, bootstrapped), expected = gradients(state)
    same(unrolled, expected)
    assert any(jnp.abs(leaf) > 0 for leaf in jax.tree.leaves(bootstrapped))


def test_every_step_is_counted():
    agents = {name: make(estimator=gw.Unrolled(), mode=gw.MixedMode(), outer_rollout=name) for name in ("next", "own")}
    per_rollout = NUM_ENVS * NUM_STEPS
    assert agents["next"].environment_steps(2) == (1 + 2 * NUM_INNER) * per_rollout
    assert agents["own"].environment_steps(2) == (1 + 2 * 2 * NUM_INNER) * per_rollout


@pytest.mark.slow
def test_plain_learning_collects_nothing_for_an_outer_loss():
    fixed = type(LEARNED)(*[gw.Fixed()] * 5)
    own, following = (
        make(estimator=gw.Unrolled(), mode=gw.MixedMode(), outer_rollout=name, spec=fixed) for name in ("own", "next")
    )
    assert own.environment_steps(3) == following.environment_steps(3)

    def learn(agent, key):
        return agent.step(agent.init(parameters(), key=key))[0].learner

    same(*quick_jit(lambda key: [learn(own, jax.random.clone(key)), learn(following, key)])(jax.random.key(2)))


@pytest.mark.slow
def test_the_outer_objective_annotates_the_rollouts_that_it_reads():
    objective = OuterObjective(kl_cost=1.0, standardize_advantages=True)
    agent = make(estimator=MIX, mode=gw.MixedMode(), objective=objective)

    @quick_jit
    def one_window(key):
        state = agent.init(parameters(), key=key)
        window = agent.collect_window(state, key=jax.random.key(0))
        return window, agent.window_gradient(state, window)

    window, result = one_window(jax.random.key(4))
    assert window.batches.anchor_logits is None and window.outer_batches.anchor_logits.shape[0] == NUM_INNER
    assert (result.aux.outer["outer_kl"] > 0).all()


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
