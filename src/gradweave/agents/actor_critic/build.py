"""From a configuration to an actor-critic: network, parts with learning rates of their own, parts of batches."""

import functools
from typing import Any

import jax
import optax
from jaxtyping import Array, Key, PyTree

from gradweave.agents.actor_critic.agent import actor_critic_agent
from gradweave.agents.actor_critic.distances import policy_distance
from gradweave.agents.actor_critic.learner import ActorCriticEta, bundled_apply, parameter_groups
from gradweave.agents.actor_critic.outer_loss import OuterObjective
from gradweave.agents.built import BuiltLearner, configured_bijectors, configured_eta
from gradweave.agents.optimizers import inner_optimizer
from gradweave.config.learners.actor_critic import (
    PARTS,
    InnerConfig,
    NetworkConfig,
    OuterConfig,
    critic_apart,
    has_outer_critic,
)
from gradweave.config.learners.sections import OptimizerSection
from gradweave.config.schema import Config
from gradweave.envs import DeviceAxis, VectorEnvironment
from gradweave.rl import (
    AbstractPolicyHead,
    ActorCriticNetwork,
    Categorical,
    Gaussian,
    MultiDiscrete,
    TanhGaussian,
    actor_critic_network,
)

__all__ = [
    "agent_options",
    "build_learner",
    "configured_objective",
    "configured_optimizer",
    "init_network",
    "policy_head",
]

_CACHED_STEPS = 256  # of a part of a batch, with networks of the usual sizes (benchmarks/)


def build_learner(config: Config, environment: VectorEnvironment[Any], axis: DeviceAxis) -> BuiltLearner:
    """The actor-critic that a valid configuration describes, for observations and actions of an environment."""
    network, inner, outer = config.network, config.inner, config.outer
    assert isinstance(network, NetworkConfig) and isinstance(inner, InnerConfig) and isinstance(outer, OuterConfig)
    learned = config.meta.learned
    has_critic = has_outer_critic(outer, learned)
    init_params = functools.partial(init_network, config, environment)
    eta, groups = ActorCriticEta(**configured_eta(config)), None
    if inner.learning_rate_groups == "parts":
        eta = eta._replace(learning_rate=dict.fromkeys(PARTS, eta.learning_rate))
        groups = _network_parts(init_params, has_critic)
    shared = agent_options(config, environment, init_params)
    agent = actor_critic_agent(
        bundled_apply,
        configured_optimizer(inner),
        configured_objective(outer),
        targets=inner.targets,
        learning_rate_groups=groups,
        critic_apart=critic_apart(network, inner, outer, learned),
        num_microbatches=_num_microbatches(inner, axis),
        axis=axis,
        **shared,
    )
    head, memory = shared["head"], shared["memory"]
    distance = policy_distance(bundled_apply, value_cost=0.0, head=head, memory=memory, axis=axis)
    return BuiltLearner(agent, eta, ActorCriticEta(**configured_bijectors(config)), init_params, distance)


def _num_microbatches(inner: InnerConfig, axis: DeviceAxis) -> int:
    """As configured, where that divides a device's environments; or on a CPU as many as leave the processor's cache
    room for a part's activations.
    """
    num_envs = inner.num_envs // axis.size
    if inner.microbatches:
        return inner.microbatches if num_envs % inner.microbatches == 0 else 1
    if jax.default_backend() != "cpu":
        return 1
    for count in (count for count in range(1, num_envs + 1) if num_envs % count == 0):
        steps = num_envs // count * inner.num_steps
        if steps <= _CACHED_STEPS:
            # Splinters, of a prime number, say, cost more than they save.
            return count if steps >= _CACHED_STEPS // 8 else 1
    return num_envs


def configured_optimizer(inner: OptimizerSection) -> optax.GradientTransformation:
    """The inner optimiser, without a learning rate."""
    return inner_optimizer(
        inner.optimizer,
        eps=inner.eps,
        eps_root=inner.eps_root,
        rmsprop_decay=inner.rmsprop_decay,
        max_grad_norm=inner.max_grad_norm,
    )


