"""From a configuration to an agent that tunes itself: a learner from its package, joined to its tuner."""

import dataclasses
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import jax
import optax
from jaxtyping import Array, Key

from gradweave.agents import ReturnGuard, ScheduleNetwork, SelfTuning, SelfTuningState
from gradweave.agents.built import BuiltLearner
from gradweave.config.estimators import parse_estimator
from gradweave.config.learners import LEARNERS
from gradweave.config.modes import AUTO, parse_mode
from gradweave.config.schema import Config, MetaConfig
from gradweave.core import AbstractEstimator, AbstractMode, ForwardMode, SamplingCorrection, unconstrain
from gradweave.core.bijectors import split_learned
from gradweave.envs import ONE_DEVICE, AbstractEnvironment, DeviceAxis, VectorEnvironment
from gradweave.envs.own import OptionError
from gradweave.envs.registry import make_environment
from gradweave.errors import ConfigError
from gradweave.training.estimators import make_estimator, make_mode
from gradweave.training.tuners import configured_tuners

__all__ = ["build_agent", "configured_environment", "init_state", "named_environment"]


def build_agent(config: Config, axis: DeviceAxis = ONE_DEVICE) -> SelfTuning:
    """The agent that a valid configuration describes.

    Args:
        config: checked by `validate`.
        axis: the devices over which the environments are split; the agent is then to be used inside a `jax.shard_map`
            (`gradweave.training.devices`). An agent of one device has the same state, and can go on from it.

    Returns:
        A `SelfTuning`; one that learns no meta-parameter when `config.meta.learned` is empty.
    """
    meta = config.meta
    environment: VectorEnvironment[Any] = VectorEnvironment(configured_environment(config), config.inner.num_envs, axis)
    built = _learner(config, environment, axis)
    estimator, mode = _estimator_and_mode(config, built)
    agent = SelfTuning(
        agent=built.agent,
        environment=environment,
        initial_raw=unconstrain(built.eta, built.spec),
        spec=built.spec,
        estimator=estimator,
        mode=mode,
        meta_optimizer=_meta_optimizer(meta),
        num_inner_steps=meta.num_inner_steps,
        num_steps=config.inner.num_steps,
        condition_on_eta=config.network.condition_on_eta,
        outer_rollout=config.outer.rollout,
        sampling_correction=SamplingCorrection(meta.sampling_correction) if meta.sampling_correction > 0 else None,
        schedule=_schedule(meta),
        tuners=configured_tuners(config),
        guard=ReturnGuard(num_windows=config.planned_windows) if meta.guard else None,
        trust_region=meta.trust_region,
    )
    return _in_cheapest_mode(agent) if meta.mode == AUTO else agent


def configured_environment(config: Config) -> AbstractEnvironment[Any]:
    """The environment that a configuration names.

    Raises:
        ConfigError: it is a class of the user's that cannot be imported, or does not take the options.
    """
    return named_environment("environment.name", config.environment.name, config.environment.options)


def named_environment(field: str, name: str, options: Mapping[str, Any]) -> AbstractEnvironment[Any]:
    """The environment of a name with its options.

    Raises:
        ConfigError: it cannot be made; of `field`, or of the option that does not fit.
    """
    try:
        return make_environment(name, **options)
    except OptionError as error:
        option = f"environment.options.{error.option}"
        raise ConfigError(option, error.value, error.accepted, error.remedy) from error
    except ValueError as error:
        accepted = "an environment that can be made with its options"
        raise ConfigError(field, name, accepted, str(error)) from error


def init_state(agent: SelfTuning, config: Config, *, key: Key[Array, ""]) -> SelfTuningState:
    """The agent's state before the first meta-step: fresh parameters, fresh environments, one rollout."""
    network_key, example_key, agent_key = jax.random.split(key, 3)
    axis = agent.environment.axis
    params = _learner(config, agent.environment, axis).init_params(example_key, key=network_key)
    return agent.init(params, key=agent_key)


def _learner(config: Config, environment: VectorEnvironment[Any], axis: DeviceAxis) -> BuiltLearner:
    package = import_module(f"{LEARNERS[config.learner].package}.build")
    built: BuiltLearner = package.build_learner(config, environment, axis)
    return built


def _estimator_and_mode(config: Config, built: BuiltLearner) -> tuple[AbstractEstimator, AbstractMode]:
    """As the configuration names them; for "auto" the mode that serves the estimator, whatever is learned."""
    length = config.meta.num_inner_steps
    spec = parse_estimator(config.meta.estimator, length)
    estimator = make_estimator(spec, num_inner_steps=length, distance=built.distance)
    mode = parse_mode(config.meta.mode, spec.row, length, learner=LEARNERS[config.learner].modes)
    return estimator, make_mode(mode)


def _schedule(meta: MetaConfig) -> ScheduleNetwork | None:
    if meta.schedule == "none":
        return None
    return ScheduleNetwork(reads="rewards" if meta.schedule == "rewards" else "learning")


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
