"""Advantage actor-critic as a `GradientLearner`, every hyper-parameter of which can be learned by meta-gradients.

With v the critic, G the lambda-return at (discount, lambda) and A = G - v, the inner loss of one batch is

    mean(-log pi(a) A) + value_cost mean((G - v)^2) - entropy_cost mean(H)     [ + critic_cost mean((G' - v')^2) ]

(Mnih et al. 2016, arXiv 1602.01783). G and A are *targets*: computed outside the function that the learner
differentiates, so that the learner's gradient is the usual semi-gradient while the meta-gradient still sees how the
targets move with the parameters and the meta-parameters. No `stop_gradient` appears in it.

The outer loss is the same expression at fixed (discount', lambda') and costs of its own (Xu et al. 2018, arXiv
1805.09801). Its advantages come from the outer critic v' when there is one: the inner critic estimates values at the
learned discount, which biases the outer advantage upwards and the meta-gradient towards short-sightedness (Bonnet et
al. 2022, arXiv 2211.10550).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import optax
from jaxtyping import Array, PyTree

from gradweave.agents.actor_critic.experience import (
    CATEGORICAL,
    Apply,
    Experience,
    Outputs,
    environments_in_parts,
    evaluate_network,
    head_returns,
    policy_terms,
)
from gradweave.agents.actor_critic.outer_loss import OuterObjective, outer_actor_critic_loss
from gradweave.core import GradientLearner
from gradweave.envs import ONE_DEVICE, DeviceAxis, Observation
from gradweave.rl import AbstractPolicyHead, ActorCriticNetwork, NetworkOutput, Trajectory, value_loss

__all__ = ["ActorCriticEta", "actor_critic", "bundled_apply", "parameter_groups"]


class ActorCriticEta(NamedTuple):
    """The meta-parameters of an actor-critic, in their natural range.

    Attributes:
        discount: gamma, in (0, 1).
        lambda_: mixing of the lambda-return, in (0, 1).
        entropy_cost: weight of the entropy bonus, above 0.
        value_cost: weight of the value loss, above 0.
        learning_rate: step size of the inner optimiser, above 0; or a dict of them, one for each group of parameters.
    """

    discount: Any
    lambda_: Any
    entropy_cost: Any
    value_cost: Any
    learning_rate: Any


class _Targets(NamedTuple):
    """Constants of a loss: advantages, returns, and the outer critic's returns; (time, batch) each."""

    advantages: Array
    returns: Array
    outer_returns: Array | None


def actor_critic(
    apply: Apply,
    optimizer: optax.GradientTransformation,
    outer: OuterObjective | None = None,
    *,
    targets: str = "differentiated",
    learning_rate_groups: PyTree = None,
    critic_apart: bool = False,
    num_microbatches: int = 1,
    head: AbstractPolicyHead = CATEGORICAL,
    memory: PyTree = None,
    axis: DeviceAxis = ONE_DEVICE,
) -> GradientLearner:
    """Advantage actor-critic as a meta-problem over `ActorCriticEta` and batches of `Experience`.

    Args:
        apply: `(params, observation, conditioning) -> NetworkOutput` for one observation; its `outer_value` is the
            outer critic, or None for none. `bundled_apply` for the networks of `gradweave.rl`.
        optimizer: gives directions without a learning rate; see `inner_optimizer`.
        outer: the outer loss; the default is Jumanji's (0.997, 0.95).
        targets: "differentiated", or "stopped" for comparison with code that writes `stop_gradient` around the critic
            inside the inner loss: the learner is the same, but the meta-gradient loses the path from the parameters
            through the targets, and with two or more inner updates it is no longer the derivative of anything. See
            docs/stopped-targets.md for how far off it is.
        learning_rate_groups: a pytree like the parameters, or a prefix of them, whose leaves are names;
            `eta.learning_rate` is then a dict with one rate for each name. See `parameter_groups`. None: one rate.
        critic_apart: promise that the outer critic moves no parameter that the policy or the value depend on, and that
            the optimiser treats parameters one by one (no clipping of a global norm). Its values are then numbers to
            the outer loss, and the meta-gradient need not be taken through its training. Only with
            `outer.value_cost` 0.
        num_microbatches: parts into which the environments are split for gradients and outer losses, which are
            averaged; must divide their number (on each device). Changes only the rounding, memory and speed.
        head: of the policy, which reads the network's outputs; by default logits of discrete actions.
        memory: of a recurrent network at the beginning of an episode, for one environment; None for a feed-forward one.
        axis: the devices over which the batches' environments are split; the losses are then means over all of them,
            and the problem is to be used inside a `jax.shard_map` over this axis.

    Returns:
        A `GradientLearner`; its state is `learner.init(params)`, its aux a dict of scalars for logging.

    Raises:
        ValueError: `targets` is neither of the two, or the outer loss would differentiate a critic apart.
    """
    outer = OuterObjective() if outer is None else outer
    _check_options(targets, outer, critic_apart=critic_apart)

    def forward(params: PyTree, batch: Experience) -> Outputs:
        return evaluate_network(apply, axis.varying(params), batch, memory)

    def targets_of(outputs: Outputs, eta: ActorCriticEta, batch: Experience) -> _Targets:
        if targets == "stopped":
            # Removes d(targets)/d(parameters) from the meta-gradient, the very path that must not be removed: this
            # option shows the consequence.
            outputs = jax.lax.stop_gradient(outputs)
        return _inner_targets(outputs, eta, batch.trajectory, outer)

    def loss(
        outputs: Outputs, targets: _Targets, eta: ActorCriticEta, batch: Experience
    ) -> tuple[Array, dict[str, Array]]:
        total, aux = _inner_loss(outputs, targets, eta, batch.trajectory, axis, head)
        if targets.outer_returns is not None:
            aux["outer_critic_loss"] = _critic_loss(outputs, targets, axis)
            total = total if critic_apart else total + outer.critic_cost * aux["outer_critic_loss"]
        return total, aux

    def companion_loss(outputs: Outputs, targets: _Targets, batch: Experience) -> Array:
        return outer.critic_cost * _critic_loss(outputs, targets, axis)

    return GradientLearner(
        targets_of,
        loss,
        optimizer,
        _learning_rate(learning_rate_groups),
        lambda state, batch: outer_actor_critic_loss(state.params, batch, outer, axis, head),
        forward=forward,
        companion_loss=companion_loss if critic_apart else None,
        microbatches=environments_in_parts(num_microbatches),
    )


