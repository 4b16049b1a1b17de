"""The actor-critic as an `Agent`: its policy, the inputs of its outer objective, and the layout of its batches."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key, PyTree

from gradweave.agents.actor_critic.distances import policy_divergence
from gradweave.agents.actor_critic.experience import (
    CATEGORICAL,
    AdvantageMoments,
    Apply,
    Experience,
    policy_logits,
)
from gradweave.agents.actor_critic.learner import actor_critic
from gradweave.agents.actor_critic.moments import (
    MomentStatistics,
    advantage_moments,
    empty_moments,
    with_moments,
)
from gradweave.agents.actor_critic.outer_loss import OuterObjective, log_likelihood, mean_reward
from gradweave.agents.agent import Agent, Annotation, SamplingTerms
from gradweave.envs import ONE_DEVICE, DeviceAxis, Observation
from gradweave.rl import AbstractPolicyHead, Acted, Trajectory

__all__ = ["actor_critic_agent", "experience_batch", "network_policy", "outer_annotation"]


def actor_critic_agent(
    apply: Apply,
    optimizer: optax.GradientTransformation,
    objective: OuterObjective | None = None,
    *,
    head: AbstractPolicyHead = CATEGORICAL,
    memory: PyTree = None,
    axis: DeviceAxis = ONE_DEVICE,
    reward_discount: float | None = None,
    normalize_observations: bool = False,
    **options: Any,
) -> Agent:
    """An advantage actor-critic that acts, for `SelfTuning`.

    ```python
    agent = gw.actor_critic_agent(apply, gw.inner_optimizer("adam"))
    ```

    Args:
        apply: the network, as for `actor_critic`, like all that follows.
        optimizer: gives directions without a learning rate.
        objective: the outer objective.
        head: of the policy.
        memory: of a recurrent network at the beginning of an episode.
        axis: the devices over which the environments are split.
        reward_discount: as `Agent.reward_discount`.
        normalize_observations: as `Agent.normalize_observations`.
        options: further arguments of `actor_critic`: `targets`, `learning_rate_groups`, `critic_apart`,
            `num_microbatches`.
    """
    objective = OuterObjective() if objective is None else objective
    problem = actor_critic(apply, optimizer, objective, head=head, memory=memory, axis=axis, **options)
    return Agent(
        problem=problem,
        act=network_policy(apply, head, axis=axis),
        batch=experience_batch,
        memory=memory,
        annotation=outer_annotation(apply, objective, memory),
        sampling=None if objective.standardize_advantages else _sampling_terms(axis, head),
        divergence=policy_divergence(apply, head=head, memory=memory, axis=axis),
        reward_discount=reward_discount,
        normalize_observations=normalize_observations,
        layout=_layout,
    )


def network_policy(
    apply: Apply,
    head: AbstractPolicyHead = CATEGORICAL,
    *,
    axis: DeviceAxis = ONE_DEVICE,
    record_log_probs: bool = False,
) -> Any:
    """`Agent.act` for a network and a policy head.

    Args:
        apply: the network, as for `actor_critic`.
        head: of the policy.
        axis: the devices over which the environments are split.
        record_log_probs: whether `Trajectory.record` holds the log-probability of every action under the policy that
            took it, (time, batch); learners that use a batch for several updates need it.
    """

    def act(
        params: PyTree,
        observations: Observation,
        memory: PyTree,
        conditioning: Array | None,
        *,
        key: Key[Array, ""],
        greedy: bool | Array = False,
        uniform: bool | Array = False,
    ) -> Acted:
        if memory is None:
            outputs = jax.vmap(lambda observation: apply(params, observation, conditioning))(observations)
        else:
            outputs = jax.vmap(lambda one, memory: apply(params, one, conditioning, memory))(observations, memory)
        said, mask = outputs.logits, observations.action_mask
        chosen = functools.partial(_chosen, head, said, mask, greedy, key, axis)
        drawn = functools.partial(head.uniform, said, mask, key=key, axis=axis)
        actions = chosen() if uniform is False else jax.lax.cond(uniform, drawn, chosen)
        return Acted(actions, outputs.memory, head.log_prob(said, mask, actions) if record_log_probs else None)

    return act


def _chosen(
    head: AbstractPolicyHead, said: Array, mask: Array, greedy: bool | Array, key: Key[Array, ""], axis: DeviceAxis
) -> Array:
    """The policy's actions, sampled or the most probable ones."""
    actions = head.mode(said, mask) if greedy is True else head.sample(said, mask, key=key, axis=axis)
    if not isinstance(greedy, bool):
        actions = jnp.where(greedy, head.mode(said, mask).astype(actions.dtype), actions)
    return actions


def experience_batch(trajectory: Trajectory, conditioning: Array | None, *, key: Any) -> Experience:
    """`Agent.batch`: everything as it was collected."""
    del key
    return Experience(trajectory, conditioning)


def outer_annotation(apply: Apply, objective: OuterObjective, memory: PyTree) -> Annotation | None:
    """The annotation that optional terms of the objective need; None without such terms."""
    if objective.kl_cost == 0 and not objective.standardize_advantages:
        return None

    def annotate(batches: Experience, state: Any, statistics: MomentStatistics | None) -> Experience:
        if objective.kl_cost != 0:
            logits = jax.lax.map(lambda batch: policy_logits(apply, state.params, batch, memory), batches)
            batches = batches._replace(anchor_logits=logits)
        if statistics is None:
            return batches
        count = batches.trajectory.rewards.shape[0]
        moments = (jnp.broadcast_to(moment, (count,)) for moment in advantage_moments(statistics))
        return batches._replace(advantage_moments=AdvantageMoments(*moments))

    initial: Callable[[], MomentStatistics | None] = empty_moments if objective.standardize_advantages else _no_moments
    return Annotation(annotate, initial, with_moments)


def _sampling_terms(axis: DeviceAxis, head: AbstractPolicyHead) -> SamplingTerms:
    """In units of rewards, which standardised advantages are not."""
    return SamplingTerms(
        functools.partial(log_likelihood, axis=axis, head=head), functools.partial(mean_reward, axis=axis)
    )


def _no_moments() -> None:
    return None


def _layout(same: Any, envs_first: Any, time_first: Any) -> Any:
    fields = dict.fromkeys(Trajectory._fields, time_first) | {"memory": envs_first}
    trajectory = Trajectory(**fields)
    return Experience(trajectory=trajectory, conditioning=same, anchor_logits=time_first, advantage_moments=same)
