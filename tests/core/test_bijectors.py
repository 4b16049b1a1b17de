"""Bijectors: round trips, ranges, derivatives against closed forms, and what a spec accepts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradweave as gw

BIJECTORS = {
    "unit": gw.Interval(),
    "wide": gw.Interval(-3.0, 5.0),
    "narrow": gw.Interval(0.9, 1.0),
    "positive": gw.Positive(),
    "unbounded": gw.Unbounded(),
    "fixed": gw.Fixed(),
}


@pytest.mark.parametrize("name", BIJECTORS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(raw=st.floats(-12, 12))
def test_there_and_back(name, raw):
    bijector = BIJECTORS[name]
    eta = bijector.forward(raw)
    np.testing.assert_allclose(bijector.inverse(eta), raw, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(bijector.forward(bijector.inverse(eta)), eta, rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("name", BIJECTORS)
def test_dtype_and_shape_are_kept(name, dtype):
    bijector = BIJECTORS[name]
    raw = jnp.zeros((2, 3), dtype)
    assert bijector.forward(raw).dtype == dtype and bijector.forward(raw).shape == (2, 3)
    eta = jnp.full((2, 3), 0.95, dtype)
    assert bijector.inverse(eta).dtype == dtype and bijector.inverse(eta).shape == (2, 3)


@pytest.mark.slow
def test_ranges_are_approached_and_not_left():
    raw = jnp.linspace(-30, 30, 101)
    for low, high in ((0.0, 1.0), (-3.0, 5.0)):
        eta = gw.Interval(low, high).forward(raw)
        assert (eta > low).all() and (eta <= high).all() and (jnp.diff(eta) >= 0).all()
        np.testing.assert_allclose(eta[jnp.array([0, -1])], [low, high], atol=1e-11)
    assert (gw.Positive().forward(raw) > 0).all()


@pytest.mark.parametrize("raw", [-4.0, -0.3, 0.0, 2.0, 7.0])
def test_derivatives_are_the_closed_forms(raw):
    interval = gw.Interval(-3.0, 5.0)
    eta = float(interval.forward(raw))
    np.testing.assert_allclose(jax.grad(interval.forward)(raw), (eta + 3) * (5 - eta) / 8, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(gw.Positive().forward)(raw), np.exp(raw), rtol=1e-14)
    assert jax.grad(gw.Unbounded().forward)(raw) == 1
    assert jax.grad(gw.Fixed().forward)(raw) == 0


def test_values_known_by_heart():
    np.testing.assert_allclose(gw.Interval().forward(0.0), 0.5)
    np.testing.assert_allclose(gw.Interval().inverse(0.999), np.log(999), rtol=1e-12)
    np.testing.assert_allclose(gw.Positive().inverse(3e-4), np.log(3e-4))


def test_integers_become_floats_where_something_is_learned():
    assert gw.Positive().inverse(1) == 0.0 and gw.Positive().inverse(1).dtype == jnp.float64
    assert gw.Unbounded().inverse(2).dtype == jnp.float64
    assert gw.Interval(0.0, 10.0).inverse(5).dtype == jnp.float64


@pytest.mark.parametrize("name", BIJECTORS)
def test_python_numbers_become_arrays_whose_dtype_sticks(name):
    raw = gw.unconstrain(0.95, BIJECTORS[name])
    assert raw.dtype == jnp.float64 and not raw.weak_type


def test_a_prefix_stands_for_a_subtree():
    eta = {"rates": (jnp.array(0.1), jnp.array([0.2, 0.3])), "discount": jnp.array(0.9)}
    spec = {"rates": gw.Positive(), "discount": gw.Interval()}
    raw = gw.unconstrain(eta, spec)
    np.testing.assert_allclose(raw["rates"][1], np.log([0.2, 0.3]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), gw.constrain(raw, spec), eta)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14),
        gw.constrain(raw["rates"], gw.Positive()),
        eta["rates"],
    )


def test_under_jit_values_are_not_checked_but_computed():
    np.testing.assert_allclose(jax.jit(lambda eta: gw.unconstrain(eta, gw.Interval()))(0.9), np.log(9.0))


@pytest.mark.parametrize(
    ("bijector", "eta", "words"),
    [
        (gw.Interval(), 1.0, "strictly between 0.0 and 1.0"),
        (gw.Interval(), 0.0, "strictly between"),
        (gw.Interval(2.0, 3.0), 1.5, "strictly between 2.0 and 3.0"),
        (gw.Interval(), jnp.array([0.5, 1.5]), "1.5"),
        (gw.Interval(), float("nan"), "strictly between"),
        (gw.Positive(), 0.0, "above 0"),
        (gw.Positive(), -1.0, "-1"),
        (gw.Positive(), float("nan"), "above 0"),
    ],
)
def test_values_out_of_range_are_refused(bijector, eta, words):
    with pytest.raises(ValueError, match=words):
        gw.unconstrain(eta, bijector)


@pytest.mark.parametrize(
    "bounds", [(1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0), (0.0, float("inf")), (-float("inf"), 0.0)]
)
def test_an_interval_without_a_finite_inside_is_refused(bounds):
    with pytest.raises(ValueError, match="lower must be below upper"):
        gw.Interval(*bounds)


@pytest.mark.parametrize(
    ("spec", "tree"),
    [
        ({"a": gw.Positive()}, {"b": 1.0}),
        ({"a": gw.Positive()}, {"a": 1.0, "b": 1.0}),
        ((gw.Positive(), gw.Positive()), (1.0,)),
        ([gw.Positive()], (1.0,)),
        ({"a": {"b": gw.Positive()}}, {"a": 1.0}),
        ((), 1.0),
        (None, 1.0),
    ],
)
def test_a_spec_of_another_structure_is_refused(spec, tree):
    for convert in (gw.constrain, gw.unconstrain):
        with pytest.raises(ValueError, match=r"spec has structure .* one bijector"):
            convert(tree, spec)


@pytest.mark.parametrize("leaf", [0.5, "positive", gw.Positive])
def test_a_spec_leaf_that_is_no_bijector_is_refused(leaf):
    with pytest.raises(ValueError, match="a spec holds bijectors"):
        gw.constrain({"a": 1.0}, {"a": leaf})


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("bijector", [gw.Interval(), gw.Interval(0.5, 0.999), gw.Positive()], ids=str)
def test_a_clipped_raw_value_keeps_its_derivative(bijector, dtype):
    slope = jax.vmap(jax.grad(lambda raw: bijector.forward(raw)))
    far = jnp.array([-1e4, 1e4], dtype)
    assert not jnp.any((slope(far) > 0) & jnp.isfinite(slope(far))), "there it is stuck"
    clipped = gw.clip_raw(far, bijector)
    assert clipped.dtype == dtype
    assert jnp.all((slope(clipped) > 0) & jnp.isfinite(slope(clipped)))
    usual = jnp.array([-5.0, 0.3, 9.0], dtype)
    np.testing.assert_array_equal(gw.clip_raw(usual, bijector), usual)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize(
    "bounds",
    [(0.9, 1.0), (0.99, 1.0), (0.999, 1.0), (0.1, 0.9), (0.5, 0.999), (100.0, 101.0), (-0.84312, 8.31813)],
    ids=str,
)
def test_a_clipped_raw_value_is_inside_the_interval(bounds, dtype):
    bijector, far = gw.Interval(*bounds), jnp.array([-30.0, -1e4, 30.0, 1e4], dtype)
    clipped = gw.clip_raw(far, bijector)
    eta = gw.constrain(clipped, bijector)
    assert jnp.all((eta > bijector.lower) & (eta < bijector.upper))
    assert jnp.all(jnp.isfinite(gw.unconstrain(eta, bijector)))
    assert jnp.all(jax.vmap(jax.grad(bijector.forward))(clipped) > 0)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.0, 1e-3), (-2.0, 0.0)], ids=str)
def test_an_interval_that_ends_at_zero_is_clipped_at_the_precision(bounds):
    limit = -np.log(np.finfo(np.float32).eps)
    np.testing.assert_array_equal(gw.clip_raw(jnp.float32(30.0), gw.Interval(*bounds)), np.float32(limit))


def test_what_is_fixed_or_unbounded_is_not_clipped():
    raw = {"a": jnp.array(1e6), "b": jnp.array(-1e6)}
    clipped = gw.clip_raw(raw, {"a": gw.Fixed(), "b": gw.Unbounded()})
    assert clipped == raw
