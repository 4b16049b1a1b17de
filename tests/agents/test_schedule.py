"""A network that reads how learning goes and moves the meta-parameters by it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradweave as gw
from gradweave.agents import (
    LearningStatistics,
    RecentRewards,
    ScheduleNetwork,
    SelfTuning,
    actor_critic_agent,
    bundled_apply,
    inner_optimizer,
    learning_features,
)
from gradweave.core.bijectors import split_learned
from gradweave.envs import VectorEnvironment
from gradweave.rl import EpisodeTotals

from .material import ETA, LEARNED, Ladder, network

MODES = {"reverse": gw.ReverseMode(), "forward": gw.ForwardMode(), "mixed": gw.MixedMode()}


def assert_same(one, other, rtol=1e-9, atol=1e-13):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def agent(schedule, *, spec=LEARNED, mode=None, condition=False):
    return SelfTuning(
        agent=actor_critic_agent(bundled_apply, inner_optimizer("sgd")),
        environment=VectorEnvironment(Ladder(), 3),
        initial_raw=gw.unconstrain(ETA, spec),
        spec=spec,
        estimator=gw.HorizonMix(gw.uniform_weights(2)),
        mode=gw.MixedMode() if mode is None else mode,
        meta_optimizer=optax.adamw(0.05),
        num_inner_steps=2,
        num_steps=5,
        condition_on_eta=condition,
        schedule=schedule,
    )


TWO = LEARNED._replace(lambda_=gw.Fixed(), value_cost=gw.Fixed(), entropy_cost=gw.Fixed())


@pytest.mark.slow
def test_a_schedule_begins_as_a_constant_and_then_departs_from_it():
    one, plain = agent(ScheduleNetwork((3,)), spec=TWO, condition=True), agent(None, spec=TWO, condition=True)
    params = network(jax.random.key(1), outer_critic=False, conditioning_size=2)
    state = one.init(params, key=jax.random.key(2))
    assert [weights.shape for weights, _ in state.raw.weights.layers] == [(3, 4), (2, 3)]
    assert_same(one.eta(state.raw), plain.eta(plain.initial_raw))
    step = jax.jit(lambda state: one.step(state))
    history = []
    for _ in range(3):
        before, context = state, state.raw.context
        state, metrics = step(state)
        history.append(metrics)
        # What is reported is what was used: base plus the network on the statistics of earlier windows.
        hidden = learning_features(context)
        (first, offset), (last, shift) = before.raw.weights.layers
        change = last @ jnp.tanh(first @ hidden + offset) + shift
        expected = before.raw.weights.base
        expected = expected._replace(
            discount=expected.discount + change[0], learning_rate=expected.learning_rate + change[1]
        )
        assert_same(metrics.raw, expected)
        assert_same(metrics.eta, gw.constrain(expected, TWO))
        np.testing.assert_allclose(one.conditioning(before.raw), jnp.stack([expected.discount, expected.learning_rate]))
        np.testing.assert_array_equal(before.batch.conditioning is None, False)
        assert bool(metrics.finite)
        assert float(state.raw.context.num_windows) == float(context.num_windows) + 1
        np.testing.assert_array_equal(metrics.grad.lambda_, 0.0)
        assert float(metrics.grad.discount) != 0
    assert any((leaf != 0).any() for leaf in state.raw.weights.layers[-1])
    np.testing.assert_array_equal(state.raw.weights.base.lambda_, plain.initial_raw.lambda_)
    # The first window cannot differ from plain meta-gradients at the same state.
    used = plain.init(params, key=jax.random.split(jax.random.key(2))[0])
    _, reference = jax.jit(lambda state: plain.step(state))(used)
    assert_same(history[0].grad, reference.grad)
    assert_same(history[0].outer_loss, reference.outer_loss)


@pytest.mark.slow
def test_modes_agree_on_a_schedule():
    agents = {name: agent(ScheduleNetwork(()), spec=TWO, mode=mode) for name, mode in MODES.items()}
    mixed = agents["mixed"]
    state = mixed.init(network(jax.random.key(1), outer_critic=False), key=jax.random.key(2))
    layers = jax.tree.map(lambda leaf: leaf + 0.1, state.raw.weights.layers)
    context = jax.tree.map(lambda leaf: leaf + 0.5, state.raw.context)
    learned, fixed = split_learned(gw.Contextual(state.raw.weights._replace(layers=layers), context), mixed.meta_spec)
    state = state._replace(learned=learned, fixed=fixed)
    collected = jax.jit(lambda state: mixed.collect_window(state, key=jax.random.key(5)))(state)
    found = jax.jit(lambda state: {name: one.window_gradient(state, collected).grad for name, one in agents.items()})(
        state
    )
    for grad in found.values():
        assert_same(grad.weights, found["reverse"].weights)
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(grad.context))
    weights, bias = found["mixed"].weights.layers[0]
    # A linear layer: the gradient of its weights is an outer product with what it read.
    np.testing.assert_allclose(weights, bias[:, None] * learning_features(context), rtol=1e-9)
    np.testing.assert_allclose(
        bias, jnp.stack([found["mixed"].weights.base.discount, found["mixed"].weights.base.learning_rate])
    )
    assert (jnp.abs(bias) > 0).all()


def test_statistics_of_learning_are_means_with_a_short_and_a_long_memory():
    statistics, returns, norms = LearningStatistics.empty(), [], []
    np.testing.assert_array_equal(learning_features(statistics), np.zeros(4))
    for k, (count, total) in enumerate([(2.0, 6.0), (0.0, 0.0), (1.0, 5.0), (4.0, 2.0)]):
        norm = jnp.array([0.5 + k, 1.5])
        statistics = statistics.observe(
            EpisodeTotals(jnp.array([count, 0.0]), jnp.array([total, 0.0]), jnp.zeros(2)), norm
        )
        norms.append(np.log(norm.mean() + 1e-8))
        if count:
            returns.append(total / count)

    def mean(values, decay):
        return np.average(values, weights=decay ** np.arange(len(values))[::-1])

    usual, recent = mean(returns, 0.98), mean(returns, 0.8)
    std = np.sqrt(mean(np.square(returns), 0.98) - usual**2)
    expected = [
        np.tanh((recent - usual) / std),
        np.log1p(usual),
        np.tanh(mean(norms, 0.8) - mean(norms, 0.98)),
        4 / 1004,
    ]
    np.testing.assert_allclose(learning_features(statistics), expected, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("outer_rollout", ["next", "own"])
def test_a_schedule_of_rewards_reads_what_the_last_ten_rollouts_paid(outer_rollout):
    one = dataclasses.replace(agent(ScheduleNetwork((), "rewards"), spec=TWO), outer_rollout=outer_rollout)
    state = one.init(network(jax.random.key(1), outer_critic=False), key=jax.random.key(2))
    weights, _ = state.raw.weights.layers[0]
    assert weights.shape == (2, 10)
    paid = [0.0] * 10

    @jax.jit
    def step(state):
        # What `step` collects, collected here again.
        window = one.collect_window(state, key=jax.random.split(jax.random.clone(state.key))[1])
        return one.step(state), window

    for _ in range(2):
        (after, metrics), window = step(state)
        paid += [float(window.batches.trajectory.rewards[1].mean()), float(window.batch.trajectory.rewards.mean())]
        np.testing.assert_allclose(after.raw.context.rewards, paid[-10:], rtol=1e-6)
        (weights, bias), base = state.raw.weights.layers[0], state.raw.weights.base
        change = weights @ state.raw.context.rewards + bias
        np.testing.assert_allclose(metrics.raw.discount, base.discount + change[0], rtol=1e-6)
        np.testing.assert_allclose(metrics.raw.learning_rate, base.learning_rate + change[1], rtol=1e-6)
        state = after
    assert len(set(paid)) > 2, "rewards that do not differ show nothing"
    assert (state.raw.weights.layers[0][0] != 0).any()


def test_only_the_last_ten_rollouts_are_remembered():
    remembered = RecentRewards.empty().observe(jnp.arange(4.0)).observe(jnp.arange(4.0, 13.0))
    np.testing.assert_array_equal(remembered.rewards, np.arange(3.0, 13.0))


def test_wrong_schedules_are_refused():
    with pytest.raises(ValueError, match=r"reads='returns'.*learning.*rewards"):
        ScheduleNetwork(reads="returns")
    with pytest.raises(ValueError, match=r"Agent.sampling"):
        silent = agent(None)
        silent = dataclasses.replace(silent.agent, sampling=None)
        dataclasses.replace(agent(None), agent=silent, schedule=ScheduleNetwork(reads="rewards"))
    with pytest.raises(ValueError, match=r"hidden=\(4, 0\).*at least one"):
        ScheduleNetwork((4, 0))
    fixed = jax.tree.map(lambda _: gw.Fixed(), LEARNED, is_leaf=lambda node: isinstance(node, gw.AbstractBijector))
    with pytest.raises(ValueError, match=r"schedule.*Fixed"):
        agent(ScheduleNetwork(), spec=fixed)
