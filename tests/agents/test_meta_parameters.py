"""Meta-parameters beyond scalars: rates for groups of parameters, vectors, weights that read a context."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradweave as gw
from gradweave.agents import (
    actor_critic,
    bundled_apply,
    inner_optimizer,
    parameter_groups,
)

from .material import ETA, LEARNED, experience, network

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
    with pytest.raises(ValueError, match=r"\['head'\]"):
        parameter_groups(params, {"head": "fast"}, default="rest")
    with pytest.raises(ValueError, match=r"\['Dense_0'\]"):
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


@pytest.mark.slow
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


@pytest.mark.slow
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
