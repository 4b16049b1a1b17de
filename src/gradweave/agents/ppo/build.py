"""From a configuration to PPO."""

import functools
from typing import Any

from gradweave.agents.actor_critic.build import (
    agent_options,
    configured_objective,
    configured_optimizer,
    init_network,
)
from gradweave.agents.actor_critic.distances import policy_distance
from gradweave.agents.actor_critic.learner import bundled_apply
from gradweave.agents.built import BuiltLearner, configured_bijectors, configured_eta
from gradweave.agents.ppo.learner import PPOEta, PPOOptions, ppo_agent
from gradweave.config.learners.actor_critic import OuterConfig
from gradweave.config.learners.ppo import InnerConfig
from gradweave.config.schema import Config
from gradweave.envs import DeviceAxis, VectorEnvironment

__all__ = ["build_learner"]


def build_learner(config: Config, environment: VectorEnvironment[Any], axis: DeviceAxis) -> BuiltLearner:
    """PPO as a valid configuration describes it, for observations and actions of an environment."""
    inner, outer = config.inner, config.outer
    assert isinstance(inner, InnerConfig) and isinstance(outer, OuterConfig) and axis.size == 1
    options = PPOOptions(**{name: getattr(inner, name) for name in PPOOptions._fields})
    init_params = functools.partial(init_network, config, environment)
    shared = agent_options(config, environment, init_params)
    agent = ppo_agent(bundled_apply, configured_optimizer(inner), configured_objective(outer), options, **shared)
    distance = policy_distance(bundled_apply, value_cost=0.0, head=shared["head"], memory=shared["memory"])
    spec = PPOEta(**configured_bijectors(config))
    return BuiltLearner(
        agent, PPOEta(**configured_eta(config)), spec, init_params, lambda a, b, batch: distance(a, b, batch.experience)
    )
