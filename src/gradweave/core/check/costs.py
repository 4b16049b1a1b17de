"""Arithmetic and memory of a traced function, counted in its jaxpr: without compiling, loops as often as they run.

An estimate from the equations as they are written. A compiler fuses and removes some of them, so that ratios between
programs are worth more than the numbers themselves.
"""

import math
from typing import Any, NamedTuple

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

__all__ = ["Cost", "cost_of"]


class Cost(NamedTuple):
    """Cost of a function.

    Attributes:
        flops: floating-point operations, of products and elementwise work alike.
        peak_bytes: the most memory that intermediate values take at once, inputs included.
    """

    flops: float
    peak_bytes: float


def cost_of(closed: ClosedJaxpr) -> Cost:
    """Of one evaluation of this jaxpr. A while loop counts as one round, of a branch the more expensive one."""
    return Cost(_flops(closed.jaxpr), _peak(closed.jaxpr))


def _shape(atom: Any) -> tuple[int, ...]:
    shape: tuple[int, ...] = getattr(atom.aval, "shape", ())
    return shape


def _size(atom: Any) -> int:
    return math.prod(_shape(atom))


def _bytes(atom: Any) -> int:
    return _size(atom) * getattr(getattr(atom.aval, "dtype", None), "itemsize", 4)


def _inner(params: dict[str, Any]) -> list[Jaxpr]:
    groups = [value if isinstance(value, (tuple, list)) else [value] for value in params.values()]
    return [
        value.jaxpr if isinstance(value, ClosedJaxpr) else value
        for group in groups
        for value in group
        if isinstance(value, (ClosedJaxpr, Jaxpr))
    ]


def _flops(jaxpr: Jaxpr) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        inner = [_flops(one) for one in _inner(params)]
        if name == "scan":
            total += params["length"] * sum(inner)
        elif name == "cond":
            total += max(inner)
        elif inner:
            total += sum(inner)
        elif name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            total += 2 * _size(equation.outvars[0]) * math.prod(_shape(equation.invars[0])[axis] for axis in contracted)
        elif name == "conv_general_dilated":
            kernel = equation.invars[1]
            outputs = _shape(kernel)[params["dimension_numbers"].rhs_spec[0]]
            total += 2 * _size(equation.outvars[0]) * _size(kernel) / max(outputs, 1)
        else:
            total += max((_size(variable) for variable in equation.outvars), default=0)
    return total


def _peak(jaxpr: Jaxpr) -> float:
    """The largest sum of live bytes, going through the equations in order."""
    last: dict[Var, int] = {}
    for index, equation in enumerate(jaxpr.eqns):
        last.update({atom: index for atom in equation.invars if isinstance(atom, Var)})
    last.update({atom: len(jaxpr.eqns) for atom in jaxpr.outvars if not isinstance(atom, Literal)})
    ending: dict[int, list[Var]] = {}
    for variable, index in last.items():
        ending.setdefault(index, []).append(variable)
    alive = float(sum(_bytes(variable) for variable in (*jaxpr.constvars, *jaxpr.invars)))
    peak = alive
    for index, equation in enumerate(jaxpr.eqns):
        inside = max((_peak(one) - sum(map(_bytes, one.invars)) for one in _inner(equation.params)), default=0.0)
        alive += sum(_bytes(variable) for variable in equation.outvars)
        peak = max(peak, alive + max(inside, 0.0))
        alive -= sum(_bytes(variable) for variable in ending.get(index, ()))
        alive -= sum(_bytes(variable) for variable in equation.outvars if variable not in last)
    return peak
