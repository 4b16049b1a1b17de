"""Search space of a sweep: fields of a configuration, each with its values or its range."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from gradweave.config.grid import parse_grid, setting_name
from gradweave.config.learners import LEARNERS
from gradweave.config.schema import Config
from gradweave.errors import ConfigError

__all__ = ["Space", "Span", "candidates", "check_names", "parse_space", "space_from_json", "space_to_json"]

Scale: TypeAlias = Literal["even", "log", "distance-to-1"]

_FIELD: Final = "--search"
_ENTRY: Final = "FIELD=LOW:HIGH or FIELD=VALUE,VALUE,..., such as inner.learning-rate=1e-5:0.1"
_LONGEST_NAME: Final = 200
_DIGITS: Final = 4


@dataclass(frozen=True)
class Span:
    """A range that values are drawn from.

    Attributes:
        low: lower end.
        high: upper end.
        scale: on which values are spread: evenly, by their logarithm, or by that of their distance to 1.
        whole: whether they are whole numbers.
    """

    low: float
    high: float
    scale: Scale
    whole: bool

    @property
    def ends(self) -> tuple[float, float]:
        """Between which numbers to draw: of a distance to 1 those of the distance."""
        return (1 - self.high, 1 - self.low) if self.scale == "distance-to-1" else (self.low, self.high)

    def text(self, drawn: int | float) -> str:
        """A number drawn between `ends` as a value of the field, with four significant digits.

        Example:
            >>> Span(0.8, 0.999, "distance-to-1", whole=False).text(0.0123456)
            '0.98765'
        """
        if self.whole:
            return str(int(drawn))
        rounded = float(f"{drawn:.{_DIGITS}g}")
        value = 1 - rounded if self.scale == "distance-to-1" else rounded
        return f"{min(max(value, self.low), self.high):.10g}"


Space: TypeAlias = Mapping[str, tuple[str, ...] | Span]
"""By field, as flags name them without the dashes: the values to choose from, as text, or their range."""


def parse_space(grid: Sequence[str], search: Sequence[str], base: Config) -> dict[str, tuple[str, ...] | Span]:
    """Parse the search space of a sweep.

    Args:
        grid: "FIELD=VALUE,VALUE,..." each.
        search: the same, or "FIELD=LOW:HIGH", "FIELD=LOW:HIGH:even" or "FIELD=LOW:HIGH:log" each.
        base: the common part of all settings; says which fields are whole numbers and which are discounts.

    Raises:
        ConfigError: an entry is not of this form, its field is none that may differ within a sweep, or stands there
            twice.

    Example:
        >>> parse_space([], ["inner.learning-rate=1e-5:0.1"], Config())
        {'inner.learning-rate': Span(low=1e-05, high=0.1, scale='log', whole=False)}
    """
    space: dict[str, tuple[str, ...] | Span] = {}
    for flag, entries in (("--grid", grid), (_FIELD, search)):
        for entry in entries:
            field, found = _parse(flag, entry, base)
            if field in space:
                raise ConfigError(flag, entry, "every field once", "leave out the repetition")
            space[field] = found
    return space


def candidates(space: Space) -> list[dict[str, str]]:
    """Settings that are to be possible: of a grid all, otherwise as few as have every value and both ends of ranges."""
    texts = {field: _texts(values) for field, values in space.items()}
    if all(isinstance(values, tuple) for values in space.values()):
        return [dict(zip(texts, values, strict=True)) for values in itertools.product(*texts.values())]
    most = max(map(len, texts.values()))
    return [{field: values[index % len(values)] for field, values in texts.items()} for index in range(most)]


def check_names(space: Space) -> None:
    """Raise where two settings would have the same name, or one that is too long for a folder.

    Raises:
        ConfigError: they would.
    """
    for field, values in space.items():
        names = {setting_name({field: text}) for text in _texts(values)}
        if isinstance(values, tuple) and len(names) < len(values):
            accepted = "values that differ in letters or digits"
            raise ConfigError("--grid", f"{field}={','.join(values)}", accepted, "sweep these one by one")
    longest = setting_name({field: max(_texts(values), key=len) for field, values in space.items()})
    if len(longest) > _LONGEST_NAME:
        raise ConfigError("--grid", longest, f"names of at most {_LONGEST_NAME} letters", "sweep fewer fields at once")


def space_to_json(space: Space) -> dict[str, Any]:
    """A space as JSON has it."""
    return {
        field: list(values) if isinstance(values, tuple) else dataclasses.asdict(values)
        for field, values in space.items()
    }


def space_from_json(found: Any) -> dict[str, tuple[str, ...] | Span]:
    """The search space that `space_to_json` wrote.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(found, dict) or not found:
        raise ValueError("no fields")
    return {field: _from_json(values) for field, values in found.items()}


