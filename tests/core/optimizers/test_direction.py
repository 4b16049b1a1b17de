"""Optimisers of a learner give directions, and every parameter is one that gradients move."""

import jax
import jax.numpy as jnp
import optax
import pytest

import gradweave as gw


def learner_with(optimizer):
    return gw.GradientLearner(
        lambda p, e, b: None,
        lambda p, t, e, b: (jnp.sum(p**2), None),
        optimizer,
        lambda eta: eta,
        lambda s, b: (jnp.sum(s.params**2), None),
    )


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.adam(1.0),
        optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(1.0)),
        optax.adam(optax.linear_schedule(0.0, 1.0, 10)),
        optax.scale(-1.0),
    ],
)
def test_an_optimiser_that_would_climb_is_refused_with_the_remedy(optimizer):
    for params in (jnp.ones(3), {"w": jnp.zeros((2, 2)), "b": 0.0}):
        with pytest.raises(ValueError, match=r"the learner would climb.*optax\.scale_by_adam\(\)"):
            learner_with(optimizer).init(params)
    # Where `init` is traced the answer is the same.
    with pytest.raises(ValueError, match="the learner would climb"):
        jax.jit(learner_with(optimizer).init)(jnp.ones(3))


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.scale_by_adam(),
        optax.identity(),
        optax.chain(optax.adam(1.0), optax.scale(-1.0)),
        optax.chain(optax.add_decayed_weights(0.1), optax.scale_by_rms()),
        optax.set_to_zero(),
    ],
)
def test_a_direction_is_accepted(optimizer):
    state = learner_with(optimizer).init({"w": jnp.ones((2, 2)), "b": 1.0})
    assert state.params["b"].dtype == jnp.float64 and not state.params["b"].weak_type


@pytest.mark.parametrize(
    "optimizer", [optax.polyak_sgd(), optax.contrib.reduce_on_plateau(), optax.scale_by_backtracking_linesearch(5)]
)
def test_an_optimiser_that_reads_the_loss_is_refused(optimizer):
    with pytest.raises(TypeError, match=r"wants more than a gradient .*'value'"):
        learner_with(optimizer).init(jnp.ones(3))


@pytest.mark.parametrize(
    ("leaf", "words"), [(jnp.arange(3), "has dtype int64"), (True, "has dtype bool"), (jax.nn.relu, "is a ")]
)
def test_parameters_that_no_gradient_moves_are_refused_by_name(leaf, words):
    with pytest.raises(TypeError, match=rf"params\['odd'\] {words}"):
        learner_with(optax.identity()).init({"w": jnp.ones(2), "odd": leaf})
