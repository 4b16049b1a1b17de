"""Values of the wrong kind, where others of the same name are right: each is refused in words."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import optax
import pytest

import gradweave as gw
from gradweave.core.estimators.base import chosen_mode


def without_beartype(function):
    """What a user meets: in tests beartype is first to check the types."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function


@pytest.mark.parametrize(
    ("estimator", "mode", "words"),
    [
        ("horizon-mix", None, "estimator='horizon-mix' was given; it has to be an object, such as gw.HorizonMix("),
        (gw.HorizonMix, None, "estimator=<class"),
        (gw.Unrolled(), "forward", "mode='forward' was given; it has to be an object, such as gw.ForwardMode()"),
        (gw.Unrolled(), gw.ForwardMode, "mode=<class"),
    ],
)
def test_estimators_and_modes_are_objects(estimator, mode, words):
    with pytest.raises(TypeError, match=re.escape(words)):
        without_beartype(chosen_mode)(estimator, mode)


def test_an_optimiser_is_no_factory():
    with pytest.raises(TypeError, match=r"tunable\(optax.adam\)\(learning_rate=...\)"):
        without_beartype(gw.tunable)(optax.adam(0.1))


def test_samples_take_an_array_of_keys():
    old = jax.random.PRNGKey(0)
    for keys in (jax.random.key(0), old, [jax.random.key(1)], 32):
        with pytest.raises(TypeError, match=r"jax.random.split\(key, 32\)"):
            without_beartype(gw.gradient_samples)(lambda key: jax.random.normal(key), keys)
    found = without_beartype(gw.gradient_samples)(lambda key: jax.random.normal(key), jax.random.split(old, 3))
    assert found.shape == (3,)


def test_a_dataclass_that_is_no_pytree_is_told_how_to_become_one():
    @dataclasses.dataclass
    class Plain:
        params: jax.Array

    problem = gw.MetaProblem(lambda state, eta, batch: (state, None), lambda state, batch: (batch, None))
    with pytest.raises(TypeError, match=r"state is a dataclass of type Plain; register .*register_dataclass"):
        gw.meta_gradient(problem, jnp.zeros(()), gw.Positive(), Plain(jnp.zeros(3)), jnp.zeros(3))
