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


def test_an_optimiser_is_checked_where_jit_is_disabled_too():
    with jax.disable_jit():
        assert learner_with(optax.scale_by_adam()).init(jnp.ones(3)).params.shape == (3,)
        with pytest.raises(ValueError, match="the learner would climb"):
            learner_with(optax.adam(1.0)).init(jnp.ones(3))


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


MODES = [gw.ReverseMode(), gw.ReverseMode("step"), gw.ForwardMode(), gw.MixedMode()]
RATES = {
    "complex": (lambda eta: jax.lax.complex(eta, eta), TypeError, "complex128.* real part"),
    "an integer": (lambda eta: 1, TypeError, "int64.* float"),
    "a truth value": (lambda eta: eta > 0, TypeError, "bool.* float"),
    "shape (1,)": (lambda eta: eta[None], ValueError, r"shape \(1,\).* index it"),
    "one for each number": (lambda eta: {"w": eta * jnp.ones(3), "b": eta}, ValueError, r"\['w'\] .*shape \(3,\)"),
    "none": (lambda eta: None, TypeError, "is None.* return one number"),
    "text": (lambda eta: "0.1", TypeError, "'0.1' of type str.* return one number"),
    "a group too few": (lambda eta: {"w": eta}, TypeError, "prefix of the parameters' structure.* each group"),
    "a group without": (lambda eta: {"w": eta, "b": None}, TypeError, "prefix of the parameters'.* each group"),
}


def refused_everywhere(learner, state, error, words):
    for mode in MODES:
        with pytest.raises(error, match=words):
            gw.meta_gradient(learner, jnp.array(-1.0), gw.Positive(), state, jnp.ones((3, 3)), None, mode=mode)
    with pytest.raises(error, match=words):
        learner.update(state, jnp.array(0.1), jnp.ones(3))


def learner_of_groups(optimizer, rate):
    return gw.GradientLearner(
        lambda p, e, b: None,
        lambda p, t, e, b: (jnp.sum((p["w"] - b) ** 2) + p["b"] ** 2, None),
        optimizer,
        rate,
        lambda s, b: (jnp.sum((s.params["w"] - b) ** 2), None),
    )


PARAMS = {"w": jnp.zeros(3), "b": 1.0}


@pytest.mark.parametrize("name", RATES)
def test_a_learning_rate_that_is_no_real_scalar_is_refused_in_every_mode(name):
    rate, error, words = RATES[name]
    learner = learner_of_groups(optax.identity(), rate)
    refused_everywhere(learner, learner.init(PARAMS), error, rf"(?s)learning_rate\(eta\).*{words}")


@pytest.mark.parametrize("rate", [lambda eta: 0.1, lambda eta: eta, lambda eta: {"w": eta, "b": 0.5}])
def test_a_real_rate_is_accepted_also_one_for_each_group(rate):
    learner = learner_of_groups(optax.identity(), rate)
    after, _ = learner.update(learner.init(PARAMS), jnp.array(0.1), jnp.ones(3))
    assert after.params["w"].shape == (3,) and (after.params["w"] == 0.2).all()


def stateless(update):
    return optax.GradientTransformation(lambda params: (), update)


OPTIMIZERS = {
    "no pair": (stateless(lambda g, s, p=None: g), TypeError, r"\(direction, state\).* a dict"),
    "three": (stateless(lambda g, s, p=None: (g, s, 1)), TypeError, r"\(direction, state\).* tuple of 3"),
    "nothing": (stateless(lambda g, s, p=None: None), TypeError, r"\(direction, state\).* a NoneType"),
    "swapped": (stateless(lambda g, s, p=None: (s, g)), TypeError, "direction of the parameters' structure"),
    "a list": (stateless(lambda g, s, p=None: ([*g.values()], s)), TypeError, "direction of the parameters' structure"),
    "sums": (stateless(lambda g, s, p=None: (jax.tree.map(jnp.sum, g), s)), ValueError, r"\['w'\] has shape \(\)"),
    "text": (stateless(lambda g, s, p=None: (jax.tree.map(lambda _: "x", g), s)), TypeError, r"\['b'\] is a str"),
    "integers": (
        stateless(lambda g, s, p=None: (jax.tree.map(lambda x: x.astype(int), g), s)),
        TypeError,
        r"\['b'\] has dtype int64.* cast it",
    ),
    "complex": (
        stateless(lambda g, s, p=None: (jax.tree.map(lambda x: x * 1j, g), s)),
        TypeError,
        r"\['b'\] has dtype complex128.* real part",
    ),
    "a state that grows": (stateless(lambda g, s, p=None: (g, (*s, 1.0))), TypeError, "state of the structure"),
    "two arguments": (stateless(lambda g, s: (g, s)), TypeError, r"its update \(gradient, state, params\)"),
    "lookahead": (optax.lookahead(optax.sgd(-1.0), 5, 0.5), TypeError, r"lookahead.* optax\.scale_by_adam\(\)"),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimiser_that_breaks_its_contract_is_refused_at_the_entry_and_in_every_mode(name):
    optimizer, error, words = OPTIMIZERS[name]
    learner = learner_of_groups(optimizer, lambda eta: eta)
    with pytest.raises(error, match=f"(?s){words}"):
        learner.init(PARAMS)
    params = jax.tree.map(jnp.asarray, PARAMS)
    refused_everywhere(learner, gw.LearnerState(params, optimizer.init(params)), error, f"(?s){words}")
