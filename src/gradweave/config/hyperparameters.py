"""Hyper-parameters that tuning may move: fields of a learner's configuration that know their range."""

import dataclasses
import math
import struct
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Range", "hyperparameter", "hyperparameters_of", "single"]


_SMALLEST_NORMAL: Final = 2.0**-126


def single(value: int | float) -> float:
    """The number that single precision makes of it; beyond its range 0 or infinite."""
    try:
        (rounded,) = struct.unpack("f", struct.pack("f", value))
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
    return float(rounded) if abs(rounded) >= _SMALLEST_NORMAL else 0.0


@dataclass(frozen=True)
class Range:
    """From where to where.

    A learned value lies strictly between the ends, which it cannot reach; a constant may lie on an end that is closed.

    Attributes:
        lower: the lower end.
        upper: the upper end.
        closed: whether a constant may lie on the ends.
        differentiable: whether the meta-gradient may learn it; if not, its derivative is 0 and only tuners do.
    """

    lower: float
    upper: float = math.inf
    closed: bool = False
    differentiable: bool = True

    def contains(self, value: int | float, *, learned: bool) -> bool:
        """Whether the value may be used; never a NaN or an infinity."""
        rounded = single(value)  # the value in training: 0.99999999999 is 1
        if self.lower < rounded < self.upper:
            return True
        return self.closed and not learned and value in (self.lower, self.upper) and math.isfinite(rounded)

    def describe(self, *, learned: bool) -> str:
        """In words."""
        closed = self.closed and not learned
        because = ", because it is learned" if self.closed and learned else ""
        if math.isinf(self.upper):
            return f"at least {self.lower:g}" if closed else f"a finite number above {self.lower:g}{because}"
        ends = "[]" if closed else "()"
        return f"a number in {ends[0]}{self.lower:g}, {self.upper:g}{ends[1]}{because}"


_METADATA = "range"


def hyperparameter(
    default: float, lower: float, upper: float = math.inf, *, closed: bool = False, differentiable: bool = True
) -> Any:
    """A field of a frozen dataclass that the meta-gradient or a tuner may move.

    Args:
        default: its value.
        lower: lower end of its range.
        upper: upper end.
        closed: whether a constant may lie on the ends.
        differentiable: whether the meta-gradient may, too; False where an update's derivative by it is 0.
    """
    return dataclasses.field(default=default, metadata={_METADATA: Range(lower, upper, closed, differentiable)})


def hyperparameters_of(section: type) -> dict[str, Range]:
    """The fields of a dataclass that were made by `hyperparameter`, with their ranges."""
    found = {field.name: field.metadata.get(_METADATA) for field in dataclasses.fields(section)}
    return {name: limits for name, limits in found.items() if limits is not None}
