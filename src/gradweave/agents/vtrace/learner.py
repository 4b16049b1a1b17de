"""V-trace actor-critic (Espeholt et al. 2018, arXiv 1802.01561) with leaky weights (Zahavy et al. 2020, arXiv
2002.12928), every hyper-parameter of which can be learned, alpha included.

One inner update is everything that is done with one rollout: `num_epochs` passes, each in `num_minibatches` steps of
the inner optimiser on parts of the environments. With G and A the V-trace returns and advantages
(`gradweave.rl.vtrace`) at the parameters *before that step*, corrected by the ratios of the actions' probabilities to
those under the policy that collected the rollout, a step goes down

    -policy_cost mean(log pi(a) A) + value_cost mean((G - v)^2) - entropy_cost mean(H).

G and A are constants of the step; but they are part of the update that the meta-gradient differentiates, ratios
included, with no `stop_gradient` in it.

The first step is taken by the policy that collected the rollout. Its ratios are 1 at any parameters, and so they
are written: as quotients they would lie on the kink of min(1, ratio) to the rounding, where there is no derivative.
With one epoch and one minibatch this is the actor-critic of `gradweave.actor_critic`.

The outer loss is the actor-critic's (`gradweave.OuterObjective`), with or without a critic of its own, which learns
V-trace returns at the outer discount and lambda with alpha = 1.

A network may have auxiliary heads (STACX): further policies and values on the same torso, each with the loss above at a
discount, a lambda and a weight of its own, and with ratios of *its* policy to the one that collected, from the first
step on. They shape the torso's features for the first policy, which alone acts and is evaluated.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from gradweave.agents.actor_critic.agent import experience_batch, network_policy, outer_annotation
from gradweave.agents.actor_critic.distances import policy_divergence
from gradweave.agents.actor_critic.experience import (
    CATEGORICAL,
    Apply,
    Experience,
    Outputs,
    action_log_probs,
    environments_in_parts,
    evaluate_network,
    head_bootstraps,
    policy_terms,
)
from gradweave.agents.actor_critic.learner import bundled_apply
from gradweave.agents.actor_critic.outer_loss import OuterObjective, outer_actor_critic_loss
from gradweave.agents.agent import Agent
from gradweave.core import BatchPart, GradientLearner, LearnerState, MinibatchLearner, StepEta
from gradweave.rl import (
    AbstractPolicyHead,
    NetworkOutput,
    VTrace,
    trajectory_discounts,
    trajectory_lambda,
    value_loss,
    vtrace,
)

__all__ = ["VTraceEta", "VTraceOptions", "vtrace_agent"]


class VTraceEta(NamedTuple):
    """The meta-parameters of the V-trace actor-critic, in their natural range.

    Attributes:
        discount: gamma, in (0, 1).
        lambda_: mixing of the returns, in (0, 1).
        alpha: the share of each importance weight that is clipped, in (0, 1); 1 is V-trace.
        policy_cost: weight of the policy loss, above 0.
        entropy_cost: weight of the entropy bonus, above 0.
        value_cost: weight of the value loss, above 0.
        learning_rate: step size of the inner optimiser, above 0.
        auxiliary_discount: a tuple, of each auxiliary head its discount, in (0, 1).
        auxiliary_lambda: a tuple, of each auxiliary head the mixing of its returns, in (0, 1).
        auxiliary_cost: a tuple, of each auxiliary head the weight of its loss, above 0.
    """

    discount: Any
    lambda_: Any
    alpha: Any
    policy_cost: Any
    entropy_cost: Any
    value_cost: Any
    learning_rate: Any
    auxiliary_discount: Any = ()
    auxiliary_lambda: Any = ()
    auxiliary_cost: Any = ()


class VTraceOptions(NamedTuple):
    """Options of the V-trace actor-critic that are not learned.

    Attributes:
        num_epochs: passes over each rollout, at least 1.
        num_minibatches: gradient steps of each pass; must divide the environments.
        clip_rho: upper bound of the weights of errors and advantages, above 0.
        clip_c: upper bound of the weights that errors travel back with, above 0.
    """

    num_epochs: int = 2
    num_minibatches: int = 2
    clip_rho: float = 1.0
    clip_c: float = 1.0


class _Place(NamedTuple):
    """A step of an update: its part of the environments, and whether it is the first."""

    part: Int[Array, "*steps"]
    first: Bool[Array, "*steps"]


class _Targets(NamedTuple):
    """Constants of one gradient step, (time, batch)."""

    own: VTrace
    outer_returns: Array | None
    auxiliary: VTrace | None
    """Leading axis for heads."""


def vtrace_agent(
    apply: Apply = bundled_apply,
    optimizer: optax.GradientTransformation | None = None,
    objective: OuterObjective | None = None,
    options: VTraceOptions | None = None,
    *,
    head: AbstractPolicyHead = CATEGORICAL,
    memory: PyTree = None,
    reward_discount: float | None = None,
    normalize_observations: bool = False,
) -> Agent:
    """The V-trace actor-critic as an `Agent` over `VTraceEta`, for `SelfTuning`. Served by every mode, on one device.

    ```python
    agent = gw.vtrace_agent(options=gw.VTraceOptions(num_epochs=4))
    ```

    Args:
        apply: `(params, observation, conditioning) -> NetworkOutput` for one observation; with a memory as for
            `actor_critic`.
        optimizer: gives directions without a learning rate; Adam by default. See `inner_optimizer`.
        objective: the outer objective.
        options: the update's passes over a rollout, and bounds of weights.
        head: of the policy.
        memory: of a recurrent network at the beginning of an episode; None for a feed-forward one.
        reward_discount: as `Agent.reward_discount`.
        normalize_observations: as `Agent.normalize_observations`.

    Raises:
        ValueError: fewer than one epoch or minibatch, or a clip that is not above 0; when traced, minibatches that do
            not divide the environments.
    """
    options = VTraceOptions() if options is None else options
    if options.num_epochs < 1 or options.num_minibatches < 1:
        raise ValueError(f"V-trace needs at least one epoch and one minibatch, but was given {options}.")
    if not (options.clip_rho > 0 and options.clip_c > 0):
        raise ValueError(f"V-trace clips weights at numbers above 0 (usually 1), but was given {options}.")
    objective = OuterObjective() if objective is None else objective
    optimizer = optax.scale_by_adam(eps_root=1e-16) if optimizer is None else optimizer

    def outer_loss(state: LearnerState, batch: Experience) -> tuple[Array, dict[str, Array]]:
        return outer_actor_critic_loss(
            evaluate_network(apply, state.params, batch, memory), batch, objective, head=head
        )

    learner = MinibatchLearner(
        targets=lambda params, eta, batch: (),  # every step has its own
        places=lambda batch: _places(options),
        step=_one_step(apply, optimizer, objective, options, head, memory),
        outer_loss_of=outer_loss,
        summary=lambda aux, taken: jax.tree.map(jnp.mean, aux),
    )
    return Agent(
        problem=learner,
        act=network_policy(apply, head, record_log_probs=True),
        batch=experience_batch,
        memory=memory,
        annotation=outer_annotation(apply, objective, memory),
        divergence=policy_divergence(apply, head=head, memory=memory),
        reward_discount=reward_discount,
        normalize_observations=normalize_observations,
    )


def _places(options: VTraceOptions) -> _Place:
    """Each pass goes over the same parts: environments are alike, so that their order does not matter."""
    steps = jnp.arange(options.num_epochs * options.num_minibatches)
    return _Place(steps % options.num_minibatches, steps == 0)


def _one_step(
    apply: Apply,
    optimizer: optax.GradientTransformation,
    objective: OuterObjective,
    options: VTraceOptions,
    head: AbstractPolicyHead,
    memory: PyTree,
) -> GradientLearner:
    """One gradient step on one part of the environments."""
    parts = environments_in_parts(options.num_minibatches)

    def experience(part: BatchPart) -> Experience:
        return part.batch if parts is None else parts.part(part.batch, part.place.part)

    def log_ratios(outputs: Outputs, part: BatchPart) -> Float[Array, "time batch"]:
        """Of each action's probability to that under the policy which took it."""
        trajectory = experience(part).trajectory
        return jnp.where(part.place.first, 0.0, action_log_probs(outputs, trajectory, head) - trajectory.record)

    def targets(outputs: Outputs, given: StepEta, part: BatchPart) -> _Targets:
        ratios = jnp.exp(log_ratios(outputs, part))
        of_head = functools.partial(_head_vtrace, outputs, experience(part), ratios, options)
        eta, outer_returns = given.eta, None
        if outputs.steps.outer_value is not None:
            outer_returns = of_head("outer_value", objective.discount, objective.lambda_, 1.0).returns
        own, auxiliary = of_head("value", eta.discount, eta.lambda_, eta.alpha), None
        if outputs.steps.auxiliary is not None:
            auxiliary = _auxiliary_targets(_of_heads(outputs), eta, experience(part), options, head)
        return _Targets(own, outer_returns, auxiliary)

    def loss(outputs: Outputs, targets: _Targets, given: StepEta, part: BatchPart) -> tuple[Array, dict[str, Array]]:
        total, aux = _loss(outputs, targets.own, given.eta, experience(part), head)
        aux |= _distances(log_ratios(outputs, part), options)
        if targets.outer_returns is not None and outputs.steps.outer_value is not None:
            aux["outer_critic_loss"] = value_loss(outputs.steps.outer_value, targets.outer_returns)
            total = total + objective.critic_cost * aux["outer_critic_loss"]
        if targets.auxiliary is not None:
            losses = _auxiliary_losses(_of_heads(outputs), targets.auxiliary, given.eta, experience(part), head)
            aux["auxiliary_loss"] = jnp.stack(given.eta.auxiliary_cost) @ losses
            total = total + aux["auxiliary_loss"]
        return total, aux

    return GradientLearner(
        targets,
        loss,
        optimizer,
        lambda given: given.eta.learning_rate,
        lambda state, part: (jnp.zeros(()), None),  # the outer loss is evaluated on whole rollouts
        forward=lambda params, part: evaluate_network(apply, params, experience(part), memory),
    )


