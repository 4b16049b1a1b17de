"""What every call of the core promises: dtypes, compilation, batching, recordings, and errors in time."""

import doctest
import importlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradweave as gw
from gradweave import core
from gradweave.core.modes.mixed import record

from .problems import CASES, along, compiled, direction_of, dot, horizon_losses

MODES = {
    "reverse": gw.ReverseMode(),
    "step": gw.ReverseMode("step"),
    "forward": gw.ForwardMode(),
    "mixed": gw.MixedMode(),
}


def assert_same(one, other, rtol=1e-10):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-14)


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_new_values_do_not_compile_again(mode):
    case = CASES["td_sgd"]()
    traces = []

    @jax.jit
    def gradient(raw, state, batches, weights):
        traces.append(1)
        estimator = gw.HorizonMix(weights)
        return gw.meta_gradient(case.problem, raw, case.spec, state, batches, None, estimator=estimator, mode=mode)

    first = gradient(case.raw, case.state, case.data(3, True, seed=0)[0], gw.uniform_weights(3))
    moved = jax.tree.map(jnp.subtract, case.raw, first.grad)
    second = gradient(moved, first.state, case.data(3, True, seed=1)[0], gw.geometric_weights(3, 0.5))
    assert len(traces) == 1
    assert all(leaf != 0 for leaf in jax.tree.leaves(jax.tree.map(jnp.subtract, first.grad, second.grad)))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_seeds_as_a_batch_axis_equal_a_loop(mode):
    case = CASES["td_sgd"]()

    def gradient(raw, batches):
        estimator = gw.TruncationMix(gw.uniform_weights(3))
        return gw.meta_gradient(case.problem, raw, case.spec, case.state, batches, None, estimator=estimator, mode=mode)

    raws = jax.tree.map(lambda leaf: leaf + jnp.array([0.0, 0.3, -0.2]), case.raw)
    batches = [case.data(3, True, seed=seed)[0] for seed in range(3)]
    together = jax.jit(jax.vmap(gradient))(raws, jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches))
    alone = [jax.jit(gradient)(jax.tree.map(lambda leaf: leaf[i], raws), batches[i]) for i in range(3)]  # noqa: B023
    assert_same(together, jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["td_adam", "shared_forward"])
@pytest.mark.parametrize("online", [False, True])
def test_a_recording_gives_the_same_number_and_replays_nothing(name, online):
    case = CASES[name]()
    batches, outer_batches = case.data(3, online)
    driving = jax.tree.map(lambda leaf: leaf[:3], batches)
    estimators = [gw.Unrolled(), gw.HorizonMix(jnp.array([0.2, 0.5, 0.3]))]

    @jax.jit
    def both(raw, state):
        recording, aux = record(case.problem, gw.constrain(raw, case.spec), state, driving)
        args = (case.problem, raw, case.spec, state, batches, outer_batches)
        found = [
            [gw.meta_gradient(*args, estimator=e, mode=gw.MixedMode(), recording=r) for r in (None, recording)]
            for e in estimators
        ]
        return found, aux, gw.unroll(case.problem, gw.constrain(raw, case.spec), state, driving)

    found, recorded_aux, (unrolled, unrolled_aux) = both(case.raw, case.state)
    assert_same(recorded_aux, unrolled_aux)
    for without, given in found:
        assert_same(given._replace(aux=None), without._replace(aux=None))
        assert_same(given.state, unrolled)
        assert given.aux.inner is None
        assert_same(without.aux.inner, unrolled_aux)
    # With a recording, the state that was handed in is not looked at: the updates are not made again.
    recording, _ = jax.jit(lambda: record(case.problem, gw.constrain(case.raw, case.spec), case.state, driving))()
    spoilt = jax.tree.map(lambda leaf: leaf * 0, case.state)
    args = (case.problem, case.raw, case.spec, spoilt, batches, outer_batches)
    result = jax.jit(lambda: gw.meta_gradient(*args, mode=gw.MixedMode(), recording=recording))()
    assert_same(result.grad, found[0][0].grad)


