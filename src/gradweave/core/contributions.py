"""Contributions of inner steps to the gradient of each horizon: the table that every linear estimator weighs.

    c[k, j] = d J(x_k) / d(raw), through the copy of the meta-parameters that step j used        (0 for j >= k)

so that the horizon gradient is g_k = sum_j c[k, j], the truncated one h_m the sum of the last m entries of row L, and a
linear estimator with weights h (horizons) and s (steps) is sum_k h_k sum_j s_j c[k, j]. One table therefore compares
them all on the same data (Kemaev et al. 2025, arXiv 2505.00793, for the way it is computed: see `modes.mixed`).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from gradweave.core.learner import GradientLearner
from gradweave.core.meta_gradient import checked_window, differentiate_learned
from gradweave.core.minibatches import MinibatchLearner
from gradweave.core.modes.base import Differentiand, KernelWeights
from gradweave.core.modes.mixed import BackwardStep, outer_slope, pull_back, record
from gradweave.core.modes.reverse import ReverseMode
from gradweave.core.problem import MetaProblemLike, Recording

__all__ = ["step_contributions"]


def step_contributions(
    problem: MetaProblemLike,
    raw: PyTree,
    spec: PyTree,
    state: PyTree,
    batches: PyTree,
    outer_batches: PyTree | None,
    *,
    recording: Recording | None = None,
) -> PyTree:
    """The table c[k, j] of one recorded window.

    Args:
        problem: the learner.
        raw: unconstrained meta-parameters.
        spec: their bijectors.
        state: x_0.
        batches: as for `meta_gradient`.
        outer_batches: as for `meta_gradient`.
        recording: made during the updates, so that they need not be made again; only a `GradientLearner`'s
            or a `MinibatchLearner`'s has a use.

    Returns:
        A pytree shaped like `raw` with two leading axes of length L, horizons (k - 1) and steps (j); 0 where the spec
        is `Fixed`. Costs L (L + 1) / 2 steps of mixed mode, for any number of meta-parameters: less than forward
        mode's horizons for several meta-parameters and windows of up to about a dozen updates. Memory is that of mixed
        mode. Of a problem that is neither of these each row is a pass of reverse mode, L in all.

    Raises:
        ValueError: leading axes disagree.
    """
    in_parts = isinstance(problem, GradientLearner | MinibatchLearner)
    window = checked_window(state, batches, outer_batches, recording if in_parts else None)
    differentiand, fixed = differentiate_learned(problem, raw, spec, window)
    length = window.num_inner_steps
    nothing = jax.tree.map(lambda leaf: jnp.zeros((length, length, *leaf.shape), leaf.dtype), fixed)
    table = _by_mixed_mode(differentiand) if in_parts else _by_reverse_mode(differentiand)
    return eqx.combine(table, nothing)


def _by_reverse_mode(differentiand: Differentiand) -> PyTree:
    """Row by row: d J(x_k) / d(eta_j) of all steps j, which is zero for those after k."""

    def row(horizon: Array) -> PyTree:
        return ReverseMode("step").step_contributions(differentiand, KernelWeights(horizons=horizon))[0]

    return jax.lax.map(row, jnp.eye(differentiand.window.num_inner_steps, dtype=jnp.result_type(float)))


def _by_mixed_mode(differentiand: Differentiand) -> PyTree:
    """All walks back over one recording."""
    problem, window = differentiand.problem, differentiand.window
    assert isinstance(problem, GradientLearner | MinibatchLearner)
    length, recording = window.num_inner_steps, window.recording
    if recording is None:
        recording, _ = record(problem, differentiand.eta, window.state, window.inner)
    states, gradients, final_state = recording
    ends = jax.tree.map(lambda early, last: jnp.concatenate([early[1:], last[None]]), states, final_state)
    slopes = jax.lax.map(lambda pair: outer_slope(problem, pair[0], pair[1])[1], (ends, window.outer))
    # One walk back after another, horizon by horizon, as one scan, so that a step is compiled once.
    pairs = [(horizon, step) for horizon in range(length) for step in range(horizon, -1, -1)]
    rows, columns = (np.array(axis) for axis in zip(*pairs, strict=True))

    def walk(cotangent: PyTree, place: tuple[Array, Array]) -> tuple[PyTree, Any]:
        horizon, step = place
        cotangent = jax.tree.map(lambda own, old: jnp.where(step == horizon, own[horizon], old), slopes, cotangent)
        state, gradient, batch = jax.tree.map(lambda leaf: leaf[step], (states, gradients, window.inner))
        before = BackwardStep(step == 0, state, gradient, batch, None, None)
        cotangent, (contribution, _) = pull_back(differentiand, cotangent, before)
        return cotangent, contribution

    start = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0]), slopes)
    _, entries = jax.lax.scan(walk, start, (jnp.asarray(rows), jnp.asarray(columns)))

    def table(leaf: Array) -> Array:
        return jnp.zeros((length, length, *leaf.shape[1:]), leaf.dtype).at[rows, columns].set(leaf)

    return jax.tree.map(table, entries)