def policy_head(config: Config, environment: VectorEnvironment[Any]) -> AbstractPolicyHead:
    """The policy head for the environment's actions and the configuration."""
    single, network = environment.environment, config.network
    assert isinstance(network, NetworkConfig)
    if single.action_sizes is not None:
        return MultiDiscrete(single.action_sizes)
    if not single.continuous:
        return Categorical(single.num_actions)
    squashed = network.action_distribution == "tanh-gaussian"
    return TanhGaussian(single.num_actions) if squashed else Gaussian(single.num_actions)


def agent_options(config: Config, environment: VectorEnvironment[Any], init_params: Any) -> dict[str, Any]:
    """Arguments that every learner's agent has: head, memory, scale of rewards and of observations."""
    inner: Any = config.inner
    return {
        "head": policy_head(config, environment),
        "memory": _initial_memory(init_params),
        "reward_discount": _reward_discount(inner.scale_rewards, inner.discount, environment),
        "normalize_observations": inner.normalize_observations,
    }


def _reward_discount(scale_rewards: str, discount: float, environment: VectorEnvironment[Any]) -> float | None:
    """`Agent.reward_discount`: where rewards are scaled, the discount that the learner starts with."""
    scales = environment.environment.continuous if scale_rewards == "auto" else scale_rewards == "on"
    return discount if scales else None


def configured_objective(outer: OuterConfig) -> OuterObjective:
    """The outer objective."""
    return OuterObjective(**{name: getattr(outer, name) for name in OuterObjective._fields})


def init_network(
    config: Config, environment: VectorEnvironment[Any], example_key: Key[Array, ""], *, key: Key[Array, ""]
) -> ActorCriticNetwork:
    """A fresh network for observations such as a reset with `example_key` gives (only their shapes count)."""
    network, outer = config.network, config.outer
    assert isinstance(network, NetworkConfig) and isinstance(outer, OuterConfig)
    _, example = jax.eval_shape(lambda key: environment.environment.reset(key=key), example_key)
    num_outputs = policy_head(config, environment).num_outputs
    free = environment.environment.continuous and network.action_scale == "independent"
    num_free_outputs = num_outputs // 2 if free else 0  # the scales, behind the means
    return actor_critic_network(
        example,
        num_outputs - num_free_outputs,
        num_free_outputs=num_free_outputs,
        channels=network.channels,
        strides=network.strides,
        kernel_size=network.kernel_size,
        policy_layers=network.policy_layers,
        value_layers=network.value_layers,
        policy_scale=network.policy_scale,
        activation=network.activation,
        shared_torso=network.shared_torso,
        outer_critic=has_outer_critic(outer, config.meta.learned),
        outer_torso=network.outer_torso,
        conditioning_size=len(config.learned_names) if network.condition_on_eta else 0,
        memory=network.memory,
        memory_size=network.memory_size,
        key=key,
    )


def _initial_memory(init_params: Any) -> PyTree:
    """Initial memory of the networks that `init_params` draws; None without memory."""
    return _network_shapes(init_params).initial_memory()


def _network_shapes(init_params: Any) -> ActorCriticNetwork:
    draw = lambda keys: init_params(keys[0], key=keys[1])  # noqa: E731
    shapes: ActorCriticNetwork = jax.eval_shape(draw, jax.random.split(jax.random.key(0)))
    return shapes


def _network_parts(init_params: Any, outer_critic: bool) -> PyTree:
    """For each parameter the part of the network it belongs to."""
    shapes = _network_shapes(init_params)
    heads = {"policy_head": "policy", "value_head": "value"}
    if outer_critic:
        heads["outer_head"] = "value"
    if shapes.free_outputs is not None:
        heads["free_outputs"] = "policy"
    return parameter_groups(shapes, heads, default="torso")
