"""Meta-gradients of any learner. Knows neither reinforcement learning nor environments."""

from gradweave.core.bijectors import AbstractBijector, Fixed, Interval, Positive, Unbounded, constrain, unconstrain
from gradweave.core.differences import finite_difference
from gradweave.core.estimators import (
    AbstractEstimator,
    AbstractLinearEstimator,
    Differentiand,
    HorizonMix,
    Truncated,
    Unrolled,
    WindowMix,
    geometric_weights,
    uniform_weights,
)
from gradweave.core.learner import GradientLearner, LearnerState
from gradweave.core.meta_gradient import MetaGradient, horizon_gradients, meta_gradient, truncated_gradients
from gradweave.core.modes import AbstractMode, Differentiated, ForwardMode, KernelWeights, MixedMode, ReverseMode
from gradweave.core.problem import MetaProblem, MetaProblemLike, Recording, Window, WindowAux, unroll
from gradweave.core.statistics import EstimatorStatistics, estimator_statistics, gradient_samples

__all__ = [
    "AbstractBijector",
    "AbstractEstimator",
    "AbstractLinearEstimator",
    "AbstractMode",
    "Differentiand",
    "Differentiated",
    "EstimatorStatistics",
    "Fixed",
    "ForwardMode",
    "GradientLearner",
    "HorizonMix",
    "Interval",
    "KernelWeights",
    "LearnerState",
    "MetaGradient",
    "MetaProblem",
    "MetaProblemLike",
    "MixedMode",
    "Positive",
    "Recording",
    "ReverseMode",
    "Truncated",
    "Unbounded",
    "Unrolled",
    "Window",
    "WindowAux",
    "WindowMix",
    "constrain",
    "estimator_statistics",
    "finite_difference",
    "geometric_weights",
    "gradient_samples",
    "horizon_gradients",
    "meta_gradient",
    "truncated_gradients",
    "unconstrain",
    "uniform_weights",
    "unroll",
]
