"""Options of PPO; its network and its outer loss are the actor-critic's.

Defaults are those of the public implementations (Schulman et al. 2017, arXiv 1707.06347; Huang et al. 2022, "The 37
implementation details of PPO") without their annealing, which the learned learning rate takes the place of.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from gradweave.config.checks import fields, positive
from gradweave.config.hyperparameters import hyperparameter
from gradweave.config.learners import actor_critic
from gradweave.config.learners.actor_critic import OuterConfig
from gradweave.config.learners.passes import passes_problems
from gradweave.config.learners.sections import InnerSection, OptimizerSection
from gradweave.errors import ConfigError

__all__ = ["InnerConfig", "NetworkConfig", "problems"]


@dataclass(frozen=True)
class NetworkConfig(actor_critic.NetworkConfig):
    """PPO's network."""

    outer_torso: actor_critic.OuterTorso = "own"
    """The outer critic's: one of its own, since clipping the gradient's norm differentiates it; or shared with the
    value; or, without clipping, the value's, which it reads and does not move ("detached")."""


@dataclass(frozen=True)
class InnerConfig(OptimizerSection, InnerSection):
    """PPO; discount, lambda, costs, learning rate and clip range are where the meta-parameters start."""

    num_envs: int = 8
    """Environments stepped at the same time."""
    num_steps: int = 128
    """Steps of each environment in one rollout."""
    discount: float = hyperparameter(0.99, 0.0, 1.0)
    """Discount, in (0, 1)."""
    lambda_: Annotated[float, tyro.conf.arg(name="lambda")] = hyperparameter(0.95, 0.0, 1.0, closed=True)
    """Mixing of the lambda-return, in [0, 1]."""
    entropy_cost: float = hyperparameter(0.01, 0.0, closed=True)
    """Weight of the entropy bonus, > 0 when learned."""
    value_cost: float = hyperparameter(0.25, 0.0, closed=True)  # of the squared error itself; others halve it
    """Weight of the value loss, > 0 when learned."""
    learning_rate: float = hyperparameter(2.5e-4, 0.0)
    """Step size of the inner optimiser, > 0."""
    num_epochs: int = 4
    """Passes over each rollout."""
    num_minibatches: int = 4
    """Gradient steps of each pass; must divide num_envs x num_steps, or with a memory num_envs."""
    clip_range: float = hyperparameter(0.2, 0.0, differentiable=False)
    """How far from 1 the ratio of probabilities pays, > 0. The derivative of an update by it is zero almost everywhere,
    so that only a tuner can move it: --meta.tuners clip_range=return-choice:0.1,0.2,0.3."""
    normalize_advantages: bool = True
    """Standardise the advantages of each minibatch."""
    clip_values: bool = False
    """Clip the change of values, too."""
    value_clip_range: float = hyperparameter(0.2, 0.0, differentiable=False)
    """How far clipped values may move in an update, > 0, in the unit of returns. Only a tuner can move it, too:
    --meta.tuners value_clip_range=error-scale."""
    target_kl: float | None = None
    """Leave a rollout once a minibatch's policy is 1.5 times this divergence from the one that collected it; None: do
    not."""
    eps: float = 1e-5
    """Adam: added outside the root of the second moment. RMSProp: added inside it."""
    max_grad_norm: float | None = 0.5
    """Clip the inner gradient's global norm; None does not clip."""


def idle(inner: InnerConfig) -> dict[str, str]:
    """The hyper-parameters without effect under the other options, with the flag that would give them one."""
    return {} if inner.clip_values else {"value_clip_range": "--inner.clip-values"}


def problems(network: NetworkConfig, inner: InnerConfig, outer: OuterConfig, meta: Any) -> Iterator[ConfigError]:
    """Errors in these options, given the section [meta]."""
    yield from passes_problems("PPO", network, inner, outer, meta)
    yield from positive("inner", fields(inner, "target_kl"))
    whole = network.memory != "none"
    count = inner.num_envs if whole else inner.num_envs * inner.num_steps
    if inner.num_minibatches > 0 and count % inner.num_minibatches:
        what = f"{count} environments, which a memory keeps whole" if whole else f"{count} steps of a rollout"
        accepted = f"a divisor of the {what}"
        fewer = next(number for number in range(min(inner.num_minibatches, count), 0, -1) if count % number == 0)
        yield ConfigError("inner.num_minibatches", inner.num_minibatches, accepted, f"--inner.num-minibatches {fewer}")
