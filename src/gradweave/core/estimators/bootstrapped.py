"""Bootstrapped meta-gradients: the distance from the learner to a target that learned further.

Flennerhag et al. 2021 (arXiv 2109.04504). Of the window's L updates the first K = L - (T - 1) are differentiated. The
target goes on from x_K: T - 1 further updates on the remaining batches, which lead to x_L, and one last step with the
gradient of the outer loss,

    target = x_L - step(grad J(x_L)),        estimate = d/d(eta) distance(x_K(eta), target),

with the target held fixed. The meta-parameters are thus asked to reach in K updates where T more would lead, which sees
T steps further ahead without differentiating through them; and the distance may live where the learner does, between
policies for instance, and not where its parameters do.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from gradweave.core.estimators.base import AbstractEstimator
from gradweave.core.learner import GradientLearner, LearnerState, Microbatches
from gradweave.core.minibatches import MinibatchLearner
from gradweave.core.modes.base import AbstractMode, Differentiand, Differentiated, KernelWeights, leading
from gradweave.core.modes.mixed import record
from gradweave.core.problem import MetaProblem, MetaProblemLike, Recording, Window, unroll

Distance = Callable[[PyTree, PyTree, PyTree], Float[Array, ""]]
"""`(state, target state, batch) -> scalar`, differentiated by the state only."""


def euclidean_distance(state: PyTree, target: PyTree, batch: PyTree) -> Float[Array, ""]:
    """Half the squared Euclidean distance of parameters, 1/2 |theta - theta_target|^2.

    Of a `LearnerState` the parameters count, of any other state all inexact leaves; the batch is not used. The half
    (the paper has none) makes its gradient the difference itself.
    """
    pair = [tree.params if isinstance(tree, LearnerState) else tree for tree in (state, target)]
    one, other = (jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array)) for tree in pair)
    return jnp.stack([0.5 * jnp.sum((a - b) ** 2) for a, b in zip(one, other, strict=True)]).sum()


class Bootstrapped(AbstractEstimator):
    """The gradient of the distance from x_K to a target bootstrapped `target_steps` further ahead.

    With target_steps 1, the Euclidean distance and plain gradient steps of rate a, it is a times `Unrolled`. All modes
    serve. Costs as `Unrolled` over K updates, the L updates, and one gradient of the outer loss; the T - 1 further
    updates belong to the window, so that no data is spent on the target alone.

    The last step of the target is the learner's own: its optimiser and its learning rate at the present
    meta-parameters. For a problem that is no `GradientLearner`, or to choose otherwise, `target_learning_rate` makes it
    a plain gradient step.

    Not a descent direction of the outer loss in general: a target that learns in the wrong direction (a discount far
    too low, say, with few outer steps to correct it) is followed there. Magnitudes depend on the distance and on the
    learning rate, so use a meta-optimiser that normalises.

    Attributes:
        target_steps: T, from 1 to L.
        distance: `(state, target state, batch) -> scalar`; the batch is that of the outer loss at x_L. Of a learner
            with microbatches the mean over their parts counts. By default `euclidean_distance`; for actor-critics see
            `gradweave.agents.policy_distance`.
        target_learning_rate: rate of a plain gradient step in the place of the learner's own; None for the latter.

    In the result `outer_loss` is the distance, and `aux.outer_losses` and `aux.outer` are those of the outer loss at
    x_L; `state` is x_L.
    """

    target_steps: int = eqx.field(static=True)
    distance: Distance = eqx.field(default=euclidean_distance)
    target_learning_rate: float | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        if isinstance(self.target_steps, bool) or not isinstance(self.target_steps, int) or self.target_steps < 1:
            raise ValueError(f"Bootstrapped(target_steps={self.target_steps!r}): an integer of at least 1 is needed.")
        if self.target_learning_rate is not None and not self.target_learning_rate > 0:
            raise ValueError(
                f"Bootstrapped(target_learning_rate={self.target_learning_rate!r}): the rate must be above 0, or None "
                "for a step of the learner's own optimiser."
            )

    def init(self, raw: PyTree, spec: PyTree, state: PyTree, *, key: Key[Array, ""] | None = None) -> None:
        """No memory."""

    def check(self, num_inner_steps: int) -> None:
        """At least one update must be left to differentiate."""
        if self.target_steps > num_inner_steps:
            raise ValueError(
                f"Bootstrapped(target_steps={self.target_steps}) needs windows of at least {self.target_steps} inner "
                f"steps, of which target_steps - 1 lead on to the target, but was given {num_inner_steps}; lower "
                "target_steps or lengthen the window."
            )

    def estimate(self, differentiand: Differentiand, mode: AbstractMode, memory: PyTree) -> tuple[Differentiated, Any]:
        """Find the target, then differentiate the distance to it."""
        problem, window, eta = differentiand.problem, differentiand.window, differentiand.eta
        recording, inner_aux = window.recording, None
        if recording is not None:
            final = recording.final_state
        elif isinstance(problem, GradientLearner | MinibatchLearner):
            recording, inner_aux = record(problem, eta, window.state, window.inner)
            final = recording.final_state
        else:
            final, inner_aux = unroll(problem, eta, window.state, window.inner)
        target, (outer_loss, outer_aux) = self._target(problem, eta, final, window.last_outer)
        num_differentiated = window.num_inner_steps - self.target_steps + 1
        # The target is handed over as data: nothing is differentiated through it.
        target_batch = leading(_TargetBatch(target, window.last_outer))
        shorter = Window(
            window.state,
            jax.tree.map(lambda leaf: leaf[:num_differentiated], window.inner),
            target_batch,
            None if recording is None else _first(recording, num_differentiated),
        )
        to_target = differentiand._replace(problem=_with_distance(self.distance, problem), window=shorter)
        result = mode.differentiate(to_target, KernelWeights())
        outer_losses, outer_aux = leading((outer_loss, outer_aux))
        result = result._replace(outer_losses=outer_losses, outer_aux=outer_aux, inner_aux=inner_aux, state=final)
        return result, memory

    def _target(
        self, problem: MetaProblemLike, eta: PyTree, state: PyTree, batch: PyTree
    ) -> tuple[PyTree, tuple[Array, PyTree]]:
        """(x_L after one step down the outer loss, (J(x_L), aux))."""
        if isinstance(problem, GradientLearner | MinibatchLearner):
            moving, rest = eqx.partition(state.params, eqx.is_inexact_array)

            def place(leaves: PyTree) -> PyTree:
                return state._replace(params=eqx.combine(leaves, rest))

        else:
            moving, rest = eqx.partition(state, eqx.is_inexact_array)

            def place(leaves: PyTree) -> PyTree:
                return eqx.combine(leaves, rest)

        evaluated, gradient = jax.value_and_grad(lambda leaves: problem.outer_loss(place(leaves), batch), has_aux=True)(
            moving
        )
        rate = self.target_learning_rate
        if rate is not None:
            return place(jax.tree.map(lambda leaf, slope: leaf - rate * slope, moving, gradient)), evaluated
        if not isinstance(problem, GradientLearner | MinibatchLearner):
            raise ValueError(
                f"Bootstrapped ends its target with a step of the learner's own optimiser, which a "
                f"{type(problem).__name__} does not declare; give target_learning_rate, or declare the learner as a "
                "GradientLearner."
            )
        return problem.apply_gradient(gradient, state, eta), evaluated


class _TargetBatch(NamedTuple):
    """Inputs of the distance, in the place of an outer batch."""

    target: PyTree
    batch: PyTree


def _with_distance(distance: Distance, problem: MetaProblemLike) -> MetaProblemLike:
    """The same learner with the distance to a target as its outer loss, on batches of `_TargetBatch`."""

    def outer_loss(state: PyTree, target_batch: _TargetBatch) -> tuple[Array, None]:
        return distance(state, target_batch.target, target_batch.batch), None

    if isinstance(problem, MinibatchLearner):
        return problem.with_outer_loss(outer_loss)
    if not isinstance(problem, GradientLearner):
        return MetaProblem(problem.update, outer_loss)

    parts = problem.microbatches

    def forward(params: PyTree, batch: PyTree) -> PyTree:
        # A distance is between states, not between outputs of the network.
        return params if isinstance(batch, _TargetBatch) else problem.forward(params, batch)

    def part(batch: PyTree, index: Array) -> PyTree:
        assert parts is not None
        if isinstance(batch, _TargetBatch):
            return batch._replace(batch=parts.part(batch.batch, index))
        return parts.part(batch, index)

    return dataclasses.replace(
        problem.with_outer_loss(outer_loss),
        forward=forward,
        microbatches=None if parts is None else Microbatches(parts.num_parts, part),
    )


def _first(recording: Recording, num_updates: int) -> Recording:
    """The recording of the first updates of a window."""
    states, gradients, final_state = recording
    if num_updates < jax.tree.leaves(gradients)[0].shape[0]:
        final_state = jax.tree.map(lambda leaf: leaf[num_updates], states)
    states, gradients = jax.tree.map(lambda leaf: leaf[:num_updates], (states, gradients))
    return Recording(states, gradients, final_state)
