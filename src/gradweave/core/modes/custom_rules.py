"""Forward mode through functions that define only their reverse derivative (`jax.custom_vjp`).

Such a function gives its pullback u -> J^T u and no J v, so that JAX refuses `jax.jvp`. But a pullback is linear, and
the transpose of u -> J^T u is v -> J v: for any rule (a clipped or a straight-through gradient, too), both
directions then agree.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import JaxprEqn
from jaxtyping import PyTree

from gradweave.core.jaxprs import as_function, contains, evaluate

__all__ = ["forward_differentiable"]

NEEDS_REVERSE = (
    "a function with jax.custom_vjp is differentiated in forward mode here, and its rule cannot be turned: {why}. "
    'Use ReverseMode(remat="step"), which calls the rule as it is, or define the function by jax.custom_jvp.'
)


def forward_differentiable(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """`function` itself, or, where it calls a `jax.custom_vjp`, one that `jax.jvp` and `jax.linearize` accept.

    The derivative that is defined is kept, in its own derivatives, too.

    Raises:
        TypeError: the defined pullback is not linear in its cotangent, or depends on differentiated values that it
            closes over. Raised when it is differentiated.
    """

    def served(*args: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(args)
        closed, shape = jax.make_jaxpr(
            lambda *leaves: function(*jax.tree.unflatten(structure, leaves)), return_shape=True
        )(*leaves)
        if not contains(closed, "custom_vjp_call", opaque=frozenset({"custom_jvp_call"})):
            return function(*args)
        return jax.tree.unflatten(jax.tree.structure(shape), evaluate(closed, {"custom_vjp_call": _turned}, leaves))

    return served


def _turned(equation: JaxprEqn, *inputs: Any) -> list[Any]:
    """The call with a forward rule."""
    call = as_function(equation)
    num_consts = equation.params.get("num_consts", 0)

    @jax.custom_jvp
    def turned(*inputs: Any) -> list[Any]:
        return call(*inputs)

    def rule(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[list[Any], list[Any]]:
        live = [place for place, tangent in enumerate(tangents) if not isinstance(tangent, SymbolicZero)]
        if any(place < num_consts for place in live):
            raise TypeError(NEEDS_REVERSE.format(why="it closes over a value that depends on the meta-parameters"))

        def of_live(*moved: Any) -> list[Any]:
            merged = list(primals)
            for place, value in zip(live, moved, strict=True):
                merged[place] = value
            return [out for out in call(*merged) if jnp.issubdtype(out.dtype, jnp.inexact)]

        outputs = call(*primals)
        read, pullback = jax.vjp(of_live, *(primals[place] for place in live))
        try:
            pushed = iter(jax.linear_transpose(pullback, read)(tuple(tangents[place] for place in live))[0])
        except (TypeError, ValueError, RuntimeError, AssertionError) as error:
            raise TypeError(NEEDS_REVERSE.format(why="it is not linear in its cotangent")) from error
        # A discrete output has a tangent without content.
        return outputs, [
            next(pushed) if jnp.issubdtype(out.dtype, jnp.inexact) else SymbolicZero(out.aval.to_tangent_aval())
            for out in outputs
        ]

    turned.defjvp(rule, symbolic_zeros=True)
    outputs: list[Any] = turned(*inputs)
    return outputs
