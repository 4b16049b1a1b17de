"""Derivatives that stay finite where the usual ones are not: at the zero of a root, a logarithm or a denominator.

The rule: each partial derivative of an elementwise operation is the usual one where that is finite, and 0 where it is
not. Values are untouched. At a gradient of zero this is the derivative that one wants of the usual optimisers: in
m / (sqrt(v) + eps) the root's derivative is infinite at v = 0, but m is 0 there, and the rest, dm / eps, is exact.
A branch that is not taken (t / norm at norm = 0, in clipping) no longer multiplies its zero by infinity.

The rules are linear in tangents, so that they serve forward, reverse and mixed mode, and their own derivatives are
finite at the same places.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import JaxprEqn, Literal

from gradweave.core.jaxprs import as_function

__all__ = ["SAFE_RULES", "singular_operands"]

_NONLINEAR_IN = {
    "sqrt": (0,),
    "rsqrt": (0,),
    "cbrt": (0,),
    "log": (0,),
    "log1p": (0,),
    "exp": (0,),
    "integer_pow": (0,),
    "square": (0,),
    "pow": (0, 1),
    "atan2": (0, 1),
    "div": (0, 1),
    "mul": (0, 1),
}
"""Elementwise primitives whose partial derivatives can be infinite, and the operands by which they are taken."""

_LINEAR_IF_OTHERS_ARE_KNOWN = frozenset({"div", "mul"})


def singular_operands(equation: JaxprEqn) -> list[int]:
    """The operands by which this equation's derivative can be infinite; none for a product with a known number."""
    operands = _NONLINEAR_IN.get(equation.primitive.name, ())
    free = [place for place in operands if not isinstance(equation.invars[place], Literal)]
    free = [place for place in free if _is_inexact(equation.invars[place].aval)]
    name, atoms = equation.primitive.name, equation.invars
    if name == "integer_pow" and equation.params["y"] in (0, 1):
        return []
    if name in _LINEAR_IF_OTHERS_ARE_KNOWN and isinstance(atoms[1], Literal):
        return []
    if name == "mul" and isinstance(atoms[0], Literal):
        return []
    return free


def _is_inexact(aval: Any) -> bool:
    return bool(jnp.issubdtype(aval.dtype, jnp.inexact))


def _safe(equation: JaxprEqn, *inputs: Any) -> list[Any] | None:
    """The equation with the rule above, or None where it has nothing to mend."""
    operands = singular_operands(equation)
    if not operands:
        return None
    call = as_function(equation)

    @jax.custom_jvp
    def value(*inputs: Any) -> Any:
        return call(*inputs)[0]

    def rule(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
        # JAX's own derivative of a power promotes integers, under any setting where it is differentiated.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            output, slopes = _safely(lambda *inputs: call(*inputs)[0], operands, primals)
            parts = [
                slope * tangents[place]
                for place, slope in zip(operands, slopes, strict=True)
                if not isinstance(tangents[place], SymbolicZero)
            ]
        return output, sum(parts[1:], parts[0]) if parts else jnp.zeros_like(output)

    value.defjvp(rule, symbolic_zeros=True)
    return [value(*inputs)]


def _safely(call: Callable[..., Any], operands: list[int], primals: tuple[Any, ...]) -> tuple[Any, list[Any]]:
    """(the value, its masked slopes), written so that their own derivatives, as JAX takes them, are finite as well.

    JAX drops a custom rule when it differentiates a loop for the second time, so that the rule may not rely on itself:
    where a slope is not finite, everything is computed at a harmless place, and the true value is put in as a constant.
    """

    def slope(place: int, inputs: tuple[Any, ...]) -> Any:
        def moved(operand: Any) -> Any:
            return call(*inputs[:place], operand, *inputs[place + 1 :])

        return jax.jvp(moved, (inputs[place],), (jnp.ones_like(inputs[place]),))[1]

    # Constants in the derivative: the masks, and the values that are put in where it is masked.
    known = tuple(jax.lax.stop_gradient(primal) for primal in primals)
    constants = [slope(place, known) for place in operands]
    masks = [~jnp.isfinite(constant) for constant in constants]
    masked = functools.reduce(jnp.logical_or, masks)
    harmless = tuple(
        jnp.where(masked, jnp.ones_like(primal), primal) if place in operands else primal
        for place, primal in enumerate(primals)
    )
    slopes = [
        jnp.where(masked, jnp.where(mask, jnp.zeros_like(constant), constant), slope(place, harmless))
        for place, mask, constant in zip(operands, masks, constants, strict=True)
    ]
    return jnp.where(masked, call(*known), call(*harmless)), slopes


SAFE_RULES = dict.fromkeys(_NONLINEAR_IN, _safe)
"""For `rewritten`."""
