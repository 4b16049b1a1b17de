"""Inner optimisers that stay finite when they are differentiated twice.

They return directions without a learning rate, because the learning rate may be a meta-parameter (`GradientLearner`
multiplies). The traps: the root in Adam's and RMSProp's denominators has no finite derivative at zero, and clipping by
the global norm divides 0 by 0 at a zero gradient.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

__all__ = ["inner_optimizer", "safe_clip_by_global_norm"]


def inner_optimizer(
    name: Literal["adam", "rmsprop", "sgd"],
    *,
    eps: float = 1e-8,
    eps_root: float = 1e-16,
    rmsprop_decay: float = 0.9,
    max_grad_norm: float | None = None,
) -> optax.GradientTransformation:
    """A direction-giving optimiser for `GradientLearner`.

    Args:
        name: "adam" (Kingma & Ba 2015), "rmsprop" (eps inside the root) or "sgd" (the gradient itself).
        eps: Adam: added outside the root. RMSProp: added inside the root, the only place where it bounds the
            derivative.
        eps_root: Adam: added inside the root. Keep it tiny: its root is a floor under every gradient's magnitude, and
            1e-8, the usual advice, stops an actor-critic on Snake from learning; 1e-16 is enough in float32.
        rmsprop_decay: decay of RMSProp's second moment, in [0, 1).
        max_grad_norm: clips the gradient's global norm beforehand; None does not.

    Raises:
        ValueError: unknown name, or an `eps` that leaves the derivative of the root infinite.
    """
    if name == "adam":
        if not eps_root > 0:
            raise ValueError(
                f"eps_root={eps_root} leaves Adam's meta-gradient infinite at zero gradients; use 1e-16, say."
            )
        optimizer = optax.scale_by_adam(eps=eps, eps_root=eps_root)
    elif name == "rmsprop":
        if not eps > 0:
            raise ValueError(f"eps={eps} leaves RMSProp's meta-gradient infinite at zero gradients; use 1e-8, say.")
        optimizer = optax.scale_by_rms(decay=rmsprop_decay, eps=eps, eps_in_sqrt=True)
    elif name == "sgd":
        optimizer = optax.identity()
    else:
        raise ValueError(f'the inner optimiser {name!r} is unknown; accepted are "adam", "rmsprop" and "sgd".')
    if max_grad_norm is None:
        return optimizer
    return optax.chain(safe_clip_by_global_norm(max_grad_norm), optimizer)


def safe_clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Scale gradients of a global norm above `max_norm` down to it, with finite derivatives at zero.

    Raises:
        ValueError: `max_norm` is not positive.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm={max_norm} must be above 0; leave clipping out with None.")

    def update(updates: PyTree, state: optax.EmptyState, params: PyTree = None) -> tuple[PyTree, optax.EmptyState]:
        squared = sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(updates))
        clipped = squared > max_norm**2
        # The root is only taken where it is used, and there its argument is at least max_norm ** 2.
        norm = jnp.sqrt(jnp.where(clipped, squared, max_norm**2))
        scale = jnp.where(clipped, max_norm / norm, 1.0)
        return jax.tree.map(lambda leaf: leaf * scale.astype(leaf.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
