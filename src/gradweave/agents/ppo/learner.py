"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347), with meta-parameters.

One inner update is everything that is done with one rollout. With v the critic at its beginning, G the lambda-return
and A = G - v of every step, it passes `num_epochs` times over the steps, in `num_minibatches` parts of a random order.
With r the ratio of an action's probability to that under the policy that took it, each part is one step of the inner
optimiser on

    -mean(min(r A, clip(r, 1 - clip_range, 1 + clip_range) A)) + value_cost mean((G - v)^2) - entropy_cost mean(H).

G and A are computed once, at the parameters the rollout was collected with, and are constants of each step; but they
are part of the update that the meta-gradient differentiates, with no `stop_gradient` in it.

Where the network remembers, a minibatch is some environments with all their steps, in time, from the memory that the
rollout began with.

The clip ranges are meta-parameters for tuners alone. Where the clipped term counts the loss has no gradient by the
parameters, at any range; the range only decides where that is, so that the derivative of an update by it is zero
almost everywhere.

The outer loss is the actor-critic's (`gradweave.OuterObjective`), with or without a critic of its own.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from gradweave.agents.actor_critic.agent import network_policy, outer_annotation
from gradweave.agents.actor_critic.distances import policy_divergence
from gradweave.agents.actor_critic.experience import (
    CATEGORICAL,
    Apply,
    Experience,
    Stretch,
    evaluate_network,
    evaluate_stretch,
    head_returns,
)
from gradweave.agents.actor_critic.learner import bundled_apply
from gradweave.agents.actor_critic.outer_loss import OuterObjective, outer_actor_critic_loss
from gradweave.agents.agent import Agent, Annotation
from gradweave.core import BatchPart, GradientLearner, LearnerState, MinibatchLearner, StepEta
from gradweave.envs import Observation
from gradweave.rl import AbstractPolicyHead, NetworkOutput, Trajectory, entropy_bonus, value_loss

__all__ = ["PPOBatch", "PPOEta", "PPOOptions", "ppo_agent"]

_KL_MARGIN = 1.5  # as in public implementations
_MIN_STD = 1e-8


class PPOEta(NamedTuple):
    """The meta-parameters of PPO, in their natural range.

    Attributes:
        discount: gamma, in (0, 1).
        lambda_: mixing of the lambda-return, in (0, 1).
        entropy_cost: weight of the entropy bonus, above 0.
        value_cost: weight of the value loss, above 0.
        learning_rate: step size of the inner optimiser, above 0.
        clip_range: clipping distance of the probability ratio from 1, above 0; its meta-gradient is 0. None: the
            options' constant.
        value_clip_range: how far values may move from those at the beginning where they are clipped, above 0, in the
            unit of returns; its meta-gradient is 0, too. None: the clip range of the ratio.
    """

    discount: Any
    lambda_: Any
    entropy_cost: Any
    value_cost: Any
    learning_rate: Any
    clip_range: Any = None
    value_clip_range: Any = None


class PPOOptions(NamedTuple):
    """Options of PPO that are not learned.

    Attributes:
        num_epochs: passes over each rollout, at least 1.
        num_minibatches: gradient steps of each pass; must divide the steps of a rollout.
        clip_range: above 0, of hyper-parameters that have none.
        normalize_advantages: standardise the advantages of each minibatch.
        clip_values: also clip how far values move from those at the beginning.
        target_kl: no step is taken any more once a minibatch's policy is 1.5 times this far from the one that collected
            the rollout, by the estimate mean(r - 1 - log r); None: all steps are taken.
    """

    num_epochs: int = 4
    num_minibatches: int = 4
    clip_range: float = 0.2
    normalize_advantages: bool = True
    clip_values: bool = False
    target_kl: float | None = None


class PPOBatch(NamedTuple):
    """One rollout; data, through which no derivative flows.

    Attributes:
        experience: observations, actions and rewards; `trajectory.record` holds the actions' log-probabilities.
        orders: the steps of all environments, time first, in the order in which each epoch passes over them; of
            networks that remember, the environments.
    """

    experience: Experience
    orders: Int[Array, "*updates epochs places"]


class _Targets(NamedTuple):
    """Constants of every gradient step, computed before the first; axes as for `_Sample`."""

    advantages: Array
    returns: Array
    values: Array
    outer_returns: Array | None


class _Sample(NamedTuple):
    """One minibatch; a leading axis for steps, or for recurrent networks axes (time, environments)."""

    observations: Observation
    actions: Array
    log_probs: Array