@pytest.mark.slow
def test_everything_fixed_gives_zeros():
    case = CASES["td_sgd"]()
    eta = gw.constrain(case.raw, case.spec)
    args = (case.problem, eta, gw.Fixed(), case.state, *case.data(2, True))
    found, tables = jax.jit(
        lambda: (
            [gw.meta_gradient(*args, mode=mode) for mode in MODES.values()],
            [every(*args) for every in (gw.horizon_gradients, gw.truncated_gradients)],
        )
    )()
    for result in found:
        assert_same(result.grad, jax.tree.map(jnp.zeros_like, eta))
        assert float(result.outer_loss) > 0
    for zeros in tables:
        assert_same(zeros, jax.tree.map(lambda leaf: jnp.zeros((2, *leaf.shape)), eta))


def cast_problem(dtype):
    """A learner in `dtype`, whatever the dtype of its meta-parameters."""

    def loss(params, targets, eta, batch):
        return jnp.mean((batch - params["w"]) ** 2) * eta["cost"].astype(dtype), None

    def outer_loss(state, batch):
        return jnp.mean((state.params["w"] - batch) ** 2), None

    def rate(eta):
        return eta["rate"]

    return gw.GradientLearner(lambda params, eta, batch: None, loss, optax.identity(), rate, outer_loss)


