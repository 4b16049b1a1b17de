"""Learners as people write them: Python numbers, loops, rules of their own. One table: every mode x every oddity.

The truth is a central difference of a plain Python loop in float64; an oddity that a mode cannot serve is refused in
our words, and the message names the mode that does.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradweave as gw

L = 3
TARGETS = jnp.array([0.1, 0.5, -0.2])
SPECS = {1: {"a": gw.Positive(), "b": gw.Fixed()}, 2: {"a": gw.Positive(), "b": gw.Unbounded()}}
RAW = {"a": jnp.log(jnp.float64(0.2)), "b": jnp.float64(0.01)}
MODES = {
    "reverse": gw.ReverseMode(),
    "step": gw.ReverseMode("step"),
    "segments": gw.ReverseMode(2),
    "forward": gw.ForwardMode(),
}
ESTIMATORS = {
    "unrolled": lambda: gw.Unrolled(),
    "horizons": lambda: gw.HorizonMix(gw.uniform_weights(L)),
    "trace": lambda: gw.Trace(1.0),
    "adaptive": lambda: gw.AdaptiveMix(L, warmup=2),
}
"""Those whose first window has a known answer: g_L, or the mean of g_1 .. g_L."""


class Oddity(NamedTuple):
    """A learner of one number, and the modes in which JAX has no derivative for it."""

    update: Any
    outer_loss: Any
    start: Any = 1.0
    refused_in: tuple[str, ...] = ()


def plain_update(x, eta, target):
    return x - eta["a"] * (x - target) - eta["b"], None


def plain_outer(x, target):
    return 0.5 * (x - target) ** 2, None


def root(y):
    """A square root by a number of Babylonian steps that is only known when it runs."""
    many = jnp.asarray(30) + jnp.asarray(0 * y, int)
    return jax.lax.while_loop(
        lambda carry: carry[1] < many, lambda carry: (0.5 * (carry[0] + y / carry[0]), carry[1] + 1), (1.0 + 0 * y, 0)
    )[0]


@jax.custom_vjp
def bent(x):
    return jnp.tanh(x)


bent.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (g * (1 - jnp.tanh(x) ** 2),))

REVERSE = ("reverse", "step", "segments")
ODDITIES = {
    "python number": Oddity(plain_update, plain_outer, 1.0),
    "weak array": Oddity(plain_update, plain_outer, jnp.asarray(1.0)),
    "numpy scalar": Oddity(plain_update, plain_outer, np.float64(1.0)),
    "mixed with float32": Oddity(
        lambda x, eta, t: (
            x - eta["a"].astype(jnp.float32) * (x - t.astype(jnp.float32)) - eta["b"].astype(x.dtype),
            None,
        ),
        lambda x, t: (0.5 * (x - t.astype(x.dtype)) ** 2, None),
        1.0,
    ),
    "an integer beside": Oddity(
        lambda x, eta, t: ({"n": x["n"] + 1, "x": plain_update(x["x"], eta, t)[0]}, None),
        lambda x, t: plain_outer(x["x"], t),
        {"n": 0, "x": 1.0},
    ),
    "while in the update": Oddity(
        lambda x, eta, t: (x - eta["a"] * root(1 + (x - t) ** 2) * (x - t) - eta["b"], None),
        plain_outer,
        jnp.array(1.0),
        REVERSE,
    ),
    "while in the outer loss": Oddity(
        plain_update, lambda x, t: (root(1 + (x - t) ** 2), None), jnp.array(1.0), REVERSE
    ),
    "custom_vjp in the update": Oddity(
        lambda x, eta, t: (x - eta["a"] * bent(x - t) - eta["b"], None), plain_outer, jnp.array(1.0)
    ),
    "custom_vjp in the outer loss": Oddity(plain_update, lambda x, t: (bent(x - t) ** 2, None), jnp.array(1.0)),
    "both": Oddity(plain_update, lambda x, t: (bent(x - t) * root(1 + (x - t) ** 2), None), jnp.array(1.0), REVERSE),
}


def losses(oddity, raw):
    """J(x_1) .. J(x_L) by a plain loop."""
    x = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.asarray(leaf).dtype), oddity.start)
    eta, found = {"a": jnp.exp(raw["a"]), "b": raw["b"]}, []
    for k in range(L):
        x, _ = oddity.update(x, eta, TARGETS[k])
        found.append(jnp.asarray(oddity.outer_loss(x, TARGETS[k])[0], jnp.float64))
    return jnp.stack(found)


@functools.cache
def truth(name, num_learned):
    """Along both learned numbers: (of J(x_L), of the mean)."""
    oddity = ODDITIES[name]
    step = 1e-3 if "float32" in name else 1e-5
    run = jax.jit(lambda t: losses(oddity, {"a": RAW["a"] + t, "b": RAW["b"] + (t if num_learned == 2 else 0)}))
    with jax.numpy_dtype_promotion("standard"):
        slopes = (run(step) - run(-step)) / (2 * step)
    return float(slopes[-1]), float(slopes.mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", ODDITIES)
@pytest.mark.parametrize("num_learned", SPECS)
def test_every_mode_gives_the_number_or_names_the_mode_that_does(name, num_learned):
    oddity = ODDITIES[name]
    problem, spec = gw.MetaProblem(oddity.update, oddity.outer_loss), SPECS[num_learned]
    last, mean = truth(name, num_learned)
    rtol = 1e-3 if "float32" in name else 1e-6
    assert abs(last) > 1e-3

    def estimate(estimator, mode):
        memory = estimator.init(RAW, spec, oddity.start)
        return gw.meta_gradient(
            problem, RAW, spec, oddity.start, TARGETS, TARGETS, estimator=estimator, mode=mode, estimator_state=memory
        )

    # All in one program: what is compiled together is compiled once.
    served = [(est, mode) for est in ESTIMATORS for mode in MODES if mode not in oddity.refused_in]
    served = [(est, mode) for est, mode in served if mode == "forward" or est in ("unrolled", "horizons")]
    with jax.numpy_dtype_promotion("standard"):
        results = jax.jit(lambda: [estimate(ESTIMATORS[est](), MODES[mode]) for est, mode in served])()
        for (est, mode), result in zip(served, results, strict=True):
            wanted = last if est in ("unrolled", "trace") else mean
            np.testing.assert_allclose(learned_sum(result.grad), wanted, rtol=rtol, err_msg=f"{est} {mode}")
            assert bool(result.finite)
            assert jax.tree.structure(result.state) == jax.tree.structure(oddity.start)
        for mode in oddity.refused_in:
            for est in ("unrolled", "horizons"):
                with pytest.raises(TypeError, match=r"reverse derivative of a while loop.*ForwardMode\(\)"):
                    jax.eval_shape(lambda est=est, mode=mode: estimate(ESTIMATORS[est](), MODES[mode]))


def learned_sum(grad):
    """The derivative along all learned numbers at once; those that are fixed have 0."""
    return float(sum(leaf.sum() for leaf in jax.tree.leaves(grad)))


@pytest.mark.slow
@pytest.mark.parametrize("start", [1.0, jnp.asarray(1.0)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_memories_follow_the_dtype_in_which_a_python_number_settles(start, dtype):
    """The learner's number takes the data's dtype; traces and particles made before must take it, too."""
    targets = TARGETS.astype(dtype)

    def update(x, eta, t):
        return x - eta.astype(dtype) * (x - t), None

    problem = gw.MetaProblem(update, lambda x, t: (0.5 * (x - t) ** 2, None))
    raw = jnp.log(jnp.float32(0.1))
    for estimator in (gw.Trace(1.0), gw.PersistentEvolutionStrategies(0.1, 2), gw.AdaptiveMix(L)):
        memory, state = estimator.init(raw, gw.Positive(), start), start
        for _ in range(2):
            result = gw.meta_gradient(
                problem, raw, gw.Positive(), state, targets, targets, estimator=estimator, estimator_state=memory
            )
            state, memory = result.state, result.estimator_state
            assert state.dtype == dtype and result.grad.dtype == jnp.float32 and bool(result.finite)


WITHOUT_DERIVATIVE = {
    "no state": (lambda x, eta, t: (x, None), lambda x, t: (t, None), None),
    "a count": (lambda x, eta, t: (x + 1, None), lambda x, t: (0.5 * (x - t) ** 2, None), 0),
    "a constant outer loss": (plain_update, lambda x, t: (2.5, None), 1.0),
}


@pytest.mark.parametrize("name", WITHOUT_DERIVATIVE)
def test_where_nothing_can_be_differentiated_every_mode_gives_zero(name):
    update, outer_loss, start = WITHOUT_DERIVATIVE[name]
    for spec in SPECS.values():
        for mode in MODES.values():
            with jax.numpy_dtype_promotion("standard"):
                result = gw.meta_gradient(
                    gw.MetaProblem(update, outer_loss), RAW, spec, start, TARGETS, TARGETS, mode=mode
                )
            assert learned_sum(result.grad) == 0 and bool(result.finite)
        with jax.numpy_dtype_promotion("standard"):
            window = (gw.MetaProblem(update, outer_loss), RAW, spec, start, TARGETS, TARGETS)
            memory = gw.Trace(0.9).init(RAW, spec, start)
            result = gw.meta_gradient(*window, estimator=gw.Trace(0.9), estimator_state=memory)
        assert learned_sum(result.grad) == 0


@pytest.mark.parametrize("num_learned", SPECS)
def test_custom_vjp_in_a_gradient_learner_serves_every_mode(num_learned):
    """Mixed mode pushes tangents through the loss and the network: there, too, the rule is followed."""
    inputs = jax.random.normal(jax.random.key(1), (L, 8, 3))
    answers = jax.random.normal(jax.random.key(2), (L, 8))

    def loss(outputs, targets, eta, batch):
        return jnp.mean((bent(outputs) - batch[1]) ** 2) + eta["b"] * jnp.sum(outputs**2), None

    problem = gw.GradientLearner(
        lambda outputs, eta, batch: None,
        loss,
        gw.differentiable(optax.scale_by_adam()),
        lambda eta: eta["a"],
        lambda state, batch: (jnp.mean((bent(state.params) - batch[1]) ** 2), None),
        forward=lambda params, batch: bent(batch[0] @ params),
    )
    state, spec = problem.init(jnp.array([0.3, -0.2, 0.1])), SPECS[num_learned]
    window = (state, (inputs, answers), (inputs, answers))

    def at(t):
        eta = gw.constrain({"a": RAW["a"] + t, "b": RAW["b"] + (t if num_learned == 2 else 0)}, SPECS[2])
        end, _ = gw.unroll(problem, eta, state, (inputs, answers))
        return problem.outer_loss(end, (inputs[-1], answers[-1]))[0]

    wanted = gw.finite_difference(jax.jit(at), jnp.zeros(()), jnp.ones(()))
    modes = [gw.ReverseMode(), gw.MixedMode(), gw.ForwardMode()]
    found = jax.jit(lambda: [gw.meta_gradient(problem, RAW, spec, *window, mode=mode).grad for mode in modes])()
    for grad in found:
        np.testing.assert_allclose(learned_sum(grad), wanted, rtol=1e-6)


def test_a_custom_rule_that_has_no_forward_form_names_reverse_mode():
    """A gradient that is clipped on its way back is not linear: there is nothing that could be pushed forward."""

    @jax.custom_vjp
    def clipped(x):
        return x

    clipped.defvjp(lambda x: (x, None), lambda _, g: (jnp.clip(g, -0.1, 0.1),))
    problem = gw.MetaProblem(plain_update, lambda x, t: (0.5 * (clipped(x) - t) ** 2, None))
    window = (jnp.array(1.0), TARGETS, TARGETS)
    for spec in SPECS.values():
        result = gw.meta_gradient(problem, RAW, spec, *window)
        assert bool(result.finite)
    with pytest.raises(TypeError, match=r'not linear.*ReverseMode\(remat="step"\)'):
        gw.meta_gradient(problem, RAW, SPECS[1], *window, mode=gw.ForwardMode())


def test_tangents_vary_over_devices_as_the_state_does():
    """Fresh zeros inside `shard_map` are the same on all devices, and a loop's carry must not change that."""
    mesh = jax.make_mesh((2,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
    problem = gw.MetaProblem(plain_update, plain_outer)
    spec = jax.sharding.PartitionSpec("devices")

    def gradients(states, raws):
        # Of each device's own meta-parameters: of those that all share, JAX sums the gradient over devices.
        raw = jax.tree.map(lambda leaf: leaf[0], raws)
        results = [
            gw.meta_gradient(
                problem, raw, SPECS[2], states[0], TARGETS, TARGETS, estimator=est, mode=mode,
                estimator_state=est.init(raw, SPECS[2], states[0]),
            ).grad
            for est, mode in (
                (gw.Unrolled(), gw.ForwardMode()), (gw.Unrolled(), gw.ReverseMode()), (gw.Trace(1.0), None)
            )
        ]  # fmt: skip
        return jax.tree.map(lambda leaf: leaf[None], results)

    states = jnp.array([1.0, -0.5])
    forward, reverse, trace = jax.jit(jax.shard_map(gradients, mesh=mesh, in_specs=(spec, spec), out_specs=spec))(
        states, jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), RAW)
    )
    for i in range(2):
        alone = gw.meta_gradient(problem, RAW, SPECS[2], states[i], TARGETS, TARGETS).grad
        for found in (forward, reverse, trace):
            for key in alone:
                np.testing.assert_allclose(found[key][i], alone[key], rtol=1e-9)


