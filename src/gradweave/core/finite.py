"""Whether numbers are finite."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

__all__ = ["all_finite"]


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether every entry of every inexact leaf is neither infinite nor NaN."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]
    return jnp.stack([jnp.ones((), bool), *(jnp.isfinite(leaf).all() for leaf in leaves)]).all()
