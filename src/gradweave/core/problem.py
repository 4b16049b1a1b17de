"""A meta-problem: any learner as two pure functions, with no environment inside.

An inner update x_{k+1} = update(x_k, eta, batch_k) depends on meta-parameters eta, and an outer loss J(x_k; batch)
evaluates the learner's state. Batches are recorded and held fixed while differentiating, which makes a
meta-gradient well defined (Xu et al. 2018, arXiv 1805.09801, section 2).
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Float, PyTree


class MetaProblem(NamedTuple):
    """A learner given as two pure functions.

    Attributes:
        update: `(state, eta, batch) -> (state, aux)`, one inner update. The new state has the structure, shapes and
            dtypes of the old.
        outer_loss: `(state, batch) -> (scalar, aux)`, the objective of the meta-parameters, with fixed
            hyper-parameters of its own.
    """

    update: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]
    outer_loss: Callable[[PyTree, PyTree], tuple[Array, PyTree]]


@runtime_checkable
class MetaProblemLike(Protocol):
    """A type with the two functions of a `MetaProblem`, such as `GradientLearner`."""

    @property
    def update(self) -> Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]:
        """One inner update."""

    @property
    def outer_loss(self) -> Callable[[PyTree, PyTree], tuple[Array, PyTree]]:
        """The outer loss."""


class Recording(NamedTuple):
    """Record of a window's inner updates, so that a mode need not make them again.

    Attributes:
        states: x_0 .. x_{L-1}, leading axis L.
        gradients: the inner gradient of each update, leading axis L.
        final_state: x_L.
    """

    states: PyTree
    gradients: PyTree
    final_state: PyTree


class HorizonRecording(NamedTuple):
    """Every horizon's gradient, found while the inner updates of a window were made, the outer loss being taken on each
    batch before it drove an update (online cross-validation).

    Attributes:
        gradients: g_1 .. g_L by the P learned numbers, in the order of `jax.tree.leaves`.
        outer_losses: J(x_1) .. J(x_L).
        outer_aux: the outer loss's auxiliary outputs, leading axis L.
        final_state: x_L.
    """

    gradients: Float[Array, "L P"]
    outer_losses: Float[Array, " L"]
    outer_aux: PyTree
    final_state: PyTree


class Window(NamedTuple):
    """The recorded data of L inner updates.

    Attributes:
        state: x_0.
        batches: leading axis L; batch k drives update k. When `outer_batches` is None the axis has length L + 1, and
            the outer loss of x_k is taken on batch k (online cross-validation: before it drives update k + 1 it
            evaluates the parameters it was collected with).
        outer_batches: leading axis L; the outer loss of x_k is taken on entry k - 1. Or None.
        recording: made during the updates, or None.
        horizons: gradients found during the updates, or None.
    """

    state: PyTree
    batches: PyTree
    outer_batches: PyTree | None = None
    recording: Recording | None = None
    horizons: HorizonRecording | None = None

    @property
    def num_inner_steps(self) -> int:
        """L."""
        length: int = jax.tree.leaves(self.batches)[0].shape[0]
        return length - 1 if self.outer_batches is None else length

    @property
    def inner(self) -> PyTree:
        """The batches that drive the updates, leading axis L."""
        return self.batches if self.outer_batches is not None else jax.tree.map(lambda leaf: leaf[:-1], self.batches)

    @property
    def outer(self) -> PyTree:
        """The batches that the outer losses of x_1 .. x_L are taken on, leading axis L."""
        return (
            self.outer_batches if self.outer_batches is not None else jax.tree.map(lambda leaf: leaf[1:], self.batches)
        )

    @property
    def last_outer(self) -> PyTree:
        """The batch that the outer loss of x_L is taken on."""
        source = self.batches if self.outer_batches is None else self.outer_batches
        return jax.tree.map(lambda leaf: leaf[-1], source)


class WindowAux(NamedTuple):
    """Auxiliary outputs of a problem's two functions, and its outer losses, over one window.

    Attributes:
        inner: auxiliary outputs of `update`, leading axis L; None where a mode was given a recording and ran no update.
        outer: auxiliary outputs of `outer_loss`, leading axis as `outer_losses`.
        outer_losses: outer losses at x_1 .. x_L, or only the one at x_L when the estimator needs no other.
    """

    inner: PyTree
    outer: PyTree
    outer_losses: Float[Array, " horizons"]


def unroll(problem: MetaProblemLike, eta: PyTree, state: PyTree, batches: PyTree) -> tuple[PyTree, PyTree]:
    """Make the inner updates of one window: x_{k+1} = update(x_k, eta, batch_k).

    Args:
        problem: the learner.
        eta: meta-parameters in their natural range.
        state: x_0.
        batches: leading axis L, the number of inner updates.

    Returns:
        (x_L, auxiliary outputs with leading axis L).
    """

    def step(carry: PyTree, batch: PyTree) -> tuple[PyTree, Any]:
        return problem.update(carry, eta, batch)

    return jax.lax.scan(step, state, batches)