# ----------------------------------------------------------------------------------------- contracts, at the entry

BROKEN = {
    "update without aux": (
        {"update": lambda x, eta, t: plain_update(x, eta, t)[0]},
        TypeError,
        r"update must return a pair \(state, aux\)",
    ),
    "update of three": ({"update": lambda x, eta, t: (x, None, None)}, TypeError, "a tuple of 3"),
    "another structure": ({"update": lambda x, eta, t: ({"x": x}, None)}, TypeError, "a state of the structure"),
    "another shape": (
        {"update": lambda x, eta, t: (x[None], None)},
        ValueError,
        r"shape \(\) before and \(1,\) after",
    ),
    "another dtype": (
        {"update": lambda x, eta, t: (x.astype(jnp.float32), None)},
        TypeError,
        "float64 before and float32 after",
    ),
    "outer loss without aux": (
        {"outer_loss": lambda x, t: plain_outer(x, t)[0]},
        TypeError,
        r"outer_loss must return a pair \(scalar, aux\)",
    ),
    "outer loss of shape (1,)": (
        {"outer_loss": lambda x, t: (plain_outer(x, t)[0][None], None)},
        ValueError,
        r"of shape \(\), but has shape \(1,\)",
    ),
    "complex outer loss": (
        {"outer_loss": lambda x, t: (jax.lax.complex(x, x), None)},
        TypeError,
        "real floating-point scalar, but its dtype is complex",
    ),
    "integer outer loss": (
        {"outer_loss": lambda x, t: (jnp.asarray(x > 0, int), None)},
        TypeError,
        "its dtype is int64",
    ),
    "no outer loss": ({"outer_loss": lambda x, t: (None, None)}, TypeError, "real floating-point scalar, but is None"),
    "an outer loss of words": ({"outer_loss": lambda x, t: ("x", None)}, TypeError, "but is 'x' of type str"),
    "outer losses by name": (
        {"outer_loss": lambda x, t: ({"l": plain_outer(x, t)[0]}, None)},
        TypeError,
        "real floating-point scalar, but is .* of type dict",
    ),
    "a function in update's aux": (
        {"update": lambda x, eta, t: (plain_update(x, eta, t)[0], {"f": jnp.tanh})},
        TypeError,
        r"update's aux must hold arrays and numbers only, but aux\['f'\]",
    ),
    "words in the outer aux": (
        {"outer_loss": lambda x, t: (plain_outer(x, t)[0], ["x"])},
        TypeError,
        r"outer_loss's aux must hold arrays and numbers only, but aux\[0\] is 'x'",
    ),
    "a big-endian state": ({"start": np.array(1.0, ">f8")}, TypeError, "state is an array of dtype >f8"),
    "a function in the state": (
        {"start": {"x": 1.0, "f": jnp.tanh}},
        TypeError,
        r"hold arrays and numbers only, but state\['f'\]",
    ),
}
"""What is wrong; the error; its words. The same in every mode, for any number of meta-parameters and any L."""


