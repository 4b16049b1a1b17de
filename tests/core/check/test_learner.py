"""`check_learner` on learners with one known fault each, and on those without."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradweave as gw

from ..problems import CASES, compiled, direction_of, dot, horizon_losses

BATCHES = jax.random.normal(jax.random.key(0), (4, 8, 3))
SPEC = {"rate": gw.Positive(), "cost": gw.Positive()}
RAW = gw.unconstrain({"rate": jnp.float64(0.05), "cost": jnp.float64(0.1)}, SPEC)


def network(params, batch, bias=-100.0):
    """Two hidden ReLU units, the second of which never fires."""
    return jax.nn.relu(batch[:, :2] @ params["w"] + jnp.array([[0.5, bias]])) @ params["v"]


def regression(optimizer, cost=lambda eta, params: eta["cost"] * jnp.sum(params["v"] ** 2), targets=lambda x: x):
    """A learner as one writes it: gradient, optax, a learning rate from eta."""

    def update(state, eta, batch):
        params, memory = state

        def loss(params):
            error = network(params, batch) - targets(batch[:, 2] + 0.5 * network(params, batch))
            return jnp.mean(error**2) + cost(eta, params)

        with jax.numpy_dtype_promotion("standard"):
            updates, memory = optimizer(eta).update(jax.grad(loss)(params), memory, params)
            return (optax.apply_updates(params, updates), memory), None

    def outer_loss(state, batch):
        return jnp.mean((network(state[0], batch) - batch[:, 2]) ** 2), None

    params = {"w": jnp.array([[1.0, 0.3], [0.4, -0.2]]), "v": jnp.array([0.7, 0.3])}
    state = (params, optimizer({"rate": 0.1, "cost": 0.1}).init(params))
    return gw.MetaProblem(update, outer_loss), state


def clipped_adam(eta):
    return optax.chain(optax.clip_by_global_norm(0.5), optax.adam(eta["rate"]))


def verdicts(report):
    return {leaf.name: leaf.verdict for leaf in report.leaves}


def errors(report):
    return [str(finding) for finding in report.findings if finding.severity == "error"]


@pytest.mark.slow
def test_adams_root_is_named_with_its_line_and_the_remedy_mends_it():
    problem, state = regression(clipped_adam)
    report = gw.check_learner(problem, RAW, SPEC, state, BATCHES)
    assert not report.ok and set(verdicts(report).values()) == {"not finite"}
    (root,) = [error for error in errors(report) if "sqrt was taken" in error]
    assert "test_learner.py:" in root and "optax scale_by_adam" in root and "gw.differentiable(" in root
    assert "CANNOT BE TRUSTED" in str(report) and "not finite" in str(report)
    mended, state = regression(lambda eta: gw.differentiable(clipped_adam(eta)))
    report = gw.check_learner(mended, RAW, SPEC, state, BATCHES)
    assert report.ok, str(report)
    assert set(verdicts(report).values()) == {"good"} and report.precision == "float64"
    for leaf in report.leaves:
        assert abs(leaf.difference) > 1e-6
        np.testing.assert_allclose(leaf.derivative, leaf.difference, rtol=1e-4)


@pytest.mark.slow
def test_a_root_that_these_data_do_not_meet_is_a_warning():
    problem, state = regression(lambda eta: optax.adam(eta["rate"], eps_root=1e-16))
    assert not [f for f in gw.check_learner(problem, RAW, SPEC, state, BATCHES).findings if f.severity == "warning"]

    def update(x, eta, batch):
        with jax.numpy_dtype_promotion("standard"):
            updates, memory = optax.adam(eta["rate"]).update(x[0] - batch[0], x[1], x[0])
            return (optax.apply_updates(x[0], updates) * eta["cost"], memory), None

    start = jnp.ones(3)
    problem = gw.MetaProblem(update, lambda x, batch: (jnp.sum((x[0] - batch[1]) ** 2), None))
    report = gw.check_learner(problem, RAW, SPEC, (start, optax.adam(0.1).init(start)), BATCHES)
    assert report.ok
    assert any(f.severity == "warning" and "not met here" in f.what for f in report.findings)


def test_a_meta_parameter_that_nothing_reads_is_named():
    problem, state = regression(lambda eta: optax.sgd(eta["rate"]), cost=lambda eta, params: 0.1)
    report = gw.check_learner(problem, RAW, SPEC, state, BATCHES)
    assert verdicts(report) == {"['cost']": "never read", "['rate']": "good"}
    assert any("update never reads the meta-parameter ['cost']" in error for error in errors(report))
    stopped = dataclasses.replace(report.leaves[0], derivative=-0.0, difference=-0.0)
    table = str(dataclasses.replace(report, leaves=(stopped,)))
    assert "-0" not in table
    assert " kB" in table
    assert " 0.0 MB" not in table


def test_what_is_read_and_has_no_effect_is_zero_and_an_error_that_the_first_line_names():
    problem, state = regression(
        lambda eta: optax.sgd(eta["rate"]), cost=lambda eta, params: 0.0 * eta["cost"] * jnp.sum(params["v"])
    )
    report = gw.check_learner(problem, RAW, SPEC, state, BATCHES)
    assert verdicts(report) == {"['cost']": "zero", "['rate']": "good"} and not report.ok
    (error,) = errors(report)
    assert "['cost']" in error and "exactly 0" in error and "num_inner_steps" in error and "gw.Fixed()" in error
    first = str(report).splitlines()[0]
    assert "CANNOT BE TRUSTED" in first and "['cost'] (zero)" in first and "['rate']" not in first
    fixed = gw.check_learner(problem, RAW, {**SPEC, "cost": gw.Fixed()}, state, BATCHES)
    assert fixed.ok and verdicts(fixed) == {"['rate']": "good"}


@pytest.mark.parametrize("num_steps", [1, 6])
def test_a_clip_range_is_zero_in_any_window_and_a_longer_one_is_no_remedy(num_steps):
    def update(x, eta, batch):
        start = x

        def loss(x):
            ratio = jnp.exp(batch[:, 0] * (x - start))
            clipped = jnp.clip(ratio, 1 - eta["range"], 1 + eta["range"])
            return -jnp.mean(jnp.minimum(ratio * batch[:, 1], clipped * batch[:, 1]))

        def step(x, _):
            return x - eta["rate"] * jax.grad(loss)(x), jnp.abs(jnp.exp(batch[:, 0] * (x - start)) - 1) > eta["range"]

        x, outside = jax.lax.scan(step, x, length=num_steps)
        return x, outside.mean()

    problem = gw.MetaProblem(update, lambda x, batch: (jnp.mean((x - batch[:, 2]) ** 2), None))
    spec = {"range": gw.Interval(0.0, 1.0), "rate": gw.Positive()}
    raw = gw.unconstrain({"range": jnp.float64(0.05), "rate": jnp.float64(0.5)}, spec)
    assert (update(jnp.float64(0.1), gw.constrain(raw, spec), BATCHES[0])[1] > 0.1) == (num_steps > 1)
    report = gw.check_learner(problem, raw, spec, jnp.float64(0.1), BATCHES)
    assert verdicts(report) == {"['range']": "zero", "['rate']": "good"} and not report.ok
    (error,) = errors(report)
    assert "['range']" in error and "clip" in error and "gw.Fixed()" in error and "num_inner_steps" not in error


@pytest.mark.slow
def test_a_derivative_stopped_in_the_update_disagrees_and_its_line_is_named():
    problem, state = regression(lambda eta: optax.sgd(eta["rate"]), targets=jax.lax.stop_gradient)
    report = gw.check_learner(problem, RAW, SPEC, state, BATCHES)
    assert "disagrees" in verdicts(report).values() and not report.ok
    assert any("stop_gradient" in error and "test_learner.py:" in error for error in errors(report))
    # With one update there is no path to lose.
    assert gw.check_learner(problem, RAW, SPEC, state, BATCHES, num_inner_steps=1).ok


def test_what_a_fixed_meta_parameter_stops_is_no_finding_and_what_a_bijector_of_ones_own_stops_is_one():
    class Stopped(gw.AbstractBijector):
        def forward(self, raw):
            return jax.lax.stop_gradient(raw)

        def inverse(self, eta):
            return eta

        def clip(self, raw):
            return raw

    problem, state = regression(lambda eta: optax.sgd(eta["rate"]))
    for bijector, named in ((gw.Fixed(), False), (Stopped(), True)):
        report = gw.check_learner(problem, RAW, SPEC | {"cost": bijector}, state, BATCHES)
        assert any("update stops" in finding.what for finding in report.findings) == named
        assert report.ok != named


def test_a_derivative_that_is_wholly_stopped():
    problem, state = regression(
        lambda eta: optax.sgd(eta["rate"]),
        cost=lambda eta, params: jax.lax.stop_gradient(eta["cost"]) * jnp.sum(params["v"] ** 2),
    )
    report = gw.check_learner(problem, RAW, SPEC, state, BATCHES)
    assert verdicts(report) == {"['cost']": "stopped", "['rate']": "good"}


@pytest.mark.slow
def test_a_baseline_stopped_in_the_outer_loss_is_held_constant_in_the_differences():
    problem, state = regression(lambda eta: optax.sgd(eta["rate"]))

    @jax.jit
    def outer_loss(state, batch):
        values = network(state[0], batch)
        return jnp.mean((batch[:, 2] - jax.lax.stop_gradient(values.mean())) * values), None

    report = gw.check_learner(problem._replace(outer_loss=outer_loss), RAW, SPEC, state, BATCHES)
    assert report.ok, str(report)
    assert any("the outer loss stops" in finding.what for finding in report.findings)


@pytest.mark.parametrize("around", [lambda function: function, jax.checkpoint])
def test_what_an_outer_loss_stops_within_a_scan_is_held_constant(around):
    def outer_loss(x, batch):
        def step(total, entry):
            return 0.9 * total + jax.lax.stop_gradient(x) * entry * x, None

        return jax.lax.scan(around(step), 0.0 * x, batch)[0], None

    problem = gw.MetaProblem(lambda x, eta, batch: (x - eta * (x - batch.mean()), None), outer_loss)
    batches = jnp.arange(12.0).reshape(3, 4)
    report = gw.check_learner(problem, jnp.log(jnp.float64(0.1)), gw.Positive(), jnp.float64(1.0), batches)
    (leaf,) = report.leaves
    # J = w x_2 with w = x_2 sum_i 0.9^(3-i) b_i held constant; x_2 = 0.9 (0.9 + 0.1 * 1.5) + 0.1 * 5.5.
    before, after = 0.9 + 0.15, 0.9 * (0.9 + 0.15) + 0.55
    slope = 0.1 * (0.9 * (1.5 - 1) + 5.5 - before)  # by log(eta)
    weight = after * sum(0.9 ** (3 - i) * (8 + i) for i in range(4))
    assert leaf.derivative == pytest.approx(weight * slope) == leaf.difference


def test_loops_and_custom_rules_limit_the_modes_and_are_named():
    @jax.custom_vjp
    def bent(x):
        return jnp.tanh(x)

    bent.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (g * (1 - jnp.tanh(x) ** 2),))

    def root(y):
        many = jnp.asarray(20) + jnp.asarray(0 * y, int)
        return jax.lax.while_loop(
            lambda carry: carry[1] < many, lambda carry: (0.5 * (carry[0] + y / carry[0]), carry[1] + 1), (1 + 0 * y, 0)
        )[0]

    def outer_loss(x, batch):
        return root(1 + bent(x["x"] - batch[0, 0]) ** 2), None

    def update(x, eta, batch):
        return {"n": x["n"] + 1, "x": x["x"] - eta["rate"] * (x["x"] - batch[0, 1]) - eta["cost"]}, None

    report = gw.check_learner(gw.MetaProblem(update, outer_loss), RAW, SPEC, {"n": 0, "x": 1.0}, BATCHES)
    assert report.ok, str(report)
    applies = {mode.name: mode.applies for mode in report.modes}
    assert applies == {
        "ReverseMode()": False,
        'ReverseMode("step")': False,
        "ForwardMode()": True,
        "MixedMode()": False,
    }
    words = "\n".join(map(str, report.findings))
    for expected in (
        "contains a while loop",
        "custom_vjp",
        "numbers of a weak type in the state (['n'], ['x'])",
        "integers",
    ):
        assert expected in words


def test_a_learner_that_is_bound_to_float32_is_checked_there():
    def update(x, eta, batch):
        return jnp.asarray(x - eta["rate"] * (x - batch[0, 0]) - eta["cost"], jnp.float32), None

    problem = gw.MetaProblem(update, lambda x, batch: ((x - batch[0, 1]) ** 2, None))
    raw, batches = jax.tree.map(jnp.float32, RAW), BATCHES.astype(jnp.float32)
    report = gw.check_learner(problem, raw, SPEC, jnp.float32(1.0), batches, tolerance=0.02)
    assert report.ok and report.precision == "float32"
    assert any("does not run in float64" in finding.what for finding in report.findings)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["td_adam", "nested", "counter", "shared_forward"])
def test_the_bundled_cases_can_be_trusted_and_every_mode_costs_something(name):
    case = CASES[name]()
    batches, outer_batches = case.data(3, False)
    report = gw.check_learner(case.problem, case.raw, case.spec, case.state, batches, outer_batches, num_inner_steps=3)
    assert report.ok, str(report)
    mixed = isinstance(case.problem, gw.GradientLearner)
    assert [mode.applies for mode in report.modes] == [True, True, True, mixed]
    for mode in report.modes[: 3 + mixed]:
        assert mode.arithmetic > 0.5 and mode.memory > 0
    assert report.modes[0].memory > report.modes[1].memory or report.num_inner_steps < 3
    scalars = [leaf for leaf in report.leaves if leaf.name in ("['discount']", ".gain")]
    if scalars:
        direction = jax.tree.map(jnp.zeros_like, direction_of(case))
        direction = (
            {**direction, "discount": jnp.ones(())} if name != "counter" else direction._replace(gain=jnp.ones(()))
        )
        result = gw.meta_gradient(case.problem, case.raw, case.spec, case.state, batches, outer_batches)
        np.testing.assert_allclose(scalars[0].derivative, dot(result.grad, direction), rtol=1e-8)
        losses = horizon_losses(case, compiled(case), case.raw, batches, outer_batches)
        np.testing.assert_allclose(report.outer_loss, losses[-1], rtol=1e-9)


def test_a_kink_nearby_is_no_fault() -> None:
    kink = 3e-6  # between the two steps of the differences: the longer one sees a slope of 18
    problem = gw.MetaProblem(
        update=lambda x, eta, batch: (x + (eta - x), None),
        outer_loss=lambda x, batch: (x + 50 * jnp.maximum(x - kink, 0.0), None),
    )
    report = gw.check_learner(problem, jnp.zeros(()), gw.Unbounded(), jnp.ones(()), jnp.zeros(3))
    (leaf,) = report.leaves
    assert leaf.verdict == "good"
    assert leaf.derivative == leaf.difference == pytest.approx(1.0)


def test_where_nothing_is_learned_it_says_so_and_has_the_outer_loss() -> None:
    problem = gw.MetaProblem(lambda x, eta, batch: (x * eta["rate"], None), lambda x, batch: (x**2, None))
    report = gw.check_learner(problem, {"rate": jnp.float64(0.5)}, {"rate": gw.Fixed()}, jnp.float64(2.0), jnp.zeros(3))
    assert report.ok and not report.leaves
    assert report.outer_loss == pytest.approx((2 * 0.5**2) ** 2)
    assert [finding.severity for finding in report.findings if "no meta-parameter is learned" in finding.what] == [
        "warning"
    ]


def test_it_works_where_a_user_has_switched_compilation_off() -> None:
    problem = gw.MetaProblem(lambda x, eta, batch: (x * eta["rate"], None), lambda x, batch: (x**2, None))
    given = problem, {"rate": jnp.float64(0.5)}, {"rate": gw.Unbounded()}, jnp.float64(2.0), jnp.arange(3.0)
    with jax.disable_jit():
        report = gw.check_learner(*given)
    assert verdicts(report) == {"['rate']": "good"}
    assert report.leaves == gw.check_learner(*given).leaves


def test_an_update_that_computes_nothing_is_checked() -> None:
    problem = gw.MetaProblem(lambda state, eta, batch: (eta["rate"], None), lambda state, batch: (state**2, None))
    spec = {"rate": gw.Unbounded()}
    report = gw.check_learner(problem, {"rate": jnp.float64(0.5)}, spec, jnp.float64(1.0), jnp.zeros((3, 2)))
    assert verdicts(report) == {"['rate']": "good"}


@pytest.mark.parametrize("folder", ["gradweave", "jax", "optax"])
def test_code_in_a_folder_called_like_a_library_is_the_users(folder: str) -> None:
    source = "import jax\ndef update(x, eta, batch):\n    return jax.lax.stop_gradient(x) * eta['rate'], None\n"
    names: dict = {}
    exec(compile(source, f"/somewhere/{folder}/mine.py", "exec"), names)
    problem = gw.MetaProblem(names["update"], lambda state, batch: (state**2, None))
    spec = {"rate": gw.Unbounded()}
    report = gw.check_learner(problem, {"rate": jnp.float64(0.5)}, spec, jnp.float64(1.0), jnp.zeros((3, 2)))
    assert any("mine.py:3" in str(finding) for finding in report.findings)
