"""Mixed mode: walk back over recorded learner states with one forward-over-reverse product an inner step.

Kemaev et al. 2025 (arXiv 2505.00793) observe that the reverse pass through a gradient-based update needs the inner
loss's second derivative only in one direction, the cotangent u of the inner gradient. With y = forward(theta, batch), T
= targets(y, eta) and dy = (dy/dtheta) u, the scalar

    S(theta, eta) = d/dy loss(y, T, eta) . dy  +  h_k J(y)

has as its gradient everything that one step contributes: H u, the cotangents of the targets pulled back to theta and
eta, the direct dependence of the loss on eta, and the outer loss's own gradient. One forward pass, one tangent pass and
one pass back over both give it, and nothing but (x_k, G_k, batch_k) is kept from the way forward: memory grows by a
learner state a step, never by activations.
"""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from gradweave.core.learner import GradientLearner, LearnerState, RecordedBatch, sliced_out
from gradweave.core.minibatches import MinibatchLearner
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
from gradweave.core.modes.custom_rules import forward_differentiable
from gradweave.core.modes.minibatches import pull_back_steps
from gradweave.core.problem import Recording


class MixedMode(AbstractMode):
    """Walks back over recorded learner states.

    Needs a `GradientLearner` or a `MinibatchLearner`, any optax optimiser, and is exact, semi-gradient targets
    included. Costs about six to eight forward passes an inner step on top of the updates, for any number of
    meta-parameters; memory is L x (learner state + inner gradient + batch), with M gradient steps in an update M times
    the first two. The mode to prefer wherever it applies, unless a single number is learned and a `HorizonRecording` is
    at hand. With a `Recording` of the updates nothing is replayed.

    Raises:
        TypeError: the problem is neither.
    """

    recording: ClassVar = Recording

    def footprint(self) -> Footprint:
        return Footprint(states=True)

    def differentiate(self, differentiand: Differentiand, weights: KernelWeights) -> Differentiated:
        problem, window = differentiand.problem, differentiand.window
        if not isinstance(problem, GradientLearner | MinibatchLearner):
            raise TypeError(
                f"MixedMode needs the parts of a GradientLearner or a MinibatchLearner, but the problem is a "
                f"{type(problem).__name__}; "
                'declare it as one, or use ReverseMode(remat="step"), which takes any update function.'
            )
        recording, inner_aux = window.recording, None
        if recording is None:
            recording, inner_aux = record(problem, differentiand.eta, window.state, window.inner)
        (last_loss, last_aux), cotangent = outer_slope(problem, recording.final_state, window.last_outer)
        horizon_weights = None
        if weights.horizons is not None:
            # Entry k is of the outer loss of x_k. That of x_0 has weight 0 and only keeps the shapes alike.
            horizon_weights = jnp.roll(weights.horizons, 1).at[0].set(0)
            last_weight = weights.horizons[-1]
            cotangent = jax.tree.map(lambda leaf: last_weight.astype(leaf.dtype) * leaf, cotangent)
        # With online cross-validation batch k both evaluates x_k and drives update k: None says "the same batch".
        outer_inputs = None
        if weights.horizons is not None and window.outer_batches is not None:
            outer_inputs = jax.tree.map(lambda leaf: jnp.roll(leaf, 1, axis=0), window.outer_batches)

        batches = window.inner

        def step_back(cotangent: PyTree, kept: tuple[Array, Recording, PyTree, Array | None]) -> tuple[PyTree, Any]:
            index, (state, gradient, _), outer_batch, weight = kept
            batch = RecordedBatch(batches, index)
            step = BackwardStep(index == 0, state, gradient, batch, outer_batch, weight)
            return pull_back(differentiand, cotangent, step)

        indices = jnp.arange(window.num_inner_steps, dtype=jnp.int32)
        steps = (indices, recording._replace(final_state=None), outer_inputs, horizon_weights)
        _, (contributions, evaluated) = jax.lax.scan(step_back, cotangent, steps, reverse=True)
        last = leading((last_loss, last_aux))
        outer_losses, outer_aux = last
        if evaluated is not None:
            outer_losses, outer_aux = jax.tree.map(
                lambda early, end: jnp.concatenate([early[1:], end]), evaluated, last
            )
        grad, outer_loss = combine_steps(contributions, weights), total_outer_loss(outer_losses, weights)
        return Differentiated(grad, outer_loss, outer_losses, outer_aux, inner_aux, recording.final_state)


class BackwardStep(NamedTuple):
    """Data of inner step k: whether it is the window's first, x_k, G_k (or its `GradientSteps`), its batch,
    the outer batch of x_k (None: the same) and h_k (None: no outer loss).
    """

    is_first: Array
    state: LearnerState
    gradient: PyTree
    batch: PyTree
    outer_batch: PyTree
    weight: Array | None


def record(
    problem: GradientLearner | MinibatchLearner, eta: PyTree, state: LearnerState, batches: PyTree
) -> tuple[Recording, PyTree]:
    """Make the updates of a window and note x_k and G_k on the way. Returns (recording, aux with leading axis L)."""

    def step(state: LearnerState, batch: PyTree) -> tuple[LearnerState, Any]:
        after, gradient, aux = problem.recorded_update(state, eta, batch)
        return after, (state, gradient, aux)

    final_state, (states, gradients, aux) = jax.lax.scan(step, state, batches)
    return Recording(states, gradients, final_state), aux


