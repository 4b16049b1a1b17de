"""Running scale of rewards, so that returns are of order one whatever the environment's units.

Rewards are divided by the root mean square of the discounted return so far, G_t = gamma G_{t-1} + r_t, over all steps
of all environments since training began (as in public implementations of PPO, which take the standard deviation; a mean
square is not zero where all returns are alike, as they are in the first steps). The scale is data: nothing is
differentiated through it. Sums are kept for each environment, so that they can be split over devices as they are; from
eight million steps of each on, older ones count for less.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from gradweave.envs import ONE_DEVICE, DeviceAxis

__all__ = ["RewardScale", "scaled_rewards"]

_MOST_STEPS = 2.0**23  # of one environment


class RewardScale(NamedTuple):
    """Statistics of the size of returns."""

    discount: Float[Array, " batch"]
    """Of the returns that are to be of order one; the same for all."""
    returns: Float[Array, " batch"]
    """The discounted sum of each running episode's rewards up to now."""
    sum_squares: Float[Array, " batch"]
    """Of these sums, after every step since training began."""
    num_steps: Float[Array, " batch"]

    @staticmethod
    def new(discount: float | Array, num_envs: int) -> "RewardScale":
        """Before the first step; discount in [0, 1)."""
        nothing = jnp.zeros(num_envs, jnp.result_type(float))
        return RewardScale(jnp.full_like(nothing, discount), nothing, nothing, nothing)


def scaled_rewards(
    scale: RewardScale, rewards: Shaped[Array, " batch"], ended: Bool[Array, " batch"], axis: DeviceAxis = ONE_DEVICE
) -> tuple[Float[Array, " batch"], RewardScale]:
    """The rewards of one step divided by the scale, and the scale with this step in it.

    Args:
        scale: before the step.
        rewards: of every environment, in its own units; whole numbers and booleans become floats.
        ended: whether the episode ended or was cut off with this step.
        axis: the devices over which the environments are split.
    """
    if not jnp.issubdtype(rewards.dtype, jnp.inexact):
        rewards = rewards.astype(scale.returns.dtype)
    returns = scale.discount * scale.returns + rewards.astype(scale.returns.dtype)
    after = RewardScale(
        scale.discount, jnp.where(ended, 0.0, returns), scale.sum_squares + returns**2, scale.num_steps + 1
    )
    # Counts in single precision stand still at 2^24, and sums grow on: earlier, both are halved, the mean staying.
    share = jnp.where(after.num_steps < _MOST_STEPS, 1.0, 0.5).astype(returns.dtype)
    after = after._replace(sum_squares=share * after.sum_squares, num_steps=share * after.num_steps)
    mean_square = axis.sum(after.sum_squares.sum()) / axis.sum(after.num_steps.sum())
    known = mean_square > 0  # not before the first reward
    return rewards / jnp.sqrt(jnp.where(known, mean_square, 1.0)).astype(rewards.dtype), after
