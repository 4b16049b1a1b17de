"""The Python of a learner runs once for a meta-gradient, and what is remembered of it is never another call's."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradweave as gw
from gradweave.core.remembered import Remembered


@pytest.fixture
def calls():
    return collections.Counter()


def counted(calls, name, function):
    def count(*args):
        calls[name] += 1
        return function(*args)

    return count


def half(batch, index):
    return jax.lax.dynamic_slice_in_dim(batch, 2 * index, 2)


@pytest.mark.parametrize("microbatches", [None, gw.Microbatches(2, half)], ids=["whole", "parts"])
@pytest.mark.parametrize(
    "mode", [gw.ReverseMode(), gw.ForwardMode(), gw.MixedMode()], ids=["reverse", "forward", "mixed"]
)
def test_each_part_of_a_learner_runs_once_for_a_meta_gradient(calls, mode, microbatches):
    """Its contract is checked, what the loss reads is found out, shapes are asked for; then it is differentiated."""
    parts = {
        "targets": lambda outputs, eta, batch: eta * outputs,
        "loss": lambda outputs, targets, eta, batch: (jnp.mean((outputs - targets) ** 2), None),
        "outer_loss": lambda state, batch: (jnp.mean(state.params), None),
        "forward": lambda params, batch: batch @ params,
        "companion_loss": lambda outputs, targets, batch: jnp.mean(outputs),
    }
    learner = gw.GradientLearner(
        **{name: counted(calls, name, part) for name, part in parts.items()},
        optimizer=optax.identity(),
        learning_rate=lambda eta: 0.1,
        microbatches=microbatches,
    )
    state, batches = learner.init(jnp.ones(2)), jnp.ones((4, 4, 2))

    def gradient(eta, state):
        return gw.meta_gradient(learner, eta, gw.Unbounded(), state, batches, None, mode=mode).grad

    jax.eval_shape(gradient, jnp.float64(0.9), state)
    assert calls == dict.fromkeys(parts, 1)
    calls.clear()
    jax.eval_shape(lambda state: learner.inner_gradient(state, 0.9, batches[0]), state)
    assert calls == dict.fromkeys(set(parts) - {"outer_loss"}, 1)


def test_an_update_runs_once_for_a_meta_gradient(calls):
    update = counted(calls, "update", lambda x, eta, batch: (x - eta * (x - batch), None))
    problem = gw.MetaProblem(update, lambda x, batch: ((x - batch) ** 2, None))
    for mode in (gw.ReverseMode(), gw.ReverseMode("step"), gw.ForwardMode()):
        calls.clear()
        jax.eval_shape(
            lambda eta: gw.meta_gradient(problem, eta, gw.Positive(), 1.0, jnp.arange(4.0), None, mode=mode),  # noqa: B023
            jnp.float64(0.1),
        )
        assert calls["update"] == 2  # a Python number takes the dtype of the first update: that is another kind


def test_what_is_remembered_serves_the_same_kind_of_arguments_only(calls):
    function = Remembered(counted(calls, "f", lambda x, y: {"signed": jnp.copysign(x, y), "kept": y, "name": "f"}))

    def values(x, *others):
        return [function(x, other)["signed"] for other in others]

    table = np.arange(2.0)
    signed = jax.jit(lambda x: values(x, 0.0, -0.0, 0.0))(jnp.float64(1.0))
    assert signed == [1.0, -1.0, 1.0] and calls["f"] == 2
    jax.eval_shape(lambda x: values(x, table, table.copy(), table), jnp.float64(1.0))
    assert calls["f"] == 4  # arrays that are not traced are known by what they are, not by what they hold
    jax.eval_shape(lambda x: values(x, 0.0), jnp.float32(1.0))
    jax.eval_shape(lambda x: values(x, 0.0), jnp.ones(2))
    assert calls["f"] == 6
    found = []
    jax.eval_shape(lambda x: found.append(function(x, 7)) or x, jnp.float64(1.0))
    assert (found[0]["kept"], found[0]["name"]) == (7, "f")  # no arrays
    assert function(1.0, -2.0)["signed"] == -1.0


def test_derivatives_pass_through_what_is_remembered():
    slope = jax.jit(lambda w: jax.jit(jax.grad(Remembered(lambda x: jnp.tanh(w * x))))(2.0) + w)(0.5)
    assert slope == pytest.approx(0.5 * (1 - np.tanh(1.0) ** 2) + 0.5)  # the function closes over a traced w
    rows = jax.vmap(Remembered(lambda x: jnp.sum(x**2)))(jnp.arange(6.0).reshape(3, 2))
    assert rows.tolist() == [1.0, 13.0, 41.0]
