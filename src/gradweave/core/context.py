"""Meta-parameters as a function of data: eta = mapping(weights, context), where only the weights are learned.

A small network may read statistics of learning (recent returns, gradient norms, progress) and set the discount or the
learning rate by them, so that a schedule is learned (Luketina et al. 2022, arXiv 2209.06159). The
context enters beside the weights, as meta-parameters whose bijector is `Fixed`: it is constant over a window and has no
derivative, and since neither an estimator nor a mode can tell such a problem from any other, all of them serve.
"""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import PyTree

from gradweave.core.bijectors import Fixed
from gradweave.core.learner import GradientLearner
from gradweave.core.problem import MetaProblem, MetaProblemLike

__all__ = ["Contextual", "contextual", "contextual_spec"]

Mapping = Callable[[PyTree, PyTree], PyTree]
"""`(weights, context) -> eta`."""


class Contextual(NamedTuple):
    """The meta-parameters of a problem that `contextual` made.

    Attributes:
        weights: the learned ones.
        context: data, one value for the whole window.
    """

    weights: PyTree
    context: PyTree


def contextual(problem: MetaProblemLike, mapping: Mapping) -> MetaProblemLike:
    """The same learner, whose meta-parameters are `mapping(weights, context)`.

    Data that vary *within* a window belong into the batches, where an update function can read them.

    Args:
        problem: a learner over eta. A `GradientLearner` stays one, so that `MixedMode` serves.
        mapping: `(weights, context) -> eta`, pure; eta in its natural range.

    Returns:
        A problem over `Contextual`; its spec is `contextual_spec(...)`. Costs one evaluation of the mapping, and one of
        its derivative, an inner step.

    Example:
        >>> import jax.numpy as jnp
        >>> import gradweave as gw
        >>> problem = gw.MetaProblem(
        ...     update=lambda x, rate, target: (x - rate * (x - target), None),
        ...     outer_loss=lambda x, target: (0.5 * (x - target) ** 2, None),
        ... )
        >>> decaying = gw.contextual(problem, lambda weights, progress: jnp.exp(weights @ jnp.array([1.0, progress])))
        >>> raw = gw.Contextual(weights=jnp.array([-2.0, 0.0]), context=jnp.array(0.5))
        >>> zeros = jnp.zeros(3)
        >>> result = gw.meta_gradient(decaying, raw, gw.contextual_spec(gw.Unbounded()), jnp.array(1.0), zeros, zeros)
        >>> [round(float(entry), 3) for entry in result.grad.weights], float(result.grad.context)
        ([-0.196, -0.098], 0.0)
    """
    if not isinstance(problem, GradientLearner):
        return MetaProblem(lambda state, raw, batch: problem.update(state, mapping(*raw), batch), problem.outer_loss)
    return problem.map_eta(lambda raw: mapping(*raw))


def contextual_spec(spec: PyTree) -> Contextual:
    """The spec of `Contextual` meta-parameters: `spec` for the weights, `Fixed` for the context."""
    return Contextual(spec, Fixed())
