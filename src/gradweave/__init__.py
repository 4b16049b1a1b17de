"""gradweave: agents that tune their own hyper-parameters by multi-step meta-gradients, and the instruments to measure
them.

The public names are loaded on first use, because importing JAX takes half a second that `gradweave --help` does not
need.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

__version__ = importlib.metadata.version("gradweave")

_CORE = (
    "AbstractBijector",
    "AbstractEstimator",
    "AbstractLinearEstimator",
    "AbstractMixCriterion",
    "AbstractMode",
    "AdaptiveMix",
    "AdaptiveMixMemory",
    "BatchPart",
    "Bootstrapped",
    "Contextual",
    "Differentiand",
    "Differentiated",
    "EstimatorStatistics",
    "EvolutionStrategies",
    "Finding",
    "Fixed",
    "Footprint",
    "ForwardMode",
    "GradientLearner",
    "GradientSteps",
    "GuardedState",
    "HorizonMix",
    "HorizonMoments",
    "HorizonRecording",
    "Interval",
    "KernelWeights",
    "LeafReport",
    "LearnerReport",
    "LearnerState",
    "LeastError",
    "MetaGradient",
    "MetaProblem",
    "Microbatches",
    "MinibatchLearner",
    "MixedMode",
    "ModeReport",
    "PersistentEvolutionStrategies",
    "Positive",
    "RandomTruncation",
    "Recording",
    "ReverseMode",
    "SamplingCorrection",
    "SignalToNoise",
    "StepEta",
    "Trace",
    "Truncated",
    "TruncationMix",
    "Unbounded",
    "Unrolled",
    "Window",
    "WindowAux",
    "WindowMix",
    "check_learner",
    "clip_raw",
    "constrain",
    "contextual",
    "contextual_spec",
    "corrected_meta_gradient",
    "differentiable",
    "estimator_statistics",
    "euclidean_distance",
    "finite_difference",
    "geometric_weights",
    "gradient_samples",
    "guarded",
    "horizon_gradients",
    "meta_gradient",
    "truncated_gradients",
    "tunable",
    "unconstrain",
    "uniform_weights",
    "unroll",
)
_AGENTS = (
    "AbstractTuner",
    "ActorCriticEta",
    "Agent",
    "Bounds",
    "EntropyShare",
    "ErrorScale",
    "Experience",
    "KLAnneal",
    "KLControl",
    "LiveEvolution",
    "MetaStepMetrics",
    "OuterObjective",
    "PPOBatch",
    "PPOEta",
    "PPOOptions",
    "ReturnChoice",
    "ReturnGuard",
    "ScheduleNetwork",
    "SelfTuning",
    "SelfTuningState",
    "TargetEntropy",
    "VTraceEta",
    "VTraceOptions",
    "actor_critic",
    "actor_critic_agent",
    "inner_optimizer",
    "parameter_groups",
    "ppo_agent",
    "vtrace_agent",
)
_API = ("Run", "load_run", "measure", "resume", "train")
_HOMES = {name: "gradweave.core" for name in _CORE} | {name: "gradweave.agents" for name in _AGENTS}
_HOMES |= {name: "gradweave.api" for name in _API}
_HOMES |= {
    "check_environment": "gradweave.envs",
    "told_from_noise": "gradweave.measurement.noise",
    "configure": "gradweave.config.configure",
    "Config": "gradweave.config.schema",
}

__all__ = sorted([*_HOMES, "__version__"])

if TYPE_CHECKING:
    from gradweave.agents import *  # noqa: F403
    from gradweave.api import *  # noqa: F403
    from gradweave.config.configure import configure as configure
    from gradweave.config.schema import Config as Config
    from gradweave.core import *  # noqa: F403
    from gradweave.envs import check_environment as check_environment
    from gradweave.measurement.noise import told_from_noise as told_from_noise


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gradweave' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
