"""From a configuration to an agent: the one place where names in a configuration become objects."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key, PyTree

from gradweave.agents import (
    ActorCriticEta,
    OuterObjective,
    ScheduleNetwork,
    SelfTuning,
    SelfTuningState,
    actor_critic_agent,
    bundled_apply,
    inner_optimizer,
    parameter_groups,
    policy_distance,
)
from gradweave.config.estimators import parse_estimator
from gradweave.config.learners.actor_critic import HYPERPARAMETERS, PARTS
from gradweave.config.modes import AUTO, parse_mode
from gradweave.config.schema import Config, MetaConfig
from gradweave.core import (
    AbstractBijector,
    AbstractEstimator,
    AbstractMode,
    Fixed,
    ForwardMode,
    Interval,
    Positive,
    SamplingCorrection,
    unconstrain,
)
from gradweave.core.bijectors import split_learned
from gradweave.envs import ONE_DEVICE, DeviceAxis, VectorEnvironment
from gradweave.envs.registry import make_environment
from gradweave.rl import ActorCriticNetwork, actor_critic_network
from gradweave.training.estimators import make_estimator, make_mode

__all__ = ["build_agent", "init_state"]

_CACHED_STEPS = 256  # of a part of a batch, with networks of the usual sizes (benchmarks/)


def build_agent(config: Config, axis: DeviceAxis = ONE_DEVICE) -> SelfTuning:
    """The agent that a valid configuration describes.

    Args:
        config: checked by `validate`.
        axis: the devices over which the environments are split; the agent is then to be used inside a `jax.shard_map`
            (`gradweave.training.devices`). An agent of one device has the same state, and can go on from it.

    Returns:
        A `SelfTuning`; one that learns no meta-parameter when `config.meta.learned` is empty.
    """
    inner, outer = config.inner, config.outer
    environment = VectorEnvironment(
        make_environment(config.environment.name, **config.environment.options()), inner.num_envs, axis
    )
    optimizer = inner_optimizer(
        inner.optimizer,
        eps=inner.eps,
        eps_root=inner.eps_root,
        rmsprop_decay=inner.rmsprop_decay,
        max_grad_norm=inner.max_grad_norm,
    )
    objective = OuterObjective(
        outer.discount,
        outer.lambda_,
        outer.value_cost,
        outer.entropy_cost,
        outer.critic_cost,
        outer.kl_cost,
        outer.standardize_advantages,
    )
    spec = ActorCriticEta(**{name: _bijector(config, name) for name in HYPERPARAMETERS})
    floats = jnp.result_type(float)
    eta = ActorCriticEta(**{name: jnp.asarray(getattr(inner, name), floats) for name in HYPERPARAMETERS})
    groups = None
    if inner.learning_rate_groups == "parts":
        eta = eta._replace(learning_rate=dict.fromkeys(PARTS, eta.learning_rate))
        groups = _network_parts(environment, config)
    meta = config.meta
    estimator, mode = _estimator_and_mode(config, axis)
    agent = SelfTuning(
        agent=actor_critic_agent(
            bundled_apply,
            optimizer,
            objective,
            targets=inner.targets,
            learning_rate_groups=groups,
            critic_apart=config.critic_apart,
            num_microbatches=_num_microbatches(config, axis),
            axis=axis,
        ),
        environment=environment,
        initial_raw=unconstrain(eta, spec),
        spec=spec,
        estimator=estimator,
        mode=mode,
        meta_optimizer=_meta_optimizer(config.meta),
        num_inner_steps=config.meta.num_inner_steps,
        num_steps=inner.num_steps,
        condition_on_eta=config.network.condition_on_eta,
        outer_rollout=config.outer.rollout,
        sampling_correction=SamplingCorrection(meta.sampling_correction) if meta.sampling_correction > 0 else None,
        schedule=ScheduleNetwork() if meta.schedule == "network" else None,
    )
    return _in_cheapest_mode(agent) if meta.mode == AUTO else agent


def _bijector(config: Config, name: str) -> AbstractBijector:
    """What keeps a learned hyper-parameter in its range."""
    if name not in config.meta.learned:
        return Fixed()
    limits = HYPERPARAMETERS[name]
    upper = config.meta.max_discount or limits.upper if name == "discount" else limits.upper
    return Positive() if math.isinf(upper) else Interval(limits.lower, upper)


def _num_microbatches(config: Config, axis: DeviceAxis) -> int:
    """As configured, where that divides a device's environments; or on a CPU as many as leave the processor's cache
    room for a part's activations.
    """
    num_envs = config.inner.num_envs // axis.size
    if config.inner.microbatches:
        return config.inner.microbatches if num_envs % config.inner.microbatches == 0 else 1
    if jax.default_backend() != "cpu":
        return 1
    for count in (count for count in range(1, num_envs + 1) if num_envs % count == 0):
        steps = num_envs // count * config.inner.num_steps
        if steps <= _CACHED_STEPS:
            return (
                count if steps >= _CACHED_STEPS // 8 else 1
            )  # splinters, of a prime number, say, cost more than they save
    return num_envs


def init_state(agent: SelfTuning, config: Config, *, key: Key[Array, ""]) -> SelfTuningState:
    """The agent's state before the first meta-step: fresh parameters, fresh environments, one rollout."""
    network_key, example_key, agent_key = jax.random.split(key, 3)
    params = _network(agent.environment, config, example_key, key=network_key)
    return agent.init(params, key=agent_key)


