"""Environments: the contract, adapters to public suites, and small probes with known answers.

The names below are imported on first use (PEP 562), so that `gradweave.envs.registry` can check a name without loading
JAX, and so that no suite is loaded before one of their environments is made.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradweave.envs.check import EnvironmentReport, check_environment
    from gradweave.envs.device_axis import ONE_DEVICE, DeviceAxis
    from gradweave.envs.discounting_chain import DiscountingChain
    from gradweave.envs.envelope import EnvelopeEnvironment
    from gradweave.envs.environment import AbstractEnvironment, Step
    from gradweave.envs.gymnax import GymnaxEnvironment
    from gradweave.envs.horizon_probes import DelayedReward, TerminatedReward, TruncatedReward
    from gradweave.envs.jumanji import BoardOrVector, JumanjiEnvironment, SnakeView, snake
    from gradweave.envs.observation import Observation
    from gradweave.envs.probe import AbstractProbe, OptimalValues, ProbeState
    from gradweave.envs.probes import (
        AimedReward,
        ChosenReward,
        ConstantReward,
        MaskedAction,
        MatchedReward,
        ObservedReward,
    )
    from gradweave.envs.registry import ENVIRONMENTS, make_environment, validate_environment
    from gradweave.envs.two_colors import TwoColors
    from gradweave.envs.unmasked import Unmasked
    from gradweave.envs.vector import VectorEnvironment, VectorStep

_MODULES = {
    "ENVIRONMENTS": "registry",
    "ONE_DEVICE": "device_axis",
    "AbstractEnvironment": "environment",
    "AbstractProbe": "probe",
    "AimedReward": "probes",
    "BoardOrVector": "jumanji",
    "ChosenReward": "probes",
    "ConstantReward": "probes",
    "DelayedReward": "horizon_probes",
    "DeviceAxis": "device_axis",
    "DiscountingChain": "discounting_chain",
    "EnvelopeEnvironment": "envelope",
    "EnvironmentReport": "check",
    "GymnaxEnvironment": "gymnax",
    "JumanjiEnvironment": "jumanji",
    "MaskedAction": "probes",
    "MatchedReward": "probes",
    "Observation": "observation",
    "ObservedReward": "probes",
    "OptimalValues": "probe",
    "ProbeState": "probe",
    "SnakeView": "jumanji",
    "Step": "environment",
    "TerminatedReward": "horizon_probes",
    "TruncatedReward": "horizon_probes",
    "TwoColors": "two_colors",
    "Unmasked": "unmasked",
    "VectorEnvironment": "vector",
    "VectorStep": "vector",
    "check_environment": "check",
    "make_environment": "registry",
    "snake": "jumanji",
    "validate_environment": "registry",
}

__all__ = [
    "ENVIRONMENTS",
    "ONE_DEVICE",
    "AbstractEnvironment",
    "AbstractProbe",
    "AimedReward",
    "BoardOrVector",
    "ChosenReward",
    "ConstantReward",
    "DelayedReward",
    "DeviceAxis",
    "DiscountingChain",
    "EnvelopeEnvironment",
    "EnvironmentReport",
    "GymnaxEnvironment",
    "JumanjiEnvironment",
    "MaskedAction",
    "MatchedReward",
    "Observation",
    "ObservedReward",
    "OptimalValues",
    "ProbeState",
    "SnakeView",
    "Step",
    "TerminatedReward",
    "TruncatedReward",
    "TwoColors",
    "Unmasked",
    "VectorEnvironment",
    "VectorStep",
    "check_environment",
    "make_environment",
    "snake",
    "validate_environment",
]


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """The public names, and what is loaded already."""
    return sorted({*globals(), *__all__})
