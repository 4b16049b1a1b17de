"""Environments: the contract, adapters to public suites, and small probes with known answers.

The names below are imported on first use (PEP 562), so that `gradweave.envs.registry` can check a name without loading
JAX, and so that neither Jumanji nor Gymnax is loaded before one of their environments is made.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradweave.envs.environment import AbstractEnvironment, Step
    from gradweave.envs.observation import Observation
    from gradweave.envs.vector import VectorEnvironment, VectorStep

_MODULES = {
    "AbstractEnvironment": "environment",
    "Observation": "observation",
    "Step": "environment",
    "VectorEnvironment": "vector",
    "VectorStep": "vector",
}

__all__ = [
    "AbstractEnvironment",
    "Observation",
    "Step",
    "VectorEnvironment",
    "VectorStep",
]


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """The public names, and what is loaded already."""
    return sorted({*globals(), *__all__})
