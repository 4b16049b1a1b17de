"""Mixed mode through the gradient steps of a `MinibatchLearner`.

Each step is walked back over as an inner update of its own is (`gradweave.core.modes.mixed`), with the batch's targets
among the differentiated inputs: to a step, they are meta-parameters. Their cotangents are summed over the steps and
pulled back once, through the targets' own computation, to the parameters before the first step and to eta.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from gradweave.core.learner import LearnerState
from gradweave.core.minibatches import BatchPart, GradientSteps, MinibatchLearner, StepEta
from gradweave.core.modes.base import Differentiand
from gradweave.core.problem import Window

PullBack = Callable[..., tuple[PyTree, Any]]
"""`(differentiand, cotangent, state, gradient, batch) -> (cotangent, contribution)` of one gradient step."""


def pull_back_steps(
    pull_back: PullBack,
    differentiand: Differentiand,
    cotangent: LearnerState,
    state: LearnerState,
    steps: GradientSteps,
    batch: PyTree,
) -> tuple[LearnerState, PyTree]:
    """(cotangent of the state before an update, contribution of the update's eta).

    Args:
        pull_back: for one gradient step.
        differentiand: the learner and its meta-parameters.
        cotangent: of the state after the update.
        state: before the update.
        steps: recorded in it.
        batch: that drove it.
    """
    problem, to_eta, learned, _ = differentiand
    assert isinstance(problem, MinibatchLearner)
    targets, pull_targets = jax.vjp(
        lambda params, learned: problem.targets(params, to_eta(learned), batch), state.params, learned
    )
    nothing: Any = None
    one = Differentiand(
        problem.step, lambda pair: StepEta(to_eta(pair[0]), pair[1]), (learned, targets), Window(nothing, nothing)
    )

    def back(carry: tuple[LearnerState, PyTree], kept: tuple[GradientSteps, PyTree]) -> tuple[Any, None]:
        (cotangent, total), ((state, gradient, taken), place) = carry, kept
        pulled, contribution = pull_back(one, cotangent, state, gradient, BatchPart(batch, place))

        def where_taken(new: Array, old: Array) -> Array:
            return jnp.where(taken, new, old)

        cotangent = jax.tree.map(where_taken, pulled, cotangent)
        total = jax.tree.map(lambda old, more: where_taken(old + more, old), total, contribution)
        return (cotangent, total), None

    start = (cotangent, jax.tree.map(jnp.zeros_like, (learned, targets)))
    (cotangent, (contribution, targets_bar)), _ = jax.lax.scan(
        back, start, (steps, problem.places(batch)), reverse=True
    )
    params_bar, more = pull_targets(targets_bar)
    params_bar, contribution = jax.tree.map(jnp.add, (params_bar, contribution), (cotangent.params, more))
    return cotangent._replace(params=params_bar), contribution