def _from_json(values: Any) -> tuple[str, ...] | Span:
    if isinstance(values, list) and values and all(isinstance(text, str) and text for text in values):
        return tuple(values)
    if not isinstance(values, dict) or set(values) != {field.name for field in dataclasses.fields(Span)}:
        raise ValueError("neither values nor a range")
    low, high, scale, whole = (values[field.name] for field in dataclasses.fields(Span))
    if not all(isinstance(end, int | float) and math.isfinite(end) for end in (low, high)) or not low < high:
        raise ValueError("ends that are no numbers")
    if scale not in get_args(Scale) or not isinstance(whole, bool):
        raise ValueError("no scale")
    span = Span(float(low), float(high), scale, whole)
    if scale != "even" and span.ends[0] <= 0:
        raise ValueError("an end without a logarithm")
    return span


def _texts(values: tuple[str, ...] | Span) -> tuple[str, ...]:
    """The values, or the ends of their range, as text."""
    return values if isinstance(values, tuple) else tuple(values.text(end) for end in values.ends)


def _parse(flag: str, entry: str, base: Config) -> tuple[str, tuple[str, ...] | Span]:
    name, equals, text = entry.partition("=")
    if flag == "--grid" or not equals or "," in text or ":" not in text:
        ((field, values),) = parse_grid([entry], flag).items()
        return field, values
    (field,) = parse_grid([f"{name}=x"], flag)
    return field, _span(entry, field, text, base)


def _span(entry: str, field: str, text: str, base: Config) -> Span:
    low_text, _, rest = text.partition(":")
    high_text, _, scale = rest.partition(":")
    try:
        low, high = float(low_text), float(high_text)
    except ValueError:
        raise ConfigError(_FIELD, entry, _ENTRY, "write two numbers with a colon between, or several values") from None
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise ConfigError(_FIELD, entry, "LOW below HIGH", "give other ends")
    if scale not in ("", "even", "log") or (scale == "log" and low <= 0):
        accepted = "nothing after HIGH, or :even, or :log where LOW is above 0"
        raise ConfigError(_FIELD, entry, accepted, "correct the text after the second colon")
    section, _, option = field.rpartition(".")
    option = option.replace("-", "_")
    if section == "inner" and hasattr(base.inner, f"{option}_"):  # lambda, which is a word of Python's
        option = f"{option}_"
    value = _value_of(base, section, option)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and not (low.is_integer() and high.is_integer()):
        raise ConfigError(_FIELD, entry, f"whole numbers: {field} is {value}", "give other ends")
    if scale:
        return Span(low, high, "log" if scale == "log" else "even", whole)
    limits = LEARNERS[base.learner].hyperparameters.get(option) if section == "inner" else None
    if limits is not None and limits.upper == 1 and high < 1:
        return Span(low, high, "distance-to-1", whole)
    return Span(low, high, "log" if low > 0 else "even", whole)


def _value_of(base: Config, section: str, option: str) -> Any:
    """The value of a field; None if there is no such field, which the parser of flags reports better."""
    if section.startswith("environment"):
        return base.environment.options.get(option)
    return getattr(getattr(base, section, None), option, None)
