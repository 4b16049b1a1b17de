"""Options of every learner: how much it collects, and on which rollout its outer loss is evaluated; and those of the
inner optimiser, for learners that have one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from gradweave.config.checks import at_least, choice, in_range, positive, unused
from gradweave.config.hyperparameters import single
from gradweave.errors import ConfigError

__all__ = ["InnerSection", "NetworkSection", "OptimizerSection", "OuterRollout", "OuterSection", "optimizer_problems"]

Optimizer: TypeAlias = Literal["adam", "rmsprop", "sgd"]
OuterRollout: TypeAlias = Literal["next", "own"]
ScaleRewards: TypeAlias = Literal["auto", "on", "off"]


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
    scale_rewards: ScaleRewards = "auto"
    """Divide rewards by the running size of returns before they are learned from; auto: where actions are continuous.
    Returns are reported in the environment's units either way."""
    normalize_observations: bool = False
    """Normalise observations by their running mean and standard deviation, which are part of the state."""


@dataclass(frozen=True)
class OptimizerSection:
    """The inner optimiser, beside the learning rate."""

    optimizer: Optimizer = "adam"
    """Inner optimiser; the meta-gradient is taken through it."""
    eps: float = 1e-8  # Adam's usual value
    """Adam: added outside the root of the second moment. RMSProp: added inside it; its root is then a floor under every
    gradient's magnitude."""
    eps_root: float = 1e-16  # 1e-8 floors gradients at 1e-4 and stops Snake from learning; 1e-16 keeps float32 finite
    """Adam: added inside the root of the second moment, so that its derivative stays finite at zero."""
    rmsprop_decay: float = 0.9  # [B22]
    """Decay of RMSProp's second moment."""
    max_grad_norm: float | None = None
    """Clip the inner gradient's global norm; None does not clip."""


def optimizer_problems(inner: OptimizerSection) -> Iterator[ConfigError]:
    """Errors in the options of an optimiser."""
    yield from positive("inner", {"max_grad_norm": inner.max_grad_norm})
    yield from choice("inner.optimizer", inner.optimizer, ("adam", "rmsprop", "sgd"))
    yield from at_least("inner", {"eps": inner.eps}, 0)
    # Without the constant inside the root the root's second derivative at zero is infinite.
    decay, eps_root = inner.rmsprop_decay, inner.eps_root
    if inner.optimizer == "rmsprop":
        yield from positive("inner", {"eps": inner.eps})
        yield from in_range("inner.rmsprop_decay", decay, "a number in [0, 1)", 0 <= single(decay) < 1)
        yield from unused("inner.eps_root", eps_root, OptimizerSection.eps_root, "--inner.optimizer adam")
    else:
        yield from unused("inner.rmsprop_decay", decay, OptimizerSection.rmsprop_decay, "--inner.optimizer rmsprop")
    if inner.optimizer == "adam":
        yield from positive("inner", {"eps_root": eps_root})


@dataclass(frozen=True)
class OuterSection:
    """The outer loss, which the meta-parameters are tuned for."""

    rollout: OuterRollout = "next"  # [X18]; [B22] own
    """The rollout that the outer loss is evaluated on: the next update's, or one of its own after every update, whose
    steps are counted and which is then thrown away."""
