"""Learners as meta-problems, and `SelfTuning`: a learner with an estimator, a mode and a meta-optimiser."""

from gradweave.agents.actor_critic import (
    ActorCriticEta,
    AdvantageMoments,
    Experience,
    OuterObjective,
    actor_critic,
    actor_critic_agent,
    bundled_apply,
    network_policy,
    parameter_groups,
    policy_distance,
)
from gradweave.agents.agent import Agent, Annotation, SamplingTerms
from gradweave.agents.optimizers import inner_optimizer, safe_clip_by_global_norm
from gradweave.agents.ppo import PPOBatch, PPOEta, PPOOptions, ppo_agent
from gradweave.agents.return_guard import GuardMemory, ReturnGuard
from gradweave.agents.running import RunningMean
from gradweave.agents.schedule import (
    LearningStatistics,
    RecentRewards,
    ScheduleNetwork,
    ScheduleWeights,
    learning_features,
)
from gradweave.agents.self_tuning import SelfTuning
from gradweave.agents.state import (
    CollectedWindow,
    MetaStepMetrics,
    SelfTuningState,
    carried_on,
    learning_part,
    named_leaves,
)
from gradweave.agents.tuners import (
    AbstractTuner,
    Bounds,
    EntropyShare,
    ErrorScale,
    KLAnneal,
    KLControl,
    LiveEvolution,
    ReturnChoice,
    TargetEntropy,
)
from gradweave.agents.vtrace import VTraceEta, VTraceOptions, vtrace_agent

__all__ = [
    "AbstractTuner",
    "ActorCriticEta",
    "AdvantageMoments",
    "Agent",
    "Annotation",
    "Bounds",
    "CollectedWindow",
    "EntropyShare",
    "ErrorScale",
    "Experience",
    "GuardMemory",
    "KLAnneal",
    "KLControl",
    "LearningStatistics",
    "LiveEvolution",
    "MetaStepMetrics",
    "OuterObjective",
    "PPOBatch",
    "PPOEta",
    "PPOOptions",
    "RecentRewards",
    "ReturnChoice",
    "ReturnGuard",
    "RunningMean",
    "SamplingTerms",
    "ScheduleNetwork",
    "ScheduleWeights",
    "SelfTuning",
    "SelfTuningState",
    "TargetEntropy",
    "VTraceEta",
    "VTraceOptions",
    "actor_critic",
    "actor_critic_agent",
    "bundled_apply",
    "carried_on",
    "inner_optimizer",
    "learning_features",
    "learning_part",
    "named_leaves",
    "network_policy",
    "parameter_groups",
    "policy_distance",
    "ppo_agent",
    "safe_clip_by_global_norm",
    "vtrace_agent",
]
