"""The table of learners: one row each, whose package in `gradweave.agents` builds it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gradweave.config.hyperparameters import Range, hyperparameters_of
from gradweave.config.learners import actor_critic, ppo, vtrace
from gradweave.config.learners.sections import InnerSection, NetworkSection, OuterSection
from gradweave.errors import ConfigError

__all__ = ["LEARNERS", "Learner"]


@dataclass(frozen=True)
class Learner:
    """A learner: its package, sections of options, checks and names.

    Attributes:
        package: has `package.build.build_learner(config, environment, axis)`, which returns a
            `gradweave.agents.built.BuiltLearner`.
        network: its section [network], a dataclass with defaults; and so on.
        inner: its section [inner]; tuning may move the fields made by `hyperparameter`.
        outer: its section [outer].
        problems: `(network, inner, outer, meta) -> ` errors in these sections, beside those of all learners and of the
            ranges of hyper-parameters.
        names: `(inner, learned) -> ` the names of the numbers that are tuned, as in the metrics.
        untuned: `(inner) -> inner` without the options that only tuning reads.
        modes: names of the modes that can differentiate it; the first one is the usual one.
        splits: whether its batches can be split over devices.
        idle: `(inner) -> ` the hyper-parameters without effect under its other options, each with the flag that would
            give it one.
        auto: fields of the section [meta] that `--meta.preset auto` sets (`gradweave.config.auto`); none: it has none.
    """

    package: str
    network: type[NetworkSection]
    inner: type[InnerSection]
    outer: type[OuterSection]
    problems: Callable[..., Iterator[ConfigError]] = lambda *sections: iter(())
    names: Callable[..., tuple[str, ...]] = lambda inner, learned: learned
    untuned: Callable[..., InnerSection] = lambda inner: inner
    modes: tuple[str, ...] = ("mixed", "reverse", "forward")
    splits: bool = True
    idle: Callable[..., Mapping[str, str]] = lambda inner: {}
    auto: Mapping[str, Any] = field(default_factory=dict)

    @property
    def hyperparameters(self) -> Mapping[str, Range]:
        """Hyper-parameters that the meta-gradient or tuners may move, with their ranges."""
        return hyperparameters_of(self.inner)

    def active(self, inner: InnerSection) -> Mapping[str, Range]:
        """Those that have an effect under the options of a section [inner]."""
        without = self.idle(inner)
        return {name: limits for name, limits in self.hyperparameters.items() if name not in without}


LEARNERS: Final[Mapping[str, Learner]] = {
    "actor-critic": Learner(
        "gradweave.agents.actor_critic",
        actor_critic.NetworkConfig,
        actor_critic.InnerConfig,
        actor_critic.OuterConfig,
        actor_critic.problems,
        actor_critic.learned_names,
        actor_critic.untuned,
        auto={"tuners": ("learning_rate=kl-anneal:0.003",), "guard": True},
    ),
    "ppo": Learner(
        "gradweave.agents.ppo",
        ppo.NetworkConfig,
        ppo.InnerConfig,
        actor_critic.OuterConfig,
        ppo.problems,
        splits=False,
        idle=ppo.idle,
        auto={
            "tuners": (
                "learning_rate=kl-anneal",
                "entropy_cost=bounds:0.003,0.03",
                "lambda=bounds:0.95,1",
                "value_clip_range=error-scale",
            ),
            "guard": True,
        },
    ),
    "vtrace": Learner(
        "gradweave.agents.vtrace",
        actor_critic.NetworkConfig,
        vtrace.InnerConfig,
        actor_critic.OuterConfig,
        vtrace.problems,
        vtrace.learned_names,
        splits=False,
    ),
}
"""Every learner by its name."""
