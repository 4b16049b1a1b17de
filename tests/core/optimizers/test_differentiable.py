"""Every optimiser of the table: values to the bit, derivatives as finite differences, and finite at zero gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradweave as gw

LABELS = {"w": "matrix", "b": "vector"}
OPTIMIZERS = {
    "sgd": lambda: optax.sgd(0.1),
    "momentum": lambda: optax.sgd(0.1, momentum=0.9),
    "nesterov": lambda: optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: optax.adam(0.1),
    "adam_nesterov": lambda: optax.adam(0.1, nesterov=True),
    "adamw": lambda: optax.adamw(0.1, weight_decay=0.01),
    "adamax": lambda: optax.adamax(0.1),
    "adamaxw": lambda: optax.adamaxw(0.1),
    "nadam": lambda: optax.nadam(0.1),
    "radam": lambda: optax.radam(0.1),
    "amsgrad": lambda: optax.amsgrad(0.1),
    "adabelief": lambda: optax.adabelief(0.1),
    "adan": lambda: optax.adan(0.1),
    "yogi": lambda: optax.yogi(0.1),
    "rmsprop": lambda: optax.rmsprop(0.1),
    "rmsprop_published": lambda: optax.rmsprop(0.1, eps_in_sqrt=False, centered=True, momentum=0.9),
    "adagrad": lambda: optax.adagrad(0.1),
    "adagrad_from_zero": lambda: optax.adagrad(0.1, initial_accumulator_value=0.0),
    "adadelta": lambda: optax.adadelta(0.1),
    "adafactor": lambda: optax.adafactor(0.1, min_dim_size_to_factor=2),
    "sm3": lambda: optax.sm3(0.1),
    "lamb": lambda: optax.lamb(0.1),
    "lars": lambda: optax.lars(0.1, momentum=0.9),
    "novograd": lambda: optax.novograd(0.1),
    "fromage": lambda: optax.fromage(0.1),
    "optimistic": lambda: optax.optimistic_gradient_descent(0.1),
    "lion": lambda: optax.lion(0.1),
    "sign_sgd": lambda: optax.sign_sgd(0.1),
    "rprop": lambda: optax.rprop(0.1),
    "muon": lambda: optax.contrib.muon(0.1),
    "adopt": lambda: optax.contrib.adopt(0.1),
    "ademamix": lambda: optax.contrib.ademamix(0.1),
    "global_norm": lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.1, eps=1e-5)),
    "block_rms": lambda: optax.chain(optax.clip_by_block_rms(0.5), optax.sgd(0.1)),
    "adaptive_clip": lambda: optax.chain(optax.adaptive_grad_clip(0.1), optax.sgd(0.1)),
    "normalized": lambda: optax.chain(optax.normalize_by_update_norm(), optax.sgd(0.1)),
    "schedule": lambda: optax.adam(optax.warmup_cosine_decay_schedule(0.0, 0.1, 2, 10)),
    "inject": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
    "multi_steps": lambda: optax.MultiSteps(optax.sgd(0.1, momentum=0.9), 2).gradient_transformation(),
    "masked": lambda: optax.masked(optax.adam(0.1), {"w": True, "b": False}),
    "partition": lambda: optax.partition({"matrix": optax.adam(0.1), "vector": optax.rmsprop(0.1)}, LABELS),
    "if_finite": lambda: optax.apply_if_finite(optax.adam(0.1), 3),
    "lookahead_free": lambda: optax.chain(optax.centralize(), optax.ema(0.9), optax.scale(-0.1)),
}
# The gradient's magnitude does not reach the update, only its sign does: a derivative of zero, which is the right one.
PIECEWISE_CONSTANT = {"lion", "sign_sgd", "rprop"}
# What these do to one leaf depends on its rank, or on the other leaves; the others treat number by number.
BY_LEAF = {
    "adafactor", "sm3", "lamb", "lars", "novograd", "fromage", "muon", "global_norm", "block_rms", "adaptive_clip",
    "normalized", "masked", "partition", "if_finite", "lookahead_free",
}  # fmt: skip
# What most people use, one of each kind of wrapper, and one for each set of operations that have a rule in `safe_rules`
# or that branch, loop or reduce. The values of all are compared; the derivatives of the other rows, a second or two
# each, only in the whole run.
SAMPLE = {
    "sgd", "momentum", "adam", "rmsprop", "global_norm", "schedule", "masked", "lion", "adamax", "radam",
    "rmsprop_published", "adagrad_from_zero", "adafactor", "sm3", "lamb", "novograd", "muon", "adaptive_clip",
    "normalized", "multi_steps", "partition", "if_finite",
}  # fmt: skip
TABLE = [name if name in SAMPLE else pytest.param(name, marks=pytest.mark.exhaustive) for name in OPTIMIZERS]
NUM_UPDATES = 3


def start(dtype, name="partition"):
    numbers = {
        "w": jnp.array([[0.4, -1.2, 0.7], [0.3, 0.9, -0.5]], dtype),
        "b": jnp.array([0.2, -0.8, 1.1], dtype),
    }
    return numbers if name in BY_LEAF else {"w": numbers["w"]}


def gradients(scale, params):
    """Smooth functions of `scale` that pass through all signs, one for each update along the leading axis."""

    def one(k):
        return jax.tree.map(lambda leaf: jnp.sin(3.1 * leaf + 0.7 * k + scale) + 0.3 * scale * leaf, params)

    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(one(k) for k in range(NUM_UPDATES)))


def learn(optimizer, given, params):
    """(parameters, state) after an update with each of the given gradients."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):

        def step(carry, gradient):
            params, state = carry
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), given)[0]


