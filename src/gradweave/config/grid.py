"""Grids of a sweep: the fields and values that are combined, the name of a combination and its flags."""

import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from gradweave.errors import ConfigError

__all__ = ["Setting", "flags_of", "parse_grid", "setting_name"]

Setting: TypeAlias = Mapping[str, str]
"""Fields of a configuration, as flags name them without the dashes, and their values."""

_SECTIONS: Final = ("environment", "network", "inner", "meta", "outer")
_ENTRY: Final = "FIELD=VALUE,VALUE,..., such as inner.discount=0.9,0.99"


def parse_grid(entries: Sequence[str], flag: str = "--grid") -> dict[str, tuple[str, ...]]:
    """The fields of a grid with their values, as text.

    Args:
        entries: "FIELD=VALUE,VALUE,..." each.
        flag: that gave them, for errors.

    Raises:
        ConfigError: an entry is not of this form, its field is none that may differ within a sweep, or a field or value
            stands there twice.

    Example:
        >>> parse_grid(["inner.discount=0.9,0.99"])
        {'inner.discount': ('0.9', '0.99')}
    """
    grid: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        name, equals, text = entry.partition("=")
        name = name.strip().removeprefix("--").replace("_", "-").rstrip("-")  # the flag of lambda_ is lambda
        values = tuple(value.strip() for value in text.split(","))
        if not name or not equals or not all(values) or any(word.startswith("--") for word in text.split()):
            remedy = f"write the field and its values without spaces between; a preset stands before {flag}"
            raise ConfigError(flag, entry, _ENTRY, remedy)
        if name.partition(".")[0] not in _SECTIONS or name == "environment.name":
            accepted = f"a field of {', '.join(_SECTIONS)}, all of one environment"
            raise ConfigError(flag, entry, accepted, "give a value that is the same in all runs as a flag")
        if name in grid or len(set(values)) < len(values):
            raise ConfigError(flag, entry, "every field once, with different values", "leave out the repetition")
        grid[name] = values
    if not grid:
        raise ConfigError(flag, "", f"at least one {_ENTRY}", f"leave {flag} out for the usual one")
    return grid


def flags_of(setting: Setting) -> list[str]:
    """A setting as flags.

    Example:
        >>> flags_of({"inner.discount": "0.9", "network.shared-torso": "False", "network.channels": "8 8"})
        ['--inner.discount', '0.9', '--network.no-shared-torso', '--network.channels', '8', '8']
    """
    flags = []
    for name, value in setting.items():
        section, _, field = name.rpartition(".")
        if value in ("True", "False"):
            flags.append(f"--{section}.{'' if value == 'True' else 'no-'}{field}")
        else:
            flags += [f"--{name}", *value.split()]
    return flags


def setting_name(setting: Setting) -> str:
    """The name of a setting and of its folder.

    Example:
        >>> setting_name({"inner.discount": "0.9", "inner.learning-rate": "1e-3"})
        'discount0.9-learning-rate1e-3'
    """
    short = {name: name.rpartition(".")[2] for name in setting}
    unambiguous = len(set(short.values())) == len(short)
    parts = ((short[name] if unambiguous else name) + value for name, value in setting.items())
    return re.sub(r"[^\w.+-]", "_", "-".join(parts))
