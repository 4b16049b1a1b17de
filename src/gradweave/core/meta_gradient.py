"""The entry points: a meta-gradient by any estimator and any mode, and the gradients of every horizon or window at
once.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from gradweave.core.bijectors import learned_to_eta, split_learned
from gradweave.core.contract import settle_window, strong
from gradweave.core.estimators.base import AbstractEstimator, chosen_mode
from gradweave.core.estimators.linear import Unrolled
from gradweave.core.finite import all_finite
from gradweave.core.learner import GradientLearner
from gradweave.core.modes.base import AbstractMode, Differentiand, KernelWeights, ravel_learned
from gradweave.core.modes.forward import ForwardMode, every_horizon
from gradweave.core.modes.limits import named_limits
from gradweave.core.modes.reverse import ReverseMode
from gradweave.core.problem import HorizonRecording, MetaProblem, MetaProblemLike, Recording, Window, WindowAux
from gradweave.core.remembered import Remembered


class MetaGradient(NamedTuple):
    """The result of `meta_gradient`.

    Attributes:
        grad: shaped like `raw`; exactly 0 where the spec is `Fixed`.
        outer_loss: the scalar that was differentiated: the outer loss at x_L, or the mix of those at x_1 .. x_L.
        state: x_L.
        aux: outputs of the problem's functions.
        estimator_state: the estimator's new memory, None if it has none.
        finite: whether every entry of `grad` and `outer_loss` are finite. A window without a finite gradient is best
            skipped: see `guarded`, and `check_learner` for the reason.
    """

    grad: PyTree
    outer_loss: Float[Array, ""]
    state: PyTree
    aux: WindowAux
    estimator_state: PyTree = None
    finite: Bool[Array, ""] | None = None


def meta_gradient(
    problem: MetaProblemLike,
    raw: PyTree,
    spec: PyTree,
    state: PyTree,
    batches: PyTree,
    outer_batches: PyTree | None = None,
    *,
    estimator: AbstractEstimator | None = None,
    mode: AbstractMode | None = None,
    estimator_state: PyTree = None,
    recording: Recording | HorizonRecording | None = None,
) -> MetaGradient:
    """The meta-gradient of one recorded window of inner updates.

    Args:
        problem: the learner, a `MetaProblem` or a `GradientLearner`.
        raw: unconstrained meta-parameters, any pytree.
        spec: bijectors, shaped like `raw` or a prefix of it; `Fixed()` leaves are not differentiated.
        state: x_0, the learner's state before the window.
        batches: leading axis L; batch k drives update k.
        outer_batches: leading axis L; the outer loss of x_k is taken on entry k - 1. None: `batches` has L + 1 entries,
            and it is taken on entry k (online cross-validation), which lets a mode share work between evaluating x_k
            and updating it.
        estimator: of the meta-gradient; `Unrolled()` by default.
        mode: the differentiation mode; `ReverseMode()` by default, where the estimator leaves the choice.
        estimator_state: the memory of an estimator that has one, from `estimator.init` or the last `MetaGradient`.
        recording: made during the updates; a mode that can use it replays nothing. States and inner
            gradients serve `MixedMode`, a `HorizonRecording` (needs `outer_batches` None) serves `ForwardMode`. It must
            be of this window: `state` is not read beside it.

    Returns:
        A `MetaGradient`.

    Raises:
        ValueError: leading axes disagree, the estimator does not fit L, its memory is missing, the spec does not fit
            `raw`, the recording covers another number of updates, `update` changes the shape of the state, or the outer
            loss is not of shape ().
        TypeError: the mode cannot differentiate this kind of problem or estimator; the message names one that can. Or
            `update` or `outer_loss` does not return a pair, `update` changes the structure or a dtype of the state, or
            the outer loss is not a real number.

    Example:
        >>> import jax.numpy as jnp
        >>> import gradweave as gw
        >>> problem = gw.MetaProblem(
        ...     update=lambda x, eta, target: (x - eta * (x - target), None),
        ...     outer_loss=lambda x, target: (0.5 * (x - target) ** 2, None),
        ... )
        >>> spec = gw.Positive()
        >>> raw = gw.unconstrain(0.1, spec)
        >>> targets = jnp.zeros(3)
        >>> result = gw.meta_gradient(problem, raw, spec, jnp.array(1.0), targets, targets)
        >>> round(float(result.grad), 6)  # -3 * 0.1 * 0.9 ** 5
        -0.177147

    Reference: Xu, van Hasselt, Silver 2018 (arXiv 1805.09801); Bonnet et al. 2021 (arXiv 2111.00206).
    """
    estimator = Unrolled() if estimator is None else estimator
    mode = chosen_mode(estimator, mode)
    window = checked_window(state, batches, outer_batches, recording)
    estimator.check(window.num_inner_steps)
    differentiand, fixed = differentiate_learned(problem, raw, spec, window)
    with named_limits(mode):
        result, memory = estimator.estimate(differentiand, mode, estimator_state)
    grad = eqx.combine(result.grad, jax.tree.map(jnp.zeros_like, fixed))
    aux = WindowAux(result.inner_aux, result.outer_aux, result.outer_losses)
    finite = all_finite((result.grad, result.outer_loss))
    return MetaGradient(grad, result.outer_loss, result.state, aux, memory, finite)


def horizon_gradients(
    problem: MetaProblemLike,
    raw: PyTree,
    spec: PyTree,
    state: PyTree,
    batches: PyTree,
    outer_batches: PyTree | None = None,
) -> PyTree:
    """Every horizon gradient g_k = dJ(x_k)/d(raw), k = 1 .. L, from one forward-mode pass.

    Args: as `meta_gradient`. Costs a tangent pass for each learned number; memory does not depend on L.

    Returns:
        A pytree shaped like `raw` with a leading axis of length L on every leaf; 0 where the spec is `Fixed`. The last
        entry is `Unrolled`'s gradient, and a weighted sum over the axis is `HorizonMix`'s.

    Raises: as `meta_gradient`.
    """
    window = checked_window(state, batches, outer_batches, None)
    differentiand, fixed = differentiate_learned(problem, raw, spec, window)
    _, unravel = ravel_learned(differentiand.learned)
    with named_limits(ForwardMode()):
        _, found = every_horizon(differentiand)
    return eqx.combine(jax.vmap(unravel)(found.gradients), _zeros_with_axis(fixed, window.num_inner_steps))


def truncated_gradients(
    problem: MetaProblemLike,
    raw: PyTree,
    spec: PyTree,
    state: PyTree,
    batches: PyTree,
    outer_batches: PyTree | None = None,
    *,
    remat: Any = "step",
) -> PyTree:
    """Every truncated gradient h_m, m = 1 .. L: J at x_L differentiated through the last m updates; one reverse pass.

    Args: as `meta_gradient`; `remat` as in `ReverseMode`.

    Returns:
        A pytree shaped like `raw` with a leading axis of length L: entry m - 1 is `Truncated(m)`'s gradient, the last
        one is `Unrolled`'s, and a weighted sum over the axis is `TruncationMix`'s.

    Raises: as `meta_gradient`.
    """
    window = checked_window(state, batches, outer_batches, None)
    differentiand, fixed = differentiate_learned(problem, raw, spec, window)
    mode = ReverseMode(remat)
    with named_limits(mode):
        contributions, _ = mode.step_contributions(differentiand, KernelWeights())
    gradients = jax.tree.map(lambda leaf: jnp.cumsum(leaf[::-1], axis=0), contributions)
    return eqx.combine(gradients, _zeros_with_axis(fixed, window.num_inner_steps))


def differentiate_learned(
    problem: MetaProblemLike, raw: PyTree, spec: PyTree, window: Window
) -> tuple[Differentiand, PyTree]:
    """The input of an estimator, and the `Fixed` leaves of `raw` (None elsewhere). Checks the problem's functions."""
    problem = _remembering(problem)
    learned, fixed = split_learned(jax.tree.map(strong, raw), spec)
    learned = jax.tree.map(
        lambda leaf: leaf if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf.astype(jnp.result_type(float)), learned
    )
    to_eta = learned_to_eta(fixed, spec)
    return Differentiand(problem, to_eta, learned, settle_window(problem, to_eta, learned, window)), fixed


