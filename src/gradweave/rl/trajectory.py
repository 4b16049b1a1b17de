"""Trajectories that rollouts collect, and the values from which their returns bootstrap.

Time runs over the steps t = 0..T-1 of one stretch of experience, which may contain several episodes. Step t starts
from `observations[t]`, takes `actions[t]`, is paid `rewards[t]`, and leads to `observations[t + 1]`, except where an
episode stopped: there `observations[t + 1]` already belongs to the next episode. An episode that was cut off
(`truncations[t]`) still has a future, whose value must be that of the observation after the step, which is kept
in `final_observations[t]`. An episode that ended (`terminations[t]`) has none: its discount is 0, and what is
bootstrapped there does not matter.

The distinction is Pardo et al. 2018, "Time limits in reinforcement learning" (arXiv 1712.00378).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gradweave.envs import Observation

__all__ = ["Trajectory", "next_values"]


class Trajectory(NamedTuple):
    """Time-major experience: axes (time, ...) for one environment, (time, batch, ...) as a rollout returns it."""

    observations: Observation
    """time + 1 entries: `observations[t]` is seen before action t; the last one after the last step and its reset."""
    actions: Array
    """Integers, or vectors of floats; axes (time, ...)."""
    rewards: Float[Array, "time ..."]
    """`rewards[t]` is paid for action t."""
    terminations: Bool[Array, "time ..."]
    """True where step t really ended the episode. Never True together with `truncations`."""
    truncations: Bool[Array, "time ..."]
    """True where the episode was cut off after step t."""
    final_observations: Observation | None
    """time entries: the observation after step t, before any reset. None when the environment never truncates."""
    record: Any = None
    """time entries: the policy's record of its behaviour (`Acted.record`), or None."""
    memory: Any = None
    """The policy's memory before the first step; no time axis. None for policies without memory."""


def next_values(
    trajectory: Trajectory,
    values: Float[Array, "num_observations *batch"],
    final_values: Float[Array, "time *batch"] | None,
) -> Float[Array, "time *batch"]:
    """Value after each step, to bootstrap from: v'_t = v(final_observations[t]) where step t truncated, else v_{t+1}.

    Where step t *terminated* the result is the value of the next episode's first observation. It is meaningless, and
    harmless because the discount there is 0 (`trajectory_discounts`).

    Args:
        trajectory: the experience; only `truncations` and whether `final_observations` is None are looked at.
        values: values of `trajectory.observations`, time + 1 entries.
        final_values: values of `trajectory.final_observations`, time entries; None if and only if those are None.

    Returns:
        v' with time entries. Differentiable in both kinds of values.

    Raises:
        ValueError: for values of the wrong length, or final values given or left out where they must not be.
    """
    num_steps = trajectory.rewards.shape[0]
    if values.shape[0] != num_steps + 1:
        raise ValueError(
            f"values has {values.shape[0]} entries for {num_steps} steps: give {num_steps + 1}, one for each of "
            "trajectory.observations, the observation after the last step included"
        )
    if (final_values is None) != (trajectory.final_observations is None):
        given, wanted = ("None", "an array") if final_values is None else ("an array", "None")
        raise ValueError(
            f"final_values is {given} where it must be {wanted}: give the values of trajectory.final_observations, "
            "and None exactly when there are none (an environment that never truncates)"
        )
    if final_values is None:
        return values[1:]
    return jnp.where(trajectory.truncations, final_values, values[1:])
