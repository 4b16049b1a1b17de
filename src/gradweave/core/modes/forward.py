"""Forward mode: the sensitivities z_k = dx_k/d(eta) are carried along as tangents (real-time recurrent learning).

    z_0 = 0,   z_{k+1} = A_k z_k + s_k B_k,   g_k = z_k^T grad J(x_k)

with A_k, B_k the derivatives of the update by the state and by the meta-parameters. Every horizon's gradient comes out
of the one pass, and memory does not depend on L.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gradweave.core.contract import strong
from gradweave.core.jaxprs import OPAQUE, contains
from gradweave.core.learner import GradientLearner, LearnerState
from gradweave.core.modes.base import (
    AbstractMode,
    Differentiand,
    Differentiated,
    Footprint,
    KernelWeights,
    leading,
    ravel_learned,
    total_outer_loss,
)
from gradweave.core.modes.custom_rules import forward_differentiable
from gradweave.core.problem import HorizonRecording, MetaProblemLike


class ForwardMode(AbstractMode):
    """Carries one tangent of the learner's state for each learned number.

    Works for every `MetaProblem`. Costs about six forward passes an inner step for each meta-parameter, beside the
    updates themselves; memory is independent of L. With a `HorizonRecording` the tangents were carried through the
    learner's own updates, and nothing is replayed. Use it for a single meta-parameter then, or where every horizon's
    gradient is wanted. Not for hundreds of meta-parameters.
    """

    recording: ClassVar = HorizonRecording

    def footprint(self) -> Footprint:
        return Footprint(tangents=True)

    def differentiate(self, differentiand: Differentiand, weights: KernelWeights) -> Differentiated:
        problem, _, learned, window = differentiand
        flat, unravel = ravel_learned(learned)
        if weights.steps is None and (weights.horizons is not None or window.horizons is not None):
            inner_aux, (gradients, outer_losses, outer_aux, state) = every_horizon(differentiand)
            if weights.horizons is None:
                outer_losses, outer_aux = jax.tree.map(lambda leaf: leaf[-1:], (outer_losses, outer_aux))
        else:
            state, tangents, (inner_aux, evaluated) = propagate(differentiand, weights)
            if evaluated is None:
                evaluated = leading(outer_derivative(problem, state, tangents, window.last_outer, flat.size))
            gradients, outer_losses, outer_aux = evaluated
        gradient = gradients[-1]
        if weights.horizons is not None:
            gradient = weights.horizons.astype(gradients.dtype) @ gradients
        outer_loss = total_outer_loss(outer_losses, weights)
        return Differentiated(unravel(gradient), outer_loss, outer_losses, outer_aux, inner_aux, state)


def every_horizon(differentiand: Differentiand) -> tuple[PyTree, HorizonRecording]:
    """(the updates' aux, or None if a recording made them unnecessary; g_1 .. g_L with losses and aux)."""
    problem, to_eta, learned, window = differentiand
    flat, _ = ravel_learned(learned)
    if window.horizons is not None:
        expected, found = (window.num_inner_steps, flat.size), window.horizons.gradients.shape
        if found != expected:
            raise ValueError(
                f"the HorizonRecording has gradients of shape {found}, but {expected[0]} inner steps and {expected[1]} "
                f"learned numbers need {expected}: record this window."
            )
        return None, window.horizons
    if not isinstance(problem, GradientLearner) or window.outer_batches is not None:
        weights = KernelWeights(horizons=jnp.ones((window.num_inner_steps,), flat.dtype))
        state, _, (inner_aux, evaluated) = propagate(differentiand, weights)
        gradients, outer_losses, outer_aux = evaluated
        return inner_aux, HorizonRecording(gradients, outer_losses, outer_aux, state)

    def step(carry: tuple[LearnerState, PyTree], batch: PyTree) -> tuple[Any, Any]:
        state, tangents, (_, aux), evaluated = tracked_update(problem, to_eta, learned, *carry, batch)
        return (state, tangents), (aux, evaluated)

    start = (window.state, zero_tangents(window.state, flat.size))
    (state, tangents), (inner_aux, evaluated) = jax.lax.scan(step, start, window.inner)
    return inner_aux, tracked_horizons(problem, state, tangents, evaluated, window.last_outer)


def tracked_update(
    problem: GradientLearner,
    to_eta: Callable[[PyTree], PyTree],
    learned: PyTree,
    state: LearnerState,
    tangents: PyTree,
    batch: PyTree,
) -> tuple[LearnerState, PyTree, tuple[PyTree, PyTree], tuple[Float[Array, " P"], Float[Array, ""], PyTree]]:
    """One update with tangents, on the batch that evaluates x_k: one forward pass for both, and nothing to replay.

    Args:
        problem: the learner.
        to_eta: maps `learned` to the natural meta-parameters.
        learned: P learned numbers in a pytree.
        state: x_k.
        tangents: z_k, from `zero_tangents` or the last update.
        batch: drives update k.

    Returns:
        (x_{k+1}, z_{k+1}, (inner gradient, aux), (z_k^T grad J, J, outer aux) at x_k), for `tracked_horizons`.
    """
    flat, unravel = ravel_learned(learned)
    moving, still = eqx.partition(state, eqx.is_inexact_array)

    def update(moving: PyTree, flat: Array) -> tuple[PyTree, Any]:
        eta, before = to_eta(unravel(flat)), eqx.combine(moving, still)
        gradient, aux, (outer_loss, outer_aux) = problem.gradient_and_outer_loss(before, eta, batch)
        after = problem.apply_gradient(gradient, before, eta)
        new_moving, new_still = eqx.partition(after, eqx.is_inexact_array)
        return (new_moving, outer_loss), (new_still, (gradient, aux), outer_aux)

    basis = jnp.diag(jnp.ones_like(flat))
    (new_moving, outer_loss), pushed, kept = _push_all(update, (moving, flat), (tangents, basis))
    (new_tangents, slopes), (new_still, made, outer_aux) = pushed, kept
    return eqx.combine(new_moving, new_still), new_tangents, made, (slopes, outer_loss, outer_aux)


def tracked_horizons(
    problem: GradientLearner,
    state: LearnerState,
    tangents: PyTree,
    evaluated: tuple[Float[Array, "L P"], Float[Array, " L"], PyTree],
    last_batch: PyTree,
) -> HorizonRecording:
    """The end of a window of tracked updates.

    Args:
        problem: the learner.
        state: x_L.
        tangents: z_L.
        evaluated: the outer losses of x_0 .. x_{L-1} and their derivatives, as `tracked_update` returns it, stacked.
        last_batch: outer batch of x_L.
    """
    num_learned = evaluated[0].shape[-1]
    last = leading(outer_derivative(problem, state, tangents, last_batch, num_learned))
    # x_0 does not depend on the meta-parameters; the values found there are dropped.
    gradients, outer_losses, outer_aux = jax.tree.map(
        lambda early, end: jnp.concatenate([early[1:], end]), evaluated, last
    )
    return HorizonRecording(gradients, outer_losses, outer_aux, state)


def propagate(
    differentiand: Differentiand,
    weights: KernelWeights,
    *,
    tangents: PyTree = None,
    decay: float | None = None,
) -> tuple[PyTree, PyTree, tuple[PyTree, Any]]:
    """Run the window with tangents: z_{k+1} = decay A_k z_k + s_k B_k.

    Args:
        differentiand: the learner, its P learned numbers and the window.
        weights: s_k and h_k.
        tangents: z_0, as `zero_tangents` and this function return it; None for zero.
        decay: factor on the old tangents in every update; None for 1.

    Returns:
        (x_L, tangents of its inexact leaves with leading axis P, (inner aux, evaluations)), where the evaluations are
        `(gradients (L, P), outer losses (L,), outer aux)` when `weights.horizons` is given, else None.
    """
    problem, to_eta, learned, window = differentiand
    flat, unravel = ravel_learned(learned)
    num_steps = window.num_inner_steps
    basis = jnp.diag(jnp.ones_like(flat))
    steps = jnp.ones((num_steps,), flat.dtype) if weights.steps is None else weights.steps.astype(flat.dtype)

    def step(carry: tuple[PyTree, PyTree], inputs: tuple[PyTree, PyTree, Array]) -> tuple[Any, Any]:
        state, tangents = carry
        batch, outer_batch, weight = inputs
        moving, still = eqx.partition(state, eqx.is_inexact_array)

        def update(moving: PyTree, flat: Array) -> tuple[PyTree, Any]:
            new_state, aux = problem.update(eqx.combine(moving, still), to_eta(unravel(flat)), batch)
            new_moving, new_still = eqx.partition(new_state, eqx.is_inexact_array)
            return new_moving, (new_still, aux)

        if decay is not None:
            tangents = jax.tree.map(lambda leaf: decay * leaf, tangents)
        new_moving, tangents, (new_still, inner_aux) = _push_all(update, (moving, flat), (tangents, weight * basis))
        state = eqx.combine(new_moving, new_still)
        evaluated = None
        if weights.horizons is not None:
            evaluated = outer_derivative(problem, state, tangents, outer_batch, flat.size)
        return (state, tangents), (inner_aux, evaluated)

    start = zero_tangents(window.state, flat.size) if tangents is None else tangents
    inputs = (window.inner, None if weights.horizons is None else window.outer, steps)
    (state, tangents), scanned = jax.lax.scan(step, (window.state, start), inputs)
    return state, tangents, scanned


def _push_all(
    function: Callable[..., tuple[PyTree, Any]], primals: tuple[PyTree, ...], tangents: tuple[PyTree, ...]
) -> tuple[PyTree, PyTree, Any]:
    """(outputs, tangents of the outputs with leading axis P, aux) for tangents with that axis."""
    function = forward_differentiable(function)
    if jax.tree.leaves(tangents)[0].shape[0] == 1:
        single = jax.tree.map(lambda leaf: leaf[0], tangents)
        outputs, pushed, aux = jax.jvp(function, primals, single, has_aux=True)
        return outputs, leading(pushed), aux
    outputs, push, aux = jax.linearize(function, *primals, has_aux=True)
    # Products of matrices with one more axis are slow on CPUs: there tangents are better pushed one after another.
    pushed = jax.lax.platform_dependent(
        *tangents, cpu=lambda *given: jax.lax.map(lambda single: push(*single), given), default=jax.vmap(push)
    )
    return outputs, pushed, aux


def zero_tangents(state: PyTree, num_learned: int) -> PyTree:
    """z = 0: for each inexact leaf of the state P zeros of its shape, None for the others."""
    moving = eqx.filter(state, eqx.is_inexact_array)
    # Made of the leaf and not afresh, so that they vary over devices as it does (`jax.shard_map`).
    return jax.tree.map(lambda leaf: jnp.broadcast_to(jnp.zeros_like(leaf), (num_learned, *leaf.shape)), moving)


def outer_derivative(
    problem: MetaProblemLike, state: PyTree, tangents: PyTree, outer_batch: PyTree, num_learned: int
) -> tuple[Float[Array, " P"], Float[Array, ""], PyTree]:
    """(z^T grad J, J, aux) at one state, for P tangents."""
    moving, still = eqx.partition(state, eqx.is_inexact_array)

    def outer_loss_of(moving: PyTree) -> tuple[Array, PyTree]:
        outer_loss, aux = problem.outer_loss(eqx.combine(moving, still), outer_batch)
        return strong(outer_loss), aux  # it may be a Python number, where it is a constant

    if not jax.tree.leaves(moving):  # nothing that a derivative could come through
        outer_loss, aux = outer_loss_of(moving)
        return jnp.zeros((num_learned,), outer_loss.dtype), outer_loss, aux
    # One tangent: pushing it forward (two forward passes) is cheaper than the whole gradient (three). And through a
    # while loop there is no other way.
    if num_learned == 1 or contains(jax.make_jaxpr(outer_loss_of)(moving), "while", opaque=OPAQUE):
        outer_loss, derivatives, aux = _push_all(outer_loss_of, (moving,), (tangents,))
        return derivatives, outer_loss, aux
    (outer_loss, aux), gradient = jax.value_and_grad(outer_loss_of, has_aux=True)(moving)
    products = jax.tree.map(
        lambda tangent, slope: (tangent.reshape(tangent.shape[0], slope.size) @ slope.ravel()).astype(outer_loss.dtype),
        tangents,
        gradient,
    )
    return jnp.stack(jax.tree.leaves(products)).sum(0), outer_loss, aux
