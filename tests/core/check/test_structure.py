"""What `check_learner` reads off a learner's program and data: slips that leave every derivative right."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest

import gradweave as gw

BATCHES = jax.random.normal(jax.random.key(0), (4, 8))
SPEC = {"rate": gw.Positive()}
RAW = gw.unconstrain({"rate": jnp.float64(0.05)}, SPEC)


class State(NamedTuple):
    params: jax.Array
    memory: optax.OptState


def momentum(eta):
    return optax.sgd(eta["rate"], momentum=0.9)


def learner(forget: str = "", around=lambda function: function):
    """Means by gradient steps with momentum, whose state is `returned` no more, or made `anew` at each update."""

    def step(params, memory, rate, batch):
        with jax.numpy_dtype_promotion("standard"):
            change, new = momentum({"rate": rate}).update(params - batch.mean(), memory, params)
            return optax.apply_updates(params, change), memory if forget == "returned" else new

    def update(state, eta, batch):
        memory = momentum(eta).init(state.params) if forget == "anew" else state.memory
        return State(*around(step)(state.params, memory, eta["rate"], batch)), None

    def outer_loss(state, batch):
        return jnp.mean((state.params - batch) ** 2), None

    params = jnp.float64(1.0)
    return gw.MetaProblem(update, outer_loss), State(params, momentum({"rate": 0.1}).init(params))


def notes(*args, **options):
    report = gw.check_learner(*args, **options)
    assert report.ok, str(report)
    return "\n".join(finding.what for finding in report.findings)


def test_a_learner_that_carries_everything_along_gets_no_note():
    problem, state = learner()
    assert notes(problem, RAW, SPEC, state, BATCHES) == ""


@pytest.mark.parametrize("around", [lambda function: function, jax.jit])
def test_a_state_of_the_optimiser_that_is_not_returned_is_named(around):
    problem, state = learner("returned", around)
    assert "returns .memory[0].trace of the state as given" in notes(problem, RAW, SPEC, state, BATCHES)


def test_an_optimiser_that_begins_anew_at_every_update_is_named():
    problem, state = learner("anew")
    assert "never reads .memory[0].trace of the state" in notes(problem, RAW, SPEC, state, BATCHES)


def test_equal_batches_are_named_and_keys_in_them_tell_them_apart():
    problem, state = learner()
    same = jnp.broadcast_to(BATCHES[:1], BATCHES.shape)
    assert "all batches are equal" in notes(problem, RAW, SPEC, state, same)
    keyed = gw.MetaProblem(
        lambda state, eta, batch: problem.update(state, eta, batch[0]),
        lambda state, batch: problem.outer_loss(state, batch[0]),
    )
    with jax.debug_key_reuse(False):  # which takes every slice of a batch for a use
        keys = jax.random.split(jax.random.key(0), 4)
        assert "equal" not in notes(keyed, RAW, SPEC, state, (same, keys))
        assert "equal" in notes(keyed, RAW, SPEC, state, (same, keys[jnp.zeros(4, int)]))


def test_outer_batches_of_their_own_are_no_repetition():
    problem, state = learner()
    same = jnp.broadcast_to(BATCHES[:1], BATCHES.shape)
    assert "equal" not in notes(problem, RAW, SPEC, state, same, BATCHES)


def test_a_weak_number_is_advised_its_own_dtype():
    problem = gw.MetaProblem(
        lambda x, eta, batch: (x - eta["rate"] * (x - batch.mean()), None),
        lambda x, batch: ((x - batch.mean()) ** 2, None),
    )
    with jax.enable_x64(False):
        raw = gw.unconstrain({"rate": 0.05}, SPEC)
        report = gw.check_learner(problem, raw, SPEC, 1.0, jnp.asarray(BATCHES, jnp.float32))
    (weak,) = [finding for finding in report.findings if "weak type" in finding.what]
    assert "jnp.float32" in weak.remedy


def test_fewer_updates_than_asked_are_named():
    problem, state = learner()
    assert "5 updates were to be checked, but the batches are for 3" in notes(
        problem, RAW, SPEC, state, BATCHES, num_inner_steps=5
    )


def test_an_outer_loss_of_data_alone_is_one_error():
    problem, state = learner()
    of_data = problem._replace(outer_loss=lambda state, batch: (batch.mean(), None))
    report = gw.check_learner(of_data, RAW, SPEC, state, BATCHES)
    (error,) = [finding for finding in report.findings if finding.severity == "error"]
    assert "outer_loss never reads the learner's state" in error.what
    assert [leaf.verdict for leaf in report.leaves] == ["zero"]


def test_what_is_never_read_is_said_beside_a_derivative_that_is_not_finite():
    def update(x, eta, batch):
        with jax.numpy_dtype_promotion("standard"):
            change, memory = optax.adam(0.1).update(0.0 * (x[0] - batch.mean()), x[1], x[0])
            return (optax.apply_updates(x[0], change) * eta["scale"], memory), None

    spec = SPEC | {"scale": gw.Positive()}
    raw = gw.unconstrain({"rate": jnp.float64(0.05), "scale": jnp.float64(0.9)}, spec)
    state = (jnp.float64(1.0), optax.adam(0.1).init(jnp.float64(1.0)))
    problem = gw.MetaProblem(update, lambda x, batch: (jnp.mean((x[0] - batch) ** 2), None))
    report = gw.check_learner(problem, raw, spec, state, BATCHES)
    assert {leaf.name: leaf.verdict for leaf in report.leaves} == {"['rate']": "never read", "['scale']": "not finite"}
    errors = "\n".join(finding.what for finding in report.findings if finding.severity == "error")
    assert "never reads the meta-parameter ['rate']" in errors and "is not finite" in errors


def test_the_table_has_the_values_in_their_natural_range():
    problem, state = learner()
    report = gw.check_learner(problem, RAW, SPEC, state, BATCHES)
    assert report.leaves[0].value == pytest.approx(0.05)
    assert " 0.05 " in next(line for line in str(report).splitlines() if line.startswith("['rate']"))
    forgotten = gw.check_learner(problem, {"rate": jnp.float64(0.05)}, SPEC, state, BATCHES)  # not unconstrained
    assert forgotten.leaves[0].value == pytest.approx(gw.constrain({"rate": jnp.float64(0.05)}, SPEC)["rate"])
