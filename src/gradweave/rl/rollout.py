"""Collect experience: a policy acts in many environments for a fixed number of steps, inside one `lax.scan`.

Environments reset themselves (`VectorEnvironment`), so a rollout is a window on an endless stream; the state handed
from one rollout to the next carries the running episodes across. Nothing in here is meant to be differentiated: the
actions, and so the whole trajectory, are data.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from gradweave.envs import Observation, VectorEnvironment
from gradweave.rl.observation_scale import ObservationStatistics
from gradweave.rl.reward_scale import RewardScale, scaled_rewards
from gradweave.rl.trajectory import Trajectory

__all__ = ["Acted", "EpisodeTotals", "Policy", "RolloutState", "init_rollout", "rollout"]


class Acted(NamedTuple):
    """Actions of a policy in every environment."""

    actions: Array
    """One for each environment, leading axis batch."""
    memory: Any = None
    """The policy's memory before the next observation; None for one without memory."""
    record: Any = None
    """Behaviour recorded for the learner, log-probabilities for example; a pytree, leading axis batch."""


Policy = Callable[[Observation, Any, Key[Array, ""]], Acted]
"""(observations of all environments, memory or None, key) -> `Acted`."""


class RolloutState(NamedTuple):
    """State of the environments between two rollouts."""

    env_state: Any
    """The state of the `VectorEnvironment`, a pytree of arrays."""
    observation: Observation
    """The observation before the next action; leading axis batch."""
    episode_return: Float[Array, " batch"]
    """Undiscounted sum of the rewards of the running episode."""
    episode_length: Int[Array, " batch"]
    """Steps taken in the running episode."""
    memory: Any = None
    """The policy's memory of the running episode; a pytree, leading axis batch, or None."""
    reward_scale: RewardScale | None = None
    """Scale of the rewards, or None where they are not scaled."""
    observation_statistics: ObservationStatistics | None = None
    """Of the observations before the newest rollout, or None where observations are not normalised."""


class EpisodeTotals(NamedTuple):
    """Sums over the episodes that stopped (ended or were cut off) within a rollout.

    Sums and not means, so that those of several rollouts or devices can be added. The mean return is
    `sum_returns / num_episodes`, and there is none when no episode stopped.
    """

    num_episodes: Float[Array, ""]
    sum_returns: Float[Array, ""]
    """Of undiscounted returns over whole episodes, also the part before this rollout."""
    sum_lengths: Float[Array, ""]


class _StepRecord(NamedTuple):
    """Record of one step of the scan; every field has a leading axis batch, `totals` excepted."""

    observation: Observation
    action: Array
    reward: Float[Array, " batch"]
    terminated: Array
    truncated: Array
    final_observation: Observation | None
    record: Any
    totals: EpisodeTotals


def init_rollout(
    env: VectorEnvironment[Any],
    *,
    memory: Any = None,
    reward_discount: float | Array | None = None,
    counts_observations: bool = False,
    key: Key[Array, ""],
) -> RolloutState:
    """Begin an episode in every environment.

    Args:
        env: the environments.
        memory: of one environment at the beginning of an episode; None for policies without memory.
        reward_discount: of the returns by whose running size rollouts divide rewards (`gradweave.rl.RewardScale`); None
            leaves rewards as they are. Totals count them as the environment gives them either way.
        counts_observations: keep statistics of observations, which `rollout` carries along and the caller updates
            (`gradweave.rl.with_observations`) and applies.
        key: for their resets.
    """
    env_state, observation = env.reset(key=key)
    return RolloutState(
        env_state=env_state,
        observation=observation,
        episode_return=env.axis.varying(jnp.zeros(env.num_own, jnp.result_type(float))),
        episode_length=env.axis.varying(jnp.zeros(env.num_own, jnp.result_type(int))),
        memory=env.axis.varying(for_each(memory, env.num_own)),
        reward_scale=None
        if reward_discount is None
        else env.axis.varying(RewardScale.new(reward_discount, env.num_own)),
        observation_statistics=env.axis.varying(ObservationStatistics.new(observation))
        if counts_observations
        else None,
    )


