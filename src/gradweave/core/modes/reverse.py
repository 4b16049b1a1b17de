"""Reverse mode: back-propagation through the unrolled updates, as everyone writes it, with optional
rematerialisation.
"""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from gradweave.core.modes.base import (
    AbstractMode,
    Differentiand,
    Differentiated,
    Footprint,
    KernelWeights,
    combine_steps,
    leading,
    total_outer_loss,
)


class ReverseMode(AbstractMode):
    """Back-propagates through the unrolled window.

    Works for every `MetaProblem`. Costs about nine forward passes an inner step on top of the updates, for any
    number of meta-parameters; memory holds the activations of all L updates, unless they are recomputed.

    Attributes:
        remat: recomputation on the way back. "none": nothing. "step": each inner step, so that memory holds L
            learner states and the activations of one update. An integer n >= 1: segments of n steps, so that memory
            holds L / n states and the activations of n updates.
    """

    remat: Literal["none", "step"] | int = eqx.field(static=True, default="none")

    def __check_init__(self) -> None:
        if self.remat in ("none", "step"):
            return
        if isinstance(self.remat, bool) or not isinstance(self.remat, int) or self.remat < 1:
            raise ValueError(
                f'ReverseMode(remat={self.remat!r}): accepted are "none", "step" and an integer of at least 1.'
            )

    def footprint(self) -> Footprint:
        return Footprint(states=True, activations=self.remat == "none")

    def differentiate(self, differentiand: Differentiand, weights: KernelWeights) -> Differentiated:
        contributions, (outer_losses, outer_aux, inner_aux, state) = self.step_contributions(differentiand, weights)
        grad = combine_steps(contributions, weights)
        return Differentiated(grad, total_outer_loss(outer_losses, weights), outer_losses, outer_aux, inner_aux, state)

    def step_contributions(
        self, differentiand: Differentiand, weights: KernelWeights
    ) -> tuple[PyTree, tuple[Any, PyTree, PyTree, PyTree]]:
        """Per-step derivatives c_k = d(sum_j h_j J(x_j)) / d(eta_k), leading axis L, and the outputs of the unroll."""
        problem, to_eta, learned, window = differentiand
        num_steps = window.num_inner_steps
        every_horizon = weights.horizons is not None

        def step(state: PyTree, inputs: tuple[PyTree, PyTree, PyTree]) -> tuple[PyTree, Any]:
            copy, batch, outer_batch = inputs
            state, inner_aux = problem.update(state, to_eta(copy), batch)
            evaluated = problem.outer_loss(state, outer_batch) if every_horizon else None
            return state, (inner_aux, evaluated)

        def objective(copies: PyTree) -> tuple[Any, Any]:
            inputs = (copies, window.inner, window.outer if every_horizon else None)
            state, (inner_aux, evaluated) = _scan(step, window.state, inputs, num_steps, self.remat)
            outer_losses, outer_aux = (
                evaluated if every_horizon else leading(problem.outer_loss(state, window.last_outer))
            )
            return total_outer_loss(outer_losses, weights), (outer_losses, outer_aux, inner_aux, state)

        copies = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_steps, *jnp.shape(leaf))), learned)
        contributions, reports = jax.grad(objective, has_aux=True)(copies)
        return contributions, reports


def _scan(
    step: Callable[..., Any], state: PyTree, inputs: PyTree, num_steps: int, remat: Literal["none", "step"] | int
) -> tuple[PyTree, PyTree]:
    """`jax.lax.scan`, recomputing segments of the asked-for length on the way back."""
    if remat == "none":
        return jax.lax.scan(step, state, inputs)
    # A scan's body is not subject to common-subexpression elimination with the outside: prevent_cse is not needed
    # there.
    if remat == "step" or remat == 1:
        return jax.lax.scan(jax.checkpoint(step, prevent_cse=False), state, inputs)
    length = min(int(remat), num_steps)
    num_segments = num_steps // length
    whole = num_segments * length

    def segment(state: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree]:
        return jax.lax.scan(step, state, inputs)

    grouped = jax.tree.map(lambda leaf: leaf[:whole].reshape(num_segments, length, *leaf.shape[1:]), inputs)
    state, outputs = jax.lax.scan(jax.checkpoint(segment, prevent_cse=False), state, grouped)
    outputs = jax.tree.map(lambda leaf: leaf.reshape(whole, *leaf.shape[2:]), outputs)
    if whole == num_steps:
        return state, outputs
    rest = jax.tree.map(lambda leaf: leaf[whole:], inputs)
    state, rest_outputs = jax.checkpoint(segment)(state, rest)
    return state, jax.tree.map(lambda first, second: jnp.concatenate([first, second]), outputs, rest_outputs)
