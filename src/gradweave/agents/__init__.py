"""Learners as meta-problems, and what joins one to an estimator, a mode and a meta-optimiser."""

from gradweave.agents.actor_critic import ActorCriticEta, Experience, OuterObjective, actor_critic, bundled_apply
from gradweave.agents.optimizers import inner_optimizer, safe_clip_by_global_norm
from gradweave.agents.self_tuning import CollectedWindow, MetaStepMetrics, SelfTuning, SelfTuningState

__all__ = [
    "ActorCriticEta",
    "CollectedWindow",
    "Experience",
    "MetaStepMetrics",
    "OuterObjective",
    "SelfTuning",
    "SelfTuningState",
    "actor_critic",
    "bundled_apply",
    "inner_optimizer",
    "safe_clip_by_global_norm",
]
