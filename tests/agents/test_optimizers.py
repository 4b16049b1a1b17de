"""Inner optimisers: what they compute against optax, that they can be differentiated twice, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradweave.agents import inner_optimizer, safe_clip_by_global_norm

NAMES = ("adam", "rmsprop", "sgd")


def directions(optimizer, gradients):
    """The directions after two updates with the same kind of gradient, as a function that may be differentiated."""
    state = optimizer.init(gradients)
    with jax.numpy_dtype_promotion("standard"):
        _, state = optimizer.update(gradients, state, gradients)
        direction, _ = optimizer.update(jax.tree.map(lambda leaf: 0.5 * leaf, gradients), state, gradients)
    return direction


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("max_grad_norm", [None, 0.5])
@pytest.mark.parametrize("name", NAMES)
def test_derivatives_at_zero_gradients_are_finite(name, max_grad_norm, dtype):
    optimizer = inner_optimizer(name, max_grad_norm=max_grad_norm)
    zero = {"w": jnp.zeros((2, 2), dtype), "b": jnp.zeros((), dtype)}
    jacobian = jax.jit(jax.jacrev(lambda g: directions(optimizer, g)))(zero)
    for leaf in jax.tree.leaves(jacobian):
        assert leaf.dtype == dtype and np.isfinite(leaf).all()
    assert (np.diagonal(np.asarray(jacobian["w"]["w"]).reshape(4, 4)) > 0).all()  # and they are not cut off either
    # One layer that gets no gradient must not spoil the others.
    some = {"w": jnp.ones((2, 2), dtype), "b": jnp.zeros((), dtype)}
    curvature = jax.jit(
        jax.hessian(lambda g: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(directions(optimizer, g))))
    )(some)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(curvature))


@pytest.mark.slow
def test_the_traps_are_real():
    """What is avoided here does happen with the usual choices."""
    for optimizer in (
        optax.scale_by_adam(),
        optax.scale_by_rms(eps=1e-8, eps_in_sqrt=False),
        optax.clip_by_global_norm(1.0),
    ):
        slope = jax.jacrev(lambda g: directions(optimizer, g))(jnp.zeros(2))  # noqa: B023
        assert not np.isfinite(slope).all()


@pytest.mark.parametrize("max_grad_norm", [None, 0.5, 100.0])
@pytest.mark.parametrize("name", NAMES)
def test_directions_against_the_formulas(name, max_grad_norm):
    gradients = np.random.default_rng(0).normal(size=(4, 3)) * np.array([1.0, 1e-3, 10.0])
    optimizer = inner_optimizer(name, rmsprop_decay=0.8, max_grad_norm=max_grad_norm)
    state = optimizer.init(jnp.zeros(3))
    first, second = np.zeros(3), np.zeros(3)
    for step, gradient in enumerate(gradients, start=1):
        with jax.numpy_dtype_promotion("standard"):
            found, state = optimizer.update(jnp.asarray(gradient), state)
        norm = np.linalg.norm(gradient)
        clipped = gradient if max_grad_norm is None or norm < max_grad_norm else gradient * max_grad_norm / norm
        if name == "sgd":
            expected = clipped
        elif name == "adam":
            first, second = 0.9 * first + 0.1 * clipped, 0.999 * second + 0.001 * clipped**2
            expected = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step) + 1e-16) + 1e-8)
        else:
            second = 0.8 * second + 0.2 * clipped**2
            expected = clipped / np.sqrt(second + 1e-8)
        np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.01, 0.3, 5.0, 1e3])
def test_the_safe_clip_is_the_usual_one_away_from_zero(scale):
    tree = {"a": scale * jnp.array([1.0, -2.0]), "b": scale * jnp.array([[0.5]])}
    safe, usual = safe_clip_by_global_norm(2.0), optax.clip_by_global_norm(2.0)

    def clipped(optimizer, tree):
        return optimizer.update(tree, optimizer.init(tree))[0]

    pairs = [(clipped(o, tree), jax.jacrev(lambda t: clipped(o, t))(tree)) for o in (safe, usual)]  # noqa: B023
    for one, other in zip(*map(jax.tree.leaves, pairs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-15)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match=r"eps_root=0\.0 leaves Adam's meta-gradient infinite"):
        inner_optimizer("adam", eps_root=0.0)
    with pytest.raises(ValueError, match=r"eps=0\.0 leaves RMSProp's meta-gradient infinite"):
        inner_optimizer("rmsprop", eps=0.0)
    for max_norm in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="must be above 0"):
            safe_clip_by_global_norm(max_norm)
        with pytest.raises(ValueError, match="must be above 0"):
            inner_optimizer("sgd", max_grad_norm=max_norm)
    unchecked = inner_optimizer
    while hasattr(unchecked, "__wrapped__"):  # beartype would be first to refuse the name
        unchecked = unchecked.__wrapped__
    with pytest.raises(ValueError, match='"adam", "rmsprop" and "sgd"'):
        unchecked("lion")
