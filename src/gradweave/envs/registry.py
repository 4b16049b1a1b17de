"""Environments by name, each with the options it takes; names and options are checked without loading JAX.

`make_environment("snake", num_rows=6, num_cols=6)` is what configurations and the command line use. Names with a prefix
come from elsewhere: `jumanji:Game2048-v1`, `gymnax:CartPole-v1`. An environment that is in no registry needs none: hand
the object to whoever asks for an environment.
"""

import difflib
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from gradweave.envs.environment import AbstractEnvironment

__all__ = [
    "ENVIRONMENTS",
    "GYMNAX_ENVIRONMENTS",
    "JUMANJI_ENVIRONMENTS",
    "Option",
    "make_environment",
    "validate_environment",
]


class Option(NamedTuple):
    """What an option accepts: a switch, or a whole number between bounds."""

    lowest: int | None = None
    """Least number; None for a switch."""
    highest: int | None = None
    """Greatest number; None for no limit."""

    def __str__(self) -> str:
        if self.lowest is None:
            return "True or False"
        if self.highest is None:
            return f"a whole number of at least {self.lowest}"
        return f"a whole number from {self.lowest} to {self.highest}"

    def accepts(self, value: object) -> bool:
        """Whether `value` may be given."""
        if self.lowest is None:
            return isinstance(value, bool)
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return value >= self.lowest and (self.highest is None or value <= self.highest)


class _Entry(NamedTuple):
    """Where an environment is defined, and its options."""

    module: str
    attribute: str
    options: Mapping[str, Option] = {}


_NUM_STEPS: Final = {"num_steps": Option(1)}
_TIME_LIMIT: Final = {"time_limit": Option(1)}

_OWN: Final[Mapping[str, _Entry]] = {
    "snake": _Entry(
        "jumanji", "snake", {"num_rows": Option(2), "num_cols": Option(2), **_TIME_LIMIT, "grid_only": Option()}
    ),
    "discounting-chain": _Entry("discounting_chain", "DiscountingChain", {"best_chain": Option(0, 4)}),
    "constant-reward": _Entry("probes", "ConstantReward"),
    "observed-reward": _Entry("probes", "ObservedReward"),
    "chosen-reward": _Entry("probes", "ChosenReward"),
    "matched-reward": _Entry("probes", "MatchedReward"),
    "masked-action": _Entry("probes", "MaskedAction", {"num_actions": Option(1)}),
    "delayed-reward": _Entry("horizon_probes", "DelayedReward"),
    "truncated-reward": _Entry("horizon_probes", "TruncatedReward", _NUM_STEPS),
    "terminated-reward": _Entry("horizon_probes", "TerminatedReward", _NUM_STEPS),
}

JUMANJI_ENVIRONMENTS: Final[Mapping[str, Mapping[str, Option]]] = {
    "CVRP-v1": {},
    "Game2048-v1": {"board_size": Option(2)},
    "GraphColoring-v1": {},
    "Knapsack-v1": {},
    "Maze-v0": _TIME_LIMIT,
    "PacMan-v1": _TIME_LIMIT,
    "SlidingTilePuzzle-v0": _TIME_LIMIT,
    "Snake-v1": {"num_rows": Option(2), "num_cols": Option(2), **_TIME_LIMIT},
    "Sokoban-v0": _TIME_LIMIT,  # fetches its levels when it is made
    "TSP-v1": {},
}
"""Jumanji's environments with one discrete action, and the options that are handed to `jumanji.make`."""

GYMNAX_ENVIRONMENTS: Final = (
    "Acrobot-v1",
    "Asterix-MinAtar",
    "BernoulliBandit-misc",
    "Breakout-MinAtar",
    "CartPole-v1",
    "Catch-bsuite",
    "DeepSea-bsuite",
    "DiscountingChain-bsuite",
    "FourRooms-misc",
    "Freeway-MinAtar",
    "FrozenLake-misc",
    "GaussianBandit-misc",
    "MNISTBandit-bsuite",
    "MemoryChain-bsuite",
    "MetaMaze-misc",
    "MountainCar-v0",
    "Pong-misc",
    "Seaquest-MinAtar",
    "SimpleBandit-bsuite",
    "SpaceInvaders-MinAtar",
    "UmbrellaChain-bsuite",
)
"""Gymnax's environments with discrete actions; each takes `max_steps_in_episode`."""

_EVERYWHERE: Final = {"action_mask": Option()}

ENVIRONMENTS: Final[Mapping[str, Mapping[str, Option]]] = {
    name: {**options, **_EVERYWHERE}
    for name, options in {
        **{name: entry.options for name, entry in _OWN.items()},
        **{f"jumanji:{name}": options for name, options in JUMANJI_ENVIRONMENTS.items()},
        **{f"gymnax:{name}": {"max_steps_in_episode": Option(1)} for name in GYMNAX_ENVIRONMENTS},
    }.items()
}
"""Every name, and the options it takes. `action_mask=False`, which all take, hides the mask (`Unmasked`)."""


def make_environment(name: str, **options: Any) -> "AbstractEnvironment[Any]":
    """The environment called `name`.

    ```python
    environment = make_environment("snake", num_rows=6, num_cols=6)
    ```

    Raises:
        ValueError: an unknown name or option, a value that is not accepted, or a suite that is not installed.
    """
    validate_environment(name, options)
    if not options.pop("action_mask", True):
        from gradweave.envs.unmasked import Unmasked

        return Unmasked(make_environment(name, **options))
    suite, _, suite_name = name.rpartition(":")
    if suite:
        return import_module(f"gradweave.envs.{suite}").from_suite(suite_name, **options)
    entry = _OWN[name]
    return getattr(import_module(f"gradweave.envs.{entry.module}"), entry.attribute)(**options)


def validate_environment(name: str, options: Mapping[str, Any]) -> None:
    """Check that `make_environment(name, **options)` will be understood; loads neither JAX nor a suite.

    Raises:
        ValueError: saying what was given, what is accepted, and which right name is nearest.
    """
    if name not in ENVIRONMENTS:
        raise ValueError(
            f"there is no environment {name!r}{_did_you_mean(name, ENVIRONMENTS)}; accepted: {', '.join(ENVIRONMENTS)}"
        )
    accepted = ENVIRONMENTS[name]
    for option, value in options.items():
        if option not in accepted:
            listed = f"options are {', '.join(accepted)}"
            raise ValueError(f"{name} has no option {option!r}{_did_you_mean(option, accepted)}; {listed}")
        if not accepted[option].accepts(value):
            raise ValueError(f"{option} = {value!r} does not fit {name}: give {accepted[option]}")
    if name.startswith("gymnax:") and find_spec("gymnax") is None:
        raise ValueError(f'{name} needs Gymnax, which is not installed: pip install "gymnax>=1.0"')


def _did_you_mean(given: str, names: Iterable[str]) -> str:
    """The nearest right name as a question; nothing if none is near. A suite's prefix may have been forgotten."""
    known = {name.lower(): name for name in names}
    known = {**{key.rpartition(":")[2]: name for key, name in known.items()}, **known}
    near = difflib.get_close_matches(given.lower(), known, n=1, cutoff=0.6)
    return f" (did you mean {known[near[0]]!r}?)" if near else ""