def _network(
    environment: VectorEnvironment[Any], config: Config, example_key: Key[Array, ""], *, key: Key[Array, ""]
) -> ActorCriticNetwork:
    """A fresh network for observations such as a reset with `example_key` gives (only their shapes count)."""
    _, example = jax.eval_shape(lambda key: environment.environment.reset(key=key), example_key)
    network = config.network
    return actor_critic_network(
        example,
        environment.environment.num_actions,
        channels=network.channels,
        strides=network.strides,
        kernel_size=network.kernel_size,
        policy_layers=network.policy_layers,
        value_layers=network.value_layers,
        policy_scale=network.policy_scale,
        shared_torso=network.shared_torso,
        outer_critic=config.outer_critic,
        outer_torso=network.outer_torso,
        conditioning_size=len(config.learned_names) if network.condition_on_eta else 0,
        key=key,
    )


def _network_parts(environment: VectorEnvironment[Any], config: Config) -> PyTree:
    """For each parameter the part of the network it belongs to."""
    shapes = jax.eval_shape(
        lambda keys: _network(environment, config, keys[0], key=keys[1]), jax.random.split(jax.random.key(0))
    )
    heads = {"policy_head": "policy", "value_head": "value"}
    if config.outer_critic:
        heads["outer_head"] = "value"
    return parameter_groups(shapes, heads, default="torso")


def _estimator_and_mode(config: Config, axis: DeviceAxis) -> tuple[AbstractEstimator, AbstractMode]:
    """As the configuration names them; for "auto" the mode that serves the estimator, whatever is learned."""
    length = config.meta.num_inner_steps
    spec = parse_estimator(config.meta.estimator, length)
    distance = policy_distance(bundled_apply, value_cost=0.0, axis=axis)
    estimator = make_estimator(spec, num_inner_steps=length, distance=distance)
    return estimator, make_mode(parse_mode(config.meta.mode, spec.row, length))


def _in_cheapest_mode(agent: SelfTuning) -> SelfTuning:
    """Forward mode for a single learned number over several updates, where tangents can be carried through them; see
    docs/benchmarks.md.
    """
    forward = dataclasses.replace(agent, mode=ForwardMode())
    numbers = sum(leaf.size for leaf in jax.tree.leaves(split_learned(agent.initial_raw, agent.spec)[0]))
    cheaper = numbers == 1 and agent.num_inner_steps > 1 and agent.schedule is None and forward.tracks_tangents
    return forward if cheaper else agent


def _meta_optimizer(meta: MetaConfig) -> optax.GradientTransformation:
    optimizers = {
        "adam": lambda rate: optax.adam(rate, eps_root=meta.eps_root),
        "rmsprop": optax.rmsprop,
        "sgd": optax.sgd,
    }
    optimizer: optax.GradientTransformation = optimizers[meta.optimizer](meta.learning_rate)
    if meta.max_grad_norm is None:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(meta.max_grad_norm), optimizer)
