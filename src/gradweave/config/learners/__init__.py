"""The table of learners."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from gradweave.config.hyperparameters import Range
from gradweave.config.learners import actor_critic
from gradweave.errors import ConfigError

__all__ = ["LEARNERS", "Learner"]


@dataclass(frozen=True)
class Learner:
    """What the rest of the program asks of a learner's options.

    Attributes:
        hyperparameters: what the meta-gradient may tune, with ranges.
        problems: `(network, inner, outer, learned) -> ` what of these sections it cannot work with, when `learned`
            names the learned hyper-parameters.
    """

    hyperparameters: Mapping[str, Range]
    problems: Callable[..., Iterator[ConfigError]]


LEARNERS: Final = {
    "actor-critic": Learner(actor_critic.HYPERPARAMETERS, actor_critic.problems),
}
"""Every learner by its name."""
