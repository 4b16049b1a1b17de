"""The one program that `check_learner` compiles: the outer loss after a few updates, and its derivative."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr
from jaxtyping import Array, PyTree

from gradweave.core.check.held import evaluate_held, nothing_stopped
from gradweave.core.check.places import fast_options
from gradweave.core.finite import all_finite
from gradweave.core.jaxprs import OPAQUE, contains, evaluate
from gradweave.core.modes.custom_rules import forward_differentiable
from gradweave.core.problem import MetaProblemLike, Window

__all__ = ["Traced", "Values", "compiled_values", "in_float64", "on_host", "trace_learner"]


class Traced(NamedTuple):
    """A learner's two functions as jaxprs, both with flat inputs.

    Attributes:
        update: (learned, state, batch) -> state.
        outer_loss: (state, batch) -> scalar.
    """

    update: ClosedJaxpr
    outer_loss: ClosedJaxpr


class Values(NamedTuple):
    """Of one evaluation.

    Attributes:
        outer_loss: J(x_L).
        derivative: along the given direction.
        stopped: the values whose derivatives the outer loss stopped.
        is_finite: whether the derivative of x_L is finite, too. The next update reads leaves of it that the
            outer loss does not.
    """

    outer_loss: Array
    derivative: Array
    stopped: list[Array]
    is_finite: Array


def on_host(tree: PyTree) -> PyTree:
    """Every leaf as a NumPy array, whose slices and casts compile nothing; typed keys are unchanged."""

    def moved(leaf: Any) -> Any:
        is_key = jnp.issubdtype(getattr(leaf, "dtype", np.dtype(float)), jax.dtypes.extended)
        return leaf if is_key else np.asarray(leaf, jnp.result_type(leaf))

    return jax.tree.map(moved, tree)


def in_float64(tree: PyTree) -> PyTree:
    """Every floating-point leaf in float64; call it within `jax.enable_x64(True)`."""
    return jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree
    )


def trace_learner(
    problem: MetaProblemLike, to_eta: Callable[[PyTree], PyTree], learned: PyTree, window: Window
) -> Traced:
    """The learner's functions on the first batch of a window."""
    batch = jax.tree.map(lambda leaf: leaf[0], window.inner)
    given, structure = jax.tree.flatten((learned, window.state, batch))

    def update(*leaves: Any) -> list[Any]:
        learned, state, batch = jax.tree.unflatten(structure, leaves)
        return jax.tree.leaves(problem.update(state, to_eta(learned), batch)[0])

    outer_given, outer_structure = jax.tree.flatten((window.state, window.last_outer))

    def outer_loss(*leaves: Any) -> Any:
        return problem.outer_loss(*jax.tree.unflatten(outer_structure, leaves))[0]

    return Traced(jax.make_jaxpr(update)(*given), jax.make_jaxpr(outer_loss)(*outer_given))


def compiled_values(
    traced: Traced, learned: PyTree, window: Window
) -> Callable[[PyTree, PyTree, list[Array] | None], Values]:
    """`(learned, direction, stopped) -> Values`, compiled; `stopped` None for the outer loss as it is.

    Given the values stopped at another point, the outer loss holds them constant, so that its difference quotients
    approximate its derivative.
    """
    state = jax.tree.leaves(window.state)
    batches = jax.tree.leaves(window.inner)
    outer_leaves = jax.tree.leaves(window.last_outer)

    def window_loss(
        learned: PyTree, state: list[Any], given: list[Array], held: Array
    ) -> tuple[Array, list[Array], list[Array]]:
        def step(state: list[Any], batch: list[Any]) -> tuple[list[Any], None]:
            return evaluate(traced.update, {}, [*jax.tree.leaves(learned), *state, *batch]), None

        end, _ = jax.lax.scan(step, state, batches)
        moving = [leaf for leaf in end if jnp.issubdtype(leaf.dtype, jnp.inexact)]
        outputs, stopped = evaluate_held(traced.outer_loss, [*end, *outer_leaves], given, held)
        return outputs[0], stopped, moving

    has_own_rules = any(contains(one, "custom_vjp_call", opaque=OPAQUE) for one in traced)

    def both(learned: PyTree, direction: PyTree, given: list[Array], held: Array) -> Values:
        # The state has a tangent, too, of zeros: a loop that begins with it is differentiated once, not once more to
        # find out that its state depends on learned leaves.
        moves = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in state]
        moving = [leaf for leaf, moved in zip(state, moves, strict=True) if moved]

        def function(learned: PyTree, moving: list[Any]) -> tuple[Array, list[Array], list[Array]]:
            left = iter(moving)
            whole = [next(left) if moved else leaf for leaf, moved in zip(state, moves, strict=True)]
            return window_loss(learned, whole, given, held)

        if has_own_rules:
            function = forward_differentiable(function)
        still = [jnp.zeros_like(leaf) for leaf in moving]
        (value, stopped, _), (slope, _, ends) = jax.jvp(function, (learned, moving), (direction, still))
        return Values(value, slope, stopped, all_finite((slope, ends)))

    off = jnp.zeros((), bool)
    nothing = nothing_stopped(traced.outer_loss)
    program = jax.jit(both).lower(learned, learned, nothing, off).compile(compiler_options=fast_options())

    def values(learned: PyTree, direction: PyTree, stopped: list[Array] | None) -> Values:
        result: Values = program(
            learned, direction, nothing if stopped is None else stopped, off | (stopped is not None)
        )
        return result

    return values
