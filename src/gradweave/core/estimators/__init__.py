"""Estimators of the meta-gradient."""

from gradweave.core.estimators.adaptive import (
    AbstractMixCriterion,
    AdaptiveMix,
    AdaptiveMixMemory,
    HorizonMoments,
    LeastError,
    SignalToNoise,
)
from gradweave.core.estimators.base import AbstractEstimator, AbstractLinearEstimator
from gradweave.core.estimators.bootstrapped import Bootstrapped, euclidean_distance
from gradweave.core.estimators.evolution import (
    EvolutionStrategies,
    PersistentEvolutionStrategies,
)
from gradweave.core.estimators.linear import (
    HorizonMix,
    Truncated,
    TruncationMix,
    Unrolled,
    WindowMix,
    geometric_weights,
    uniform_weights,
)
from gradweave.core.estimators.random_truncation import RandomTruncation
from gradweave.core.estimators.trace import Trace

__all__ = [
    "AbstractEstimator",
    "AbstractLinearEstimator",
    "AbstractMixCriterion",
    "AdaptiveMix",
    "AdaptiveMixMemory",
    "Bootstrapped",
    "EvolutionStrategies",
    "HorizonMix",
    "HorizonMoments",
    "LeastError",
    "PersistentEvolutionStrategies",
    "RandomTruncation",
    "SignalToNoise",
    "Trace",
    "Truncated",
    "TruncationMix",
    "Unrolled",
    "WindowMix",
    "euclidean_distance",
    "geometric_weights",
    "uniform_weights",
]