@pytest.mark.slow
@pytest.mark.parametrize("learner_dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("raw_dtype", [jnp.float32, jnp.float64])
def test_the_gradient_has_the_dtype_of_raw_and_the_state_its_own(learner_dtype, raw_dtype):
    problem = cast_problem(learner_dtype)
    raw = {"rate": jnp.asarray(-2.0, raw_dtype), "cost": jnp.asarray(0.3, raw_dtype)}
    state = problem.init({"w": jnp.ones(3, learner_dtype)})
    batches = jnp.linspace(0, 1, 9, dtype=learner_dtype).reshape(3, 3)
    estimators = {
        "unrolled": gw.Unrolled(),
        "horizons": gw.HorizonMix(gw.uniform_weights(2)),
        "truncations": gw.TruncationMix(gw.uniform_weights(2)),
    }
    args = (problem, raw, gw.Positive(), state, batches, None)

    @jax.jit
    def by_all():
        found = {
            (name, mode): gw.meta_gradient(*args, estimator=estimator, mode=MODES[mode])._replace(aux=None)
            for name, estimator in estimators.items()
            for mode in MODES
        }
        return found, gw.horizon_gradients(*args)

    found, every = by_all()
    for (name, _), result in found.items():
        assert {leaf.dtype for leaf in jax.tree.leaves(result.grad)} == {jnp.dtype(raw_dtype)}
        assert result.state.params["w"].dtype == learner_dtype and result.outer_loss.dtype == learner_dtype
        reference = found[name, "reverse"].grad
        assert_same(result.grad, reference, 1e-4 if jnp.float32 in (learner_dtype, raw_dtype) else 1e-10)
    assert {leaf.dtype for leaf in jax.tree.leaves(every)} == {jnp.dtype(raw_dtype)}


@pytest.mark.slow
def test_meta_parameters_of_two_dtypes():
    problem = cast_problem(jnp.float64)
    raw = {"rate": jnp.asarray(-2.0, jnp.float32), "cost": jnp.asarray(0.3, jnp.float64)}
    state = problem.init({"w": jnp.ones(3)})
    batches = jnp.linspace(0, 1, 9).reshape(3, 3)
    found = jax.jit(
        lambda: [
            gw.meta_gradient(problem, raw, gw.Positive(), state, batches, None, mode=m).grad for m in MODES.values()
        ]
    )()
    for grad in found:
        assert grad["rate"].dtype == jnp.float32 and grad["cost"].dtype == jnp.float64
        assert_same(grad, found[0], 1e-5)


@pytest.mark.slow
def test_python_numbers_will_do():
    problem = gw.MetaProblem(
        update=lambda x, eta, target: (x - eta * (x - target), None),
        outer_loss=lambda x, target: (0.5 * (x - target) ** 2, None),
    )
    for mode in (gw.ReverseMode(), gw.ReverseMode("step"), gw.ReverseMode(2), gw.ForwardMode()):
        result = gw.meta_gradient(problem, 0.1, gw.Unbounded(), 1.0, jnp.zeros(3), jnp.zeros(3), mode=mode)
        np.testing.assert_allclose(result.grad, -3 * 0.9**5, rtol=1e-12)


@pytest.mark.slow
def test_batches_may_hold_keys():
    """A learner that draws its own noise: the key is data, like the rest of the batch."""

    def loss(params, targets, eta, batch):
        noise = jax.random.normal(batch["key"], params.shape)
        return jnp.sum((params - batch["x"] - eta["noise"] * noise) ** 2), None

    def outer_loss(state, batch):
        return jnp.sum((state.params - batch) ** 2), None

    problem = gw.GradientLearner(
        lambda params, eta, batch: None, loss, optax.identity(), lambda eta: eta["rate"], outer_loss
    )
    batches = {"key": jax.random.split(jax.random.key(0), 4), "x": jnp.arange(8.0).reshape(4, 2)}
    raw = {"rate": jnp.array(-2.0), "noise": jnp.array(0.1)}

    # To recompute an update is to draw the same numbers again: wanted here, and what the check for reuse cannot know.
    with jax.debug_key_reuse(False):
        args = (problem, raw, gw.Positive(), problem.init(jnp.ones(2)), batches, jnp.zeros((4, 2)))
        modes = (*MODES.values(), gw.ReverseMode(2), gw.ReverseMode(3))
        found = jax.jit(lambda: [gw.meta_gradient(*args, mode=mode).grad for mode in modes])()
    for grad in found:
        assert_same(grad, found[0], 1e-9)
    assert float(found[0]["noise"]) != 0


@pytest.mark.slow
def test_an_outer_loss_undefined_at_the_start_does_no_harm():
    """x_0 is never evaluated: an outer loss without a derivative there must not poison any mode."""

    def loss(params, targets, eta, batch):
        return 0.5 * jnp.sum((params - batch) ** 2), None

    def outer_loss(state, batch):
        return jnp.sqrt(jnp.sum(state.params**2)) + jnp.sum(batch), None

    problem = gw.GradientLearner(lambda params, eta, batch: None, loss, optax.identity(), lambda eta: eta, outer_loss)
    state, batches = problem.init(jnp.zeros(2)), 1 + jnp.arange(8.0).reshape(4, 2)
    mix = gw.HorizonMix(gw.uniform_weights(3))
    for outer_batches in (None, batches[:3]):
        window = (state, batches if outer_batches is None else batches[:3], outer_batches)
        found = jax.jit(
            lambda raw, window=window: [
                gw.meta_gradient(problem, raw, gw.Positive(), *window, estimator=mix, mode=mode)
                for mode in MODES.values()
            ]
        )(jnp.array(-2.0))
        assert np.isfinite(found[0].grad) and float(found[0].grad) != 0
        for result in found:
            assert_same(
                (result.grad, result.outer_loss, result.aux.outer_losses),
                (found[0].grad, found[0].outer_loss, found[0].aux.outer_losses),
            )


# ------------------------------------------------------------------------------------------------- the first trap


@pytest.mark.slow
def test_stop_gradient_in_the_loss_is_right_for_one_step_only():
    """The usual writing of a semi-gradient removes the path x_k -> targets -> x_{k+1} from the meta-gradient, too."""
    case = CASES["td_sgd"]()
    learner = case.problem

    def update(state, eta, batch):
        def loss(params):
            targets = batch.rewards + eta["discount"] * (
                batch.after @ jax.lax.stop_gradient(params)["w"] + jax.lax.stop_gradient(params)["b"]
            )
            return learner.loss(params, targets, eta, batch)[0]

        gradient = jax.grad(loss)(state.params)
        return state._replace(params=jax.tree.map(lambda leaf, g: leaf - eta["rate"] * g, state.params, gradient)), None

    usual = gw.MetaProblem(update, learner.outer_loss)
    direction = direction_of(case)
    departures, functions = {}, compiled(case)
    for length in (1, 2, 4):
        data = case.data(length, False)
        truth = float(
            gw.finite_difference(
                lambda t: horizon_losses(case, functions, along(case, direction, t), *data)[-1],  # noqa: B023
                jnp.zeros(()),
                jnp.ones(()),
            )
        )
        ours, theirs = jax.jit(
            lambda data: [gw.meta_gradient(one, case.raw, case.spec, case.state, *data) for one in (learner, usual)]
        )(data)
        assert_same(ours.state, theirs.state, 1e-12)  # the same learner ...
        np.testing.assert_allclose(dot(ours.grad, direction), truth, rtol=1e-7)
        departures[length] = abs(dot(theirs.grad, direction) / truth - 1)
    assert departures[1] < 1e-7  # ... and for one step the same meta-gradient
    assert departures[2] > 1e-3 and departures[4] > 1e-2


# ---------------------------------------------------------------------------------------------------------- errors


def refuses(words, error=ValueError, **changes):
    case = CASES["quadratic"]()
    batches, outer_batches = case.data(3, False)
    usual = {
        "problem": case.problem,
        "raw": case.raw,
        "spec": case.spec,
        "state": case.state,
        "batches": batches,
        "outer_batches": outer_batches,
    }
    options = {name: changes.pop(name) for name in ("estimator", "mode", "recording") if name in changes}
    usual |= changes
    with pytest.raises(error, match=words):
        gw.meta_gradient(*usual.values(), **options)


def test_windows_that_do_not_fit_are_refused():
    case = CASES["quadratic"]()
    three, _ = case.data(3, False)
    two, outer_batches = case.data(2, False)
    refuses("batches has 2 entries, outer_batches 3", batches=two)
    refuses("batches has 3 entries, outer_batches 2", outer_batches=outer_batches)
    refuses(
        "batches has 1 entries: at least one inner step",
        batches=jax.tree.map(lambda leaf: leaf[:1], two),
        outer_batches=None,
    )
    empty = jax.tree.map(lambda leaf: leaf[:0], two)
    refuses("batches has 0 entries: at least one inner step", batches=empty, outer_batches=empty)
    refuses(
        r"batches must hold arrays that share a leading axis.*\(2, 3\), \(3, 3\)",
        batches=three._replace(inner=two.inner),
    )
    refuses(r"batches must hold arrays .* shapes \[\(\)\]", batches=jnp.array(1.0))
    refuses("outer_batches must hold arrays that share", outer_batches=three._replace(inner=two.inner))
    refuses("batches must hold arrays", batches=None)
    for every in (gw.horizon_gradients, gw.truncated_gradients):
        with pytest.raises(ValueError, match="batches has 2 entries, outer_batches 3"):
            every(case.problem, case.raw, case.spec, case.state, two, three)


def test_specs_that_do_not_fit_are_refused():
    refuses("the spec has structure", spec={"rate": gw.Positive()})
    refuses("a spec holds bijectors", spec={"rate": 0.1, "shift": gw.Fixed()})


def test_mixed_mode_needs_a_gradient_learner():
    refuses(
        "MixedMode needs the parts of a GradientLearner or a MinibatchLearner, but the problem is a MetaProblem",
        TypeError,
        mode=gw.MixedMode(),
    )


def test_a_recording_of_another_length_is_refused():
    case = CASES["td_sgd"]()
    batches, outer_batches = case.data(3, False)
    recording, _ = record(
        case.problem, gw.constrain(case.raw, case.spec), case.state, jax.tree.map(lambda leaf: leaf[:2], batches)
    )
    args = (case.problem, case.raw, case.spec, case.state, batches, outer_batches)
    with pytest.raises(ValueError, match=r"recording .*\b2\b.* window 3"):
        gw.meta_gradient(*args, mode=gw.MixedMode(), recording=recording)


@pytest.mark.parametrize("remat", [0, -1, True, False])
def test_a_remat_that_means_nothing_is_refused(remat):
    with pytest.raises(ValueError, match=r'"none", "step" and an integer'):
        gw.ReverseMode(remat)


@pytest.mark.parametrize("part", ["targets", "loss", "learning_rate", "outer_loss"])
def test_parts_that_are_no_functions_are_refused(part):
    parts = dict.fromkeys(("targets", "loss", "learning_rate", "outer_loss"), lambda *args: None)
    # In tests beartype is first to check the types; this calls what a user without beartype would meet.
    initialise = gw.GradientLearner.__init__
    while hasattr(initialise, "__wrapped__"):
        initialise = initialise.__wrapped__
    with pytest.raises(TypeError, match=rf"needs a function for {part}, but was given 0\.1"):
        initialise(object.__new__(gw.GradientLearner), **(parts | {part: 0.1}), optimizer=optax.identity())


# ------------------------------------------------------------------------------------------------------- docstrings


def core_modules():
    return [core.__name__, *(module.name for module in pkgutil.walk_packages(core.__path__, core.__name__ + "."))]


@pytest.mark.slow
def test_examples_in_docstrings_run():
    results = [doctest.testmod(importlib.import_module(name)) for name in core_modules()]
    assert len(results) > 10
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) >= 5
