"""Evaluate a traced function with the values whose derivatives it stops held constant.

A difference quotient moves a stopped baseline along with everything else, the derivative does not. Given the values
that were stopped at another point, the function here keeps them, so that both answer the same question.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, JaxprEqn
from jaxtyping import Array, Bool

from gradweave.core.jaxprs import as_function, contains, evaluate

__all__ = ["evaluate_held", "nothing_stopped"]

_CALLS = ("jit", "pjit", "closed_call", "checkpoint", "remat2")


def evaluate_held(
    closed: ClosedJaxpr, inputs: list[Any], given: list[Array], held: Bool[Array, ""]
) -> tuple[list[Any], list[Array]]:
    """(the outputs, the values whose derivatives were stopped).

    Calls and scans are looked into; a scan's stopped values have its length as a leading axis. Those within anything
    else (branches, while loops) are neither returned nor held.

    Args:
        closed: the function.
        inputs: its arguments, flat.
        given: values from another point, shaped as `nothing_stopped` says.
        held: whether to use them.
    """
    stopped: list[Array] = []

    def stop(equation: JaxprEqn, value: Any) -> list[Any]:
        own = jax.lax.stop_gradient(value)
        kept = jnp.where(held, given[len(stopped)], own)
        stopped.append(own)
        return [kept]

    def call(equation: JaxprEqn, *inputs: Any) -> list[Any]:
        outputs, inner = evaluate_held(_closed(equation), list(inputs), given[len(stopped) :], held)
        stopped.extend(inner)
        return outputs

    def scan(equation: JaxprEqn, *inputs: Any) -> list[Any]:
        params = equation.params
        num = len(nothing_stopped(params["jaxpr"]))
        if not num:
            return as_function(equation)(*inputs)
        consts, carries = params["num_consts"], params["num_carry"]

        def body(carry: list[Any], entry: tuple[list[Any], list[Array]]) -> tuple[list[Any], Any]:
            outputs, inner = evaluate_held(params["jaxpr"], [*inputs[:consts], *carry, *entry[0]], entry[1], held)
            return outputs[:carries], (outputs[carries:], inner)

        start, rows = list(inputs[consts : consts + carries]), list(inputs[consts + carries :])
        end, (outputs, inner) = jax.lax.scan(
            body,
            start,
            (rows, given[len(stopped) : len(stopped) + num]),
            length=params["length"],
            reverse=params["reverse"],
        )
        stopped.extend(inner)
        return [*end, *outputs]

    def leave(equation: JaxprEqn, *inputs: Any) -> list[Any]:
        return as_function(equation)(*inputs)

    rules = {equation.primitive.name: leave for equation in closed.jaxpr.eqns}
    rules |= {"stop_gradient": stop, "scan": scan, **dict.fromkeys(_CALLS, call)}
    return evaluate(closed, rules, inputs), stopped


def nothing_stopped(closed: ClosedJaxpr) -> list[Array]:
    """Zeros in the shapes of the values that `evaluate_held` stops."""
    found: list[Array] = []
    if not contains(closed, "stop_gradient"):
        return found
    for equation in closed.jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "stop_gradient":
            aval = equation.outvars[0].aval
            found.append(jnp.zeros(aval.shape, aval.dtype))
        elif name in _CALLS:
            found.extend(nothing_stopped(_closed(equation)))
        elif name == "scan":
            rows = nothing_stopped(params["jaxpr"])
            found.extend(jnp.zeros((params["length"], *row.shape), row.dtype) for row in rows)
    return found


def _closed(call: JaxprEqn) -> ClosedJaxpr:
    inner = call.params["jaxpr"]
    return inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())
