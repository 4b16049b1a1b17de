"""Collection of a window: update, roll out, update, roll out, ...

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
from gradweave.core import GradientLearner, Recording
from gradweave.core.learner import RecordedBatch
from gradweave.rl import EpisodeTotals, RolloutState, normalized_trajectory, rollout, with_observations

if TYPE_CHECKING:
    from gradweave.agents.self_tuning import SelfTuning

__all__ = ["collect_rollout", "collect_with"]

_FOR_BATCH = (1 << 31) + 1  # the first numbers give the keys of a split


def collect_rollout(
    agent: "SelfTuning", params: PyTree, raw: PyTree, running: RolloutState, *, key: Key[Array, ""]
) -> tuple[RolloutState, PyTree, EpisodeTotals]:
    """One inner batch: a rollout of every environment with these parameters.

    Observations are acted on, and learned from, as normalised by the statistics from before the rollout.

    Args:
        agent: the acting agent.
        params: of its network.
        raw: the meta-parameters, for networks that are conditioned on them.
        running: the state of the environments.
        key: for actions, environments and the batch.

    Returns:
        (the environments' state afterwards, the batch, totals of the episodes that stopped).
    """
    conditioning, memory = agent.conditioning(raw), agent.agent.memory
    normalization = agent.normalization(running)
    policy = agent.policy(params, conditioning, normalization=normalization)
    batch_key = jax.random.fold_in(key, _FOR_BATCH)
    running, trajectory, episodes = rollout(policy, agent.environment, running, agent.num_steps, memory=memory, key=key)
    if normalization is not None and running.observation_statistics is not None:
        seen = jax.tree.map(lambda leaf: leaf[:-1], trajectory.observations)
        statistics = with_observations(running.observation_statistics, seen)
        running = running._replace(observation_statistics=statistics)
        trajectory = normalized_trajectory(normalization, trajectory)
    return running, agent.agent.batch(trajectory, conditioning, key=batch_key), episodes


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
        agent: the learning agent.
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
        if isinstance(agent.problem, GradientLearner):
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
    """Batches with the outer loss's further inputs."""
    annotation = agent.agent.annotation
    if annotation is None or not agent.learns:
        return batches
    return annotation.annotate(batches, state.learner, state.statistics)
