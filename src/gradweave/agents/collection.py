"""How a window is collected: update, roll out, update, roll out, ...

The environment is never inside a differentiated function. States, inner gradients and batches are recorded while the
agent learns, and the meta-gradient is taken of the recording.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key, PyTree

from gradweave.agents.state import CollectedWindow, SelfTuningState, Updated
from gradweave.core import Recording
from gradweave.core.learner import RecordedBatch

if TYPE_CHECKING:
    from gradweave.agents.self_tuning import SelfTuning

__all__ = ["collect_with"]


def collect_with(
    agent: "SelfTuning",
    update: Callable[..., Updated],
    tangents: PyTree,
    state: SelfTuningState,
    *,
    key: Key[Array, ""],
) -> tuple[CollectedWindow, PyTree, PyTree]:
    """One window of alternating updates and rollouts.

    Args:
        agent: who acts and learns.
        update: `(learner's state, tangents, newest batch) -> Updated`.
        tangents: before the first update; None where none are carried.
        state: of the agent before the window.
        key: for all rollouts.

    Returns:
        (the window, tangents at its end, the outer losses and their derivatives that the updates evaluated).
    """

    def inner_step(carry: tuple[Any, ...], counted: tuple[Array, Key[Array, ""]]) -> tuple[Any, Any]:
        (learner, tangents, running, batch, shelf), (index, key) = carry, counted
        newest = batch
        if shelf is not None:
            # Read from where it is kept: were it read from the carry too, every batch would be copied.
            put = functools.partial(jax.lax.dynamic_update_index_in_dim, index=index, axis=0)
            shelf = jax.tree.map(put, shelf, batch)
            newest, batch = RecordedBatch(shelf, index), None
        after, tangents, (gradient, aux), evaluated = update(learner, tangents, newest)
        outer_batch, outer_episodes = None, None
        if agent.collects_outer:
            key, outer_key = jax.random.split(key)
            running, outer_batch, outer_episodes = agent.collect(after.params, state.raw, running, key=outer_key)
        running, next_batch, episodes = agent.collect(after.params, state.raw, running, key=key)
        if outer_episodes is not None:
            episodes = jax.tree.map(jnp.add, episodes, outer_episodes)
        if gradient is not None:
            aux = aux | {"gradient_norm": optax.tree.norm(gradient)}
        kept = (learner, gradient, batch, aux, episodes, evaluated, outer_batch)
        return (after, tangents, running, next_batch, shelf), kept

    count, shelf = agent.num_inner_steps, None
    if agent.learns and not agent.tracks_tangents:
        shelf = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), state.batch)
    start = (state.learner, tangents, state.rollout, state.batch, shelf)
    end, kept = jax.lax.scan(inner_step, start, (jnp.arange(count, dtype=jnp.int32), jax.random.split(key, count)))
    learner, tangents, running, batch, shelf = end
    states, gradients, batches, aux, episodes, evaluated, outer_batches = kept
    batches = batches if shelf is None else shelf
    if outer_batches is None:
        batches = jax.tree.map(lambda early, last: jnp.concatenate([early, last[None]]), batches, batch)
        batches = _annotated(agent, batches, state)
    else:
        outer_batches = _annotated(agent, outer_batches, state)
    recording = Recording(states, gradients, learner)
    window = CollectedWindow(recording, batches, running, batch, aux, episodes, None, outer_batches)
    return window, tangents, evaluated


def _annotated(agent: "SelfTuning", batches: PyTree, state: SelfTuningState) -> PyTree:
    """Batches with what the outer loss reads beside them."""
    annotation = agent.agent.annotation
    if annotation is None or not agent.learns:
        return batches
    return annotation.annotate(batches, state.learner, state.statistics)
