"""Descriptions of environments before they are made: plain data, without JAX."""

import math
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Learned", "Option", "Row"]


class Option(NamedTuple):
    """Accepted values of an option: a switch, a whole number between bounds, any number, or one of several words."""

    lowest: int | None = None
    """Least whole number; None for other kinds."""
    highest: int | None = None
    """Greatest whole number; None for no limit."""
    number: bool = False
    """Whether it is any number."""
    words: tuple[str, ...] = ()
    """The accepted words; empty for other kinds."""

    @property
    def switch(self) -> bool:
        """Whether it is True or False."""
        return self.lowest is None and not self.number and not self.words

    def __str__(self) -> str:
        if self.words:
            return f"one of {', '.join(self.words)}"
        if self.number:
            return "a number"
        if self.lowest is None:
            return "True or False"
        if self.highest is None:
            return f"a whole number of at least {self.lowest}"
        return f"a whole number from {self.lowest} to {self.highest}"

    def accepts(self, value: object) -> bool:
        """Whether `value` may be given."""
        if self.words:
            return isinstance(value, str) and value in self.words
        if self.number:
            return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if self.lowest is None:
            return isinstance(value, bool)
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return value >= self.lowest and (self.highest is None or value <= self.highest)


class Learned(NamedTuple):
    """A learning result in an environment, from a table in `results/`."""

    by: str
    """The learner, and its options that matter."""
    mean_return: float
    """Of episodes with sampled actions at the end, mean over the seeds."""
    steps: int
    """Environment steps of a run."""
    seeds: int

    def __str__(self) -> str:
        seeds = f"{self.seeds} seeds" if self.seeds > 1 else "one seed"
        return f"{self.mean_return:g} by {self.by} in {self.steps:,} steps ({seeds})"


class Row(NamedTuple):
    """One environment."""

    view: tuple[int, ...]
    """Shape of `Observation.view`."""
    num_scalars: int
    num_actions: int
    """Discrete actions, those of all choices together, or the length of a continuous one."""
    options: Mapping[str, Option] = {}
    continuous: bool = False
    place: tuple[str, str] | None = None
    """Module and attribute in gradweave.envs, for environments defined here."""
    action_sizes: tuple[int, ...] | None = None
    """Actions of each of several choices at once; None for a single choice."""
    note: str = ""
    """Order of its actions, a download that making it needs, why it cannot be stepped, or the study of it."""
    learned: tuple[Learned, ...] = ()
    """Learning results; a test compares each with its table in `results/`."""

    @property
    def observation(self) -> str:
        """Description of the observation, such as "board 12 x 12 x 5, 1 number"."""
        kind = "vector" if len(self.view) == 1 else "board"
        more = f", {self.num_scalars} number{'s'[: self.num_scalars != 1]}" if self.num_scalars else ""
        return f"{kind} {' x '.join(map(str, self.view))}{more}"

    @property
    def actions(self) -> str:
        """Description of the actions, such as "4 discrete" or "3 x 4 discrete", three choices at once."""
        if self.action_sizes is not None:
            same = len(set(self.action_sizes)) == 1
            sizes = (
                f"{len(self.action_sizes)} x {self.action_sizes[0]}"
                if same
                else " + ".join(map(str, self.action_sizes))
            )
            return f"{sizes} discrete"
        return f"{self.num_actions} {'continuous' if self.continuous else 'discrete'}"