def rollout(
    policy: Policy,
    env: VectorEnvironment[Any],
    state: RolloutState,
    num_steps: int,
    *,
    memory: Any = None,
    key: Key[Array, ""],
) -> tuple[RolloutState, Trajectory, EpisodeTotals]:
    """Let the policy act for `num_steps` steps in every environment.

    ```python
    state = init_rollout(env, key=reset_key)
    state, trajectory, totals = rollout(policy, env, state, 5, key=rollout_key)
    ```

    Args:
        policy: (observations, memory, key) -> `Acted`. Observations have a leading axis batch; the key is fresh at
            every step.
        env: the environments.
        state: of `init_rollout` or of the last rollout.
        num_steps: steps to take in each environment, at least 1.
        memory: of one environment at the beginning of an episode; it replaces the memory of an environment whose
            episode stopped. None for policies without memory.
        key: for actions and environments.

    Returns:
        The state to go on from; the experience, with axes (time, batch, ...), whose `final_observations` are None when
        the environment promises never to truncate; totals of the episodes that stopped, on all devices together.

    Raises:
        ValueError: for fewer than one step.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps = {num_steps} collects nothing: give a number of steps of at least 1")

    def body(state: RolloutState, key: Key[Array, ""]) -> tuple[RolloutState, _StepRecord]:
        return _act(policy, env, state, memory, key=key)

    last_state, records = jax.lax.scan(body, state, jax.random.split(key, num_steps))
    trajectory = Trajectory(
        observations=jax.tree.map(_append, records.observation, last_state.observation),
        actions=records.action,
        rewards=records.reward,
        terminations=records.terminated,
        truncations=records.truncated,
        final_observations=records.final_observation,
        record=records.record,
        memory=state.memory,
    )
    return last_state, trajectory, jax.tree.map(lambda leaf: env.axis.sum(jnp.sum(leaf)), records.totals)


def _act(
    policy: Policy, env: VectorEnvironment[Any], state: RolloutState, memory: Any, *, key: Key[Array, ""]
) -> tuple[RolloutState, _StepRecord]:
    """One step of every environment: the next state and the record of the step."""
    policy_key, env_key = jax.random.split(key)
    acted = policy(state.observation, state.memory, policy_key)
    env_state, step = env.step(state.env_state, acted.actions, key=env_key)
    ended = step.terminated | step.truncated
    episode_return = state.episode_return + step.reward.astype(state.episode_return.dtype)
    episode_length = state.episode_length + 1
    dtype = episode_return.dtype
    totals = EpisodeTotals(
        num_episodes=jnp.sum(ended.astype(dtype)),
        sum_returns=jnp.sum(jnp.where(ended, episode_return, 0.0)),
        sum_lengths=jnp.sum(jnp.where(ended, episode_length, 0).astype(dtype)),
    )
    reward, scale = step.reward, state.reward_scale
    if scale is not None:
        reward, scale = scaled_rewards(scale, reward, ended, env.axis)
    next_state = RolloutState(
        env_state=env_state,
        observation=step.observation,
        episode_return=jnp.where(ended, 0.0, episode_return),
        episode_length=jnp.where(ended, 0, episode_length),
        memory=where_ended(ended, for_each(memory, ended.shape[0]), acted.memory),
        reward_scale=scale,
        observation_statistics=state.observation_statistics,
    )
    record = _StepRecord(
        observation=state.observation,
        action=acted.actions,
        reward=reward,
        terminated=step.terminated,
        truncated=step.truncated,
        final_observation=step.final_observation if env.environment.can_truncate else None,
        record=acted.record,
        totals=totals,
    )
    return next_state, record


def where_ended(ended: Bool[Array, " batch"], fresh: Any, running: Any) -> Any:
    """`fresh` where an episode stopped, `running` elsewhere; pytrees with a leading axis batch, or None."""

    def select(new: Array, old: Array) -> Array:
        return jnp.where(ended.reshape(ended.shape + (1,) * (old.ndim - 1)), new, old)

    return jax.tree.map(select, fresh, running)


def for_each(memory: Any, num_envs: int) -> Any:
    """The memory of one environment, for all of them."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_envs, *jnp.shape(leaf))), memory)


def _append(series: Array, last: Array) -> Array:
    """`series`, then `last` as one more entry."""
    return jnp.concatenate([series, last[None]])