def _head_vtrace(
    outputs: Outputs,
    batch: Experience,
    ratios: Float[Array, "time batch"],
    options: VTraceOptions,
    head: str,
    discount: Any,
    lambda_: Any,
    alpha: Any,
) -> VTrace:
    """V-trace of one of the value heads, "value" or "outer_value"; (time, batch)."""
    trajectory, values = batch.trajectory, getattr(outputs.steps, head)
    discount, lambda_, alpha = (jnp.asarray(number, values.dtype) for number in (discount, lambda_, alpha))

    def one(rewards: Array, terminations: Array, truncations: Array, *numbers: Array) -> VTrace:
        discounts = trajectory_discounts(discount, terminations)
        lambdas = trajectory_lambda(lambda_, truncations)
        values, bootstraps, ratios = numbers
        return vtrace(
            rewards,
            discounts,
            values,
            bootstraps,
            ratios,
            lambdas,
            alpha=alpha,
            clip_rho=options.clip_rho,
            clip_c=options.clip_c,
        )

    found: VTrace = jax.vmap(one, in_axes=1, out_axes=1)(
        trajectory.rewards.astype(values.dtype),
        trajectory.terminations,
        trajectory.truncations,
        values,
        head_bootstraps(outputs, trajectory, head),
        ratios,
    )
    return found


