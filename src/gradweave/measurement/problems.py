"""The measuring instrument for any learner: independent samples of the meta-gradients of a `MetaProblem`.

As `gradweave.measurement.sampling` does for agents, but of a problem given as functions and of windows drawn by a
function: the learner's state and the meta-parameters stay where they are, each sample is one window with data of its
own, and the same key gives the same windows to every function here, so that comparing estimators is comparing pairs.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from gradweave.agents import named_leaves
from gradweave.core import AbstractEstimator, AbstractMode, MetaProblemLike, gradient_samples, meta_gradient
from gradweave.core.bijectors import split_learned
from gradweave.core.meta_gradient import checked_window, differentiate_learned
from gradweave.measurement.sampling import GradientSamples
from gradweave.statistics.bootstrap import FloatArray

__all__ = ["measure_problem", "sample_estimator"]

Draw: TypeAlias = Callable[[Key[Array, ""]], tuple[PyTree, PyTree | None]]
"""(key) -> (batches, outer_batches) of one window, as `meta_gradient` takes them."""


def measure_problem(
    problem: MetaProblemLike,
    raw: PyTree,
    spec: PyTree,
    state: PyTree,
    draw: Draw,
    *,
    key: Key[Array, ""],
    num_samples: int,
    batch_size: int | None = 256,
) -> GradientSamples:
    """Samples of every contribution to every linear meta-gradient of a problem.

    Args:
        problem: any two functions of the kind `MetaProblem`.
        raw: unconstrained meta-parameters; every learned leaf a number.
        spec: their bijectors.
        state: x_0 of every window.
        draw: draws a window's data.
        key: for all windows.
        num_samples: at least 2.
        batch_size: samples computed side by side; None: one after another.

    Returns:
        The samples, for `estimator_samples`, `single_estimates`, `cross_fitted_mix` and `summarize`. Computed by one
        reverse pass for each outer loss through the whole window, whose activations are kept: for problems of moderate
        size. `gradweave.measurement.sampling` is for agents.

    Raises:
        ValueError: fewer than two samples, nothing learned, or a learned meta-parameter that is not a number.
    """
    names = _names(raw, spec, num_samples)

    def table(key: Key[Array, ""]) -> Array:
        return jnp.stack([*_contributions(problem, raw, spec, state, *draw(key)).values()], axis=-1)

    keys = jax.random.split(key, num_samples)
    found = jax.jit(lambda keys: gradient_samples(table, keys, batch_size=batch_size))(keys)
    return GradientSamples(names, np.asarray(found, np.float64))


def sample_estimator(
    problem: MetaProblemLike,
    raw: PyTree,
    spec: PyTree,
    state: PyTree,
    draw: Draw,
    estimator: AbstractEstimator,
    *,
    key: Key[Array, ""],
    num_samples: int,
    num_windows: int = 1,
    mode: AbstractMode | None = None,
    batch_size: int | None = 256,
) -> FloatArray:
    """Samples of any estimator's meta-gradient, also of those that weigh nothing: evolution strategies, traces, ...

    With several windows an estimator with a memory is followed from window to window, the meta-parameters staying
    where they are, and its last estimate counts. Persistent evolution strategies over windows of L updates are thus a
    reference for the gradient through all of them, without differentiating; their noise needs many samples, and an
    agent whose data change with its parameters is beyond them (see docs/running.md).

    Args:
        problem: as for `measure_problem`, like the next four.
        raw: unconstrained meta-parameters.
        spec: their bijectors.
        state: x_0.
        draw: draws the data of all windows together: `num_windows` L inner steps.
        estimator: whose memory begins afresh in each sample.
        key: for all windows; the same key draws the same windows as `measure_problem`.
        num_samples: at least 2.
        num_windows: windows one after another in each sample, of equal length.
        mode: how it is differentiated.
        batch_size: samples computed side by side.

    Returns:
        (samples, meta-parameters), in the order of `measure_problem`'s names.

    Raises:
        ValueError: as `measure_problem`; or the drawn steps cannot be cut into `num_windows` windows.
    """
    names = _names(raw, spec, num_samples)

    def sample(key: Key[Array, ""]) -> Array:
        memory = estimator.init(raw, spec, state, key=jax.random.fold_in(key, 1))
        batches, outer_batches = draw(key)
        if outer_batches is None and num_windows > 1:
            raise ValueError("several windows need outer batches of their own: let draw return them.")
        windows = jax.tree.map(lambda leaf: _cut(leaf, num_windows), (batches, outer_batches))

        def window(carry: tuple[PyTree, PyTree], data: Any) -> tuple[Any, PyTree]:
            result = meta_gradient(
                problem, raw, spec, carry[0], *data, estimator=estimator, estimator_state=carry[1], mode=mode
            )
            return (result.state, result.estimator_state), result.grad

        _, grads = jax.lax.scan(window, (state, memory), windows)
        leaves = named_leaves(grads)
        return jnp.stack([leaves[name][-1] for name in names])

    keys = jax.random.split(key, num_samples)
    return np.asarray(jax.jit(lambda keys: gradient_samples(sample, keys, batch_size=batch_size))(keys), np.float64)


def _contributions(
    problem: MetaProblemLike, raw: PyTree, spec: PyTree, state: PyTree, batches: PyTree, outer_batches: PyTree | None
) -> dict[str, Array]:
    """(L, L) for each learned meta-parameter: d J(x_k) through the copy of the meta-parameters that step j used."""
    window = checked_window(state, batches, outer_batches, None)
    differentiand, _ = differentiate_learned(problem, raw, spec, window)
    length = window.num_inner_steps

    def losses(copies: PyTree) -> Array:
        def step(state: PyTree, data: Any) -> tuple[PyTree, Array]:
            copy, batch, outer_inputs = data
            state, _ = problem.update(state, differentiand.to_eta(copy), batch)
            return state, problem.outer_loss(state, outer_inputs)[0]

        return jax.lax.scan(step, window.state, (copies, window.inner, window.outer))[1]

    copies = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (length, *jnp.shape(leaf))), differentiand.learned)
    return named_leaves(jax.jacrev(losses)(copies))


def _cut(leaf: Array, num_windows: int) -> Array:
    if leaf.shape[0] % num_windows:
        raise ValueError(
            f"draw returned {leaf.shape[0]} steps, which are not {num_windows} windows of equal length; let it draw a "
            f"multiple of {num_windows}."
        )
    return leaf.reshape(num_windows, -1, *leaf.shape[1:])


def _names(raw: PyTree, spec: PyTree, num_samples: int) -> tuple[str, ...]:
    learned = named_leaves(split_learned(raw, spec)[0])
    shapes = {name: jnp.shape(leaf) for name, leaf in learned.items()}
    if num_samples < 2 or not shapes or any(shape != () for shape in shapes.values()):
        raise ValueError(
            f"num_samples={num_samples} must be at least 2, and of the learned meta-parameters, whose shapes are "
            f"{shapes}, there must be at least one, each a single number."
        )
    return tuple(learned)
