"""Experience of an actor-critic: one batch, and the outputs of its network on it."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from gradweave.core import Microbatches
from gradweave.envs import ONE_DEVICE, DeviceAxis, Observation
from gradweave.rl import (
    AbstractPolicyHead,
    Categorical,
    NetworkOutput,
    Trajectory,
    entropy_bonus,
    lambda_returns,
    next_values,
    policy_gradient_loss,
    trajectory_discounts,
    trajectory_lambda,
)
from gradweave.rl.rollout import for_each, where_ended

__all__ = [
    "CATEGORICAL",
    "AdvantageMoments",
    "Apply",
    "Experience",
    "Outputs",
    "Stretch",
    "action_log_probs",
    "action_masks",
    "environments_in_parts",
    "evaluate_network",
    "evaluate_stretch",
    "head_bootstraps",
    "head_returns",
    "policy_logits",
    "policy_terms",
]

Apply = Callable[..., NetworkOutput]
"""`(params, one observation, conditioning or None) -> NetworkOutput` for feed-forward networks. A recurrent one takes
its memory as a fourth argument and returns the next one in `NetworkOutput.memory`."""


CATEGORICAL: Final = Categorical(0)
"""The head of policies over discrete actions; their number is read from the outputs."""


class AdvantageMoments(NamedTuple):
    """Running statistics of outer advantages, data of earlier windows.

    Attributes:
        mean: their mean.
        std: their standard deviation, above 0.
    """

    mean: Float[Array, "*steps"]
    std: Float[Array, "*steps"]


class Experience(NamedTuple):
    """One inner batch: a rollout of all environments, (time, batch, ...), and the network's conditioning.

    Everything in it is data: no meta-gradient flows through it.

    Attributes:
        trajectory: observations, actions and rewards.
        conditioning: the vector that the network was fed beside the observation, or None.
        anchor_logits: logits of the policy before the window, x_0, at every step; (time, batch, actions).
            Only for an outer objective with a `kl_cost`, else None.
        advantage_moments: only for an outer objective that standardises advantages, else None.
    """

    trajectory: Trajectory
    conditioning: Float[Array, "*steps size"] | None = None
    anchor_logits: Float[Array, "..."] | None = None
    advantage_moments: AdvantageMoments | None = None


class Outputs(NamedTuple):
    """The network on everything a batch holds."""

    steps: NetworkOutput
    """(time, batch)."""
    last: NetworkOutput
    """(1, batch): the observation after the last step; only its values are used."""
    final: NetworkOutput | None
    """(time, batch): observations after each step, when the environment truncates."""


def evaluate_network(apply: Apply, params: PyTree, batch: Experience, memory: PyTree = None) -> Outputs:
    """The network on every observation of a batch, each once.

    Args:
        apply: the network.
        params: its parameters.
        batch: of one rollout.
        memory: of a recurrent network at the beginning of an episode; None for a feed-forward one.
    """
    trajectory = batch.trajectory
    if memory is not None:
        return _evaluate_in_time(apply, params, batch, memory)
    # The last observation is evaluated apart, because neither its policy nor its gradient is needed by the learner.
    steps = _evaluate(apply, params, jax.tree.map(lambda leaf: leaf[:-1], trajectory.observations), batch.conditioning)
    last = _evaluate(apply, params, jax.tree.map(lambda leaf: leaf[-1:], trajectory.observations), batch.conditioning)
    final = None
    if trajectory.final_observations is not None:
        final = _evaluate(apply, params, trajectory.final_observations, batch.conditioning)
    return Outputs(steps, last, final)


def _evaluate_in_time(apply: Apply, params: PyTree, batch: Experience, memory: PyTree) -> Outputs:
    """Step by step, from the memory that the rollout began with."""
    trajectory = batch.trajectory
    stretch = Stretch.of(trajectory)
    steps, final, end = evaluate_stretch(apply, params, stretch, batch.conditioning, memory)
    last_seen = jax.tree.map(lambda leaf: leaf[-1], trajectory.observations)
    last = jax.vmap(lambda one, memory: apply(params, one, batch.conditioning, memory))(last_seen, end)
    last = at_least_single(last)._replace(memory=None)
    return Outputs(steps, jax.tree.map(lambda leaf: leaf[None], last), final)


class Stretch(NamedTuple):
    """Inputs of a recurrent network, (time, batch, ...)."""

    observations: Observation
    """Before each step."""
    ended: Bool[Array, "time batch"]
    """Whether the episode stopped with the step, so that the memory begins anew behind it."""
    memory: PyTree
    """Before the first step; leading axis batch."""
    final_observations: Observation | None = None
    """After each step, before any reset; None where not needed."""

    @staticmethod
    def of(trajectory: Trajectory) -> "Stretch":
        """All of a rollout."""
        before = jax.tree.map(lambda leaf: leaf[:-1], trajectory.observations)
        ended = trajectory.terminations | trajectory.truncations
        return Stretch(before, ended, trajectory.memory, trajectory.final_observations)


def evaluate_stretch(
    apply: Apply, params: PyTree, stretch: Stretch, conditioning: Array | None, memory: PyTree
) -> tuple[NetworkOutput, NetworkOutput | None, PyTree]:
    """A network that remembers, step by step; its memory begins anew where an episode stopped.

    Args:
        apply: the network, as for `actor_critic`.
        params: its parameters.
        stretch: the inputs.
        conditioning: the network's further inputs, or None.
        memory: of one environment at the beginning of an episode.

    Returns:
        (outputs before each step, outputs for the final observations or None, the memory after the last step). The
        derivative by the parameters goes back to the first step, and no further: the memory there is data.
    """
    fresh = for_each(memory, stretch.ended.shape[1])

    def one_step(memory: PyTree, observations: Observation) -> NetworkOutput:
        outputs = jax.vmap(lambda one, memory: apply(params, one, conditioning, memory))(observations, memory)
        return at_least_single(outputs)

    def step(memory: PyTree, seen: tuple[Observation, Array, Observation | None]) -> tuple[PyTree, Any]:
        observations, ended, final = seen
        output = one_step(memory, observations)
        final_output = None if final is None else one_step(output.memory, final)._replace(memory=None)
        return where_ended(ended, fresh, output.memory), (output._replace(memory=None), final_output)

    seen = (stretch.observations, stretch.ended, stretch.final_observations)
    end, (steps, final) = jax.lax.scan(step, stretch.memory, seen)
    return steps, final, end


def environments_in_parts(num_parts: int) -> Microbatches | None:
    """The parts of an `Experience`, each with an equal share of the environments; None for a single one.

    A batch whose environments cannot be split evenly raises a ValueError.
    """
    if num_parts == 1:
        return None

    def part(batch: Experience, index: Int[Array, ""]) -> Experience:
        num_envs = batch.trajectory.rewards.shape[1]
        if num_envs % num_parts:
            raise ValueError(f"{num_envs} environments cannot be split into {num_parts} equal parts")
        size = num_envs // num_parts

        def some(leaf: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(leaf, index * size, size, axis=1)

        trajectory = batch.trajectory
        memory = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, index * size, size), trajectory.memory)
        trajectory = jax.tree.map(some, trajectory._replace(memory=None))._replace(memory=memory)
        return batch._replace(trajectory=trajectory, anchor_logits=jax.tree.map(some, batch.anchor_logits))

    return Microbatches(num_parts, part)


def policy_logits(
    apply: Apply, params: PyTree, batch: Experience, memory: PyTree = None
) -> Float[Array, "time batch num_outputs"]:
    """The network's outputs for the policy before each step of a batch; arguments as for `evaluate_network`."""
    if memory is not None:
        return _evaluate_in_time(apply, params, batch, memory).steps.logits
    observations = jax.tree.map(lambda leaf: leaf[:-1], batch.trajectory.observations)
    return _evaluate(apply, params, observations, batch.conditioning).logits


