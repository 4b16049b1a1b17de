"""Advantage actor-critic as a `GradientLearner`, every hyper-parameter of which can be learned by meta-gradients.

With v the critic, G the lambda-return at (discount, lambda) and A = G - v, the inner loss of one batch is

    mean(-log pi(a) A) + value_cost mean((G - v)^2) - entropy_cost mean(H)     [ + critic_cost mean((G' - v')^2) ]

(Mnih et al. 2016, arXiv 1602.01783). G and A are *targets*: computed outside the function that the learner
differentiates, so that the learner's gradient is the usual semi-gradient while the meta-gradient still sees how the
targets move with the parameters and the meta-parameters. No `stop_gradient` appears in it.

The outer loss is the same expression at fixed (discount', lambda') and costs of its own (Xu et al. 2018, arXiv
1805.09801). Its advantages come from the outer critic v' when there is one: the inner critic estimates values at the
learned discount, which biases the outer advantage upwards and the meta-gradient towards short-sightedness (Bonnet et
al. 2022, arXiv 2211.10550).
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from gradweave.core import GradientLearner, LearnerState
from gradweave.envs import Observation
from gradweave.rl import (
    ActorCriticNetwork,
    NetworkOutput,
    Trajectory,
    entropy_bonus,
    lambda_returns,
    log_prob,
    next_values,
    policy_gradient_loss,
    trajectory_discounts,
    trajectory_lambda,
    value_loss,
)

__all__ = ["ActorCriticEta", "Experience", "OuterObjective", "actor_critic"]

Apply = Callable[[PyTree, Observation, Array | None], NetworkOutput]
"""`(params, one observation, conditioning or None) -> NetworkOutput`."""


class ActorCriticEta(NamedTuple):
    """The meta-parameters of an actor-critic, in their natural range.

    Attributes:
        discount: gamma, in (0, 1).
        lambda_: mixing of the lambda-return, in (0, 1).
        entropy_cost: weight of the entropy bonus, above 0.
        value_cost: weight of the value loss, above 0.
        learning_rate: step size of the inner optimiser, above 0.
    """

    discount: Any
    lambda_: Any
    entropy_cost: Any
    value_cost: Any
    learning_rate: Any


class Experience(NamedTuple):
    """One inner batch: what a rollout of all environments collected, (time, batch, ...), and what the network was
    conditioned on.

    `conditioning` is the vector that the network was fed beside the observation, or None. It is data: the meta-gradient
    does not flow through it.
    """

    trajectory: Trajectory
    conditioning: Float[Array, " size"] | None = None


class OuterObjective(NamedTuple):
    """The fixed hyper-parameters by which meta-parameters are judged.

    Attributes:
        discount: gamma', in (0, 1].
        lambda_: lambda', in [0, 1].
        value_cost: weight of the value loss; 0 leaves it out.
        entropy_cost: weight of the entropy bonus; 0 leaves it out.
        critic_cost: weight of the outer critic's value loss in the *inner* loss; without effect when the network has
            none.
    """

    discount: float = 0.997
    lambda_: float = 0.95
    value_cost: float = 0.5
    entropy_cost: float = 0.0
    critic_cost: float = 0.5


class _Outputs(NamedTuple):
    """The network on everything a batch holds."""

    steps: NetworkOutput  # (time, batch)
    last: NetworkOutput  # (1, batch): the observation after the last step; only its values are used
    final: NetworkOutput | None  # (time, batch): what each step led to, when the environment truncates


class _Targets(NamedTuple):
    """What a loss does not differentiate: advantages, returns, and the outer critic's returns; (time, batch) each."""

    advantages: Array
    returns: Array
    outer_returns: Array | None


def actor_critic(
    apply: Apply, optimizer: optax.GradientTransformation, outer: OuterObjective | None = None
) -> GradientLearner:
    """Advantage actor-critic as a meta-problem over `ActorCriticEta` and batches of `Experience`.

    Args:
        apply: `(params, observation, conditioning) -> NetworkOutput` for one observation; its `outer_value` is the
            outer critic, or None for none. `bundled_apply` for the networks of `gradweave.rl`.
        optimizer: gives directions without a learning rate; see `inner_optimizer`.
        outer: what meta-parameters are judged by; the default is Jumanji's (0.997, 0.95).

    Returns:
        A `GradientLearner`; its state is `learner.init(params)`, its aux a dict of scalars for logging.
    """
    outer = OuterObjective() if outer is None else outer

    def forward(params: PyTree, batch: Experience) -> _Outputs:
        return _evaluate(apply, params, batch)

    def targets(outputs: _Outputs, eta: ActorCriticEta, batch: Experience) -> _Targets:
        return _inner_targets(outputs, eta, batch.trajectory, outer)

    def loss(
        outputs: _Outputs, targets: _Targets, eta: ActorCriticEta, batch: Experience
    ) -> tuple[Array, dict[str, Array]]:
        return _inner_loss(outputs, targets, eta, batch.trajectory, outer)

    def outer_loss(state: LearnerState, batch: Experience) -> tuple[Array, dict[str, Array]]:
        return _outer_loss(state.params, batch.trajectory, outer)

    return GradientLearner(targets, loss, optimizer, lambda eta: eta.learning_rate, outer_loss, forward=forward)