def _remembering(problem: MetaProblemLike) -> MetaProblemLike:
    """The same problem, whose Python runs once for all its uses in a meta-gradient."""
    if isinstance(problem, GradientLearner):
        return problem.remembering()
    if isinstance(problem, MetaProblem):
        return MetaProblem(Remembered(problem.update), Remembered(problem.outer_loss))
    return problem


def checked_window(
    state: PyTree, batches: PyTree, outer_batches: PyTree | None, recording: Recording | HorizonRecording | None
) -> Window:
    """A `Window` of agreeing leading axes, or a ValueError that says which disagree."""
    length = _leading_length(batches, "batches")
    num_steps = length - 1 if outer_batches is None else length
    if num_steps < 1:
        raise ValueError(
            f"batches has {length} entries: at least one inner step is needed, and without outer_batches one more "
            "entry to evaluate the outer loss on."
        )
    if outer_batches is not None and _leading_length(outer_batches, "outer_batches") != length:
        raise ValueError(
            f"batches has {length} entries, outer_batches {_leading_length(outer_batches, 'outer_batches')}; "
            "outer_batches needs one entry for each inner step: the outer loss of x_k is taken on entry k - 1."
        )
    if recording is not None and _leading_length(recording.gradients, "recording.gradients") != num_steps:
        raise ValueError(
            f"the recording covers {_leading_length(recording.gradients, 'recording.gradients')} updates, the window "
            f"{num_steps}."
        )
    if not isinstance(recording, HorizonRecording):
        return Window(state, batches, outer_batches, recording)
    if outer_batches is not None:
        raise ValueError("a HorizonRecording has outer losses of the updates' own batches: leave outer_batches out.")
    return Window(state, batches, None, horizons=recording)


def _leading_length(tree: PyTree, name: str) -> int:
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(tree)}
    if len(lengths) != 1 or lengths == {()}:
        found = sorted(jnp.shape(leaf) for leaf in jax.tree.leaves(tree))
        raise ValueError(
            f"{name} must hold arrays that share a leading axis, one entry for each inner step, but its leaves have "
            f"shapes {found}."
        )
    return int(lengths.pop()[0])


def _zeros_with_axis(tree: PyTree, length: int) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.zeros((length, *leaf.shape), leaf.dtype), tree)
