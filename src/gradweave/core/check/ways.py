"""Costs of each way to differentiate a learner, counted in its traced update."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from gradweave.core.check.costs import cost_of
from gradweave.core.check.program import Traced
from gradweave.core.check.report import ModeReport
from gradweave.core.jaxprs import OPAQUE, contains, evaluate
from gradweave.core.learner import GradientLearner
from gradweave.core.minibatches import MinibatchLearner, count_steps
from gradweave.core.modes.base import Differentiand
from gradweave.core.problem import MetaProblemLike

__all__ = ["mode_reports", "num_bytes"]


def num_bytes(tree: PyTree) -> float:
    """Size of a pytree's arrays, in bytes."""
    return float(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)))


def mode_reports(
    problem: MetaProblemLike, traced: Traced, given: Differentiand, state_bytes: float
) -> tuple[ModeReport, ...]:
    """Arithmetic by counting one update with and without its derivative; memory by the arrays each mode keeps.

    Args:
        problem: the learner.
        traced: its functions.
        given: the arguments of the trace, perhaps in float64.
        state_bytes: the size of the learner's state in its own precision.
    """
    length, num_learned = given.window.num_inner_steps, sum(leaf.size for leaf in jax.tree.leaves(given.learned))
    loop = any(contains(one, "while", opaque=OPAQUE) for one in traced)
    reverse, kept = (float("nan"), float("nan")) if loop else _of_reverse(traced, given)
    kept *= state_bytes / max(num_bytes(given.window.state), 1.0)  # activations in the precision of the state
    backwards = "a while loop has no reverse derivative" if loop else ""
    steps = count_steps(problem, jax.tree.map(lambda leaf: leaf[0], given.window.inner))
    declared = isinstance(problem, GradientLearner | MinibatchLearner)
    parts = "" if declared else "needs a GradientLearner or a MinibatchLearner"
    return (
        ModeReport("ReverseMode()", backwards, reverse, length * kept),
        ModeReport('ReverseMode("step")', backwards, reverse + 1, length * state_bytes + kept),
        ModeReport("ForwardMode()", "", 1 + 2.0 * num_learned, num_learned * state_bytes),
        ModeReport("MixedMode()", backwards or parts, reverse, 2.0 * length * steps * state_bytes),
    )


def _of_reverse(traced: Traced, given: Differentiand) -> tuple[float, float]:
    """(operations of one update and its derivative relative to the update alone, bytes kept), from one trace of it."""
    inputs = [*jax.tree.leaves(given.learned), *jax.tree.leaves(given.window.state)]
    batch = [leaf[0] for leaf in jax.tree.leaves(given.window.inner)]
    live = [place for place, leaf in enumerate(inputs) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    kept = []

    def update(*moving: Any) -> list[Any]:
        merged = list(inputs)
        for place, value in zip(live, moving, strict=True):
            merged[place] = value
        outputs = evaluate(traced.update, {}, [*merged, *batch])
        return [out for out in outputs if jnp.issubdtype(out.dtype, jnp.inexact)]

    def both(*moving: Any) -> Any:
        outputs, pullback = jax.vjp(update, *moving)
        kept.append(num_bytes(pullback))
        return outputs, pullback(outputs)

    total = cost_of(jax.make_jaxpr(both)(*(inputs[place] for place in live))).flops
    return total / max(cost_of(traced.update).flops, 1), kept[0]  # an update may compute nothing
