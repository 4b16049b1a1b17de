"""Evaluate a traced function with some of its primitive operations replaced, wherever they are nested.

JAX traces any function to a jaxpr, a list of equations. Evaluating those equations one by one gives the function
again, and a *rule* may compute some of them differently: with another derivative, say, and the same value. Loops,
branches and compiled blocks keep their shape, because the rules are applied to the jaxprs inside of them.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var
from jaxtyping import PyTree

Rule = Callable[..., list[Any] | None]
"""`(equation, *inputs) -> outputs`, or None to leave the equation as it is."""

Cut = Callable[[JaxprEqn], bool]
"""Whether an equation counts as reading nothing."""

OPAQUE = frozenset({"custom_jvp_call", "custom_vjp_call"})
"""Calls with a custom derivative rule: the equations inside of them are not differentiated."""

_CALLS = ("jit", "pjit", "closed_call")


def rewritten(function: Callable[..., PyTree], rules: Mapping[str, Rule]) -> Callable[..., PyTree]:
    """`function`, with the primitives that `rules` names replaced at every depth.

    Args:
        function: pure; takes and returns pytrees of arrays.
        rules: by the name of the primitive.
    """

    def replaced(*args: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(args)
        closed, shape = jax.make_jaxpr(
            lambda *leaves: function(*jax.tree.unflatten(structure, leaves)), return_shape=True
        )(*leaves)
        return jax.tree.unflatten(jax.tree.structure(shape), evaluate(closed, rules, leaves))

    return replaced


def evaluate(closed: ClosedJaxpr, rules: Mapping[str, Rule], inputs: list[Any]) -> list[Any]:
    """The outputs of a jaxpr, its equations computed by `rules` where there is one."""
    jaxpr = closed.jaxpr
    values: dict[Var, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *inputs), strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        given = [read(atom) for atom in equation.invars]
        rule = rules.get(equation.primitive.name)
        with getattr(getattr(equation, "ctx", None), "manager", contextlib.nullcontext()):
            outputs = None if rule is None else rule(equation, *given)
            if outputs is None:
                outputs = as_function(_inside_replaced(equation, rules))(*given)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def as_function(equation: JaxprEqn) -> Callable[..., list[Any]]:
    """One equation as a function of all its inputs, literal ones included."""
    primitive = equation.primitive
    bound = primitive.get_bind_params(equation.params)
    # Functions among the parameters are handed over in front of the inputs by older versions of JAX.
    functions, params = bound if isinstance(bound, tuple) else ((), bound)

    def call(*inputs: Any) -> list[Any]:
        outputs = primitive.bind(*functions, *inputs, **params)
        return list(outputs) if primitive.multiple_results else [outputs]

    return call


def equations(closed: ClosedJaxpr, *, opaque: frozenset[str] = frozenset()) -> Iterator[JaxprEqn]:
    """Every equation at every depth; not those inside of primitives named in `opaque`."""
    yield from _walk(closed.jaxpr, opaque)


def contains(closed: ClosedJaxpr, name: str, *, opaque: frozenset[str] = frozenset()) -> bool:
    """Whether a primitive of this name occurs at any depth."""
    return any(equation.primitive.name == name for equation in equations(closed, opaque=opaque))


def chooses(equation: JaxprEqn) -> bool:
    """Whether the derivative of an operation is 0 wherever it has one: comparisons, integers, signs and roundings."""
    steps = equation.primitive.name in ("sign", "floor", "ceil", "round")
    return steps or not any(
        jnp.issubdtype(getattr(out.aval, "dtype", jnp.int32), jnp.inexact) for out in equation.outvars
    )


def passed_through(jaxpr: Jaxpr) -> list[int | None]:
    """For each output the place of the input that it is, unchanged; None where it is computed. Looks into calls."""
    place_of: dict[Var, int] = {variable: place for place, variable in enumerate(jaxpr.invars)}
    for equation in jaxpr.eqns:
        if equation.primitive.name in _CALLS and "jaxpr" in equation.params:
            sources = passed_through(equation.params["jaxpr"].jaxpr)
            for out, source in zip(equation.outvars, sources, strict=True):
                given = None if source is None else equation.invars[source]
                if isinstance(given, Var) and given in place_of:
                    place_of[out] = place_of[given]
    return [place_of.get(out) if isinstance(out, Var) else None for out in jaxpr.outvars]


def reads(jaxpr: Jaxpr, needed: list[bool], *, cut: Cut | None = None) -> list[bool]:
    """Whether each input matters to one of the outputs that are needed, looking into calls and loops.

    Args:
        jaxpr: any.
        needed: for each output, whether it counts.
        cut: equations that count as reading nothing; None: none.
    """
    pairs = zip(jaxpr.outvars, needed, strict=True)
    matter = {atom for atom, counts in pairs if counts and isinstance(atom, Var)}
    for equation in reversed(jaxpr.eqns):
        wanted = [variable in matter for variable in equation.outvars]
        if any(wanted) and not (cut and cut(equation)):
            used = _reads_of(equation, wanted, cut)
            matter.update(
                atom for atom, counts in zip(equation.invars, used, strict=True) if counts and isinstance(atom, Var)
            )
    return [variable in matter for variable in jaxpr.invars]


def _reads_of(equation: JaxprEqn, wanted: list[bool], cut: Cut | None) -> list[bool]:
    name, params = equation.primitive.name, equation.params
    if name in _CALLS and "jaxpr" in params:
        return reads(params["jaxpr"].jaxpr, wanted, cut=cut)
    if name != "scan":
        return [True] * len(equation.invars)
    inner, consts, carries = params["jaxpr"].jaxpr, params["num_consts"], params["num_carry"]
    while True:  # a carry read in the next round is needed of this one
        used = reads(inner, wanted, cut=cut)
        carried = used[consts : consts + carries]
        grown = [a or b for a, b in zip(wanted[:carries], carried, strict=True)] + wanted[carries:]
        if grown == wanted:
            return [u or (place - consts < carries and place >= consts and wanted[place - consts])
                    for place, u in enumerate(used)]  # fmt: skip
        wanted = grown


def _walk(jaxpr: Jaxpr, opaque: frozenset[str]) -> Iterator[JaxprEqn]:
    for equation in jaxpr.eqns:
        yield equation
        if equation.primitive.name in opaque:
            continue
        for value in equation.params.values():
            for inner in _jaxprs_in(value):
                yield from _walk(inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner, opaque)


def _jaxprs_in(value: Any) -> list[ClosedJaxpr | Jaxpr]:
    members = value if isinstance(value, (tuple, list)) else [value]
    return [member for member in members if isinstance(member, (ClosedJaxpr, Jaxpr))]


def _inside_replaced(equation: JaxprEqn, rules: Mapping[str, Rule]) -> JaxprEqn:
    if equation.primitive.name in OPAQUE or not any(_jaxprs_in(value) for value in equation.params.values()):
        return equation
    names = frozenset(rules)
    return equation.replace(
        params={key: _param_replaced(value, rules, names) for key, value in equation.params.items()}
    )


def _param_replaced(value: Any, rules: Mapping[str, Rule], names: frozenset[str]) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)(_param_replaced(member, rules, names) for member in value) if _jaxprs_in(value) else value
    if isinstance(value, ClosedJaxpr):
        affected = any(inner.primitive.name in names for inner in equations(value))
        return _traced_again(value, _Rules(rules)) if affected else value
    if isinstance(value, Jaxpr) and not value.constvars:
        again = _param_replaced(ClosedJaxpr(value, ()), rules, names)
        return value if again.consts else again.jaxpr
    return value


class _Rules:
    """Rules as a key of a cache: equal if they are the same table."""

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self.rules = rules

    def __hash__(self) -> int:
        return id(self.rules)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Rules) and self.rules is other.rules


def _traced_again(closed: ClosedJaxpr, key: _Rules) -> ClosedJaxpr:
    # The same block must stay the same object, or it would be compiled anew at every call outside of `jax.jit`.
    return _traced(closed, key) if closed.consts else _traced_once(closed, key)


def _traced(closed: ClosedJaxpr, key: _Rules) -> ClosedJaxpr:
    return jax.make_jaxpr(lambda *inputs: evaluate(closed, key.rules, list(inputs)))(*closed.in_avals)


_traced_once = functools.lru_cache(maxsize=1024)(_traced)