def _learning_rate(groups: PyTree) -> Callable[[ActorCriticEta], PyTree]:
    """One rate, or one for each group."""

    def learning_rate(eta: ActorCriticEta) -> PyTree:
        return eta.learning_rate if groups is None else jax.tree.map(lambda name: eta.learning_rate[name], groups)

    return learning_rate


def _check_options(targets: str, outer: OuterObjective, *, critic_apart: bool) -> None:
    if targets not in ("differentiated", "stopped"):
        raise ValueError(
            f'actor_critic(targets={targets!r}): accepted are "differentiated", which is right, and "stopped", for '
            "comparison with published code."
        )
    if critic_apart and outer.value_cost != 0:
        raise ValueError(
            f"actor_critic(critic_apart=True) leaves the outer critic out of the meta-gradient, but the outer loss "
            f"differentiates it with value_cost={outer.value_cost}: set that to 0, or critic_apart to False."
        )


def parameter_groups(params: PyTree, groups: Mapping[str, str], *, default: str) -> PyTree:
    """A name for each parameter, for `actor_critic(learning_rate_groups=...)`.

    Args:
        params: the parameters, or their shapes (`jax.eval_shape`).
        groups: part of a path -> name, the first match counts. Paths are written as `jax.tree_util.keystr` does, for
            instance ".policy_head[0].weight" or "['params']['Dense_0']['kernel']".
        default: the name of all other parameters.

    Returns:
        A pytree of the structure of `params` whose leaves are names.

    Raises:
        ValueError: an entry of `groups` matches no parameter, or none that is left by the entries before it.

    Example:
        >>> params = {"torso": {"w": 1.0, "b": 0.0}, "head": {"w": 2.0}}
        >>> parameter_groups(params, {"head": "fast"}, default="slow")
        {'head': {'w': 'fast'}, 'torso': {'b': 'slow', 'w': 'slow'}}
    """
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    first = [next((part for part in groups if part in path), None) for path in paths]
    unused = [part for part in groups if part not in first]
    if unused:
        raise ValueError(
            f"no parameter's path contains {unused}, or only such that an entry before it names; the paths are {paths}."
        )
    names = [default if part is None else groups[part] for part in first]
    return jax.tree.unflatten(jax.tree.structure(params), names)


def bundled_apply(
    params: PyTree, observation: Observation, conditioning: Array | None, memory: PyTree = None
) -> NetworkOutput:
    """`apply` for networks that are their own parameters, as those of `gradweave.rl` are."""
    return cast(ActorCriticNetwork, params)(observation, conditioning, memory)


def _inner_targets(outputs: Outputs, eta: ActorCriticEta, trajectory: Trajectory, outer: OuterObjective) -> _Targets:
    returns = head_returns(outputs, trajectory, "value", eta.discount, eta.lambda_)
    outer_returns = None
    if outputs.steps.outer_value is not None:
        outer_returns = head_returns(outputs, trajectory, "outer_value", outer.discount, outer.lambda_)
    return _Targets(returns - outputs.steps.value, returns, outer_returns)


def _inner_loss(
    outputs: Outputs,
    targets: _Targets,
    eta: ActorCriticEta,
    trajectory: Trajectory,
    axis: DeviceAxis,
    head: AbstractPolicyHead,
) -> tuple[Array, dict[str, Array]]:
    policy, entropy = policy_terms(outputs, targets.advantages, trajectory, axis, head)
    value = axis.mean(value_loss(outputs.steps.value, targets.returns))
    total = policy + eta.value_cost * value - eta.entropy_cost * entropy
    return total, {"policy_loss": policy, "value_loss": value, "entropy": entropy}


def _critic_loss(outputs: Outputs, targets: _Targets, axis: DeviceAxis) -> Array:
    return axis.mean(value_loss(cast(Array, outputs.steps.outer_value), cast(Array, targets.outer_returns)))
