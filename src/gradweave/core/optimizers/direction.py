"""Requirements of a `GradientLearner` on its optimiser and its parameters, checked by one small update."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from gradweave.core.contract import strong

__all__ = ["check_descends", "check_extra_arguments", "checked_params"]


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
        TypeError: the optimiser wants more than a gradient, its state and the parameters.
    """
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)

    def probe() -> jax.Array:
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        ones = jax.tree.map(jnp.ones_like, zeros)
        state, along = optimizer.init(zeros), jnp.zeros(())
        for _ in range(2):
            direction, state = optimizer.update(ones, state, zeros)
            for leaf in jax.tree.leaves(direction):
                along += jnp.sum(leaf.real).astype(along.dtype)
        return along

    # Compiled ahead, so that it runs even where `init` itself is being traced.
    with jax.numpy_dtype_promotion("standard"), jax.debug_nans(False), check_extra_arguments():
        along = float(jax.jit(probe).lower().compile()())
    if along < 0:
        raise ValueError(
            "the optimizer of a GradientLearner gives a direction, which the learner multiplies by learning_rate(eta) "
            "and subtracts, but this one points against the gradient: the learner would climb. optax.adam(...) and its "
            "like have a learning rate and the negative sign already; give optax.scale_by_adam(), or "
            "optax.chain(optax.adam(1.0), optax.scale(-1.0))."
        )


class check_extra_arguments:
    """Turn a missing argument of an optax update into an error that says which optimisers are meant."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TypeError) and "missing" in str(error) and "argument" in str(error):
            raise TypeError(
                f"this optimiser wants more than a gradient ({str(error).split('missing')[-1].strip()}): polyak, "
                "reduce_on_plateau, line searches and their like read the loss itself, which an inner update does not "
                "hand over; take one that needs gradients only."
            ) from error
