"""The outer loss: the actor-critic loss at fixed hyper-parameters, and its optional terms.

    J = mean(-log pi(a) A') + value_cost mean((G' - v')^2) - entropy_cost mean(H) + kl_cost mean(KL(pi_0 || pi))

with returns G' at (discount', lambda') and advantages A' = G' - v' from the outer critic if there is one (Xu et al.
2018, arXiv 1805.09801; Bonnet et al. 2022, arXiv 2211.10550).

The divergence from the previous policy is that of the self-tuning actor-critic (Zahavy et al. 2020, arXiv 2002.12928):
it keeps the meta-gradient from favouring meta-parameters that change the policy much. "Previous" here means pi_0, the
policy before the *window*: it does not depend on the meta-parameters, so that the term has an honest derivative at
every horizon, and with one inner update it is STAC's. (The policy that collected a batch would not do: it is the
evaluated policy itself, and the divergence 0.)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradweave.agents.actor_critic.experience import (
    CATEGORICAL,
    Experience,
    Outputs,
    action_log_probs,
    action_masks,
    head_returns,
    policy_terms,
)
from gradweave.core import LearnerState
from gradweave.envs import ONE_DEVICE, DeviceAxis
from gradweave.rl import AbstractPolicyHead, value_loss

__all__ = ["OuterObjective", "log_likelihood", "mean_reward", "outer_actor_critic_loss"]


class OuterObjective(NamedTuple):
    """The fixed hyper-parameters of the outer loss.

    Attributes:
        discount: gamma', in (0, 1].
        lambda_: lambda', in [0, 1].
        value_cost: weight of the value loss; 0 leaves it out.
        entropy_cost: weight of the entropy bonus; 0 leaves it out.
        critic_cost: weight of the outer critic's value loss in the *inner* loss. Values at discount' are large, and on
            a torso shared with the policy their errors slow it down; a small weight spares the policy and leaves
            a worse critic (docs/decisions.md). Without effect when the network has no outer critic.
        kl_cost: weight of the divergence from the policy before the window; 0 leaves it out. Costs one more forward
            pass for each rollout, to note that policy.
        standardize_advantages: subtract a running mean from the outer advantages and divide by a running standard
            deviation, both of earlier windows. Makes the size of the meta-gradient, and of the entropy and divergence
            terms relative to it, independent of the scale of rewards.
    """

    discount: float = 0.997
    lambda_: float = 0.95
    value_cost: float = 0.0
    entropy_cost: float = 0.0
    critic_cost: float = 0.5
    kl_cost: float = 0.0
    standardize_advantages: bool = False


def outer_actor_critic_loss(
    outputs: Outputs,
    batch: Experience,
    outer: OuterObjective,
    axis: DeviceAxis = ONE_DEVICE,
    head: AbstractPolicyHead = CATEGORICAL,
) -> tuple[Array, dict[str, Array]]:
    """(J, scalars for logging); means are over the environments of all devices of the axis."""
    trajectory = batch.trajectory
    critic = "value" if outputs.steps.outer_value is None else "outer_value"
    values = getattr(outputs.steps, critic)
    # Removes d(returns)/d(parameters) and, in the advantage, d(values)/d(parameters): the outer gradient is the policy
    # gradient and the semi-gradient of the value error at the evaluated parameters, as in Xu et al. 2018. No inner
    # update lies behind this point, so that, unlike in an inner loss, nothing else is removed with it.
    returns = jax.lax.stop_gradient(head_returns(outputs, trajectory, critic, outer.discount, outer.lambda_))
    advantages = returns - jax.lax.stop_gradient(values)
    used = _standardized(advantages, batch) if outer.standardize_advantages else advantages
    policy, entropy = policy_terms(outputs, used, trajectory, axis, head)
    total = policy
    if outer.value_cost != 0:
        total = total + outer.value_cost * axis.mean(value_loss(values, returns))
    if outer.entropy_cost != 0:
        total = total - outer.entropy_cost * entropy
    aux = {"outer_policy_loss": policy, "outer_advantage": axis.mean(advantages.mean())}
    if outer.standardize_advantages:
        aux["outer_squared_advantage"] = axis.mean((advantages**2).mean())
    if outer.kl_cost != 0:
        divergence = axis.mean(_divergence(outputs, batch, head))
        total = total + outer.kl_cost * divergence
        aux["outer_kl"] = divergence
    return total, aux


def log_likelihood(
    state: LearnerState, batch: Experience, axis: DeviceAxis = ONE_DEVICE, head: AbstractPolicyHead = CATEGORICAL
) -> Float[Array, ""]:
    """log p(trajectory | policy), the environment's part left out: the sum over all actions of all environments."""
    return axis.sum(action_log_probs(state.params, batch.trajectory, head).sum())


def mean_reward(batch: Experience, axis: DeviceAxis = ONE_DEVICE) -> Float[Array, ""]:
    """Reward per step: the quantity of an outer loss that is a mean over steps, in its own units."""
    return axis.mean(batch.trajectory.rewards.mean())


def _standardized(advantages: Array, batch: Experience) -> Array:
    moments = batch.advantage_moments
    if moments is None:
        raise ValueError(
            "OuterObjective(standardize_advantages=True) reads Experience.advantage_moments, but the batch has none; "
            "let the agent know of the objective (actor_critic_agent), or fill them in."
        )
    mean, std = (moment.astype(advantages.dtype) for moment in moments)
    return (advantages - mean) / std


def _divergence(outputs: Outputs, batch: Experience, head: AbstractPolicyHead) -> Array:
    if batch.anchor_logits is None:
        raise ValueError(
            "OuterObjective(kl_cost=...) reads Experience.anchor_logits, but the batch has none; let the "
            "agent know of the objective (actor_critic_agent), or fill them in."
        )
    return jnp.mean(head.kl(batch.anchor_logits, outputs.steps.logits, action_masks(batch.trajectory)))
