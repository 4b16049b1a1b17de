"""What meta-gradient is estimated."""

from gradweave.core.estimators.adaptive import (
    AbstractMixCriterion,
    AdaptiveMix,
    AdaptiveMixState,
    LeastError,
    SignalToNoise,
)
from gradweave.core.estimators.base import AbstractEstimator, AbstractLinearEstimator, Differentiand
from gradweave.core.estimators.bootstrapped import Bootstrapped, euclidean_distance
from gradweave.core.estimators.evolution import (
    AntitheticEvolutionStrategies,
    EvolutionStrategies,
    PersistentEvolutionStrategies,
)
from gradweave.core.estimators.linear import (
    HorizonMix,
    Truncated,
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
    "AdaptiveMixState",
    "AntitheticEvolutionStrategies",
    "Bootstrapped",
    "Differentiand",
    "EvolutionStrategies",
    "HorizonMix",
    "LeastError",
    "PersistentEvolutionStrategies",
    "RandomTruncation",
    "SignalToNoise",
    "Trace",
    "Truncated",
    "Unrolled",
    "WindowMix",
    "euclidean_distance",
    "geometric_weights",
    "uniform_weights",
]
