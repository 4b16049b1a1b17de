"""Distances between policies and values of actor-critics, for bootstrapped meta-gradients.

Flennerhag et al. 2021 (arXiv 2109.04504) match a policy to its target by the divergence of the one from the other. It
measures the effect of a change of parameters, independently of their scale, unlike a Euclidean distance.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gradweave.agents.actor_critic.experience import CATEGORICAL, Apply, Experience, action_masks, evaluate_network
from gradweave.core import LearnerState
from gradweave.envs import ONE_DEVICE, DeviceAxis
from gradweave.rl import AbstractPolicyHead

__all__ = ["policy_distance", "policy_divergence"]


def policy_distance(
    apply: Apply,
    *,
    value_cost: float = 0.5,
    head: AbstractPolicyHead = CATEGORICAL,
    memory: PyTree = None,
    axis: DeviceAxis = ONE_DEVICE,
) -> Callable[[LearnerState, LearnerState, Experience], Float[Array, ""]]:
    """A `distance` for `gradweave.Bootstrapped`: mean of KL(target ‖ policy) + value_cost (v - v_target)^2.

    The divergence is from the target's side, as in the paper: the policy is asked to give probability to the
    target's actions. Its gradient by the policy's logits is the difference of probabilities, bounded for any target.

    Args:
        apply: the network, as for `actor_critic`.
        value_cost: weight of the value matching, at least 0; 0 leaves it out. The outer critic takes no part: it
            belongs to the outer loss.
        head: of the policy, as for `actor_critic`, like the next.
        memory: of a recurrent network.
        axis: the devices over which the environments are split, as for `actor_critic`.

    Returns:
        `(state, target state, experience) -> scalar`, differentiable by the state. Two evaluations of the network.

    Raises:
        ValueError: a negative `value_cost`.

    Reference: Flennerhag et al. 2021 (arXiv 2109.04504), whose actor-critics match policies so.
    """
    if value_cost < 0:
        raise ValueError(f"policy_distance(value_cost={value_cost}): must be at least 0; 0 leaves the values out.")

    def distance(state: LearnerState, target: LearnerState, batch: Experience) -> Float[Array, ""]:
        said, wanted = (
            evaluate_network(apply, axis.varying(each.params), batch, memory).steps for each in (state, target)
        )
        total = axis.mean(jnp.mean(head.kl(wanted.logits, said.logits, action_masks(batch.trajectory))))
        if value_cost != 0:
            total = total + value_cost * axis.mean(jnp.mean((said.value - wanted.value) ** 2))
        return total

    return distance


def policy_divergence(
    apply: Apply,
    *,
    head: AbstractPolicyHead = CATEGORICAL,
    memory: PyTree = None,
    axis: DeviceAxis = ONE_DEVICE,
) -> Callable[[LearnerState, LearnerState, Experience], Float[Array, ""]]:
    """`Agent.divergence` of a network: how far updates moved the policy, in nats.

    Args:
        apply: the network, as for `actor_critic`, like the others.
        head: of the policy.
        memory: of a recurrent network.
        axis: the devices over which the environments are split.

    Returns:
        `(state before, state after, experience) -> ` mean KL(before ‖ after).
    """
    distance = policy_distance(apply, value_cost=0.0, head=head, memory=memory, axis=axis)
    return lambda before, after, batch: distance(after, before, batch)
