"""The contract of a mode: *how* a weighted sum of outer losses is differentiated through a window of inner updates.

Every linear estimator is the same object: step k has its own copy of the meta-parameters, whose derivative counts with
weight s_k, and the outer loss after k updates counts with weight h_k,

    grad = sum_k s_k d/d(eta_k) sum_j h_j J(x_j).

Modes compute this number; they differ in arithmetic and memory, never in the result.
"""

import abc
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from gradweave.core.problem import HorizonRecording, MetaProblemLike, Recording, Window


class KernelWeights(NamedTuple):
    """The weights of the formula above.

    Attributes:
        steps: (L,), s_0 .. s_{L-1}; None stands for ones.
        horizons: (L,), h_1 .. h_L; None stands for the last outer loss only, so that no other is evaluated.
    """

    steps: Float[Array, " steps"] | None = None
    horizons: Float[Array, " steps"] | None = None


class Differentiated(NamedTuple):
    """Result of a mode.

    Attributes:
        grad: shaped like the learned raw meta-parameters (None where they have None).
        outer_loss: the scalar that was differentiated, sum_k h_k J(x_k).
        outer_losses: J(x_1) .. J(x_L), or J(x_L) alone, (1,), when no other was needed.
        outer_aux: the outer loss's auxiliary outputs, leading axis as `outer_losses`.
        inner_aux: the updates' auxiliary outputs, leading axis L, or None when a recording made the updates
            unnecessary.
        state: x_L.
    """

    grad: PyTree
    outer_loss: Float[Array, ""]
    outer_losses: Float[Array, " horizons"]
    outer_aux: PyTree
    inner_aux: PyTree
    state: PyTree


class Differentiand(NamedTuple):
    """The input of a mode: a problem, its learned meta-parameters and one recorded window.

    Attributes:
        problem: the learner.
        to_eta: maps `learned` to the natural meta-parameters, `Fixed` ones filled in.
        learned: raw meta-parameters, None in the place of every `Fixed` leaf.
        window: x_0, the batches and, perhaps, a recording of the updates.
    """

    problem: MetaProblemLike
    to_eta: Callable[[PyTree], PyTree]
    learned: PyTree
    window: Window

    @property
    def eta(self) -> PyTree:
        """The natural meta-parameters."""
        return self.to_eta(self.learned)


class Footprint(NamedTuple):
    """Data of a window that a mode keeps, beside its batches.

    Attributes:
        states: the learner's state and inner gradient of every update.
        activations: the activations of every update.
        tangents: a tangent of the learner's state for each learned number.
    """

    states: bool = False
    activations: bool = False
    tangents: bool = False


class AbstractMode(eqx.Module):
    """A way to differentiate through a window.

    Attributes:
        recording: the type of `meta_gradient`'s argument `recording` with which this mode need not make the updates
            again, or None if there is none.
    """

    recording: ClassVar[type[Recording] | type[HorizonRecording] | None] = None

    def footprint(self) -> Footprint:
        """The data of a window that is kept; by default none."""
        return Footprint()

    @abc.abstractmethod
    def differentiate(self, differentiand: Differentiand, weights: KernelWeights) -> Differentiated:
        """The kernel's gradient with respect to `differentiand.learned`."""


def total_outer_loss(outer_losses: Float[Array, " horizons"], weights: KernelWeights) -> Float[Array, ""]:
    """sum_k h_k J(x_k)."""
    if weights.horizons is None:
        return outer_losses[-1]
    return jnp.dot(weights.horizons.astype(outer_losses.dtype), outer_losses)


def combine_steps(contributions: PyTree, weights: KernelWeights) -> PyTree:
    """sum_k s_k c_k over the leading axis of per-step derivatives."""
    if weights.steps is None:
        return jax.tree.map(lambda leaf: leaf.sum(0), contributions)
    steps = weights.steps
    return jax.tree.map(lambda leaf: jnp.tensordot(steps.astype(leaf.dtype), leaf, axes=1), contributions)


def ravel_learned(learned: PyTree) -> tuple[Float[Array, " P"], Callable[[Array], PyTree]]:
    """(the learned numbers as one vector, the map from such a vector back to leaves of their own dtypes).

    As `ravel_pytree`, but the leaves may differ in dtype, and so may the vector that is turned back: a gradient taken
    in float32 of meta-parameters in float64, say.
    """
    with jax.numpy_dtype_promotion("standard"):
        flat, unravel = ravel_pytree(learned)
    return flat, lambda vector: unravel(vector.astype(flat.dtype))


def leading(tree: PyTree) -> PyTree:
    """`tree` with a new leading axis of length one on every leaf."""
    return jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 0), tree)