@pytest.mark.parametrize("name", BROKEN)
def test_broken_contracts_are_refused_alike_everywhere(name):
    changes, error, words = BROKEN[name]
    changes = {"update": plain_update, "outer_loss": plain_outer, "start": jnp.ones(())} | changes
    problem = gw.MetaProblem(changes["update"], changes["outer_loss"])
    estimators = [make() for make in ESTIMATORS.values()] + [gw.EvolutionStrategies(0.1), gw.Bootstrapped(1)]
    messages = set()
    for spec in SPECS.values():
        for length in (1, L):
            for estimator in estimators:
                for mode in MODES.values() if isinstance(estimator, (gw.Unrolled, gw.HorizonMix)) else (None,):
                    if length == 1 and isinstance(estimator, (gw.HorizonMix, gw.AdaptiveMix)):
                        continue
                    start = changes["start"]
                    memory = None
                    if hasattr(estimator, "decay") or "Evolution" in type(estimator).__name__:
                        memory = estimator.init(RAW, spec, jnp.array(1.0))
                    with pytest.raises(error, match=words) as raised:
                        gw.meta_gradient(
                            problem, RAW, spec, start, TARGETS[:length], TARGETS[:length],
                            estimator=estimator, mode=mode, estimator_state=memory,
                        )  # fmt: skip
                    messages.add(str(raised.value))
    assert len(messages) == 1


@pytest.mark.parametrize(
    ("parts", "error", "words"),
    [
        ({"loss": lambda p, t, e, b: jnp.sum(p**2)}, TypeError, r"loss must return a pair \(scalar, aux\)"),
        ({"loss": lambda p, t, e, b: (p**2, None)}, ValueError, r"loss must be a scalar.* but has shape \(2,\)"),
        ({"outer_loss": lambda s, b: jnp.sum(s.params**2)}, TypeError, r"outer_loss must return a pair"),
    ],
)  # fmt: skip
def test_parts_of_a_gradient_learner_are_checked_alike(parts, error, words):
    usual = {
        "loss": lambda p, t, e, b: (jnp.sum((p - b) ** 2), None),
        "outer_loss": lambda s, b: (jnp.sum(s.params**2), None),
    } | parts
    problem = gw.GradientLearner(
        lambda p, e, b: None, usual["loss"], optax.identity(), lambda eta: eta["a"], usual["outer_loss"]
    )
    state = problem.init(jnp.ones(2))
    for mode in (gw.ReverseMode(), gw.ForwardMode(), gw.MixedMode()):
        with pytest.raises(error, match=words):
            gw.meta_gradient(problem, RAW, SPECS[2], state, TARGETS, TARGETS, mode=mode)
