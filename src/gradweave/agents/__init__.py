"""Learners as meta-problems, and what joins one to an estimator, a mode and a meta-optimiser."""

from gradweave.agents.actor_critic import ActorCriticEta, actor_critic, bundled_apply, parameter_groups
from gradweave.agents.distances import policy_distance
from gradweave.agents.experience import AdvantageMoments, Experience
from gradweave.agents.objectives import OuterObjective
from gradweave.agents.optimizers import inner_optimizer, safe_clip_by_global_norm
from gradweave.agents.running import RunningMean, WindowStatistics
from gradweave.agents.schedule import LearningStatistics, ScheduleNetwork, ScheduleWeights, learning_features
from gradweave.agents.self_tuning import SelfTuning
from gradweave.agents.state import CollectedWindow, MetaStepMetrics, SelfTuningState, named_leaves

__all__ = [
    "ActorCriticEta",
    "AdvantageMoments",
    "CollectedWindow",
    "Experience",
    "LearningStatistics",
    "MetaStepMetrics",
    "OuterObjective",
    "RunningMean",
    "ScheduleNetwork",
    "ScheduleWeights",
    "SelfTuning",
    "SelfTuningState",
    "WindowStatistics",
    "actor_critic",
    "bundled_apply",
    "inner_optimizer",
    "learning_features",
    "named_leaves",
    "parameter_groups",
    "policy_distance",
    "safe_clip_by_global_norm",
]
