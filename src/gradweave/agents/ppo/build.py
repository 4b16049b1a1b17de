"""From a configuration to PPO."""

import functools
from typing import Any

from gradweave.agents.actor_critic.build import (
    configured_objective,
    configured_optimizer,
    configured_reward_discount,
    init_network,
    policy_head,
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
    head = policy_head(config, environment)
    agent = ppo_agent(
        bundled_apply,
        configured_optimizer(inner),
        configured_objective(outer),
        options,
        head=head,
        reward_discount=configured_reward_discount(inner.scale_rewards, inner.discount, environment),
        normalize_observations=inner.normalize_observations,
    )
    init_params = functools.partial(init_network, config, environment)
    distance = policy_distance(bundled_apply, value_cost=0.0, head=head)
    spec = PPOEta(**configured_bijectors(config))
    return BuiltLearner(
        agent, PPOEta(**configured_eta(config)), spec, init_params, lambda a, b, batch: distance(a, b, batch.experience)
    )
