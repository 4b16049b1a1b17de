"""Estimators as weights of one kernel: identities between them, their weights, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradweave as gw

from ..problems import CASES

LENGTHS = (1, 2, 5, 10)


def weights_of(estimator, num_steps):
    """(steps, horizons) with the Nones written out."""
    steps, horizons = estimator.kernel_weights(num_steps)
    last = jnp.zeros(num_steps).at[-1].set(1.0)
    return jnp.ones(num_steps) if steps is None else steps, last if horizons is None else horizons


def same_weights(one, other, num_steps):
    for a, b in zip(weights_of(one, num_steps), weights_of(other, num_steps), strict=True):
        assert a.shape == (num_steps,)
        np.testing.assert_allclose(a, b, atol=1e-15)


@pytest.mark.parametrize("num_steps", LENGTHS)
def test_identities_of_the_weights(num_steps):
    one_hot = jnp.eye(num_steps)
    same_weights(gw.Truncated(num_steps), gw.Unrolled(), num_steps)
    same_weights(gw.HorizonMix(one_hot[-1]), gw.Unrolled(), num_steps)
    same_weights(gw.TruncationMix(gw.geometric_weights(num_steps, 1.0)), gw.Unrolled(), num_steps)
    same_weights(gw.TruncationMix(gw.geometric_weights(num_steps, 0.0)), gw.Truncated(1), num_steps)
    for m in range(1, num_steps + 1):
        same_weights(gw.TruncationMix(one_hot[m - 1]), gw.Truncated(m), num_steps)
        assert weights_of(gw.Truncated(m), num_steps)[0].tolist() == [0.0] * (num_steps - m) + [1.0] * m


def test_windows_are_counted_from_the_end():
    steps, _ = weights_of(gw.TruncationMix(jnp.array([0.5, 0.3, 0.2])), 3)
    np.testing.assert_allclose(
        steps, [0.2, 0.2 + 0.3, 1.0]
    )  # the last step is in every window, the first in the longest only


@pytest.mark.parametrize("num_steps", LENGTHS)
@pytest.mark.parametrize("lambda_", [0.0, 0.3, 0.9, 1.0])
def test_geometric_and_uniform_weights(num_steps, lambda_):
    weights = gw.geometric_weights(num_steps, lambda_)
    expected = [(1 - lambda_) * lambda_**k for k in range(num_steps - 1)] + [lambda_ ** (num_steps - 1)]
    np.testing.assert_allclose(weights, expected, atol=1e-16)
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-14)
    np.testing.assert_allclose(gw.uniform_weights(num_steps), [1 / num_steps] * num_steps)
    # A step j before the end counts lambda ** (j - 1): the decay of an eligibility trace.
    steps, _ = weights_of(gw.TruncationMix(weights), num_steps)
    np.testing.assert_allclose(steps, [lambda_ ** (num_steps - 1 - k) for k in range(num_steps)], atol=1e-15)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["quadratic", "td_adam"])
@pytest.mark.parametrize("num_steps", [3, 6])
def test_geometric_truncation_mix_is_a_decayed_trace(name, num_steps):
    """z <- lambda A z + B from z = 0, with explicit Jacobians in a plain loop, then z . grad J."""
    decay = 0.7
    case = CASES[name]()
    batches, outer_batches = case.data(num_steps, False)
    mix = gw.TruncationMix(gw.geometric_weights(num_steps, decay))
    found = gw.meta_gradient(case.problem, case.raw, case.spec, case.state, batches, outer_batches, estimator=mix).grad

    flat_state, rebuild = flatten_floats(case.state)
    flat_raw, to_raw = flatten_floats(case.raw)

    @jax.jit
    def derivatives(flat_state, state, batch):
        def update(x, raw):
            return flatten_floats(
                case.problem.update(rebuild(x, state), gw.constrain(to_raw(raw, case.raw), case.spec), batch)[0]
            )[0]

        return jax.jacobian(update, argnums=(0, 1))(flat_state, flat_raw)

    state, trace = case.state, np.zeros((flat_state.size, flat_raw.size))
    for k in range(num_steps):
        batch = jax.tree.map(lambda leaf: leaf[k], batches)  # noqa: B023
        by_state, by_raw = derivatives(flatten_floats(state)[0], state, batch)
        trace = decay * np.asarray(by_state) @ trace + np.asarray(by_raw)
        state, _ = case.problem.update(state, gw.constrain(case.raw, case.spec), batch)
    last = jax.tree.map(lambda leaf: leaf[-1], outer_batches)
    slope = jax.grad(lambda x: case.problem.outer_loss(rebuild(x, state), last)[0])(flatten_floats(state)[0])
    np.testing.assert_allclose(flatten_floats(found)[0], slope @ trace, rtol=1e-9)


def flatten_floats(tree):
    """(the floats as one vector, what puts such a vector back into a tree like this one)."""
    is_float = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(tree)]
    flat = jnp.concatenate([leaf.ravel() for leaf, yes in zip(jax.tree.leaves(tree), is_float, strict=True) if yes])

    def rebuild(vector, like):
        leaves, structure = jax.tree.flatten(like)
        position = 0
        for i, leaf in enumerate(leaves):
            if is_float[i]:
                leaves[i] = vector[position : position + leaf.size].reshape(leaf.shape)
                position += leaf.size
        return jax.tree.unflatten(structure, leaves)

    return flat, rebuild


def test_weights_known_before_tracing_may_be_used_within_it():
    weights = jnp.array([0.25, 0.75])
    for given in (weights, np.array([0.25, 0.75])):
        for mix in (gw.TruncationMix, gw.HorizonMix):
            np.testing.assert_array_equal(jax.jit(lambda: mix(given).weights)(), weights)  # noqa: B023
            with pytest.raises(ValueError, match=r"sum to 1\.5"):
                jax.jit(lambda: mix(2 * np.asarray(given) - np.array([0.0, 0.5])).weights)()  # noqa: B023
    assert not gw.uniform_weights(3).weak_type and not gw.geometric_weights(3, 0.5).weak_type


@pytest.mark.slow
@pytest.mark.parametrize("mix", [gw.TruncationMix, gw.HorizonMix])
def test_mixes_are_linear_and_sums_of_their_parts(mix):
    case = CASES["quadratic"]()
    data = case.data(4, True)
    parts = {gw.TruncationMix: gw.truncated_gradients, gw.HorizonMix: gw.horizon_gradients}[mix]
    every = parts(case.problem, case.raw, case.spec, case.state, *data)

    @jax.jit
    def gradient(weights):
        return gw.meta_gradient(case.problem, case.raw, case.spec, case.state, *data, estimator=mix(weights)).grad

    first, second = jnp.array([0.1, 0.2, 0.3, 0.4]), jnp.array([0.7, 0.0, 0.3, 0.0])
    for name in ("rate", "shift"):
        np.testing.assert_allclose(
            gradient(0.25 * first + 0.75 * second)[name],
            0.25 * gradient(first)[name] + 0.75 * gradient(second)[name],
            rtol=1e-12,
        )
        np.testing.assert_allclose(gradient(first)[name], first @ every[name], rtol=1e-12)
        assert every[name].shape == (4,)
        unrolled = gw.meta_gradient(case.problem, case.raw, case.spec, case.state, *data).grad[name]
        np.testing.assert_allclose(every[name][-1], unrolled, rtol=1e-12)


@pytest.mark.slow
def test_an_estimator_written_elsewhere_is_used_like_the_bundled_ones():
    class LastTwo(gw.AbstractLinearEstimator):
        """Mixes step weights and horizon weights, as no bundled estimator does."""

        def check(self, num_inner_steps):
            pass

        def kernel_weights(self, num_inner_steps):
            ones = jnp.ones(num_inner_steps).at[0].set(0.0)
            return gw.KernelWeights(ones, jnp.zeros(num_inner_steps).at[-2:].set(0.5))

    case = CASES["td_rmsprop"]()
    data = case.data(3, True)
    found = [
        gw.meta_gradient(case.problem, case.raw, case.spec, case.state, *data, estimator=LastTwo(), mode=mode)
        for mode in (gw.ReverseMode(), gw.ReverseMode(2), gw.ForwardMode(), gw.MixedMode())
    ]
    # Without its first step's share, the gradient is that of a window that begins one update later.
    begun, _ = case.problem.update(
        case.state, gw.constrain(case.raw, case.spec), jax.tree.map(lambda leaf: leaf[0], data[0])
    )
    later = jax.tree.map(lambda leaf: leaf[1:], data[0])
    expected = gw.meta_gradient(
        case.problem, case.raw, case.spec, begun, later, None, estimator=gw.HorizonMix(gw.uniform_weights(2))
    )
    for result in found:
        np.testing.assert_allclose(result.outer_loss, expected.outer_loss, rtol=1e-12)
        for one, other in zip(jax.tree.leaves(result.grad), jax.tree.leaves(expected.grad), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9)


@pytest.mark.parametrize("mix", [gw.TruncationMix, gw.HorizonMix])
@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([0.5, 0.4], "sum to 0.9"),
        ([1.5, -0.5], "must be at least 0"),
        ([float("nan"), 1.0], "sum to nan"),
        ([], "at least one weight"),
        ([[0.5, 0.5]], r"shape \(1, 2\)"),
        (1.0, r"shape \(\)"),
    ],
)
def test_weights_that_are_no_weights_are_refused(mix, weights, words):
    with pytest.raises(ValueError, match=f"{mix.__name__}.*{words}"):
        mix(jnp.asarray(weights))


@pytest.mark.parametrize(("length", "words"), [(0, "at least 1"), (-2, "-2"), (True, "length=True")])
def test_lengths_that_are_no_lengths_are_refused(length, words):
    with pytest.raises(ValueError, match=words):
        gw.Truncated(length)


@pytest.mark.parametrize(
    ("estimator", "words"),
    [
        (gw.Truncated(4), "reaches back further than the 3 inner steps"),
        (
            gw.TruncationMix(gw.uniform_weights(2)),
            r"TruncationMix was given 2 weights for 3 inner steps.*uniform_weights\(3\)",
        ),
        (gw.HorizonMix(gw.uniform_weights(4)), "HorizonMix was given 4 weights for 3"),
    ],
)
def test_estimators_that_do_not_fit_the_window_are_refused(estimator, words):
    case = CASES["quadratic"]()
    with pytest.raises(ValueError, match=words):
        gw.meta_gradient(case.problem, case.raw, case.spec, case.state, *case.data(3, False), estimator=estimator)


def test_weight_makers_take_the_integers_of_numpy():
    np.testing.assert_array_equal(gw.uniform_weights(np.int64(3)), gw.uniform_weights(3))
    np.testing.assert_array_equal(gw.geometric_weights(np.int32(3), 0.5), gw.geometric_weights(3, 0.5))


@pytest.mark.parametrize(
    ("n", "lambda_", "words"), [(0, 0.5, "0"), (True, 0.5, "True"), (3, 1.2, "1.2"), (3, -0.1, r"\[0, 1\]")]
)
def test_weight_makers_refuse(n, lambda_, words):
    with pytest.raises(ValueError, match=words):
        gw.geometric_weights(n, lambda_)
    if not 0 <= lambda_ <= 1:
        return
    with pytest.raises(ValueError, match="number of weights"):
        gw.uniform_weights(n)
