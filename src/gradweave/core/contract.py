"""Contract of a problem's two functions, checked once, at the entry, before anything is differentiated.

One abstract evaluation of each function (shapes and dtypes only) settles whether they are accepted, so that neither the
answer nor the message depends on the mode, the estimator, the number of meta-parameters or the length of the window.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from gradweave.core.problem import MetaProblemLike, Window

__all__ = ["check_pair", "check_scalar", "settle_window", "strong"]


def strong(leaf: Any) -> Any:
    """An array whose dtype sticks. A Python number's would follow its operands', and its tangent's would not."""
    array = jnp.asarray(leaf)
    return jnp.asarray(array, array.dtype) if _is_weak(array) else array


def settle_window(
    problem: MetaProblemLike, to_eta: Callable[[PyTree], PyTree], learned: PyTree, window: Window
) -> Window:
    """The window with a state of settled dtypes, once `update` and `outer_loss` are found to keep their contract.

    A Python number in the state, or an array of such a weak type, takes the dtype that the first update gives it.

    Args:
        problem: the learner.
        to_eta: maps `learned` to the natural meta-parameters.
        learned: raw meta-parameters without the `Fixed` ones.
        window: with `state` as the user gave it. A recording was checked when it was made.

    Raises:
        TypeError: `update` or `outer_loss` does not return a pair; the state changes its structure or a dtype; the
            outer loss is not a real scalar; the state holds something that is no array.
        ValueError: a leaf of the state changes its shape, or the outer loss has one.
    """
    if window.recording is not None or window.horizons is not None:
        return window._replace(state=jax.tree.map(strong, window.state))

    def update(learned: PyTree, state: PyTree, batches: PyTree) -> PyTree:
        batch = jax.tree.map(lambda leaf: leaf[0], batches)
        return check_pair(problem.update(state, to_eta(learned), batch), "update", "(state, aux)")[0]

    def outer_loss(state: PyTree, window: Window) -> Any:
        value, _ = check_pair(problem.outer_loss(state, window.last_outer), "outer_loss", "(scalar, aux)")
        check_scalar(value, "outer_loss")
        return value

    given = _arrays(window.state)
    after = jax.eval_shape(update, learned, given, window.inner)
    _check_structure(given, after)
    state = jax.tree.map(_settled, given, after)
    if any(_is_weak(leaf) for leaf in jax.tree.leaves(given)):
        after = jax.eval_shape(update, learned, state, window.inner)
    _check_leaves(state, after)
    jax.eval_shape(outer_loss, state, window)
    return window._replace(state=state)


def check_pair(result: Any, name: str, pair: str) -> Any:
    """`result`, if it is a pair whose aux loops can carry along."""
    if isinstance(result, tuple) and len(result) == 2:
        for path, leaf in jax.tree_util.tree_leaves_with_path(result[1]):
            if not _is_array(leaf):
                raise TypeError(
                    f"{name}'s aux must hold arrays and numbers only, but aux{jax.tree_util.keystr(path)} is "
                    f"{_described(leaf)}; leave it out of aux."
                )
        return result
    found = f"a tuple of {len(result)}" if isinstance(result, tuple) else f"a {type(result).__name__}"
    raise TypeError(f"{name} must return a pair {pair}, but returned {found}; without anything to report, aux is None.")


def check_scalar(value: Any, name: str) -> None:
    """Refuse a loss that is not one real number."""
    if not _is_array(value):
        raise TypeError(f"{name} must be a real floating-point scalar, but is {_described(value)}; return one number.")
    shape, dtype = jnp.shape(value), jnp.result_type(value)
    if shape != ():
        raise ValueError(
            f"{name} must be a scalar, of shape (), but has shape {shape}; take its mean or its sum, or index it."
        )
    if not jnp.issubdtype(dtype, jnp.floating):
        remedy = (
            "take its real part or its absolute value"
            if jnp.issubdtype(dtype, jnp.complexfloating)
            else "make it a float, and make sure that it depends smoothly on what it is made of"
        )
        raise TypeError(f"{name} must be a real floating-point scalar, but its dtype is {dtype}; {remedy}.")


def _is_weak(leaf: Any) -> bool:
    return bool(getattr(jax.typeof(leaf), "weak_type", False))


def _is_array(leaf: Any) -> bool:
    """Whether JAX takes it for an array: it is one, of a dtype that JAX has, or a number."""
    try:
        jnp.asarray(leaf)
    except (TypeError, ValueError):
        return False
    return True


def _arrays(state: PyTree) -> PyTree:
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if not _is_array(leaf):
            remedy = "keep it outside of the state (equinox.partition(model, equinox.is_array) splits a module)"
            if dataclasses.is_dataclass(leaf):
                remedy = "register that class as a pytree: @jax.tree_util.register_dataclass above @dataclass"
            raise TypeError(
                f"the learner's state must hold arrays and numbers only, but {_name(path)} is {_described(leaf)}; "
                f"{remedy}."
            )
    return jax.tree.map(jnp.asarray, state)


def _described(leaf: Any) -> str:
    """What a leaf is that JAX does not take; of an array its dtype, as that is what is wrong with it."""
    if isinstance(leaf, np.ndarray):
        return f"an array of dtype {leaf.dtype}, which JAX does not have"
    if dataclasses.is_dataclass(leaf):
        return f"a dataclass of type {type(leaf).__name__}"
    return f"{leaf!r:.100} of type {type(leaf).__name__}"


def _settled(leaf: Any, after: Any) -> Any:
    if not _is_weak(leaf):
        return leaf
    return jnp.asarray(leaf, after.dtype)


def _check_structure(before: PyTree, after: PyTree) -> None:
    structures: list[Any] = [jax.tree.structure(before), jax.tree.structure(after)]
    if structures[0] != structures[1]:
        raise TypeError(
            f"update must return a state of the structure that it was given, {structures[0]}, but returned "
            f"{structures[1]}; return (state, aux), with None for aux where there is nothing to report."
        )


def _check_leaves(before: PyTree, after: PyTree) -> None:
    pairs = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
    for (path, old), new in pairs:
        if old.shape != new.shape:
            raise ValueError(
                f"update must keep the shape of every leaf of the state, but {_name(path)} has shape {old.shape} "
                f"before and {new.shape} after the update."
            )
        if old.dtype != new.dtype:
            raise TypeError(
                f"update must keep the dtype of every leaf of the state, but {_name(path)} is {old.dtype} before and "
                f"{new.dtype} after the update; cast it there with .astype({old.dtype}), or start with {new.dtype}."
            )


def _name(path: Any) -> str:
    return f"state{jax.tree_util.keystr(path)}"
