"""The pieces of an actor-critic: pure functions on one trajectory, the networks, and the rollout that collects data.

Nothing in here knows of meta-parameters: discount, λ and the like are ordinary arguments, and every function can be
differentiated in them.
"""

from gradweave.rl.categorical import MASKED_LOG_PROB, entropy, kl, log_prob, log_probs, mode, probs, sample
from gradweave.rl.cells import GRU, S5, AbstractCell, draw_cell
from gradweave.rl.losses import entropy_bonus, policy_gradient_loss, value_loss
from gradweave.rl.multi_discrete import MultiDiscrete
from gradweave.rl.networks import ActorCriticNetwork, NetworkOutput, actor_critic_network, with_auxiliary_heads
from gradweave.rl.observation_scale import (
    Normalization,
    ObservationStatistics,
    normalized,
    normalized_trajectory,
    pooled,
    with_observations,
)
from gradweave.rl.policies import AbstractPolicyHead, Categorical, Gaussian
from gradweave.rl.returns import generalized_advantages, lambda_returns, trajectory_discounts, trajectory_lambda
from gradweave.rl.reward_scale import RewardScale, scaled_rewards
from gradweave.rl.rollout import Acted, EpisodeTotals, Policy, RolloutState, init_rollout, rollout
from gradweave.rl.tanh_gaussian import TanhGaussian
from gradweave.rl.trajectory import Trajectory, next_values
from gradweave.rl.vtrace import VTrace, leaky_weights, vtrace

__all__ = [
    "GRU",
    "MASKED_LOG_PROB",
    "S5",
    "AbstractCell",
    "AbstractPolicyHead",
    "Acted",
    "ActorCriticNetwork",
    "Categorical",
    "EpisodeTotals",
    "Gaussian",
    "MultiDiscrete",
    "NetworkOutput",
    "Normalization",
    "ObservationStatistics",
    "Policy",
    "RewardScale",
    "RolloutState",
    "TanhGaussian",
    "Trajectory",
    "VTrace",
    "actor_critic_network",
    "draw_cell",
    "entropy",
    "entropy_bonus",
    "generalized_advantages",
    "init_rollout",
    "kl",
    "lambda_returns",
    "leaky_weights",
    "log_prob",
    "log_probs",
    "mode",
    "next_values",
    "normalized",
    "normalized_trajectory",
    "policy_gradient_loss",
    "pooled",
    "probs",
    "rollout",
    "sample",
    "scaled_rewards",
    "trajectory_discounts",
    "trajectory_lambda",
    "value_loss",
    "vtrace",
    "with_auxiliary_heads",
    "with_observations",
]
