"""A meta-optimiser that no single bad window can destroy."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int, PyTree

from gradweave.core.finite import all_finite

__all__ = ["GuardedState", "guarded"]


class GuardedState(NamedTuple):
    """The state of a guarded optimiser.

    Attributes:
        inner: the state of the optimiser inside, as the last finite update left it.
        num_skipped: the number of updates skipped so far.
        skipped: whether the last one was.
    """

    inner: PyTree
    num_skipped: Int[Array, ""]
    skipped: Bool[Array, ""]


def guarded(meta_optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The same optimiser, which skips every update that is not finite, and counts those skipped.

    A skipped update is exactly zero and leaves the state inside as it was. An update is skipped if an entry of the
    gradient, of the optimiser's update, or of its new state is infinite or NaN; an entry of the state that was infinite
    before may stay so, as the best loss of `optax.contrib.reduce_on_plateau` until there is one. Works within `jit`,
    `vmap` (each seed by itself) and `scan`.

    A guard is no cure: log `num_skipped`, and ask `check_learner` for the reason if it grows.

    Args:
        meta_optimizer: any optax transformation.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> import gradweave as gw
        >>> optimizer = gw.guarded(optax.sgd(0.1, momentum=0.9))
        >>> raw = jnp.array(1.0)
        >>> state = optimizer.init(raw)
        >>> change, state = optimizer.update(jnp.array(jnp.nan), state, raw)
        >>> float(change), int(state.num_skipped)
        (0.0, 1)
        >>> change, state = optimizer.update(jnp.array(2.0), state, raw)
        >>> round(float(change), 6), int(state.num_skipped)
        (-0.2, 1)
    """
    inner = optax.with_extra_args_support(meta_optimizer)

    def init(params: PyTree) -> GuardedState:
        return GuardedState(inner.init(params), jnp.zeros((), jnp.int32), jnp.zeros((), bool))

    def update(
        updates: PyTree, state: GuardedState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, GuardedState]:
        finite = all_finite(updates)
        # Not computed with infinities and NaNs, which `jax_debug_nans` would stop at.
        usable = jax.tree.map(lambda leaf: jnp.where(finite, leaf, jnp.zeros_like(leaf)), updates)
        # optax multiplies integer counts with floats, which strict promotion would refuse.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            changes, new_inner = inner.update(usable, state.inner, params, **extra)
        finite = finite & all_finite(changes) & _stays_finite(new_inner, state.inner)
        changes = jax.tree.map(lambda leaf: jnp.where(finite, leaf, jnp.zeros_like(leaf)), changes)
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new_inner, state.inner)
        num_skipped = state.num_skipped + jnp.asarray(~finite, jnp.int32)
        return changes, GuardedState(kept, num_skipped, ~finite)

    return optax.GradientTransformationExtraArgs(init, update)


def _stays_finite(new: PyTree, old: PyTree) -> Bool[Array, ""]:
    """Whether no entry is NaN, and none infinite that was not before."""

    def without_old_infinities(after: Array, before: Array) -> Array:
        if not jnp.issubdtype(jnp.result_type(after), jnp.inexact):
            return after
        return jnp.where(jnp.isinf(after) & jnp.isinf(before), jnp.zeros_like(after), after)

    return all_finite(jax.tree.map(without_old_infinities, new, old))