def ppo_agent(
    apply: Apply = bundled_apply,
    optimizer: optax.GradientTransformation | None = None,
    objective: OuterObjective | None = None,
    options: PPOOptions | None = None,
    *,
    head: AbstractPolicyHead = CATEGORICAL,
    memory: PyTree = None,
    reward_discount: float | None = None,
    normalize_observations: bool = False,
) -> Agent:
    """PPO as an `Agent` over `PPOEta`, for `SelfTuning`. Served by every mode, on one device.

    ```python
    agent = gw.ppo_agent(options=gw.PPOOptions(num_epochs=2))
    ```

    Args:
        apply: `(params, observation, conditioning) -> NetworkOutput` for one observation; with a memory as for
            `actor_critic`.
        optimizer: gives directions without a learning rate; Adam by default. See `inner_optimizer`.
        objective: the outer objective.
        options: the update's passes over a rollout.
        head: of the policy.
        memory: of a recurrent network at the beginning of an episode; None for a feed-forward one.
        reward_discount: as `Agent.reward_discount`.
        normalize_observations: as `Agent.normalize_observations`.

    Raises:
        ValueError: fewer than one epoch or minibatch; when traced, minibatches that do not divide the rollout, or with
            a memory the environments.
    """
    options = PPOOptions() if options is None else options
    if options.num_epochs < 1 or options.num_minibatches < 1:
        raise ValueError(f"PPO needs at least one epoch and one minibatch, but was given {options}.")
    objective = OuterObjective() if objective is None else objective
    optimizer = optax.scale_by_adam(eps=1e-5, eps_root=1e-16) if optimizer is None else optimizer
    learner = _learner(apply, optimizer, objective, options, head, memory)

    def batch_of(trajectory: Trajectory, conditioning: Array | None, *, key: Key[Array, ""]) -> PPOBatch:
        keys = jax.random.split(key, options.num_epochs)
        count = trajectory.rewards.size if memory is None else trajectory.rewards.shape[1]
        orders = jax.vmap(lambda key: jax.random.permutation(key, count))(keys)
        return PPOBatch(Experience(trajectory, conditioning), orders)

    divergence = policy_divergence(apply, head=head, memory=memory)
    return Agent(
        problem=learner,
        act=network_policy(apply, head, record_log_probs=True),
        batch=batch_of,
        memory=memory,
        annotation=_annotation(outer_annotation(apply, objective, memory)),
        divergence=lambda before, after, batch: divergence(before, after, batch.experience),
        reward_discount=reward_discount,
        normalize_observations=normalize_observations,
    )


def _learner(
    apply: Apply,
    optimizer: optax.GradientTransformation,
    objective: OuterObjective,
    options: PPOOptions,
    head: AbstractPolicyHead,
    memory: PyTree,
) -> MinibatchLearner:
    """All gradient steps on one rollout, and the outer loss."""

    def places(batch: PPOBatch) -> Int[Array, "updates places"]:
        size, what = batch.orders.shape[-1], "steps" if memory is None else "environments, which a memory keeps whole,"
        if size % options.num_minibatches:
            raise ValueError(f"{options.num_minibatches} minibatches do not divide the {size} {what} of a rollout.")
        return batch.orders.reshape(options.num_epochs * options.num_minibatches, -1)

    def goes_on(aux: dict[str, Array]) -> Array:
        assert options.target_kl is not None
        return aux["kl"] <= _KL_MARGIN * options.target_kl

    def outer_loss(state: LearnerState, batch: PPOBatch) -> tuple[Array, dict[str, Array]]:
        outputs = evaluate_network(apply, state.params, batch.experience, memory)
        return outer_actor_critic_loss(outputs, batch.experience, objective, head=head)

    return MinibatchLearner(
        targets=lambda params, eta, batch: _targets(apply, params, eta, batch.experience, objective, memory),
        places=places,
        step=_one_step(apply, optimizer, objective, options, head, memory),
        outer_loss_of=outer_loss,
        goes_on=None if options.target_kl is None else goes_on,
        summary=_summary,
    )


def _summary(aux: dict[str, Array], taken: Array) -> dict[str, Array]:
    """Logged metrics of an update: means over its gradient steps."""
    logged = {name: values.mean() for name, values in aux.items()}
    return {**logged, "steps_taken": taken.mean(dtype=logged["kl"].dtype)}


def _targets(
    apply: Apply, params: PyTree, eta: PPOEta, experience: Experience, objective: OuterObjective, memory: PyTree
) -> _Targets:
    """Of every step of a rollout; time and environments in one axis, unless the network remembers."""
    trajectory = experience.trajectory
    outputs = evaluate_network(apply, params, experience, memory)
    values = outputs.steps.value
    returns = head_returns(outputs, trajectory, "value", eta.discount, eta.lambda_)
    outer_returns = None
    if outputs.steps.outer_value is not None:
        outer_returns = head_returns(outputs, trajectory, "outer_value", objective.discount, objective.lambda_)
    targets = _Targets(returns - values, returns, values, outer_returns)
    return targets if memory is not None else _flat(targets)


def _sample(part: BatchPart) -> _Sample:
    """The steps of one minibatch."""
    trajectory = part.batch.experience.trajectory
    before = jax.tree.map(lambda leaf: leaf[:-1], trajectory.observations)
    every = _Sample(before, trajectory.actions, trajectory.record)
    whole = trajectory.memory is not None
    sample: _Sample = _places(every if whole else _flat(every), part.place, whole=whole)
    return sample