def outer_slope(
    problem: GradientLearner | MinibatchLearner, state: LearnerState, batch: PyTree
) -> tuple[tuple[Array, PyTree], PyTree]:
    """((J, aux), gradient by the inexact leaves of the state)."""
    moving, still = eqx.partition(state, eqx.is_inexact_array)
    if isinstance(problem, MinibatchLearner):
        return jax.value_and_grad(lambda moving: problem.outer_loss(eqx.combine(moving, still), batch), has_aux=True)(
            moving
        )

    def part(batch: PyTree) -> tuple[tuple[Array, PyTree], PyTree]:
        def outer_loss(moving: PyTree) -> tuple[Array, PyTree]:
            state = eqx.combine(moving, still)
            return problem.outer_loss_of(state._replace(params=problem.forward(state.params, batch)), batch)

        return jax.value_and_grad(outer_loss, has_aux=True)(moving)

    return problem.batch_mean(part, batch)


def pull_back(differentiand: Differentiand, cotangent: PyTree, step: BackwardStep) -> tuple[PyTree, Any]:
    """One step back: (cotangent of x_k, (contribution of this step's eta, outer loss of x_k and its aux, or None))."""
    problem, to_eta, learned, _ = differentiand
    if isinstance(problem, MinibatchLearner):
        return _pull_back_minibatches(differentiand, cotangent, step)
    assert isinstance(problem, GradientLearner)
    state, weight = step.state, step.weight
    moving, still = eqx.partition(state.optimizer_state, eqx.is_inexact_array)

    # Through the optimiser and the learning rate: elementwise work, no network.
    def apply(gradient: PyTree, params: PyTree, moving: PyTree, learned: PyTree) -> PyTree:
        before = LearnerState(params, eqx.combine(moving, still))
        return eqx.filter(problem.apply_gradient(gradient, before, to_eta(learned)), eqx.is_inexact_array)

    _, pullback = jax.vjp(apply, step.gradient, state.params, moving, learned)
    direction, params_direct, moving_bar, learned_direct = pullback(cotangent)

    # Through the network, once, for the second derivative, the targets and the outer loss together.
    def contracted(
        params: PyTree, outer_moving: PyTree, learned: PyTree, batch: PyTree, outer_batch: PyTree
    ) -> tuple[Array, Any]:
        eta = to_eta(learned)
        forward = forward_differentiable(lambda leaves: problem.forward(leaves, batch))
        outputs, tangent = jax.jvp(forward, (params,), (direction,))
        targets = problem.targets(outputs, eta, batch)
        loss = forward_differentiable(lambda leaves: problem.loss(leaves, targets, eta, batch)[0])
        _, total = jax.jvp(loss, (outputs,), (tangent,))
        if weight is None:
            return total, None
        outer_outputs = outputs if outer_batch is None else problem.forward(params, outer_batch)
        outer_batch = batch if outer_batch is None else outer_batch
        optimizer_state = eqx.combine(outer_moving, moving, still)
        evaluated = problem.outer_loss_of(LearnerState(outer_outputs, optimizer_state), outer_batch)
        return total + weight.astype(total.dtype) * evaluated[0], evaluated

    def part(*batches: PyTree) -> tuple[PyTree, Any]:
        batch, outer_batch = batches
        outer_moving = None
        if weight is not None:
            reads = problem.read_by_outer_loss(state, batch if outer_batch is None else outer_batch)
            outer_moving = eqx.filter(moving, reads)
        return jax.grad(contracted, argnums=(0, 1, 2), has_aux=True)(state.params, outer_moving, learned, *batches)

    def whole() -> tuple[PyTree, Any]:
        return problem.batch_mean(part, step.batch, step.outer_batch)

    def by_eta_alone() -> tuple[PyTree, Any]:
        (params_second, moving_second, learned_second), evaluated = whole()
        return (*jax.tree.map(jnp.zeros_like, (params_second, moving_second)), learned_second), evaluated

    # Nobody asks for the cotangent of x_0: there the compiler leaves out the pass back through the network. A branch,
    # because a first step outside of the loop has every recorded batch copied.
    slopes, evaluated = jax.lax.cond(step.is_first, by_eta_alone, whole)
    params_second, moving_second, learned_second = slopes
    params_bar = jax.tree.map(jnp.add, params_direct, params_second)
    moving_bar = eqx.apply_updates(moving_bar, moving_second)
    contribution = jax.tree.map(jnp.add, learned_direct, learned_second)
    return LearnerState(params_bar, moving_bar), (contribution, evaluated)


def _pull_back_minibatches(differentiand: Differentiand, cotangent: PyTree, step: BackwardStep) -> tuple[PyTree, Any]:
    """`pull_back` through an update of several gradient steps."""
    problem, state, batch = differentiand.problem, step.state, sliced_out(step.batch)
    assert isinstance(problem, MinibatchLearner)

    def one_step(one: Differentiand, cotangent: PyTree, state: LearnerState, gradient: PyTree, part: PyTree) -> Any:
        # The cotangent of x_0 is pulled back, too, because the targets' depend on the steps before.
        before = BackwardStep(jnp.zeros((), bool), state, gradient, part, None, None)
        cotangent, (contribution, _) = pull_back(one, cotangent, before)
        return cotangent, contribution

    cotangent, contribution = pull_back_steps(one_step, differentiand, cotangent, state, step.gradient, batch)
    if step.weight is None:
        return cotangent, (contribution, None)
    evaluated, slope = outer_slope(problem, state, batch if step.outer_batch is None else step.outer_batch)
    weight = step.weight
    cotangent = jax.tree.map(lambda leaf, more: leaf + weight.astype(leaf.dtype) * more, cotangent, slope)
    return cotangent, (contribution, evaluated)
