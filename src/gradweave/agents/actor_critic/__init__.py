"""The advantage actor-critic: its learner, its outer loss, and how it acts."""

from gradweave.agents.actor_critic.agent import actor_critic_agent, network_policy
from gradweave.agents.actor_critic.distances import policy_distance
from gradweave.agents.actor_critic.experience import AdvantageMoments, Experience
from gradweave.agents.actor_critic.learner import ActorCriticEta, actor_critic, bundled_apply, parameter_groups
from gradweave.agents.actor_critic.outer_loss import OuterObjective

__all__ = [
    "ActorCriticEta",
    "AdvantageMoments",
    "Experience",
    "OuterObjective",
    "actor_critic",
    "actor_critic_agent",
    "bundled_apply",
    "network_policy",
    "parameter_groups",
    "policy_distance",
]
