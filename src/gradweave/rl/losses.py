"""The three terms of an actor-critic loss, each a mean over steps: policy gradient, value error, entropy.

L = policy_gradient_loss + c_v · value_loss - c_e · entropy_bonus        (Mnih et al. 2016, A3C, arXiv 1602.01783)

Advantages and targets are differentiated like any other argument. A learner that must not differentiate them, and none
should, evaluates them outside the function whose gradient it takes; with a `stop_gradient` in here, the meta-gradient
through more than one update would be wrong.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gradweave.rl.categorical import entropy
from gradweave.rl.policies import AbstractPolicyHead

__all__ = ["entropy_bonus", "policy_gradient_loss", "value_loss"]


def policy_gradient_loss(log_probs: Float[Array, "*steps"], advantages: Float[Array, "*steps"]) -> Float[Array, ""]:
    """Score-function loss -mean_t(log π(a_t | s_t) A_t): its gradient at fixed A is minus the policy gradient.

    Args:
        log_probs: log-probability of the action taken at each step, under the parameters to be differentiated.
        advantages: A_t of the same steps.
    """
    return -jnp.mean(log_probs * advantages)


def value_loss(values: Float[Array, "*steps"], targets: Float[Array, "*steps"]) -> Float[Array, ""]:
    """Mean squared error mean_t((G_t - v_t)²), without a factor of one half, as in Jumanji's A2C.

    Args:
        values: v_t, the value before step t.
        targets: G_t, for example λ-returns.
    """
    return jnp.mean((targets - values) ** 2)


def entropy_bonus(
    outputs: Float[Array, "*steps num_outputs"],
    mask: Bool[Array, "*steps num_actions"],
    head: AbstractPolicyHead | None = None,
) -> Float[Array, ""]:
    """Mean entropy of the policy in nats, to be *subtracted* from a loss.

    Args:
        outputs: of the network for its policy at each step; logits, for a categorical one.
        mask: True = allowed action.
        head: of the policy; None for a categorical one.
    """
    return jnp.mean(entropy(outputs, mask) if head is None else head.entropy(outputs, mask))
