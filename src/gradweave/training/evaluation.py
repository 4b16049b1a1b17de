"""Evaluation on episodes of its own: whole episodes from fresh starts, their steps never mixed up with training's.

One rule for all agents: the undiscounted return of the first episode of each environment, with actions
sampled from the policy or greedy. An episode that outlasts `max_steps` counts with its return by then.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from gradweave.agents import SelfTuning
from gradweave.envs import Observation, VectorEnvironment
from gradweave.rl import Acted, Normalization, init_rollout, normalized, rollout
from gradweave.rl.rollout import for_each

__all__ = ["Evaluation", "evaluate", "play_episode"]


class Evaluation(NamedTuple):
    """Undiscounted returns and lengths, one for each episode."""

    returns: Float[Array, " episodes"]
    lengths: Int[Array, " episodes"]


def evaluate(
    agent: SelfTuning,
    params: PyTree,
    raw: PyTree,
    *,
    key: Key[Array, ""],
    greedy: bool | Bool[Array, ""],
    num_episodes: int,
    max_steps: int,
    uniform: bool | Bool[Array, ""] = False,
    normalization: Normalization | None = None,
) -> Evaluation:
    """Play `num_episodes` whole episodes side by side and stop when the last has ended.

    Args:
        agent: whose environment and network to use.
        params: the network's parameters.
        raw: the meta-parameters, for networks that are conditioned on them.
        key: for environments and actions.
        greedy: take the most probable action, or sample; may be traced, so that one compiled program does both.
        num_episodes: at least 1.
        max_steps: steps after which an episode is cut off, at least 1.
        uniform: ignore the network and act uniformly among the allowed actions, vectors within -1 to 1:
            the random agent to compare with.
        normalization: of observations, `agent.normalization(state.rollout)`.
    """
    environments: VectorEnvironment[Any] = VectorEnvironment(agent.environment.environment, num_episodes)
    conditioning = agent.conditioning(raw)

    def act(observations: Observation, memory: PyTree, key: Key[Array, ""]) -> Acted:
        seen = normalized(normalization, observations)
        return agent.agent.act(params, seen, memory, conditioning, key=key, greedy=greedy, uniform=uniform)

    def step(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        state, observations, memory, playing, result, key, count = carry
        key, action_key, step_key = jax.random.split(key, 3)
        acted = act(observations, memory, action_key)
        state, outcome = environments.step(state, acted.actions, key=step_key)
        returns = result.returns + jnp.where(playing, outcome.reward, 0.0)
        lengths = result.lengths + playing.astype(result.lengths.dtype)
        playing = playing & ~(outcome.terminated | outcome.truncated)
        # The memory need not begin anew: of each environment the first episode counts.
        return state, outcome.observation, acted.memory, playing, Evaluation(returns, lengths), key, count + 1

    reset_key, key = jax.random.split(key)
    state, observations = environments.reset(key=reset_key)
    nothing = Evaluation(jnp.zeros(num_episodes), jnp.zeros(num_episodes, jnp.int32))
    memory = for_each(agent.agent.memory, num_episodes)
    start = (state, observations, memory, jnp.ones(num_episodes, bool), nothing, key, jnp.zeros((), jnp.int32))
    *_, result, _, _ = jax.lax.while_loop(lambda carry: carry[3].any() & (carry[6] < max_steps), step, start)
    return result


def play_episode(
    agent: SelfTuning,
    params: PyTree,
    raw: PyTree,
    *,
    key: Key[Array, ""],
    greedy: bool,
    max_steps: int,
    normalization: Normalization | None = None,
) -> tuple[Observation, Float[np.ndarray, " time"]]:
    """One episode for looking at: the observation before each action, and the rewards.

    Returns:
        Observations (before each action, as the environment shows them) and rewards, time entries each, on the host,
        cut at the end of the episode.
    """
    environments: VectorEnvironment[Any] = VectorEnvironment(agent.environment.environment, 1)
    conditioning = agent.conditioning(raw)
    policy = agent.policy(params, conditioning, greedy=greedy, normalization=normalization)
    memory = agent.agent.memory

    @jax.jit
    def play(key: Key[Array, ""]) -> Any:
        reset_key, play_key = jax.random.split(key)
        running = init_rollout(environments, memory=memory, key=reset_key)
        return rollout(policy, environments, running, max_steps, memory=memory, key=play_key)[1]

    trajectory = jax.device_get(play(key))
    stopped = (trajectory.terminations | trajectory.truncations)[:, 0]
    length = int(stopped.argmax()) + 1 if stopped.any() else max_steps
    observations = jax.tree.map(lambda leaf: leaf[:length, 0], trajectory.observations)
    return observations, trajectory.rewards[:length, 0]
