"""Requirements of a `GradientLearner` on its optimiser, its parameters and its learning rate.

Its `init` checks the first two by one small update; every trace of an update checks the shapes and dtypes of the
optimiser's results and of the rate, so that each mode refuses the same with the same words.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from gradweave.core.contract import check_scalar, strong

__all__ = ["check_descends", "check_extra_arguments", "checked_params", "checked_rate", "direction_of"]


def checked_params(params: PyTree) -> PyTree:
    """The parameters as arrays of settled dtypes.

    Raises:
        TypeError: a leaf is an integer, a boolean, a function or anything else that no gradient moves.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        try:
            dtype = jnp.result_type(leaf)
        except (TypeError, ValueError):
            dtype = None
        if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
            found = getattr(leaf, "dtype", dtype)  # a dtype of NumPy's that JAX does not have is one, too
            kind = f"is a {type(leaf).__name__}" if found is None else f"has dtype {found}"
            raise TypeError(
                f"parameters must be real arrays or numbers that a gradient moves, but params"
                f"{jax.tree_util.keystr(path)} {kind}; keep it outside of the parameters "
                "(equinox.partition(model, equinox.is_inexact_array) splits a module) or in the batch."
            )
    return jax.tree.map(strong, params)


def check_descends(optimizer: optax.GradientTransformation, params: PyTree) -> None:
    """Make two updates on gradients of one and refuse an optimiser whose direction would climb.

    Two, because a rate that warms up from zero moves nothing in the first.

    Args:
        optimizer: as a `GradientLearner` takes it: its updates are subtracted.
        params: of the learner; only their structure, shapes and dtypes are read.

    Raises:
        ValueError: the direction points against the gradient.
        TypeError: the optimiser wants more than a gradient, its state and the parameters, or does not keep the
            contract of `direction_of`.
    """
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)

    def probe() -> jax.Array:
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        ones = jax.tree.map(jnp.ones_like, zeros)
        state, along = optimizer.init(zeros), jnp.zeros(())
        for _ in range(2):
            direction, state = direction_of(optimizer, ones, state, zeros)
            for leaf in jax.tree.leaves(direction):
                along += jnp.sum(leaf.real).astype(along.dtype)
        return along

    # Compiled ahead, so that it runs even where `init` itself is being traced; without jit there is nothing to compile.
    with jax.numpy_dtype_promotion("standard"), jax.debug_nans(False), jax.disable_jit(False), check_extra_arguments():
        along = float(jax.jit(probe).lower().compile()())
    if along < 0:
        raise ValueError(
            "the optimizer of a GradientLearner gives a direction, which the learner multiplies by learning_rate(eta) "
            "and subtracts, but this one points against the gradient: the learner would climb. optax.adam(...) and its "
            "like have a learning rate and the negative sign already; give optax.scale_by_adam(), or "
            "optax.chain(optax.adam(1.0), optax.scale(-1.0))."
        )


def direction_of(
    optimizer: optax.GradientTransformation, gradient: PyTree, state: PyTree, params: PyTree
) -> tuple[PyTree, PyTree]:
    """(direction, state after it) of an optax update that keeps its contract.

    Raises:
        TypeError: the update returns no pair, a direction that has not a floating-point array for each parameter, or a
            state of another structure; or it fails on these parameters.
        ValueError: an array of the direction has not its parameter's shape.
    """
    # optax multiplies integer counts with floats, which strict promotion would refuse.
    with jax.numpy_dtype_promotion("standard"), check_extra_arguments():
        result: Any = optimizer.update(gradient, state, params)
    contract = "the optimizer's update must return (direction, state)"
    if not isinstance(result, tuple) or len(result) != 2:
        found = f"a tuple of {len(result)}" if isinstance(result, tuple) else f"a {type(result).__name__}"
        raise TypeError(f"{contract}, but returned {found}; return the two as one tuple, as optax's do.")
    direction, after = result
    structures: list[Any] = [jax.tree.structure(params), jax.tree.structure(direction)]
    if structures[0] != structures[1]:
        raise TypeError(
            f"{contract}, with a direction of the parameters' structure, {structures[0]}, but its structure is "
            f"{structures[1]}; map over the gradient with jax.tree.map."
        )
    pairs = zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(direction), strict=True)
    for (path, leaf), change in pairs:
        _check_change(jax.tree_util.keystr(path), leaf, change)
    states: list[Any] = [jax.tree.structure(state), jax.tree.structure(after)]
    if states[0] != states[1]:
        raise TypeError(
            f"{contract}, with a state of the structure that it was given, {states[0]}, but its structure is "
            f"{states[1]}; give init's state that structure, too."
        )
    return direction, after


def _check_change(name: str, leaf: Any, change: Any) -> None:
    """Refuse what cannot be subtracted from a parameter without a change of its shape or its kind."""
    try:
        shape, dtype = jnp.shape(change), jnp.result_type(change)
    except (TypeError, ValueError):
        raise TypeError(
            f"the optimizer's direction must hold an array for each parameter, but direction{name} is a "
            f"{type(change).__name__}; return the changed gradient."
        ) from None
    if shape != jnp.shape(leaf):
        raise ValueError(
            f"the optimizer's direction must have the shapes of the parameters, but direction{name} has shape {shape} "
            f"and params{name} {jnp.shape(leaf)}; return one number for each that the gradient has."
        )
    kind = jnp.inexact if jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating) else jnp.floating
    if not jnp.issubdtype(dtype, kind):
        raise TypeError(
            f"the optimizer's direction must be of floating-point numbers as the parameters are, but direction{name} "
            f"has dtype {dtype} and params{name} {jnp.result_type(leaf)}; cast it, or take its real part."
        )


def checked_rate(rate: PyTree, params: PyTree) -> PyTree:
    """The result of `learning_rate(eta)`: a real scalar, or one for each group of parameters.

    Raises:
        TypeError: a rate is no real floating-point number, or the groups are not those of the parameters.
        ValueError: a rate has a shape.
    """
    try:
        jax.tree.map(lambda rate, group: None, rate, params)
    except ValueError:
        raise TypeError(
            "learning_rate(eta) must be a real floating-point scalar, or a tree of them that is a prefix of the "
            f"parameters' structure, {jax.tree.structure(params)}, but is {rate!r:.200}; return one number, or one for "
            "each group of the parameters."
        ) from None
    for path, leaf in jax.tree_util.tree_leaves_with_path(rate):
        check_scalar(leaf, f"learning_rate(eta){jax.tree_util.keystr(path)}")
    return rate


class check_extra_arguments:
    """Turn what an optax update or its `init` says of other arguments, or of parameters that it does not know, into an
    error that says which optimisers are meant.
    """

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TypeError) and "missing" in str(error) and "argument" in str(error):
            raise TypeError(
                f"this optimiser wants more than a gradient ({str(error).split('missing')[-1].strip()}): polyak, "
                "reduce_on_plateau, line searches and their like read the loss itself, which an inner update does not "
                "hand over; take one that needs gradients only."
            ) from error
        if isinstance(error, TypeError) and "positional argument" in str(error):
            raise TypeError(
                f"the optimizer's init must take (params) and its update (gradient, state, params), but {error}; give "
                "them these parameters."
            ) from error
        if isinstance(error, AttributeError | LookupError):
            raise TypeError(
                f"this optimiser does not work on the learner's parameters ({type(error).__name__}: {error}). "
                "optax.lookahead and its like want parameters of a kind of their own, pairs of fast and slow ones, "
                "which a GradientLearner does not have; take one that gives a direction for parameters of any "
                "structure, such as optax.scale_by_adam()."
            ) from error
