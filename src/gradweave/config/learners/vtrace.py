"""What can be chosen of the V-trace actor-critic; its network and its outer loss are the actor-critic's."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from gradweave.config.checks import positive
from gradweave.config.hyperparameters import hyperparameter
from gradweave.config.learners.actor_critic import NetworkConfig, OuterConfig
from gradweave.config.learners.passes import passes_problems
from gradweave.config.learners.sections import InnerSection, OptimizerSection
from gradweave.errors import ConfigError

__all__ = ["InnerConfig", "problems"]


@dataclass(frozen=True)
class InnerConfig(OptimizerSection, InnerSection):
    """V-trace; discount, lambda, alpha, costs and learning rate are where the meta-parameters start."""

    num_envs: int = 16
    """Environments stepped at the same time."""
    num_steps: int = 32
    """Steps of each environment in one rollout."""
    discount: float = hyperparameter(0.99, 0.0, 1.0)
    """Discount, in (0, 1)."""
    lambda_: Annotated[float, tyro.conf.arg(name="lambda")] = hyperparameter(0.95, 0.0, 1.0, closed=True)
    """Mixing of the V-trace returns, in [0, 1]."""
    alpha: float = hyperparameter(1.0, 0.0, 1.0, closed=True)  # Espeholt et al. 2018 clip all
    """Share of each importance weight that is clipped, in [0, 1]; 1 is V-trace, less is leaky."""
    policy_cost: float = hyperparameter(1.0, 0.0, closed=True)
    """Weight of the policy loss, > 0 when learned."""
    entropy_cost: float = hyperparameter(0.01, 0.0, closed=True)  # Zahavy et al. 2020
    """Weight of the entropy bonus, > 0 when learned."""
    value_cost: float = hyperparameter(0.25, 0.0, closed=True)  # of the squared error itself: theirs
    """Weight of the value loss, > 0 when learned."""
    learning_rate: float = hyperparameter(1e-3, 0.0)
    """Step size of the inner optimiser, > 0."""
    num_epochs: int = 2
    """Passes over each rollout; from the second step on the policy is not the one that collected it."""
    num_minibatches: int = 2
    """Gradient steps of each pass; must divide num_envs."""
    clip_rho: float = 1.0
    """Where the importance weights of errors and advantages are clipped, > 0."""
    clip_c: float = 1.0
    """Where the importance weights that errors travel back with are clipped, > 0."""


def problems(network: NetworkConfig, inner: InnerConfig, outer: OuterConfig, meta: Any) -> Iterator[ConfigError]:
    """What of these options cannot be used, beside a section [meta]."""
    yield from passes_problems("V-trace", network, inner, outer, meta)
    yield from positive("inner", {"clip_rho": inner.clip_rho, "clip_c": inner.clip_c})
    if inner.num_minibatches > 0 and inner.num_envs % inner.num_minibatches:
        accepted = f"a divisor of the {inner.num_envs} environments, which V-trace keeps whole"
        fewer = math.gcd(inner.num_envs, inner.num_minibatches)
        remedy = f"--inner.num-minibatches {fewer}"
        yield ConfigError("inner.num_minibatches", inner.num_minibatches, accepted, remedy)
