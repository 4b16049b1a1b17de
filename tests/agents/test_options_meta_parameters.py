"""Meta-parameters beyond scalars: rates for groups of parameters, vectors, a network that reads how learning goes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradweave as gw
from gradweave.agents import (
    LearningStatistics,
    ScheduleNetwork,
    SelfTuning,
    actor_critic,
    actor_critic_agent,
    bundled_apply,
    inner_optimizer,
    learning_features,
    parameter_groups,
)
from gradweave.core.bijectors import split_learned
from gradweave.envs import VectorEnvironment
from gradweave.rl import EpisodeTotals

from .material import ETA, LEARNED, Ladder, experience, network

MODES = {"reverse": gw.ReverseMode(), "forward": gw.ForwardMode(), "mixed": gw.MixedMode()}


def window(length, seed=6):
    return jax.vmap(lambda key: experience(key, truncates=True))(jax.random.split(jax.random.key(seed), length + 1))


def directions(tree):
    """Each learned number by itself."""
    flat, unravel = jax.flatten_util.ravel_pytree(tree)
    return [unravel(row) for row in jnp.eye(flat.size)]


def assert_same(one, other, rtol=1e-9, atol=1e-13):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


# ---------------------------------------------------------------------------------- rates for groups of parameters


def grouped(params):
    groups = parameter_groups(params, {"policy_head": "policy", "value_head": "value"}, default="torso")
    return actor_critic(bundled_apply, inner_optimizer("sgd"), learning_rate_groups=groups)


@pytest.mark.slow
def test_each_group_moves_at_its_own_rate_and_has_its_own_gradient():
    params = network(jax.random.key(1), outer_critic=False)
    one_rate, problem = actor_critic(bundled_apply, inner_optimizer("sgd")), grouped(params)
    state, batches = problem.init(params), window(2)
    rates = {"policy": jnp.array(0.1), "value": jnp.array(0.03), "torso": jnp.array(0.2)}
    eta = ETA._replace(learning_rate=rates)
    first = jax.tree.map(lambda leaf: leaf[0], batches)
    moved = problem.update(state, eta, first)[0].params
    for head, name in (("policy_head", "policy"), ("value_head", "value")):
        alone = one_rate.update(state, ETA._replace(learning_rate=rates[name]), first)[0].params
        assert_same(getattr(moved, head), getattr(alone, head))
        assert any(
            (a != b).any()
            for a, b in zip(*map(jax.tree.leaves, (getattr(moved, head), getattr(params, head))), strict=True)
        )

    # Everything but the rates is fixed, and the outer loss is one whose derivative is honest.
    spec = jax.tree.map(lambda _: gw.Fixed(), LEARNED, is_leaf=lambda node: isinstance(node, gw.AbstractBijector))
    spec = spec._replace(learning_rate=gw.Positive())
    raw = gw.unconstrain(eta, spec)
    last = jax.tree.map(lambda leaf: leaf[-1], batches)

    evaluated = problem.with_outer_loss(
        lambda state, batch: (jnp.mean(state.params.steps.value**2 + state.params.steps.logits[..., 0] ** 2), None)
    )

    @jax.jit
    def after(raw):
        state_, _ = gw.unroll(evaluated, gw.constrain(raw, spec), state, jax.tree.map(lambda leaf: leaf[:-1], batches))
        return evaluated.outer_loss(state_, last)[0]

    found = jax.jit(
        lambda raw: {
            name: gw.meta_gradient(evaluated, raw, spec, state, batches, None, mode=mode).grad
            for name, mode in MODES.items()
        }
    )(raw)
    zero = jax.tree.map(jnp.zeros_like, raw)
    for name in rates:
        way = zero._replace(learning_rate=zero.learning_rate | {name: jnp.ones(())})
        expected = float(gw.finite_difference(after, raw, way))
        for grads in found.values():
            np.testing.assert_allclose(grads.learning_rate[name], expected, rtol=1e-6, atol=1e-10)
        # A vector is seen by no torso: nothing there can move.
        assert (expected == 0) == (name == "torso")
    assert all(
        float(found["mixed"]._asdict()[name]) == 0 for name in ("discount", "lambda_", "entropy_cost", "value_cost")
    )


def test_groups_are_named_by_paths():
    params = {"params": {"Dense_0": {"kernel": jnp.ones(2), "bias": jnp.ones(1)}, "policy": {"kernel": jnp.ones(3)}}}
    groups = parameter_groups(params, {"['policy']": "fast", "bias": "slow"}, default="rest")
    assert groups == {"params": {"Dense_0": {"kernel": "rest", "bias": "slow"}, "policy": {"kernel": "fast"}}}
    with pytest.raises(ValueError, match=r"no parameter's path contains \['head'\], or only"):
        parameter_groups(params, {"head": "fast"}, default="rest")
    with pytest.raises(ValueError, match=r"\['Dense_0'\], or only such that an entry before it names"):
        parameter_groups(params, {"params": "fast", "Dense_0": "slow"}, default="rest")


# --------------------------------------------------------------------------------------------------------- vectors


def two_heads():
    """A policy with two heads, an action each, rewarded apart, and an entropy cost for each: a vector in eta."""

    def loss(params, targets, eta, rewards):
        log_p = jax.nn.log_softmax(params["logits"] @ params["mix"])  # (heads, actions)
        expected = jnp.sum(jnp.exp(log_p) * rewards)
        return -expected + jnp.sum(eta["entropy_costs"] * jnp.sum(jnp.exp(log_p) * log_p, -1)), None

    def outer_loss(state, rewards):
        return -jnp.sum(jax.nn.softmax(state.params["logits"] @ state.params["mix"]) * rewards), None

    problem = gw.GradientLearner(
        lambda params, eta, batch: None, loss, inner_optimizer("adam", eps=1e-3), lambda eta: eta["rate"], outer_loss
    )
    params = {"logits": jax.random.normal(jax.random.key(0), (2, 3)), "mix": jnp.eye(3) + 0.3}
    spec = {"entropy_costs": gw.Positive(), "rate": gw.Positive()}
    raw = gw.unconstrain({"entropy_costs": jnp.array([0.3, 0.05]), "rate": jnp.array(0.1)}, spec)
    return problem, raw, spec, problem.init(params)


@pytest.mark.parametrize(
    "estimator", [gw.Unrolled(), gw.HorizonMix(jnp.array([0.2, 0.3, 0.5]))], ids=["unrolled", "mix"]
)
def test_a_vector_has_a_gradient_for_each_entry(estimator):
    problem, raw, spec, state = two_heads()
    batches = jax.random.normal(jax.random.key(1), (4, 2, 3))
    weights = [0, 0, 1] if isinstance(estimator, gw.Unrolled) else [0.2, 0.3, 0.5]

    @jax.jit
    def after(raw):
        learner, total = state, jnp.zeros(())
        for k in range(3):
            learner, _ = problem.update(learner, gw.constrain(raw, spec), batches[k])
            total = total + weights[k] * problem.outer_loss(learner, batches[k + 1])[0]
        return total

    expected = np.array([float(gw.finite_difference(after, raw, way)) for way in directions(raw)])
    assert (np.abs(expected) > 1e-6).all()
    args = (problem, raw, spec, state, batches, None)
    for grad in jax.jit(
        lambda: [gw.meta_gradient(*args, estimator=estimator, mode=mode).grad for mode in MODES.values()]
    )():
        assert grad["entropy_costs"].shape == (2,)
        np.testing.assert_allclose(jax.flatten_util.ravel_pytree(grad)[0], expected, rtol=1e-6, atol=1e-10)


# ------------------------------------------------------------------------------------- meta-parameters from context

ESTIMATORS = {
    "unrolled": gw.Unrolled(),
    "truncated": gw.Truncated(2),
    "windows": gw.TruncationMix(gw.uniform_weights(3)),
    "horizons": gw.HorizonMix(gw.uniform_weights(3)),
    "bootstrapped": gw.Bootstrapped(2),
}


def mapping(weights, context):
    """Two hidden units, then an entropy cost for each head and a rate."""
    cost, other, rate = weights["out"] @ jnp.tanh(weights["in"] @ context) + weights["bias"]
    return {"entropy_costs": jnp.exp(jnp.stack([cost, other])), "rate": jnp.exp(rate)}


def contextual_case():
    problem, _, _, state = two_heads()
    keys = jax.random.split(jax.random.key(2), 2)
    weights = {
        "in": jax.random.normal(keys[0], (2, 3)),
        "out": 0.5 * jax.random.normal(keys[1], (3, 2)),
        "bias": jnp.array([-1.0, -2.0, -2.0]),
    }
    raw = gw.Contextual(weights, jnp.array([0.3, -1.0, 0.5]))
    return gw.contextual(problem, mapping), raw, gw.contextual_spec(gw.Unbounded()), state, problem


@pytest.mark.parametrize("name", ESTIMATORS)
def test_weights_get_the_gradient_of_eta_through_the_mapping(name):
    """Chain rule: the gradient by eta, found without any mapping, pulled back through the mapping alone."""
    contextual, raw, spec, state, problem = contextual_case()
    assert isinstance(contextual, gw.GradientLearner)
    batches = jax.random.normal(jax.random.key(1), (4, 2, 3))
    eta, pull_back = jax.vjp(lambda weights: mapping(weights, raw.context), raw.weights)
    window, estimator = (state, batches, None), ESTIMATORS[name]

    @jax.jit
    def gradients():
        by_eta = gw.meta_gradient(problem, eta, gw.Unbounded(), *window, estimator=estimator, mode=gw.ReverseMode())
        return by_eta, [
            gw.meta_gradient(contextual, raw, spec, *window, estimator=estimator, mode=mode) for mode in MODES.values()
        ]

    by_eta, by_weights = gradients()
    (expected,) = pull_back(by_eta.grad)
    for found in by_weights:
        assert_same(found.grad.weights, expected)
        assert (found.grad.context == 0).all()
        np.testing.assert_allclose(found.outer_loss, by_eta.outer_loss, rtol=1e-12)
    assert all((leaf != 0).all() for leaf in jax.tree.leaves(expected))


def test_any_update_function_may_be_contextual():
    problem = gw.MetaProblem(lambda x, eta, b: (x - eta * (x - b), None), lambda x, b: (0.5 * (x - b) ** 2, None))
    one = gw.contextual(problem, lambda weight, context: weight * context)
    raw, zeros = gw.Contextual(jnp.array(0.2), jnp.array(0.5)), jnp.zeros(3)
    for mode in (gw.ReverseMode("step"), gw.ForwardMode()):
        grad = gw.meta_gradient(
            one, raw, gw.contextual_spec(gw.Unbounded()), jnp.array(1.0), zeros, zeros, mode=mode
        ).grad
        np.testing.assert_allclose(grad.weights, -3 * 0.9**5 * 0.5, rtol=1e-12)


# ------------------------------------------------------------------------------------------------ learned schedules


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


def test_wrong_schedules_are_refused():
    with pytest.raises(ValueError, match=r"hidden=\(4, 0\)\): layers need at least one unit"):
        ScheduleNetwork((4, 0))
    fixed = jax.tree.map(lambda _: gw.Fixed(), LEARNED, is_leaf=lambda node: isinstance(node, gw.AbstractBijector))
    with pytest.raises(
        ValueError, match="a schedule moves learned meta-parameters, but every leaf of the spec is Fixed"
    ):
        agent(ScheduleNetwork(), spec=fixed)