def head_bootstraps(outputs: Outputs, trajectory: Trajectory, head: str) -> Float[Array, "time batch"]:
    """The value after each step from one of the value heads, "value" or "outer_value"; see `next_values`."""
    values = jnp.concatenate([getattr(outputs.steps, head), getattr(outputs.last, head)])
    final_values = None if outputs.final is None else getattr(outputs.final, head)
    return next_values(trajectory, values, final_values)


def head_returns(
    outputs: Outputs, trajectory: Trajectory, head: str, discount: Any, lambda_: Any
) -> Float[Array, "time batch"]:
    """Lambda-returns bootstrapped from one of the value heads, "value" or "outer_value"."""
    bootstraps = head_bootstraps(outputs, trajectory, head)
    dtype = bootstraps.dtype

    def one(rewards: Array, terminations: Array, truncations: Array, bootstraps: Array) -> Array:
        discounts = trajectory_discounts(jnp.asarray(discount, dtype), terminations)
        return lambda_returns(
            rewards, discounts, bootstraps, trajectory_lambda(jnp.asarray(lambda_, dtype), truncations)
        )

    rewards = trajectory.rewards.astype(dtype)
    return jax.vmap(one, in_axes=1, out_axes=1)(rewards, trajectory.terminations, trajectory.truncations, bootstraps)


def action_log_probs(
    outputs: Outputs, trajectory: Trajectory, head: AbstractPolicyHead = CATEGORICAL
) -> Float[Array, "time batch"]:
    """Log-probability of each action taken, under the network's policy."""
    return head.log_prob(outputs.steps.logits, action_masks(trajectory), trajectory.actions)


def policy_terms(
    outputs: Outputs,
    advantages: Array,
    trajectory: Trajectory,
    axis: DeviceAxis = ONE_DEVICE,
    head: AbstractPolicyHead = CATEGORICAL,
) -> tuple[Array, Array]:
    """(policy-gradient loss, mean entropy) over the environments of all devices."""
    policy = policy_gradient_loss(action_log_probs(outputs, trajectory, head), advantages)
    entropy = entropy_bonus(outputs.steps.logits, action_masks(trajectory), head)
    return axis.mean(policy), axis.mean(entropy)


def action_masks(trajectory: Trajectory) -> Array:
    """The mask before each step, (time, batch, num_actions)."""
    mask: Array = trajectory.observations.action_mask[:-1]
    return mask


def _evaluate(apply: Apply, params: PyTree, observations: Observation, conditioning: Array | None) -> NetworkOutput:
    def evaluate(observations: Observation) -> NetworkOutput:
        return jax.vmap(lambda observation: apply(params, observation, conditioning))(observations)

    return at_least_single(jax.vmap(evaluate)(observations))


def at_least_single(output: NetworkOutput) -> NetworkOutput:
    """Outputs in single precision at least, also of half-precision networks: returns and losses are not in half
    precision, where a discount of 0.999 would be 1. Its memory stays as it is.
    """

    def widened(leaf: Array) -> Array:
        return leaf.astype(jnp.float32) if jnp.finfo(leaf.dtype).bits < 32 else leaf

    wide: NetworkOutput = jax.tree.map(widened, output._replace(memory=None))
    return wide._replace(memory=output.memory)
