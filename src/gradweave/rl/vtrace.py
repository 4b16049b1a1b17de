"""V-trace: returns and advantages of one trajectory that another policy collected, differentiable in everything.

Espeholt et al. 2018 (IMPALA, arXiv 1802.01561), equation 1, with a lambda and with the leaky weights of Zahavy et al.
2020 (STACX, arXiv 2002.12928): a share 1 - alpha of every importance weight escapes the clipping, and alpha can be
learned. As in `gradweave.rl.returns`, arrays are (time,), entry t belongs to step t, batches go through `jax.vmap`, and
there is no `stop_gradient`.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from gradweave.rl.returns import ScalarOrPerStep, linear_recurrence

__all__ = ["VTrace", "leaky_weights", "vtrace"]

Scalar = float | Float[Array, ""]


class VTrace(NamedTuple):
    """Returns and advantages of one trajectory by V-trace.

    Attributes:
        returns: targets of the value before each step.
        advantages: of each action, its own importance weight included.
    """

    returns: Float[Array, " time"]
    advantages: Float[Array, " time"]


def leaky_weights(ratios: Float[Array, " time"], clip: Scalar, alpha: Scalar) -> Float[Array, " time"]:
    """Importance weights of which a share alpha is clipped: alpha min(clip, ratio) + (1 - alpha) ratio.

    alpha = 1 is V-trace's weight, whose variance is bounded; alpha = 0 the plain ratio, whose target is unbiased.

    Args:
        ratios: probability of each action under the policy that learns, over that under the policy that took it.
        clip: where weights are clipped, above 0.
        alpha: in [0, 1].
    """
    return alpha * jnp.minimum(ratios, clip) + (1 - alpha) * ratios


def vtrace(
    rewards: Num[Array, " time"],
    discounts: Float[Array, " time"],
    values: Num[Array, " time"],
    next_values: Num[Array, " time"],
    ratios: Float[Array, " time"],
    lambda_: ScalarOrPerStep,
    *,
    alpha: Scalar = 1.0,
    clip_rho: Scalar = 1.0,
    clip_c: Scalar = 1.0,
) -> VTrace:
    """V-trace returns and advantages.

    G_t = v_t + e_t,   e_t = ρ_t (r_t + γ_t v'_t - v_t) + γ_t λ_t c_t e_{t+1},   e_T = 0
    A_t = ρ_t (r_t + γ_t (v'_t + λ_t e_{t+1}) - v_t)

    with ρ_t and c_t the `leaky_weights` of the ratio at `clip_rho` and `clip_c`. Where all ratios are 1, and no clip
    lies below 1, G_t is that of `lambda_returns` and A_t = G_t - v_t.

    `clip_rho` decides whose values are learned (infinite: the learning policy's; near 0: those of the policy that
    collected), `clip_c` how fast errors travel back.

    Args:
        rewards: r_t.
        discounts: γ_t in [0, 1]; 0 where the episode ended (`trajectory_discounts`).
        values: v_t, the value before step t.
        next_values: v'_t, the value of the observation after step t (`gradweave.rl.next_values`).
        ratios: probability of action t under the policy that learns, over that under the policy that took it.
        lambda_: λ in [0, 1], one number or one for each step; 0 where the episode was cut off (`trajectory_lambda`).
        alpha: α in [0, 1], the share of each weight that is clipped.
        clip_rho: ρ̄ > 0.
        clip_c: c̄ > 0.

    Returns:
        G_t and A_t, differentiable in all arguments; where a ratio equals a clip, in the mean of both directions.
    """
    rhos, traces = (leaky_weights(ratios, clip, alpha) for clip in (clip_rho, clip_c))
    errors = rhos * (rewards + discounts * next_values - values)
    corrections = linear_recurrence(errors, discounts * lambda_ * traces, jnp.zeros_like(errors[-1]))
    later = jnp.concatenate([corrections[1:], jnp.zeros_like(corrections[:1])])
    advantages = rhos * (rewards + discounts * (next_values + lambda_ * later) - values)
    return VTrace(values + corrections, advantages)
