"""Hyper-parameters that the meta-gradient may tune: fields of a learner's configuration that know their range."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

__all__ = ["Range", "hyperparameter", "hyperparameters_of"]


@dataclass(frozen=True)
class Range:
    """From where to where.

    A learned value lies strictly between the ends, which it cannot reach; a constant may lie on an end that is closed.

    Attributes:
        lower: the lower end.
        upper: the upper end.
        closed: whether a constant may lie on the ends.
    """

    lower: float
    upper: float = math.inf
    closed: bool = False

    def contains(self, value: int | float, *, learned: bool) -> bool:
        """Whether the value may be used; never a NaN or an infinity."""
        if self.lower < value < self.upper:
            return True
        return self.closed and not learned and value in (self.lower, self.upper) and math.isfinite(value)

    def describe(self, *, learned: bool) -> str:
        """In words."""
        closed = self.closed and not learned
        because = ", because it is learned" if self.closed and learned else ""
        if math.isinf(self.upper):
            return f"at least {self.lower:g}" if closed else f"a finite number above {self.lower:g}{because}"
        ends = "[]" if closed else "()"
        return f"a number in {ends[0]}{self.lower:g}, {self.upper:g}{ends[1]}{because}"


_METADATA = "range"


def hyperparameter(default: float, lower: float, upper: float = math.inf, *, closed: bool = False) -> Any:
    """A field of a frozen dataclass that the meta-gradient may tune.

    Args:
        default: its value.
        lower: lower end of its range.
        upper: upper end.
        closed: whether a constant may lie on the ends.
    """
    return dataclasses.field(default=default, metadata={_METADATA: Range(lower, upper, closed)})


def hyperparameters_of(section: type) -> dict[str, Range]:
    """The fields of a dataclass that were made by `hyperparameter`, with their ranges."""
    found = {field.name: field.metadata.get(_METADATA) for field in dataclasses.fields(section)}
    return {name: limits for name, limits in found.items() if limits is not None}
