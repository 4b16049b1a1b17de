"""What meta-gradient is estimated."""

from gradweave.core.estimators.base import AbstractEstimator, AbstractLinearEstimator, Differentiand
from gradweave.core.estimators.linear import (
    HorizonMix,
    Truncated,
    Unrolled,
    WindowMix,
    geometric_weights,
    uniform_weights,
)

__all__ = [
    "AbstractEstimator",
    "AbstractLinearEstimator",
    "Differentiand",
    "HorizonMix",
    "Truncated",
    "Unrolled",
    "WindowMix",
    "geometric_weights",
    "uniform_weights",
]
