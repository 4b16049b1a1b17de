"""Hyper-parameters of optimisers as traced values."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradweave as gw

HYPERPARAMETERS = {
    "adamw": {"learning_rate": 0.1, "b1": 0.8, "b2": 0.99, "eps": 1e-6, "weight_decay": 0.01},
    "sgd": {"learning_rate": 0.1, "momentum": 0.9},
    "rmsprop": {"learning_rate": 0.1, "decay": 0.9, "eps": 1e-6},
    "lion": {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "weight_decay": 0.01},
    "adagrad": {"learning_rate": 0.1, "eps": 1e-7},
    "adadelta": {"learning_rate": 0.1, "rho": 0.9, "eps": 1e-6},
    "adafactor": {"learning_rate": 0.1, "clipping_threshold": 1.0},
    "lamb": {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "weight_decay": 0.1},
    "radam": {"learning_rate": 0.1, "b1": 0.9, "threshold": 5.0},
    "yogi": {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99},
    "scale_by_adam": {"b1": 0.9, "b2": 0.99, "eps": 1e-6},
    "clip_by_global_norm": {"max_norm": 0.5},
}
# A sample of them; the others are left to the whole run.
TABLE = [
    name if name in ("adamw", "sgd", "clip_by_global_norm") else pytest.param(name, marks=pytest.mark.slow)
    for name in HYPERPARAMETERS
]
# Of the derivatives, with what is compared or branched on among the hyper-parameters; the rest in the whole run.
SAMPLE = [
    name
    if name in ("adamw", "sgd", "clip_by_global_norm", "adafactor", "radam", "lamb")
    else pytest.param(name, marks=pytest.mark.exhaustive)
    for name in HYPERPARAMETERS
]
PARAMS = {"w": jnp.array([[0.4, -1.2], [0.3, 0.9]]), "b": jnp.array([0.2, -0.8])}


def learned(optimizer, params, init=None):
    """Parameters after three updates; `init` begins instead of the optimiser itself."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):

        def step(carry, k):
            params, state = carry
            gradient = jax.tree.map(lambda leaf: jnp.sin(3 * leaf + k.astype(leaf.dtype)), params)
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        state = (optimizer if init is None else init).init(params)
        return jax.lax.scan(step, (params, state), jnp.arange(3.0))[0][0]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("name", TABLE)
def test_traced_hyperparameters_give_the_numbers_of_constants(name, dtype):
    factory, given = getattr(optax, name), HYPERPARAMETERS[name]
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), PARAMS)
    constants = factory(**given)
    # The state comes from the optimiser with constants: there is nothing of the traced numbers in it.
    traced = jax.jit(lambda given: learned(gw.tunable(factory)(**given), params, init=constants))(
        jax.tree.map(jnp.float64, given)
    )
    for one, other in zip(
        jax.tree.leaves(traced), jax.tree.leaves(jax.jit(lambda: learned(constants, params))()), strict=True
    ):
        assert one.dtype == dtype
        np.testing.assert_allclose(one, other, rtol=1e-11 if dtype == jnp.float64 else 1e-5, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_derivatives_by_hyperparameters_agree_with_differences_and_nothing_recompiles(name):
    traces = []

    @jax.jit
    def outcome(given):
        traces.append(1)
        after = learned(gw.tunable(getattr(optax, name))(**given), PARAMS)
        return sum(jnp.sum(jnp.cos(2 * leaf)) for leaf in jax.tree.leaves(after))

    given = jax.tree.map(jnp.float64, HYPERPARAMETERS[name])
    slopes = jax.grad(outcome)(given)
    traces.clear()
    for key, value in given.items():
        step = 1e-4 * float(value)  # with an epsilon of 1e-7 a smaller step is lost in rounding
        ahead, behind = outcome({**given, key: value + step}), outcome({**given, key: value - step})
        np.testing.assert_allclose(slopes[key], (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-4, err_msg=key)
    assert len(traces) <= 1
    assert abs(float(slopes.get("learning_rate", slopes.get("max_norm", 1.0)))) > 1e-3


def test_python_numbers_stay_constants_to_the_bit():
    one, other = (
        jax.jit(lambda make=make: learned(make(0.1, weight_decay=0.01), PARAMS))()
        for make in (optax.adamw, gw.tunable(optax.adamw))
    )
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_seeds_with_hyperparameters_of_their_own():
    rates = jnp.array([0.1, 0.2])
    together = jax.vmap(lambda rate: learned(gw.tunable(optax.adam)(rate), PARAMS))(rates)
    for i, rate in enumerate((0.1, 0.2)):
        alone = learned(optax.adam(rate), PARAMS)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a[i], b, rtol=1e-9), together, alone)  # noqa: B023


def test_wrong_hyperparameters_are_refused_by_name():
    with pytest.raises(TypeError, match=r"adamw.*'lr'.*learning_rate, b1, b2"):
        gw.tunable(optax.adamw)(0.1, lr=0.1)
    with pytest.raises(TypeError, match=r"adam .*nesterov"):
        jax.jit(lambda flag: learned(gw.tunable(optax.adam)(0.1, nesterov=flag), PARAMS))(True)
