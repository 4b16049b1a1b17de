"""What the options of every learner have: how much it collects, and which rollout its outer loss is evaluated on."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["InnerSection", "NetworkSection", "OuterRollout", "OuterSection"]

OuterRollout: TypeAlias = Literal["next", "own"]


@dataclass(frozen=True)
class NetworkSection:
    """A learner's network."""

    condition_on_eta: bool = False  # [X18], section 2.3
    """Feed the current meta-parameters to the network."""


@dataclass(frozen=True)
class InnerSection:
    """A learner's own options; its hyper-parameters are where the meta-parameters start."""

    num_envs: int = 64
    """Environments stepped at the same time."""
    num_steps: int = 5
    """Steps of each environment in one inner batch."""


@dataclass(frozen=True)
class OuterSection:
    """The outer loss, which the meta-parameters are tuned for."""

    rollout: OuterRollout = "next"  # [X18]; [B22] own
    """The rollout that the outer loss is evaluated on: the next update's, or one of its own after every update, whose
    steps are counted and which is then thrown away."""