def outer_loss(optimizer, given, params):
    after, _ = learn(optimizer, given, params)
    return sum(jnp.sum(jnp.cos(2 * leaf + 0.3)) for leaf in jax.tree.leaves(after))


def same_bits(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()


@functools.cache
def of(name):
    return OPTIMIZERS[name](), gw.differentiable(OPTIMIZERS[name]())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_values_are_the_same_to_the_bit(name):
    plain, safe = of(name)
    params = start(jnp.float32, name)
    usual = gradients(0.2, params)
    compiled = [jax.jit(lambda given, o=o: learn(o, given, params)) for o in (plain, safe)]
    for given in (usual, jax.tree.map(jnp.zeros_like, usual)):
        same_bits(*(run(given) for run in compiled))


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_derivatives_agree_with_differences_and_are_finite_to_second_order_at_zero_gradients(name):
    plain, safe = of(name)
    params = start(jnp.float64, name)

    def outcome(optimizer, scale, usual):
        # The unusual gradients are exactly 0 at scale 0; one entry is so at every scale, as behind a dead unit.
        vanishing = jax.tree.map(lambda leaf: jnp.where(leaf > 0, scale * leaf, 0), gradients(0.2, params))
        given = jax.tree.map(lambda a, b: jnp.where(usual, a, b), gradients(scale, params), vanishing)
        return outer_loss(optimizer, given, params)

    @jax.jit
    def derivatives(scale, usual):
        """(value, reverse derivative, forward derivative, second derivative)."""

        def of_safe(scale):
            return outcome(safe, scale, usual)

        one = jnp.ones(())
        value, forward = jax.jvp(of_safe, (scale,), (one,))
        backward, second = jax.jvp(jax.grad(of_safe), (scale,), (one,))
        return jnp.stack([value, backward, forward, second])

    values = jax.jit(lambda scale, usual: outcome(plain, scale, usual))
    # MultiSteps averages gradients in float32, where differences are coarse.
    rtol = 5e-3 if name == "multi_steps" else 2e-6
    for scale, usual in ((0.2, True), (0.5, False)):
        _, backward, forward, second = derivatives(scale, usual)
        truth = gw.finite_difference(lambda s, u=usual: values(s, u), jnp.array(scale), jnp.ones(()))
        np.testing.assert_allclose([forward, backward], truth, rtol=rtol, atol=1e-9)
        assert np.isfinite(second)
        if usual:
            assert (abs(float(truth)) > 1e-4) == (name not in PIECEWISE_CONSTANT)
    found = derivatives(0.0, False)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[1], found[2], rtol=1e-6, atol=1e-12)


@pytest.mark.slow
def test_the_usual_derivative_of_the_same_optimisers_is_not_finite():
    """What the above is there for: without the wrapper the usual ones are NaN."""
    params = start(jnp.float64)
    broken = set()
    for name in ("adam", "rmsprop_published", "global_norm", "adamw", "lamb"):
        plain, _ = of(name)
        slope = jax.jit(
            jax.grad(lambda s, o=plain: outer_loss(o, jax.tree.map(lambda leaf: s * leaf[None], params), params))
        )(0.0)
        if not np.isfinite(slope):
            broken.add(name)
    assert broken >= {"adam", "rmsprop_published", "global_norm", "adamw"}


