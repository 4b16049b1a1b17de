"""PPO: its update, and how it is built from a configuration."""

from gradweave.agents.ppo.learner import PPOBatch, PPOEta, PPOOptions, ppo_agent

__all__ = ["PPOBatch", "PPOEta", "PPOOptions", "ppo_agent"]
