"""Ranges that a search draws hyper-parameters from, as in `--search learning_rate=1e-5:0.1`."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gradweave.config.hyperparameters import Range
from gradweave.errors import ConfigError, nearest_name

__all__ = ["SearchRange", "draw", "parse_search", "perturbed"]

_FIELD: Final = "--search"
_ENTRY: Final = "NAME=LOW:HIGH, such as learning_rate=1e-5:0.1"


@dataclass(frozen=True)
class SearchRange:
    """From where to where a hyper-parameter is searched, and on which scale.

    Attributes:
        low: lower end.
        high: upper end.
        below_one: search 1 - value on a logarithmic scale, for discounts; otherwise the value, on a logarithmic scale
            where `low` is above 0. Evenly where the scale has no logarithm: from 0, and for discounts up to 1.
    """

    low: float
    high: float
    below_one: bool = False

    def at(self, share: float) -> float:
        """The value at a share of the way from low to high, in [0, 1], on the range's scale."""
        low, high = self._ends()
        if low > 0 and high > 0:
            found = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            found = low + share * (high - low)
        return self._clipped(1 - found if self.below_one else found)

    def times(self, value: float, factor: float) -> float:
        """The value, or 1 - value, times a factor, kept within the range."""
        return self._clipped(1 - factor * (1 - value) if self.below_one else factor * value)

    def _ends(self) -> tuple[float, float]:
        return (1 - self.low, 1 - self.high) if self.below_one else (self.low, self.high)

    def _clipped(self, value: float) -> float:
        return min(max(value, self.low), self.high)


def parse_search(entries: Sequence[str], hyperparameters: Mapping[str, Range]) -> dict[str, SearchRange]:
    """The ranges by the names of their hyper-parameters.

    Args:
        entries: "NAME=LOW:HIGH" each.
        hyperparameters: those of the learner, with their ranges.

    Raises:
        ConfigError: an entry is not of this form, names no hyper-parameter of the learner or one twice, or its ends are
            out of range.

    Example:
        >>> parse_search(["entropy_cost=0.001:0.1"], {"entropy_cost": Range(0.0)})
        {'entropy_cost': SearchRange(low=0.001, high=0.1, below_one=False)}
    """
    found: dict[str, SearchRange] = {}
    for entry in entries:
        spelt, _, text = entry.partition("=")
        name = spelt.strip().replace("-", "_")
        name = name if name in hyperparameters else f"{name}_"  # lambda, which is a word of Python's
        low, high = _ends(entry, text)
        if name not in hyperparameters:
            near = nearest_name(spelt, hyperparameters) or "learning_rate"
            accepted = f"{_ENTRY}, with NAME one of {' '.join(each.rstrip('_') for each in hyperparameters)}"
            raise ConfigError(_FIELD, entry, accepted, f"did you mean {near.rstrip('_')}={text}?")
        if name in found:
            raise ConfigError(_FIELD, entry, "every name once", "leave out the repetition")
        limits = hyperparameters[name]
        if not (low < high and limits.contains(low, learned=False) and limits.contains(high, learned=False)):
            accepted = f"LOW below HIGH, each {limits.describe(learned=False)}"
            raise ConfigError(_FIELD, entry, accepted, "give other ends")
        found[name] = SearchRange(low, high, below_one=limits.upper == 1)
    if not found:
        raise ConfigError(_FIELD, "", f"at least one {_ENTRY}", "leave --search out for the usual one")
    return found


def draw(ranges: Mapping[str, SearchRange], rng: random.Random) -> dict[str, float]:
    """A setting at random: each value uniform on its range's scale."""
    return {name: limits.at(rng.random()) for name, limits in ranges.items()}


def perturbed(ranges: Mapping[str, SearchRange], setting: Mapping[str, float], rng: random.Random) -> dict[str, float]:
    """A setting with each value times 0.8 or 1.2 at random (Jaderberg et al. 2017, arXiv 1711.09846)."""
    return {name: ranges[name].times(value, rng.choice((0.8, 1.2))) for name, value in setting.items()}


def _ends(entry: str, text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        raise ConfigError(_FIELD, entry, _ENTRY, "write two numbers with a colon between") from None
    return low, high
