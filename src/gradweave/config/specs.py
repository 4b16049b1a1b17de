"""Choices with an argument, such as "truncated:3" or "reverse:step": a name from a table, a colon, the argument.

A table is a tuple of rows. A row has a name, an argument and a constructor, as
"module:attribute", so that a configuration is checked before anything heavy is imported.
"""

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, NoReturn, Protocol, TypeVar, runtime_checkable

from gradweave.config.hyperparameters import single
from gradweave.errors import ConfigError, nearest_name

__all__ = [
    "MOST_UPDATES",
    "Argument",
    "Choice",
    "Count",
    "Number",
    "Refused",
    "Row",
    "Spec",
    "parse_spec",
    "resolve",
    "usage",
    "whole_number",
]

MOST_UPDATES: Final = 10_000
"""Updates of the longest window."""


class Refused(Exception):
    """An argument that is not accepted.

    Attributes:
        accepted: the accepted values.
        example: an argument that is accepted.
    """

    def __init__(self, accepted: str, example: str) -> None:
        super().__init__(accepted)
        self.accepted, self.example = accepted, example


@runtime_checkable
class Argument(Protocol):
    """The argument after a colon."""

    @property
    def metavar(self) -> str:
        """Its name in help texts."""

    @property
    def default(self) -> Any:
        """The value without a colon; None if the argument has to be given."""

    def parse(self, text: str, num_inner_steps: int) -> Any:
        """The value of `text`; raises `Refused`."""


@dataclass(frozen=True)
class Count:
    """A whole number from 1 to the number of inner steps."""

    metavar: str
    default: int | None = None

    def parse(self, text: str, num_inner_steps: int) -> int:
        """The number."""
        value = _number(text, int)
        if value is None or not 1 <= value <= num_inner_steps:
            nearest = max(1, num_inner_steps // 2) if value is None else min(max(1, int(value)), num_inner_steps)
            accepted = f"{self.metavar} a whole number from 1 to {num_inner_steps}, the number of inner steps"
            raise Refused(accepted, str(nearest))
        return int(value)


@dataclass(frozen=True)
class Number:
    """A number from `lowest` to `highest`, the lowest left out if it is `exclusive`."""

    metavar: str
    default: float
    lowest: float = 0.0
    highest: float = 1.0
    exclusive: bool = False

    def parse(self, text: str, num_inner_steps: int) -> float:
        """The number."""
        value = _number(text, float)
        if (
            value is None
            or not self.lowest <= value <= self.highest
            or (self.exclusive and single(value) == self.lowest)
        ):
            bracket = "(" if self.exclusive else "["
            raise Refused(
                f"{self.metavar} a number in {bracket}{self.lowest:g}, {self.highest:g}]", f"{self.default:g}"
            )
        return float(value)


@dataclass(frozen=True)
class Choice:
    """One of some words; the first one is the default."""

    metavar: str
    words: tuple[str, ...]

    @property
    def default(self) -> str:
        """The first word."""
        return self.words[0]

    def parse(self, text: str, num_inner_steps: int) -> str:
        """The word."""
        if text not in self.words:
            near = nearest_name(text, self.words)
            raise Refused(f"{self.metavar} one of {', '.join(self.words)}", near or self.default)
        return text


@dataclass(frozen=True)
class Row:
    """One entry of a table.

    Attributes:
        name: text before the colon.
        constructor: builder of the value, as "module:attribute".
        argument: the one after the colon; None for rows without an argument.
        aliases: other names.
    """

    name: str
    constructor: str
    argument: Argument | None = None
    aliases: tuple[str, ...] = ()


RowT = TypeVar("RowT", bound=Row)


@dataclass(frozen=True)
class Spec(Generic[RowT]):
    """A choice that was understood.

    Attributes:
        text: as it was given.
        row: the one it names.
        argument: the value of its argument, None where the row takes none.
    """

    text: str
    row: RowT
    argument: Any


def parse_spec(text: str, table: Sequence[RowT], num_inner_steps: int, field: str) -> Spec[RowT]:
    """The row of a choice, with its argument.

    Args:
        text: "name" or "name:argument".
        table: the rows it is chosen from.
        num_inner_steps: L, which bounds some arguments.
        field: the configuration's field, or the flag, to name in an error.

    Raises:
        ConfigError: an unknown name, or an argument that is missing, superfluous or out of range.
    """
    name, colon, argument = text.partition(":")
    names = {known: row for row in table for known in (row.name, *row.aliases)}
    if name not in names:
        near = nearest_name(name, names)
        remedy = f"did you mean {near!r}?" if near else "choose one of these"
        raise ConfigError(field, text, ", ".join(usage(row) for row in table), remedy)
    row = names[name]
    if row.argument is None:
        if colon:
            raise ConfigError(field, text, f"{name}, which takes no argument", _flagged(field, name))
        return Spec(text, row, None)
    if not colon and row.argument.default is not None:
        return Spec(text, row, row.argument.default)
    try:
        return Spec(text, row, row.argument.parse(argument, num_inner_steps))
    except Refused as refused:
        _refuse(field, text, name, row.argument, refused)


def _refuse(field: str, text: str, name: str, argument: Argument, refused: Refused) -> NoReturn:
    accepted = f"{name}:{argument.metavar} with {refused.accepted}"
    raise ConfigError(field, text, accepted, _flagged(field, f"{name}:{refused.example}")) from None


def _flagged(field: str, value: str) -> str:
    """A value behind the flag of a configuration's field; alone for a command's own flag, which may take several."""
    return value if field.startswith("--") else f"--{field.replace('_', '-')} {value}"


def usage(row: Row) -> str:
    """Notation of a row, such as "truncated:M" or "trace[:DECAY]"."""
    if row.argument is None:
        return row.name
    argument = f":{row.argument.metavar}"
    return row.name + (argument if row.argument.default is None else f"[{argument}]")


def resolve(constructor: str) -> Any:
    """Import the module of "module:attribute", and return the attribute."""
    module, _, attribute = constructor.partition(":")
    return getattr(importlib.import_module(module), attribute)


def whole_number(text: str) -> int | None:
    """The whole number that a text means, or None."""
    value = _number(text, int) if text.isdecimal() else None
    return None if value is None else int(value)


def _number(text: str, kind: type[int] | type[float]) -> int | float | None:
    try:
        value = kind(text)
        return value if math.isfinite(value) else None
    except (ValueError, OverflowError):
        return None
