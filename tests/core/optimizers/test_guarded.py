"""A meta-optimiser that skips what is not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradweave as gw


def test_a_guarded_run_is_the_run_without_its_bad_updates():
    """Within `jit`, `scan` and `vmap`: each seed skips its own."""
    optimizer = gw.guarded(optax.adam(0.1))
    gradients = jnp.array([[1.0, 2.0], [jnp.nan, 1.0], [0.5, -1.0], [1.0, jnp.inf], [-2.0, 1.0]])
    other = jnp.where(jnp.isfinite(gradients), gradients, 0.3)

    def run(gradients):
        def step(carry, gradient):
            raw, state = carry
            updates, state = optimizer.update({"a": gradient}, state, raw)
            return (optax.apply_updates(raw, updates), state), (state.num_skipped, state.skipped)

        raw = {"a": jnp.ones(2)}
        return jax.lax.scan(step, (raw, optimizer.init(raw)), gradients)

    with jax.numpy_dtype_promotion("standard"):
        (raws, states), (counts, flags) = jax.jit(jax.vmap(run))(jnp.stack([gradients, other]))
    np.testing.assert_array_equal(counts, [[0, 1, 1, 2, 2], [0] * 5])
    np.testing.assert_array_equal(flags[0], [False, True, False, True, False])
    for seed, kept in enumerate((gradients[jnp.array([0, 2, 4])], other)):
        raw, plain = {"a": jnp.ones(2)}, optax.adam(0.1)
        state = plain.init(raw)
        for gradient in kept:
            with jax.numpy_dtype_promotion("standard"):
                updates, state = plain.update({"a": gradient}, state)
            raw = optax.apply_updates(raw, updates)
        np.testing.assert_allclose(raws["a"][seed], raw["a"], rtol=1e-12)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a[seed], b, rtol=1e-12),  # noqa: B023
            states.inner,
            state,
        )


def test_an_optimiser_that_overflows_is_skipped_too():
    """The gradient is finite, its square is not."""
    optimizer = gw.guarded(optax.scale_by_adam())
    raw = jnp.ones((), jnp.float32)
    with jax.numpy_dtype_promotion("standard"):
        change, state = optimizer.update(jnp.float32(1e30), optimizer.init(raw), raw)
    assert float(change) == 0 and int(state.num_skipped) == 1 and float(state.inner.nu) == 0


def test_a_state_that_begins_infinite_is_no_reason_to_skip():
    """The best value so far is infinite until the first; without a guard the same."""
    plain = optax.chain(optax.adam(0.1), optax.contrib.reduce_on_plateau(accumulation_size=3))
    ends = []
    for optimizer in (plain, gw.guarded(plain)):
        raw = jnp.array(1.0)
        state = optimizer.init(raw)
        for gradient in (1.0, 0.5, 1.0, -0.3, 0.2):
            with jax.numpy_dtype_promotion("standard"):
                change, state = optimizer.update(jnp.array(gradient), state, raw, value=jnp.array(1.0))
            raw = optax.apply_updates(raw, change)
        ends.append(float(raw))
    assert ends[0] == ends[1] != 1.0 and int(state.num_skipped) == 0


def test_a_state_that_becomes_infinite_or_nan_is_skipped():
    following = {0.0: jnp.inf, jnp.inf: jnp.nan, jnp.nan: jnp.nan}
    for before, after in following.items():
        becoming = optax.GradientTransformation(
            lambda params, before=before: jnp.array(before),
            lambda updates, state, params=None, after=after: (updates, jnp.array(after)),
        )
        optimizer = gw.guarded(becoming)
        change, state = optimizer.update(jnp.array(1.0), optimizer.init(jnp.array(1.0)), jnp.array(1.0))
        assert float(change) == 0 and int(state.num_skipped) == 1
