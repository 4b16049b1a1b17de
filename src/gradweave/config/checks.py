"""Checks of one value each, of a configuration: they yield a problem, or nothing."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from gradweave.errors import ConfigError, nearest_name

__all__ = ["at_least", "check_flags", "choice", "fields", "flag", "in_range", "positive", "unused"]


def flag(field: str) -> str:
    """The flag of a field, such as --inner.num-envs for inner.num_envs."""
    return "--" + field.removeprefix("run.").rstrip("_").replace("_", "-")


def check_flags(flags: object, limits: Mapping[str, tuple[int, int]]) -> None:
    """Raise where a whole number among a command's own flags is out of its limits; None is accepted.

    Args:
        flags: the parsed ones.
        limits: by field, the least and the most.

    Raises:
        ConfigError: with the flag, the limits and a remedy.
    """
    for name, (least, most) in limits.items():
        value = getattr(flags, name)
        if value is not None and not least <= value <= most:
            text = f"a whole number of at least {least}" + (f", and at most {most:,}" if value > most else "")
            raise ConfigError(flag(name), value, text, f"leave {flag(name)} out for the usual value")


def in_range(field: str, value: int | float, text: str, accepted: bool) -> Iterator[ConfigError]:
    """One problem unless `accepted`; a NaN or infinity is never accepted."""
    if not (accepted and (isinstance(value, int) or math.isfinite(value))):
        yield ConfigError(field, value, text, f"set {flag(field)} to such a value")


def at_least(section: str, values: Mapping[str, int | float | None], lowest: int | float) -> Iterator[ConfigError]:
    """Yield one problem for each number below `lowest`; None is accepted."""
    for name, value in values.items():
        if value is not None:
            yield from in_range(f"{section}.{name}", value, f"at least {lowest}", value >= lowest)


def positive(section: str, values: Mapping[str, int | float | None]) -> Iterator[ConfigError]:
    """Yield one problem for each number that is not finite and above 0; None is accepted."""
    for name, value in values.items():
        if value is not None:
            yield from in_range(f"{section}.{name}", value, "a finite number above 0", value > 0)


def choice(field: str, value: str, names: tuple[str, ...]) -> Iterator[ConfigError]:
    """Yield one problem unless `value` is one of `names`."""
    if value not in names:
        near = nearest_name(value, names)
        shown = [name.rstrip("_") for name in names]  # lambda_ is written lambda
        several = "some" if field == "meta.learned" else "one"
        remedy = f"did you mean {near.rstrip('_')!r}?" if near else f"set {flag(field)} to {several} of these"
        yield ConfigError(field, value, ", ".join(shown), remedy)


def unused(field: str, value: Any, default: Any, reader: str) -> Iterator[ConfigError]:
    """One problem, if a value that has no effect is not the default; `reader` is the option that would give it one."""
    if value != default:
        accepted = f"{default!r}, the default: another value has no effect with these settings"
        yield ConfigError(field, value, accepted, f"{reader}, or leave {flag(field)} out")


def fields(section: object, *names: str) -> dict[str, Any]:
    """Return some fields of a section by name."""
    return {name: getattr(section, name) for name in names}
