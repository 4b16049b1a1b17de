"""Differentiation modes: three algorithms for the same meta-gradient."""

from gradweave.core.modes.base import AbstractMode, Differentiand, Differentiated, Footprint, KernelWeights
from gradweave.core.modes.forward import ForwardMode
from gradweave.core.modes.mixed import MixedMode
from gradweave.core.modes.reverse import ReverseMode

__all__ = [
    "AbstractMode",
    "Differentiand",
    "Differentiated",
    "Footprint",
    "ForwardMode",
    "KernelWeights",
    "MixedMode",
    "ReverseMode",
]
