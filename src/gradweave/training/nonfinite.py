"""Values that are not finite: training stops at them, naming them, or throws away the window that they come from.

All that learning carries on must be finite, `gradweave.agents.state.carried_on`, and so must its metrics:
an infinite second moment freezes its parameter for good while every parameter still looks well.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from gradweave.agents import MetaStepMetrics, SelfTuningState, carried_on
from gradweave.agents.state import named_numbers
from gradweave.errors import CheckpointError, NonFiniteError
from gradweave.training.checkpoints import Checkpoint

__all__ = ["check_checkpoint", "check_finite", "check_first", "skipping"]

Step: TypeAlias = Callable[[SelfTuningState], tuple[SelfTuningState, MetaStepMetrics]]


def skipping(step: Step) -> Step:
    """The same meta-step, but one whose outcome is not finite changes nothing: parameters, meta-parameters, optimisers
    and environments stay as before it, and only the key, so that it is not repeated, and the count of meta-steps go on.
    Its environment steps were taken and count.
    """

    def guarded(state: SelfTuningState) -> tuple[SelfTuningState, MetaStepMetrics]:
        moved, metrics = step(state)
        goes_on: Any = {"key": None, "num_meta_steps": None}
        pairs = moved._replace(**goes_on), state._replace(**goes_on)
        chosen = jax.tree.map(lambda new, old: jnp.where(metrics.finite, new, old), *pairs)
        if metrics.restored is not None:  # what a guard put back is thrown away, too
            metrics = metrics._replace(restored=metrics.restored & metrics.finite)
        return chosen._replace(key=moved.key, num_meta_steps=moved.num_meta_steps), metrics

    return guarded


def check_finite(
    environment_steps: Callable[[int], int],
    metrics: MetaStepMetrics,
    done: int,
    state: SelfTuningState,
    *,
    skips: bool = False,
) -> None:
    """Raise when a chunk of meta-steps met a value that is not finite.

    Args:
        environment_steps: of that many meta-steps, as the agent says.
        metrics: of the chunk, on the host.
        done: meta-steps before it.
        state: after it.
        skips: windows of such values have been thrown away; raise only where that befell every one of the chunk.

    Raises:
        NonFiniteError: it did; with the first tensor and the environment step.
    """
    if metrics.finite.any() if skips else metrics.finite.all():
        return
    index = int(np.argmin(metrics.finite))
    step = environment_steps(done + index + 1)
    for name, value in named_numbers(jax.tree.map(lambda leaf: leaf[index], metrics.grad)).items():
        if not np.isfinite(value):
            raise NonFiniteError(f"meta_gradient/{name}", step)
    found = _first_not_finite(carried_on(state))
    if found is None:  # one of the metrics
        losses = {"outer_loss": metrics.outer_loss, **metrics.inner, **metrics.outer}
        found = next((name for name, value in losses.items() if not np.isfinite(value[index]).all()), "a state")
    raise NonFiniteError(found, step)


def check_first(environment_steps: Callable[[int], int], state: SelfTuningState) -> None:
    """Raise when the state before the first meta-step, after one rollout, is not finite.

    Raises:
        NonFiniteError: it is not.
    """
    found = _first_not_finite(carried_on(state))
    if found is not None:
        raise NonFiniteError(found, environment_steps(0))


def check_checkpoint(environment_steps: Callable[[int], int], checkpoint: Checkpoint) -> None:
    """Raise when a checkpoint is no state that this agent can have come to.

    Args:
        environment_steps: of that many meta-steps, as the agent says.
        checkpoint: of a `SelfTuningState`.

    Raises:
        CheckpointError: its steps do not agree with its meta-steps, or it holds values that are not finite.
    """
    state: SelfTuningState = checkpoint.tree
    expected = environment_steps(int(state.num_meta_steps))
    if checkpoint.step != expected:
        raise CheckpointError(
            f"the checkpoint of step {checkpoint.step} is of {int(state.num_meta_steps)} meta-steps, which take "
            f"{expected} steps"
        )
    found = _first_not_finite(carried_on(state))
    if found is not None:
        raise CheckpointError(f"the checkpoint of step {checkpoint.step} holds values that are not finite: {found}")


def _first_not_finite(tree: PyTree) -> str | None:
    """The path of the first leaf with such a value."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jnp.inexact) and not _finite(leaf):
            return jax.tree_util.keystr(path)
    return None


def _finite(leaf: Any) -> bool:
    parts = [leaf] if leaf.is_fully_addressable else [shard.data for shard in leaf.addressable_shards]
    return all(bool(np.isfinite(np.asarray(part, np.float64)).all()) for part in parts)
