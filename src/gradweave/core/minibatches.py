"""Learners that take several gradient steps on one batch, as PPO does in epochs and minibatches.

The targets of the steps are computed once, at the parameters before the first of them, and are constants of each:

    T = targets(theta_0, eta, batch)
    theta_{m+1} = theta_m - learning_rate(eta) * direction(d/dtheta loss(theta_m, T, eta, part_m), optimiser state)

for part_0 .. part_{M-1} of the batch, and theta_M is the parameters after the update. To the meta-gradient all of it is
one inner update, and T is differentiated. Declared in these parts it is served by `MixedMode`: every step is a gradient
step, whose state and gradient are noted while learning, L x M of them in a window.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from gradweave.core.learner import GradientLearner, LearnerState, sliced_out

__all__ = ["BatchPart", "GradientSteps", "MinibatchLearner", "StepEta", "count_steps"]


class StepEta(NamedTuple):
    """Meta-parameters of a single gradient step: those of the update, and the targets of the whole batch."""

    eta: PyTree
    targets: PyTree


class BatchPart(NamedTuple):
    """Batch of a single gradient step: the whole one, and the place of the step's part."""

    batch: PyTree
    place: PyTree


class GradientSteps(NamedTuple):
    """The gradient steps of an update, leading axis M.

    Attributes:
        states: before each step.
        gradients: of each step.
        taken: False from the step on that `MinibatchLearner.goes_on` refused.
    """

    states: LearnerState
    gradients: PyTree
    taken: Bool[Array, " steps"]


class MinibatchLearner(eqx.Module):
    """A `MetaProblem` whose update is several gradient steps on parts of one batch.

    Attributes:
        targets: `(params, eta, batch) -> targets`, a pytree of floats, evaluated before the first step.
        places: `(batch) -> places`, a pytree with leading axis M; each entry says which part a step is taken on.
        step: one gradient step, a `GradientLearner` over `StepEta` and `BatchPart`. Its outer loss is not read.
        outer_loss_of: `(state, batch) -> (scalar, aux)`.
        goes_on: `(aux of a step's loss) -> bool`: once it is False, neither that step nor any later one is taken. Its
            derivative, 0 almost everywhere, is taken for 0. Where the refused gradient is not finite, reverse mode is
            NaN, and forward and mixed mode are not. None: all steps are taken.
        summary: `(aux of all steps, leading axis M, whether each was taken) -> aux` of the update.
    """

    targets: Callable[..., PyTree]
    places: Callable[[PyTree], PyTree]
    step: GradientLearner
    outer_loss_of: Callable[..., tuple[Array, PyTree]]
    goes_on: Callable[[PyTree], Array] | None = None
    summary: Callable[[PyTree, Array], PyTree] = lambda aux, taken: aux

    def init(self, params: PyTree) -> LearnerState:
        """The state before the first update; see `GradientLearner.init`."""
        return self.step.init(params)

    def update(self, state: LearnerState, eta: PyTree, batch: PyTree) -> tuple[LearnerState, PyTree]:
        """One inner update (the equations at the head of this file)."""
        (state, _), (_, aux) = self._scan(state, eta, batch, keep=False)
        return state, aux

    def recorded_update(
        self, state: LearnerState, eta: PyTree, batch: PyTree
    ) -> tuple[LearnerState, GradientSteps, PyTree]:
        """(the state after an update, its gradient steps, aux), for `MixedMode`. The batch may be a `RecordedBatch`."""
        (state, _), (steps, aux) = self._scan(state, eta, sliced_out(batch), keep=True)
        return state, GradientSteps(*steps), aux

    def outer_loss(self, state: LearnerState, batch: PyTree) -> tuple[Array, PyTree]:
        """The outer loss at `state` on `batch`."""
        return self.outer_loss_of(state, batch)

    def apply_gradient(self, gradient: PyTree, state: LearnerState, eta: PyTree) -> LearnerState:
        """A step of the learner's optimiser along any gradient; the learning rate may not depend on targets."""
        return self.step.apply_gradient(gradient, state, StepEta(eta, None))

    def with_outer_loss(self, outer_loss: Callable[..., tuple[Array, PyTree]]) -> "MinibatchLearner":
        """The same learner with another outer loss."""
        return dataclasses.replace(self, outer_loss_of=outer_loss)

    def _scan(self, state: LearnerState, eta: PyTree, batch: PyTree, *, keep: bool) -> Any:
        """((state, whether all steps were taken), (steps or None, aux))."""
        given = StepEta(eta, self.targets(state.params, eta, batch))

        def one_step(carry: tuple[LearnerState, Array], place: PyTree) -> tuple[tuple[LearnerState, Array], Any]:
            state, going = carry
            gradient, aux = self.step.inner_gradient(state, given, BatchPart(batch, place))
            if self.goes_on is not None:
                going = going & self.goes_on(aux)
            after = self.step.apply_gradient(gradient, state, given)
            kept = (state, gradient, going) if keep else None
            after = jax.tree.map(lambda new, old: jnp.where(going, new, old), after, state)
            return (after, going), (kept, aux, going)

        # Where it is differentiated, activations of one step at a time.
        body = one_step if keep else jax.checkpoint(one_step)
        carry, (kept, aux, taken) = jax.lax.scan(body, (state, jnp.ones((), bool)), self.places(batch))
        return carry, (kept, self.summary(aux, taken))


def count_steps(problem: Any, batch: PyTree) -> int:
    """Gradient steps of one update on a batch, or on its shapes: 1 unless the learner is a `MinibatchLearner`."""
    if not isinstance(problem, MinibatchLearner):
        return 1
    places = jax.eval_shape(problem.places, batch)
    return int(jax.tree.leaves(places)[0].shape[0])