def bundled_apply(params: PyTree, observation: Observation, conditioning: Array | None) -> NetworkOutput:
    """`apply` for networks that are their own parameters, as those of `gradweave.rl` are."""
    return cast(ActorCriticNetwork, params)(observation, conditioning)


def _evaluate(apply: Apply, params: PyTree, batch: Experience) -> _Outputs:
    def evaluate_one(observation: Observation) -> NetworkOutput:
        return apply(params, observation, batch.conditioning)

    evaluate = jax.vmap(jax.vmap(evaluate_one))

    trajectory = batch.trajectory
    # The last observation is evaluated apart, because neither its policy nor its gradient is needed by the learner.
    steps = evaluate(jax.tree.map(lambda leaf: leaf[:-1], trajectory.observations))
    last = evaluate(jax.tree.map(lambda leaf: leaf[-1:], trajectory.observations))
    final = None if trajectory.final_observations is None else evaluate(trajectory.final_observations)
    return _Outputs(steps, last, final)


def _returns(
    outputs: _Outputs, trajectory: Trajectory, head: str, discount: Any, lambda_: Any
) -> Float[Array, "time batch"]:
    """Lambda-returns bootstrapped from one of the value heads, "value" or "outer_value"."""
    values = jnp.concatenate([getattr(outputs.steps, head), getattr(outputs.last, head)])
    final_values = None if outputs.final is None else getattr(outputs.final, head)
    bootstraps = next_values(trajectory, values, final_values)
    dtype = values.dtype

    def one(rewards: Array, terminations: Array, truncations: Array, bootstraps: Array) -> Array:
        discounts = trajectory_discounts(jnp.asarray(discount, dtype), terminations)
        return lambda_returns(
            rewards, discounts, bootstraps, trajectory_lambda(jnp.asarray(lambda_, dtype), truncations)
        )

    rewards = trajectory.rewards.astype(dtype)
    return jax.vmap(one, in_axes=1, out_axes=1)(rewards, trajectory.terminations, trajectory.truncations, bootstraps)


def _inner_targets(outputs: _Outputs, eta: ActorCriticEta, trajectory: Trajectory, outer: OuterObjective) -> _Targets:
    returns = _returns(outputs, trajectory, "value", eta.discount, eta.lambda_)
    outer_returns = None
    if outputs.steps.outer_value is not None:
        outer_returns = _returns(outputs, trajectory, "outer_value", outer.discount, outer.lambda_)
    return _Targets(returns - outputs.steps.value, returns, outer_returns)


def _inner_loss(
    outputs: _Outputs, targets: _Targets, eta: ActorCriticEta, trajectory: Trajectory, outer: OuterObjective
) -> tuple[Array, dict[str, Array]]:
    policy, entropy = _policy_terms(outputs, targets.advantages, trajectory)
    value = value_loss(outputs.steps.value, targets.returns)
    total = policy + eta.value_cost * value - eta.entropy_cost * entropy
    aux = {"policy_loss": policy, "value_loss": value, "entropy": entropy}
    if outputs.steps.outer_value is not None and targets.outer_returns is not None:
        critic = value_loss(outputs.steps.outer_value, targets.outer_returns)
        total = total + outer.critic_cost * critic
        aux["outer_critic_loss"] = critic
    return total, aux


def _outer_loss(outputs: _Outputs, trajectory: Trajectory, outer: OuterObjective) -> tuple[Array, dict[str, Array]]:
    head = "value" if outputs.steps.outer_value is None else "outer_value"
    values = getattr(outputs.steps, head)
    # Removes d(returns)/d(parameters) and, in the advantage, d(values)/d(parameters): the outer gradient is the policy
    # gradient and the semi-gradient of the value error at the judged parameters, as in Xu et al. 2018. No inner update
    # lies behind this point, so that, unlike in an inner loss, nothing else is removed with it.
    returns = jax.lax.stop_gradient(_returns(outputs, trajectory, head, outer.discount, outer.lambda_))
    advantages = returns - jax.lax.stop_gradient(values)
    policy, entropy = _policy_terms(outputs, advantages, trajectory)
    total = policy
    if outer.value_cost != 0:
        total = total + outer.value_cost * value_loss(values, returns)
    if outer.entropy_cost != 0:
        total = total - outer.entropy_cost * entropy
    return total, {"outer_policy_loss": policy, "outer_advantage": advantages.mean()}


def _policy_terms(outputs: _Outputs, advantages: Array, trajectory: Trajectory) -> tuple[Array, Array]:
    """(policy-gradient loss, mean entropy)."""
    mask = jax.tree.map(lambda leaf: leaf[:-1], trajectory.observations.action_mask)
    log_probs = log_prob(outputs.steps.logits, mask, trajectory.actions)
    return policy_gradient_loss(log_probs, advantages), entropy_bonus(outputs.steps.logits, mask)
