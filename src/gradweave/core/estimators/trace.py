"""An eligibility trace of the learner's state: sensitivities that are carried from window to window and decay.

With A_k and B_k the derivatives of update k by the learner's state and by the meta-parameters,

    z_{k+1} = decay A_k z_k + B_k,      estimate = z_L^T grad J(x_L),

and z_L is where the next window begins (Xu, van Hasselt, Silver 2018, arXiv 1805.09801, whose mu is the decay). Their
own approximation replaces A by the identity; here A is exact.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PyTree

from gradweave.core.bijectors import split_learned
from gradweave.core.contract import strong
from gradweave.core.estimators.base import AbstractEstimator, checked_memory
from gradweave.core.modes.base import AbstractMode, Differentiand, Differentiated, KernelWeights, leading, ravel_learned
from gradweave.core.modes.forward import ForwardMode, outer_derivative, propagate, zero_tangents


class Trace(AbstractEstimator):
    """z_L^T grad J(x_L) with a decaying z that is carried on, however long the learner runs.

    Influence that is n updates old counts decay^(n-1) of its exact amount. Started from z = 0 it is, over one window,
    `TruncationMix(geometric_weights(L, decay))`; with decay 1 and unchanged meta-parameters, over many windows, it is
    `Unrolled` over all of them at once. With windows of one update (L = 1) there is a meta-update at every inner step.

    Memory: the tangents of the learner state's inexact leaves, leading axis P (the number of learned numbers), and
    nothing that grows with time. Cost: as `ForwardMode`, which is the only mode that can carry it: about six forward
    passes an inner step for each of the P numbers.

    Not for hundreds of meta-parameters. Not with decay 1 for an unstable learner, whose z grows without bound: neural
    networks need a decay below 1. The older part of z belongs to earlier values of the meta-parameters, so they have to
    move slowly; and where the learner's state is replaced from outside, begin again with `init`.

    Attributes:
        decay: mu, in [0, 1]. 0 is the one-step meta-gradient at every update.
    """

    supported_modes: ClassVar[tuple[type[AbstractMode], ...]] = (ForwardMode,)

    decay: float = eqx.field(static=True)

    def __check_init__(self) -> None:
        if not 0 <= self.decay <= 1:
            raise ValueError(f"Trace(decay={self.decay!r}): the decay must lie in [0, 1].")

    def init(self, raw: PyTree, spec: PyTree, state: PyTree, *, key: Key[Array, ""] | None = None) -> PyTree:
        """z = 0."""
        learned, _ = split_learned(jax.tree.map(jnp.asarray, raw), spec)
        return zero_tangents(jax.tree.map(strong, state), ravel_learned(learned)[0].size)

    def check(self, num_inner_steps: int) -> None:
        """Every length will do."""

    def estimate(self, differentiand: Differentiand, mode: AbstractMode, memory: PyTree) -> tuple[Differentiated, Any]:
        """One window further; the memory is z_L."""
        problem, window = differentiand.problem, differentiand.window
        flat, unravel = ravel_learned(differentiand.learned)
        expected = zero_tangents(window.state, flat.size)
        if jax.tree.leaves(expected):  # without a leaf to push forward the memory may itself be None
            checked_memory(self, memory)
        check_memory_shapes(self, memory, expected)
        # A Python number in the learner's state may have settled at another dtype since `init`.
        before = jax.tree.map(lambda given, zero: given.astype(zero.dtype), memory, expected)
        final, tangents, (inner_aux, _) = propagate(differentiand, KernelWeights(), tangents=before, decay=self.decay)
        gradient, outer_loss, outer_aux = outer_derivative(problem, final, tangents, window.last_outer, flat.size)
        outer_losses, outer_aux = leading((outer_loss, outer_aux))
        return Differentiated(unravel(gradient), outer_loss, outer_losses, outer_aux, inner_aux, final), tangents


def check_memory_shapes(estimator: AbstractEstimator, given: PyTree, expected: PyTree) -> None:
    """Refuse a memory, or a part of it, that was made for another learner or other learned meta-parameters."""
    found, wanted = (
        (jax.tree.structure(tree), [leaf.shape for leaf in jax.tree.leaves(tree)]) for tree in (given, expected)
    )
    if found != wanted:
        raise ValueError(
            f"the estimator_state of {type(estimator).__name__} has leaves of shapes {found[1]}, but this estimator, "
            f"this learner and these learned meta-parameters need {wanted[1]}; begin again with estimator.init(raw, "
            "spec, state)."
        )