def _of_heads(outputs: Outputs) -> Outputs:
    """Outputs of the auxiliary heads, as if each were a network; leading axis for heads."""

    def leading(some: NetworkOutput | None) -> Any:
        return None if some is None else jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 2, 0), some.auxiliary)

    return Outputs(*map(leading, outputs))


def _auxiliary_targets(
    outputs: Outputs, eta: VTraceEta, batch: Experience, options: VTraceOptions, head: AbstractPolicyHead
) -> VTrace:
    """Each auxiliary head's; leading axis for heads."""

    def one(outputs: Outputs, discount: Array, lambda_: Array) -> VTrace:
        ratios = jnp.exp(action_log_probs(outputs, batch.trajectory, head) - batch.trajectory.record)
        return _head_vtrace(outputs, batch, ratios, options, "value", discount, lambda_, eta.alpha)

    found: VTrace = jax.vmap(one)(outputs, jnp.stack(eta.auxiliary_discount), jnp.stack(eta.auxiliary_lambda))
    return found


def _auxiliary_losses(
    outputs: Outputs, targets: VTrace, eta: VTraceEta, batch: Experience, head: AbstractPolicyHead
) -> Float[Array, " heads"]:
    """Each auxiliary head's, before its weight."""

    def one(outputs: Outputs, targets: VTrace) -> Array:
        return _loss(outputs, targets, eta, batch, head)[0]

    losses: Array = jax.vmap(one)(outputs, targets)
    return losses


def _loss(
    outputs: Outputs, targets: VTrace, eta: VTraceEta, batch: Experience, head: AbstractPolicyHead
) -> tuple[Array, dict[str, Array]]:
    """The loss of the head of this file on one part, and its logged metrics."""
    policy, entropy = policy_terms(outputs, targets.advantages, batch.trajectory, head=head)
    value = value_loss(outputs.steps.value, targets.returns)
    total = eta.policy_cost * policy + eta.value_cost * value - eta.entropy_cost * entropy
    return total, {"policy_loss": policy, "value_loss": value, "entropy": entropy}


def _distances(log_ratios: Float[Array, "time batch"], options: VTraceOptions) -> dict[str, Array]:
    """Logged distances between the policy and the one that collected the rollout."""
    ratios = jnp.exp(log_ratios)
    return {
        "kl": (ratios - 1 - log_ratios).mean(),
        "clip_fraction": (ratios > options.clip_rho).mean(dtype=ratios.dtype),
    }
