"""Cutting a move of the meta-parameters after which the next update would throw the policy too far."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gradweave.agents.agent import Agent
from gradweave.agents.state import part_of_the_way
from gradweave.core.learner import sliced_out

__all__ = ["cut_to_trust_region"]

_SMALLEST = 2.0**-5


def cut_to_trust_region(
    agent: Agent,
    learner: Any,
    batch: PyTree,
    eta: Callable[[PyTree], PyTree],
    before: PyTree,
    after: PyTree,
    limit: float,
) -> tuple[PyTree, Float[Array, ""]]:
    """As much of a move of the meta-parameters as the policy's next update allows.

    The share is halved until the next update, tried on the newest batch, moves the policy by at most `limit`; a move of
    which not even 1/32 is allowed is left out. An update too large without any move is not mended here.

    Args:
        agent: with a divergence.
        learner: the state that the next update begins from.
        batch: that it will be made on.
        eta: maps learned raw meta-parameters to the natural ones.
        before: learned raw meta-parameters.
        after: the meta-optimiser's proposal for them.
        limit: mean KL(before ‖ after the update) over the batch, in nats, above 0.

    Returns:
        The meta-parameters to go on with, and the share of the move, one of 1, 1/2, ..., 1/32, 0.
    """
    divergence = agent.divergence
    assert divergence is not None  # SelfTuning has checked it

    def too_far(share: Array) -> Array:
        updated, _ = agent.problem.update(learner, eta(part_of_the_way(share, before, after)), sliced_out(batch))
        moved = divergence(learner, updated, batch)
        return (share >= _SMALLEST) & ~(moved <= limit)  # a non-finite KL is too far

    share = jax.lax.while_loop(too_far, lambda share: share / 2, jnp.ones(()))
    share = jnp.where(share < _SMALLEST, 0.0, share)
    return part_of_the_way(share, before, after), share
