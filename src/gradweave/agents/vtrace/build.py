"""From a configuration to the V-trace actor-critic."""

from typing import Any

from jaxtyping import Array, Key

from gradweave.agents.actor_critic.build import (
    agent_options,
    configured_objective,
    configured_optimizer,
    init_network,
)
from gradweave.agents.actor_critic.distances import policy_distance
from gradweave.agents.actor_critic.learner import bundled_apply
from gradweave.agents.built import BuiltLearner, configured_bijectors, configured_eta
from gradweave.agents.vtrace.learner import VTraceEta, VTraceOptions, vtrace_agent
from gradweave.config.learners.actor_critic import NetworkConfig, OuterConfig
from gradweave.config.learners.vtrace import InnerConfig
from gradweave.config.schema import Config
from gradweave.envs import DeviceAxis, VectorEnvironment
from gradweave.rl import ActorCriticNetwork, with_auxiliary_heads

__all__ = ["build_learner"]


def build_learner(config: Config, environment: VectorEnvironment[Any], axis: DeviceAxis) -> BuiltLearner:
    """The V-trace actor-critic that a valid configuration describes."""
    network, inner, outer = config.network, config.inner, config.outer
    assert isinstance(network, NetworkConfig) and isinstance(inner, InnerConfig) and isinstance(outer, OuterConfig)
    assert axis.size == 1
    options = VTraceOptions(**{name: getattr(inner, name) for name in VTraceOptions._fields})
    heads, scale = inner.auxiliary_heads, network.policy_scale

    def init_params(example_key: Key[Array, ""], *, key: Key[Array, ""]) -> ActorCriticNetwork:
        plain = init_network(config, environment, example_key, key=key)
        return with_auxiliary_heads(plain, heads, policy_scale=scale, key=key)

    shared = agent_options(config, environment, init_params)
    agent = vtrace_agent(bundled_apply, configured_optimizer(inner), configured_objective(outer), options, **shared)
    distance = policy_distance(bundled_apply, value_cost=0.0, head=shared["head"], memory=shared["memory"])
    eta, spec = VTraceEta(**configured_eta(config)), VTraceEta(**configured_bijectors(config))
    of_heads = {name: (getattr(eta, name),) * heads for name in VTraceEta._field_defaults}
    return BuiltLearner(agent, eta._replace(**of_heads), spec, init_params, distance)