@pytest.mark.slow
def test_adam_at_zero_moments_has_the_limit_of_its_derivative():
    """m / (sqrt(v) + eps) with m and v of one gradient g is g / (|g| + eps): a slope of 1 / eps at zero."""
    safe = gw.differentiable(optax.scale_by_adam(eps=1e-3))

    def direction(g):
        return safe.update(g, safe.init(g))[0]

    zero = jnp.zeros(())
    with jax.numpy_dtype_promotion("standard"):
        np.testing.assert_allclose(jax.grad(direction)(zero), 1e3, rtol=1e-9)
        np.testing.assert_allclose(jax.jvp(direction, (zero,), (jnp.ones(()),))[1], 1e3, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [gw.ReverseMode(), gw.ReverseMode("step"), gw.ForwardMode(), gw.MixedMode()])
def test_a_learner_with_a_dead_unit_has_a_finite_meta_gradient_in_every_mode(mode):
    """A ReLU unit that never fires: its parameters have a gradient of exactly zero."""
    optimizer = gw.differentiable(optax.chain(optax.clip_by_global_norm(0.5), optax.scale_by_adam()))

    def loss(params, targets, eta, batch):
        hidden = jax.nn.relu(batch[:, :2] @ params["w"] + jnp.array([[0.0, -100.0]]))
        return jnp.mean((hidden @ params["v"] - batch[:, 2]) ** 2) + eta["cost"] * jnp.sum(params["v"] ** 2), None

    def outer(state, batch):
        return loss(state.params, None, {"cost": 0.0}, batch)

    problem = gw.GradientLearner(lambda params, eta, batch: None, loss, optimizer, lambda eta: eta["rate"], outer)
    spec = {"rate": gw.Positive(), "cost": gw.Positive()}
    raw = gw.unconstrain({"rate": jnp.float64(0.05), "cost": jnp.float64(0.1)}, spec)
    batches = jax.random.normal(jax.random.key(0), (3, 6, 3))
    state = problem.init({"w": jnp.array([[1.0, 0.3], [0.4, -0.2]]), "v": jnp.array([0.7, 0.0])})

    def at(t):
        end, _ = gw.unroll(problem, gw.constrain(jax.tree.map(lambda leaf: leaf + t, raw), spec), state, batches)
        return problem.outer_loss(end, batches[-1])[0]

    result = jax.jit(lambda: gw.meta_gradient(problem, raw, spec, state, batches, batches, mode=mode))()
    assert bool(result.finite)
    truth = gw.finite_difference(jax.jit(at), jnp.zeros(()), jnp.ones(()))
    np.testing.assert_allclose(sum(jax.tree.leaves(result.grad)), truth, rtol=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (lambda: optax.polyak_sgd(), "wants more than a gradient .*'value'"),
        (lambda: optax.chain(optax.adam(0.1), optax.contrib.reduce_on_plateau()), "reduce_on_plateau"),
        (lambda: optax.lbfgs(), "line searches"),
        (lambda: optax.adam, "call the factory first"),
    ],
)
def test_what_cannot_be_differentiated_is_refused_by_name(optimizer, words):
    params = start(jnp.float64)
    with pytest.raises(TypeError, match=words), jax.numpy_dtype_promotion("standard"):
        # beartype, which tests run under, would refuse the factory in words of its own.
        wrap = getattr(gw.differentiable, "__wrapped__", gw.differentiable)
        safe = wrap(optimizer())
        safe.update(params, safe.init(params), params)


def test_a_loss_that_is_handed_over_reaches_the_optimiser():
    safe, params = gw.differentiable(optax.polyak_sgd()), start(jnp.float64)
    plain = optax.polyak_sgd()
    same_bits(
        *(jax.jit(lambda v, o=o: o.update(params, o.init(params), params, value=v))(2.0)[0] for o in (plain, safe))
    )


def test_a_line_search_is_refused():
    search = gw.differentiable(optax.scale_by_backtracking_linesearch(5))
    params = start(jnp.float64)

    def value_fn(params):
        return jnp.sum(params["w"] ** 2) + jnp.sum(params["b"] ** 2)

    with pytest.raises(TypeError, match="while loop"):
        search.update(params, search.init(params), params, value=value_fn(params), grad=params, value_fn=value_fn)
