"""Flags for the options of an environment: which ones there are depends on its name, and so no parser knows them.

`--environment.options.num-rows 6`, or `--environment.num-rows 6` for short. Switches are set and cleared as others are,
by `--environment.options.grid-only` and `--environment.options.no-grid-only`, or by True or False behind them. None
takes an option of a preset back.
"""

from collections.abc import Mapping, Sequence

from gradweave.config.schema import EnvironmentOption
from gradweave.envs.registry import ENVIRONMENTS

__all__ = ["merged", "take_environment_options"]

_PREFIX = "--environment."
_WORDS = {"True": True, "False": False, "None": None}


def take_environment_options(argv: Sequence[str]) -> tuple[list[str], dict[str, EnvironmentOption | None]]:
    """A command line without the flags of environments' options, and their values.

    Example:
        >>> take_environment_options(["snake", "--environment.options.num-rows", "6", "--seed", "1"])
        (['snake', '--seed', '1'], {'num_rows': 6})
    """
    rest: list[str] = []
    options: dict[str, EnvironmentOption | None] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        flag, equals, text = word.partition("=")
        name = flag.removeprefix(_PREFIX).removeprefix("options.").replace("-", "_")
        if not flag.startswith(_PREFIX) or flag == f"{_PREFIX}name":  # an option may be called name, too
            rest.append(word)
            continue
        negated = name.removeprefix("no_")
        if equals:
            options[name] = _value(text)
        elif negated != name and _is_switch(negated):
            options[negated] = False
        elif _is_switch(name) and not (words and (words[0] in _WORDS or _is_number(words[0]))):
            options[name] = True
        elif words and not words[0].startswith("--"):
            options[name] = _value(words.pop(0))
        else:
            options[name] = True
    return rest, options


def merged(
    options: Mapping[str, EnvironmentOption], changes: Mapping[str, EnvironmentOption | None]
) -> dict[str, EnvironmentOption]:
    """Options with changes, of which None takes one back."""
    return {name: value for name, value in {**options, **changes}.items() if value is not None}


def _is_switch(name: str) -> bool:
    found = (options.get(name) for options in ENVIRONMENTS.values())
    return any(option is not None and option.switch for option in found)


def _is_number(word: str) -> bool:
    """Whether a value stands behind what is a switch elsewhere; no preset is called so."""
    return not isinstance(_value(word), str)


def _value(text: str) -> EnvironmentOption | None:
    if text in _WORDS:
        return _WORDS[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
