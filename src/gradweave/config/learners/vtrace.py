"""Options of the V-trace actor-critic; its network and its outer loss are the actor-critic's."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final

import tyro

from gradweave.config.checks import at_least, positive, unused
from gradweave.config.hyperparameters import hyperparameter
from gradweave.config.learners.actor_critic import NetworkConfig, OuterConfig
from gradweave.config.learners.passes import passes_problems
from gradweave.config.learners.sections import InnerSection, OptimizerSection
from gradweave.errors import ConfigError

__all__ = ["InnerConfig", "learned_names", "problems"]

_OF_HEADS: Final = ("auxiliary_discount", "auxiliary_lambda", "auxiliary_cost")


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
    auxiliary_heads: int = 0  # Zahavy et al. 2020 use 2
    """Further policies and values on the same torso, which are learned; they neither act nor enter the outer loss."""
    auxiliary_discount: float = hyperparameter(0.99, 0.0, 1.0)
    """Discount of each auxiliary head, in (0, 1); every head has one of its own."""
    auxiliary_lambda: float = hyperparameter(0.95, 0.0, 1.0, closed=True)
    """Mixing of each auxiliary head's V-trace returns, in [0, 1]."""
    auxiliary_cost: float = hyperparameter(0.1, 0.0, closed=True)
    """Weight of each auxiliary head's loss beside the main one's, > 0 when learned."""


def learned_names(inner: InnerConfig, learned: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the numbers that are tuned, as in the metrics; those of auxiliary heads are apart."""
    heads = range(inner.auxiliary_heads)
    return tuple(each for name in learned for each in ([f"{name}/{k}" for k in heads] if name in _OF_HEADS else [name]))


def problems(network: NetworkConfig, inner: InnerConfig, outer: OuterConfig, meta: Any) -> Iterator[ConfigError]:
    """Errors in these options, given the section [meta]."""
    yield from passes_problems("V-trace", network, inner, outer, meta)
    yield from positive("inner", {"clip_rho": inner.clip_rho, "clip_c": inner.clip_c})
    yield from at_least("inner", {"auxiliary_heads": inner.auxiliary_heads}, 0)
    if inner.auxiliary_heads == 0:
        for name in _OF_HEADS:
            default = getattr(InnerConfig, name)
            yield from unused(f"inner.{name}", getattr(inner, name), default, "--inner.auxiliary-heads 2")
        for name in set(_OF_HEADS) & set(meta.learned):
            remedy = f"--inner.auxiliary-heads 2, or leave {name} out"
            yield ConfigError("meta.learned", name, "meta-parameters that the learner has", remedy)
    for text in meta.tuners:
        if text.partition("=")[0] in _OF_HEADS:
            accepted = "tuners of single numbers; every auxiliary head has one of its own"
            yield ConfigError("meta.tuners", text, accepted, "let the meta-gradient learn it: --meta.learned")
    if inner.num_minibatches > 0 and inner.num_envs % inner.num_minibatches:
        accepted = f"a divisor of the {inner.num_envs} environments, which V-trace keeps whole"
        fewer = math.gcd(inner.num_envs, inner.num_minibatches)
        remedy = f"--inner.num-minibatches {fewer}"
        yield ConfigError("inner.num_minibatches", inner.num_minibatches, accepted, remedy)