def _stretch(part: BatchPart) -> Stretch:
    """The environments of one minibatch, for a network that remembers."""
    every = Stretch.of(part.batch.experience.trajectory)._replace(final_observations=None)
    memory = jax.tree.map(lambda leaf: leaf[part.place], every.memory)
    some: Stretch = _places(every._replace(memory=None), part.place, whole=True)
    return some._replace(memory=memory)


def _places(steps: Any, place: Int[Array, " places"], *, whole: bool) -> Any:
    """Some steps, or some environments with all their steps."""
    return jax.tree.map(lambda leaf: leaf[:, place] if whole else leaf[place], steps)


def _flat(steps: Any) -> Any:
    """Time and environments in one axis."""
    return jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:]), steps)


def _one_step(
    apply: Apply,
    optimizer: optax.GradientTransformation,
    objective: OuterObjective,
    options: PPOOptions,
    head: AbstractPolicyHead,
    memory: PyTree,
) -> GradientLearner:
    """One gradient step on one minibatch."""

    def forward(params: PyTree, part: BatchPart) -> NetworkOutput:
        conditioning = part.batch.experience.conditioning
        if memory is not None:
            return evaluate_stretch(apply, params, _stretch(part), conditioning, memory)[0]
        outputs: NetworkOutput = jax.vmap(lambda seen: apply(params, seen, conditioning))(_sample(part).observations)
        return outputs

    def targets(outputs: NetworkOutput, given: StepEta, part: BatchPart) -> _Targets:
        own: _Targets = _places(given.targets, part.place, whole=memory is not None)
        return own

    def loss(
        outputs: NetworkOutput, targets: _Targets, given: StepEta, part: BatchPart
    ) -> tuple[Array, dict[str, Array]]:
        total, aux = _loss(outputs, targets, given.eta, _sample(part), options, head)
        if targets.outer_returns is not None and outputs.outer_value is not None:
            aux["outer_critic_loss"] = value_loss(outputs.outer_value, targets.outer_returns)
            total = total + objective.critic_cost * aux["outer_critic_loss"]
        return total, aux

    return GradientLearner(
        targets,
        loss,
        optimizer,
        lambda given: given.eta.learning_rate,
        lambda state, part: (jnp.zeros(()), None),  # the outer loss is evaluated on whole rollouts
        forward=forward,
    )


def _loss(
    outputs: NetworkOutput,
    targets: _Targets,
    eta: PPOEta,
    sample: _Sample,
    options: PPOOptions,
    head: AbstractPolicyHead,
) -> tuple[Array, dict[str, Array]]:
    """The loss of the head of this file on one minibatch, and its logged metrics."""
    mask = sample.observations.action_mask
    log_ratio = head.log_prob(outputs.logits, mask, sample.actions) - sample.log_probs
    ratio = jnp.exp(log_ratio)
    advantages = _standardized(targets.advantages) if options.normalize_advantages else targets.advantages
    clip_range = options.clip_range if eta.clip_range is None else eta.clip_range
    clipped = jnp.clip(ratio, 1 - clip_range, 1 + clip_range)
    policy = -jnp.minimum(ratio * advantages, clipped * advantages).mean()
    errors = (targets.returns - outputs.value) ** 2
    if options.clip_values:
        far = clip_range if eta.value_clip_range is None else eta.value_clip_range
        near = targets.values + jnp.clip(outputs.value - targets.values, -far, far)
        errors = jnp.maximum(errors, (targets.returns - near) ** 2)
    entropy = entropy_bonus(outputs.logits, mask, head)
    total = policy + eta.value_cost * errors.mean() - eta.entropy_cost * entropy
    aux = {
        "policy_loss": policy,
        "value_loss": errors.mean(),
        "entropy": entropy,
        "kl": (ratio - 1 - log_ratio).mean(),
        "clip_fraction": (jnp.abs(ratio - 1) > clip_range).mean(dtype=ratio.dtype),
    }
    return total, aux


def _standardized(advantages: Float[Array, "*steps"]) -> Float[Array, "*steps"]:
    """With mean 0 and standard deviation 1; the root is taken where it has a derivative."""
    centred = advantages - advantages.mean()
    variance = (centred**2).mean()
    std = jnp.sqrt(jnp.where(variance > 0, variance, 1.0))
    return centred / (std + _MIN_STD)


def _annotation(inner: Annotation | None) -> Annotation | None:
    """The actor-critic's, of the experience in each batch."""
    if inner is None:
        return None

    def annotate(batches: PPOBatch, state: Any, statistics: Any) -> PPOBatch:
        return batches._replace(experience=inner.annotate(batches.experience, state, statistics))

    return Annotation(annotate, inner.initial, inner.observe)
