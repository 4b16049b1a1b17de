"""Run a pure function's Python once for each kind of arguments, however often JAX asks for it.

An inner update is looked at several times while a meta-step is compiled: its contract is checked, the outputs read by
its loss are found, loops ask for shapes, and then it is differentiated. Each look would run the user's functions again.
Here the first one writes down the jaxpr and the others evaluate that: the same equations, so the same numbers to the
bit.

A trace lives as long as one call of an entry point: it outlives nothing that the function closes over.
"""

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

__all__ = ["Remembered"]


class _Known(NamedTuple):
    """A traced function: its outputs are arrays at some places and other objects at the others."""

    jaxpr: ClosedJaxpr
    structure: Any
    others: list[Any]
    is_array: list[bool]


class _Same:
    """An object as a key: equal to itself only, and kept alive, so that no other object can take its place."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value


class Remembered:
    """A function of pytrees that is traced once for each structure and type of the traced leaves of its arguments.

    Args:
        function: pure. Numbers of Python among its arguments and results stay such numbers; arrays that are not traced
            are constants, as they are for the function itself.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function: Callable[..., Any] = function
        self._known: dict[Hashable, _Known] = {}

    def __call__(self, *args: Any) -> Any:
        """The function's result."""
        leaves, structure = jax.tree.flatten(args)
        traced = [isinstance(leaf, jax.core.Tracer) for leaf in leaves]
        key = (structure, *map(_kind, leaves))
        if not any(traced) or not _is_hashable(key):
            return self.function(*args)
        moving = [leaf for leaf, is_traced in zip(leaves, traced, strict=True) if is_traced]
        known = self._known.get(key)
        if known is None:
            fixed = [None if is_traced else leaf for leaf, is_traced in zip(leaves, traced, strict=True)]
            known = self._known[key] = _trace(self.function, structure, fixed, traced, moving)
        outputs = iter(jaxpr_as_fun(known.jaxpr)(*moving))
        places = zip(known.others, known.is_array, strict=True)
        return jax.tree.unflatten(known.structure, [next(outputs) if array else other for other, array in places])


def _trace(
    function: Callable[..., Any], structure: Any, fixed: list[Any], traced: list[bool], moving: list[Any]
) -> _Known:
    found: list[tuple[Any, list[Any], list[bool]]] = []

    def flat(*moving: Any) -> list[Any]:
        left = iter(moving)
        leaves = [next(left) if is_traced else leaf for leaf, is_traced in zip(fixed, traced, strict=True)]
        outputs, result = jax.tree.flatten(function(*jax.tree.unflatten(structure, leaves)))
        is_array = [isinstance(output, jax.Array) for output in outputs]
        found.append((result, [None if array else o for o, array in zip(outputs, is_array, strict=True)], is_array))
        return [output for output, array in zip(outputs, is_array, strict=True) if array]

    jaxpr = jax.make_jaxpr(flat)(*moving)
    return _Known(jaxpr, *found[-1])


def _kind(leaf: Any) -> Hashable:
    if isinstance(leaf, jax.core.Tracer):
        return jax.typeof(leaf)
    if isinstance(leaf, bool | int | float | complex | str):
        return type(leaf), repr(leaf)  # 0.0 and -0.0 are not the same constant
    return _Same(leaf)


def _is_hashable(key: Any) -> bool:
    try:
        hash(key)
    except TypeError:
        return False
    return True
