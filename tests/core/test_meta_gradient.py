"""The common table: every estimator, by every mode, on every problem, for several lengths and both kinds of outer data.

One row is a problem, a length and a kind of data. Within it everything is compiled once: for each mode the gradients of
stacks of `TruncationMix` and `HorizonMix` weights, one-hot ones among them, and of `Unrolled` and `Truncated`. The
truth is central differences of plain loops. That `Unrolled` and `Truncated` are one-hot mixes for every length is
tested in estimators/test_linear.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import gradweave as gw

from .problems import (
    CASES,
    along,
    compiled,
    direction_of,
    dot,
    full_spec,
    horizon_losses,
    quadratic_answer,
    window_losses,
)

# (L, online): every problem with both kinds of outer data; those with most structure, or of least cost, more lengths.
ROWS = [(name, *window) for name in CASES for window in ((2, True), (5, False))]
ROWS += [(name, 1, False) for name in ("quadratic", "td_adam", "shared_forward")]
ROWS += [("shared_forward", 5, True), ("quadratic", 5, True), ("quadratic", 10, True), ("td_sgd", 10, True)]
# What is compiled here runs once, on a handful of numbers: optimising it would take most of the time.
QUICK = {"xla_backend_optimization_level": 0}


def modes_for(name, case, num_steps):
    """Every mode that applies. Segments of 2 and 3 steps do not divide 5 or 10 evenly, 100 is longer than all."""
    modes = {"reverse": gw.ReverseMode(), "remat step": gw.ReverseMode("step"), "forward": gw.ForwardMode()}
    if name in ("quadratic", "counter") and num_steps >= 5:
        modes |= {f"remat {n}": gw.ReverseMode(n) for n in (2, 3, 100)}
    if isinstance(case.problem, gw.GradientLearner):
        modes["mixed"] = gw.MixedMode()
    return modes


def mixes(num_steps):
    """Rows of weights: one-hot at every place, uniform, two geometric ones, and one of no pattern."""
    odd = np.random.default_rng(0).uniform(0.1, 1.0, num_steps)
    named = [gw.uniform_weights(num_steps), gw.geometric_weights(num_steps, 0.6), gw.geometric_weights(num_steps, 0.0)]
    return jnp.stack([*jnp.eye(num_steps), *named, jnp.asarray(odd / odd.sum())])


def flat_floats(tree):
    return ravel_pytree([leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)])[0]


@functools.cache
def row(name, num_steps, online):
    """Everything that is computed for one row: (case, data, {mode: {estimator: result}})."""
    case = CASES[name]()
    data = case.data(num_steps, online)
    weights = mixes(num_steps)

    def estimate(estimator, mode, raw, data):
        return gw.meta_gradient(case.problem, raw, case.spec, case.state, *data, estimator=estimator, mode=mode)

    def everything(raw, data):
        results = {}
        for label, mode in modes_for(name, case, num_steps).items():
            stacked = {
                "window": jax.vmap(lambda w: estimate(gw.TruncationMix(w), mode, raw, data))(weights),  # noqa: B023
                "horizon": jax.vmap(lambda w: estimate(gw.HorizonMix(w), mode, raw, data))(weights),  # noqa: B023
            }
            if num_steps == 2:
                stacked["unrolled"] = estimate(gw.Unrolled(), mode, raw, data)
                stacked["truncated"] = estimate(gw.Truncated(1), mode, raw, data)
            results[label] = stacked
        results["every horizon"] = gw.horizon_gradients(case.problem, raw, case.spec, case.state, *data)
        results["every window"] = gw.truncated_gradients(case.problem, raw, case.spec, case.state, *data)
        return results

    return case, data, jax.jit(everything, compiler_options=QUICK)(case.raw, data)


@functools.cache
def differences(name, num_steps, online):
    """By plain loops: (a direction, J(x_1) .. J(x_L), central differences of them, and of the windows m = 1 .. L)."""
    case, data, _ = row(name, num_steps, online)
    direction = direction_of(case)

    functions = compiled(case)

    @functools.cache
    def losses(distance):
        raw = along(case, direction, distance)
        return horizon_losses(case, functions, raw, *data), window_losses(case, functions, raw, *data)

    def slope(kind, k):
        return float(gw.finite_difference(lambda t: losses(float(t))[kind][k], jnp.zeros(()), jnp.ones(())))

    found = [[slope(kind, k) for k in range(num_steps)] for kind in (0, 1)]
    return direction, np.array(losses(0.0)[0]), *np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "num_steps", "online"), ROWS)
def test_row(name, num_steps, online):
    """One test for all of a row, because parallel test processes share nothing that one of them computed."""
    all_modes_agree_for_all_estimators(name, num_steps, online)
    gradients_are_central_differences_of_plain_loops(name, num_steps, online)
    learned_leaves_have_a_gradient_and_fixed_ones_exactly_none(name, num_steps, online)
    if name == "quadratic":
        the_quadratic_agrees_with_algebra(num_steps, online)
    if num_steps > 1:
        horizons_and_windows_differ(name, num_steps, online)


def all_modes_agree_for_all_estimators(name, num_steps, online):
    _, _, results = row(name, num_steps, online)
    expected = results["reverse"]
    assert len(results) >= 5
    for label, stacked in results.items():
        if label.startswith("every"):
            continue
        assert set(stacked) >= {"window", "horizon"}
        for estimator, found in stacked.items():
            for field in ("grad", "outer_loss", "state", "aux"):
                same_numbers(getattr(found, field), getattr(expected[estimator], field), f"{label} {estimator} {field}")


def same_numbers(found, expected, what):
    assert jax.tree.structure(found) == jax.tree.structure(expected), what
    scale = max((float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected)), default=0.0)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape, what
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12 * scale, err_msg=what)


def gradients_are_central_differences_of_plain_loops(name, num_steps, online):
    results = dict(row(name, num_steps, online)[2])
    direction, losses, by_horizon, by_window = differences(name, num_steps, online)
    assert np.abs(by_horizon).min() > 1e-8 and np.abs(by_window).min() > 1e-8
    weights = np.asarray(mixes(num_steps))
    for label, truth in (("every horizon", by_horizon), ("every window", by_window)):
        close_along(results.pop(label), direction, truth, label)
    for label, found in results.items():
        close_along(found["window"].grad, direction, weights @ by_window, label)
        close_along(found["horizon"].grad, direction, weights @ by_horizon, label)
        if num_steps == 2:
            np.testing.assert_allclose(dot(found["unrolled"].grad, direction), by_horizon[-1], rtol=1e-6, err_msg=label)
            np.testing.assert_allclose(dot(found["truncated"].grad, direction), by_window[0], rtol=1e-6, err_msg=label)
            np.testing.assert_allclose(found["unrolled"].outer_loss, losses[-1], rtol=1e-12)
        np.testing.assert_allclose(found["horizon"].aux.outer_losses[0], losses, rtol=1e-12)
        np.testing.assert_allclose(found["horizon"].outer_loss, weights @ losses, rtol=1e-12)


def close_along(stacked, direction, truth, what):
    found = [dot(jax.tree.map(lambda leaf: leaf[i], stacked), direction) for i in range(len(truth))]  # noqa: B023
    np.testing.assert_allclose(found, truth, rtol=1e-6, atol=1e-8 * np.abs(truth).max(), err_msg=what)


def learned_leaves_have_a_gradient_and_fixed_ones_exactly_none(name, num_steps, online):
    case, _, results = row(name, num_steps, online)
    for label, found in results.items():
        gradients = (
            [found] if label.startswith("every") else [result.grad for result in (found["window"], found["horizon"])]
        )
        for stacked in gradients:
            assert jax.tree.structure(stacked) == jax.tree.structure(case.raw)
            for leaf, like, bijector in zip(
                jax.tree.leaves(stacked), jax.tree.leaves(case.raw), full_spec(case), strict=True
            ):
                leaf = np.asarray(leaf)
                if isinstance(bijector, gw.Fixed):
                    assert (leaf == 0).all()
                else:
                    assert leaf.shape[1:] == like.shape and leaf.dtype == like.dtype
                    may_vanish = (
                        "td" in name or "forward" in name
                    )  # one update from Adam's first step, say, hides small things
                    assert np.isfinite(leaf).all() and (leaf != 0).mean() > (0.6 if may_vanish else 0.99), label


def the_quadratic_agrees_with_algebra(num_steps, online):
    case, data, results = row("quadratic", num_steps, online)
    batches, outer = data
    driving = batches.inner[:num_steps]
    evaluating = batches.outer[1:] if online else outer.outer
    horizons, windows = quadratic_answer(case.raw, case.state, driving, evaluating)
    weights = np.asarray(mixes(num_steps))
    for leaf in ("rate", "shift"):
        for label in ("reverse", "remat step", "forward"):
            np.testing.assert_allclose(
                results[label]["horizon"].grad[leaf], weights @ horizons[leaf], rtol=1e-10, err_msg=label
            )
            np.testing.assert_allclose(
                results[label]["window"].grad[leaf], weights @ windows[leaf], rtol=1e-10, err_msg=label
            )
        np.testing.assert_allclose(results["every horizon"][leaf], horizons[leaf], rtol=1e-10)
        np.testing.assert_allclose(results["every window"][leaf], windows[leaf], rtol=1e-10)


def horizons_and_windows_differ(name, num_steps, online):
    """The table would hold for an estimator that ignored its weights, if all windows had the same gradient."""
    _, _, by_horizon, by_window = differences(name, num_steps, online)
    for truth in (by_horizon, by_window):
        assert len(np.unique(truth.round(9))) == num_steps
    np.testing.assert_allclose(by_horizon[-1], by_window[-1], rtol=1e-6)


@pytest.mark.parametrize("mode", [gw.ReverseMode(), gw.ForwardMode(), gw.MixedMode()])
def test_a_meta_gradient_says_whether_it_is_finite_for_each_seed(mode):
    case = CASES["td_sgd"]()
    batches, outer_batches = case.data(2, False)

    def finite(scale):
        moved = batches._replace(rewards=batches.rewards * scale)
        return gw.meta_gradient(case.problem, case.raw, case.spec, case.state, moved, outer_batches, mode=mode).finite

    found = jax.jit(jax.vmap(finite))(jnp.array([1.0, jnp.nan, 2.0]))
    np.testing.assert_array_equal(found, [True, False, True])
    assert found.dtype == bool
