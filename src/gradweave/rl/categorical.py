"""The categorical policy over the actions that a mask allows.

Everything acts on the last axis, and any axes before it are batch axes. For every mask and for finite logits of any
usual size, values, gradients and second derivatives are finite; the familiar way, logits of -∞ at masked actions, gives
0·∞ = NaN in the derivative of the entropy. Three conventions:

- A masked action has probability exactly 0, is never sampled, and has the log-probability `MASKED_LOG_PROB`, a finite
  constant. Derivatives with respect to its logit are 0.
- A mask that allows nothing leaves nothing to choose: every action is as likely, whatever the logits, and derivatives
  are 0. A trapped snake is in such a state one step before its end: were everything allowed there, the policy would be
  taught what to do where all is lost, by advantages that are large and say nothing about the action. The same holds for
  observations after the last step of some environments.
- Where probabilities underflow, their terms p log p are 0, their limit.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from gradweave.envs import ONE_DEVICE, DeviceAxis

__all__ = ["MASKED_LOG_PROB", "entropy", "kl", "log_prob", "log_probs", "mode", "probs", "sample"]

MASKED_LOG_PROB = -1e9
"""Log-probability reported for a masked action. Its exponential is exactly 0, and its products with advantages stay
finite, in float32, bfloat16 and float64. float16, which does not reach it, has its least number instead."""


def log_probs(
    logits: Float[Array, "*batch num_actions"], mask: Bool[Array, "*batch num_actions"]
) -> Float[Array, "*batch num_actions"]:
    """Log-probabilities of all actions: logits_a - log Σ_{b allowed} exp(logits_b), `MASKED_LOG_PROB` where masked.

    Args:
        logits: unnormalised log-probabilities; finite, those of masked actions included (they are ignored).
        mask: True = allowed; all False: all are as likely, and derivatives are 0.

    Returns:
        log p, of the dtype of `logits`.
    """
    allowed, logits = _choice(logits, mask)
    # Shifting all logits changes no probability. The derivative through the maximum that is removed here is that of
    # the shift, exactly 0: it would cost operations in each order of differentiation and add nothing.
    peak = jnp.max(jnp.where(allowed, jax.lax.stop_gradient(logits), -jnp.inf), axis=-1, keepdims=True)
    shifted = jnp.where(allowed, logits - peak, 0.0)
    weights = jnp.where(allowed, jnp.exp(shifted), 0.0)  # the largest is 1, so that the logarithm is of at least 1
    normalizer = jnp.log(jnp.sum(weights, axis=-1, keepdims=True))
    log_p = shifted - normalizer
    # Not -inf, which it would be in float16: p log p would be NaN.
    return jnp.where(allowed, log_p, max(MASKED_LOG_PROB, float(jnp.finfo(log_p.dtype).min)))


def probs(
    logits: Float[Array, "*batch num_actions"], mask: Bool[Array, "*batch num_actions"]
) -> Float[Array, "*batch num_actions"]:
    """Probabilities of all actions, p = exp(log p); exactly 0 where masked. Arguments as in `log_probs`."""
    return jnp.exp(log_probs(logits, mask))


def log_prob(
    logits: Float[Array, "*batch num_actions"],
    mask: Bool[Array, "*batch num_actions"],
    action: Int[Array, "*batch"],
) -> Float[Array, "*batch"]:
    """Log-probability log p_a of one action; `MASKED_LOG_PROB`, with derivative 0, if it is masked.

    Args:
        logits: as in `log_probs`.
        mask: as in `log_probs`.
        action: the action a, from 0 to num_actions - 1.
    """
    # A sum over a comparison instead of an index: its derivative is a product, where that of an index is a scatter.
    chosen = jnp.arange(logits.shape[-1], dtype=action.dtype) == action[..., None]
    return jnp.sum(jnp.where(chosen, log_probs(logits, mask), 0.0), axis=-1)


def entropy(
    logits: Float[Array, "*batch num_actions"], mask: Bool[Array, "*batch num_actions"]
) -> Float[Array, "*batch"]:
    """Entropy -Σ_a p_a log p_a in nats: from 0 to the logarithm of the number of allowed actions.

    Arguments as in `log_probs`.
    """
    log_p = log_probs(logits, mask)
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def kl(
    logits: Float[Array, "*batch num_actions"],
    other_logits: Float[Array, "*batch num_actions"],
    mask: Bool[Array, "*batch num_actions"],
) -> Float[Array, "*batch"]:
    """Divergence KL(p ‖ q) = Σ_a p_a (log p_a - log q_a) in nats, of p = `logits` from q = `other_logits`.

    Both policies are over the actions that the one `mask` allows; further as in `log_probs`.
    """
    log_p, log_q = log_probs(logits, mask), log_probs(other_logits, mask)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def sample(
    logits: Float[Array, "*batch num_actions"],
    mask: Bool[Array, "*batch num_actions"],
    *,
    key: Key[Array, ""],
    axis: DeviceAxis = ONE_DEVICE,
) -> Int[Array, "*batch"]:
    """One action drawn from p; never a masked one. One key serves a whole batch, whose draws are independent.

    With an `axis` of devices the batch is this device's part of a greater one, and the key serves all of that.
    """
    log_p = log_probs(logits, mask)
    if axis.name is None:
        return jax.random.categorical(key, log_p, axis=-1)
    # As `jax.random.categorical`, with noise for the whole batch.
    noise = jax.random.gumbel(key, (log_p.shape[0] * axis.size, *log_p.shape[1:]), log_p.dtype)
    return jnp.argmax(log_p + axis.own(noise), axis=-1)


def mode(logits: Float[Array, "*batch num_actions"], mask: Bool[Array, "*batch num_actions"]) -> Int[Array, "*batch"]:
    """The most probable action; the first one of several, and of all where the mask allows nothing."""
    allowed, logits = _choice(logits, mask)
    return jnp.argmax(jnp.where(allowed, logits, -jnp.inf), axis=-1)


def _choice(logits: Array, mask: Array) -> tuple[Array, Array]:
    """The mask and the logits; where it allows nothing, a mask that allows everything and logits of 0."""
    none = ~jnp.any(mask, axis=-1, keepdims=True)
    return mask | none, jnp.where(none, 0.0, logits)
