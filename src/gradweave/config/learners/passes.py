"""Checks for learners that pass several times over a rollout: their network and outer loss are the actor-critic's, and
their update is no single gradient step.
"""

from collections.abc import Iterator
from typing import Any

from gradweave.config.checks import at_least, fields
from gradweave.config.learners.actor_critic import (
    NetworkConfig,
    OuterConfig,
    has_outer_critic,
    memory_problems,
    network_problems,
    outer_problems,
    torso_problems,
)
from gradweave.config.learners.sections import optimizer_problems
from gradweave.errors import ConfigError

__all__ = ["passes_problems"]


def passes_problems(
    learner: str, network: NetworkConfig, inner: Any, outer: OuterConfig, meta: Any
) -> Iterator[ConfigError]:
    """Errors in these options.

    Args:
        learner: its name in words.
        network: the section [network].
        inner: the section [inner], with an optimiser's options, `num_epochs` and `num_minibatches`.
        outer: the section [outer].
        meta: the section [meta].
    """
    yield from network_problems(network)
    yield from memory_problems(network, inner)
    yield from torso_problems(network, inner, outer, has_outer_critic(outer, meta.learned))
    yield from outer_problems(outer)
    yield from optimizer_problems(inner)
    yield from at_least("inner", fields(inner, "num_epochs", "num_minibatches"), 1)
    if meta.sampling_correction > 0:
        accepted = f"0 for {learner}, whose ratios of probabilities are a correction of their own"
        remedy = "leave --meta.sampling-correction out"
        yield ConfigError("meta.sampling_correction", meta.sampling_correction, accepted, remedy)
    if meta.schedule != "none":
        accepted = f"'none' for {learner}, which reports nothing that a schedule reads"
        yield ConfigError("meta.schedule", meta.schedule, accepted, "leave --meta.schedule out")
