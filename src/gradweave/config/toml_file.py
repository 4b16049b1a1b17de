"""Configurations as TOML files: strict reading, deterministic writing.

A file may hold only the differences from a preset: the top-level key `preset` names it, and all other fields come
from there. Unknown keys and wrong types are errors. TOML has no null, so a field that is None is left out; reading such
a file back gives None again, because `write_config` records the whole configuration and says so: `complete = true`.
"""

import dataclasses
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from gradweave.config.auto import with_meta_preset
from gradweave.config.old_fields import ADDED, translated
from gradweave.config.presets import DEFAULT_PRESET
from gradweave.config.presets import preset as find_preset
from gradweave.config.schema import Config, EnvironmentConfig
from gradweave.errors import ConfigError, DamagedFile, nearest_name
from gradweave.files import read_text, write_atomically

__all__ = [
    "as_typed",
    "config_from_dict",
    "config_to_dict",
    "format_config",
    "mistyped",
    "read_config",
    "typed",
    "write_config",
]

_COMPLETE: Final = "complete"
_NAMES: Final = ("preset", "learner")
_SECTIONS: Final = tuple(field.name for field in dataclasses.fields(Config) if field.name not in _NAMES)


def config_to_dict(config: Config) -> dict[str, Any]:
    """The configuration as nested dictionaries of numbers, strings and lists; fields that are None are left out."""
    plain: dict[str, Any] = {name: getattr(config, name) for name in _NAMES}
    for section in _SECTIONS:
        entries = dataclasses.asdict(getattr(config, section)).items()
        plain[section] = {
            name: list(entry) if isinstance(entry, tuple) else entry for name, entry in entries if entry is not None
        }
    return plain


def format_config(config: Config) -> str:
    """The configuration as TOML."""
    import tomli_w

    plain = config_to_dict(config)
    names = {name: plain.pop(name) for name in _NAMES}
    return tomli_w.dumps({**names, _COMPLETE: True, **plain})


def write_config(config: Config, path: Path) -> None:
    """Write the whole configuration to `path`."""
    write_atomically(path, format_config(config))


def read_config(
    path: Path,
    preset: str | None = None,
    *,
    follow: bool = False,
    learner: str | None = None,
    meta_preset: str | None = None,
) -> Config:
    """The configuration in a file.

    Args:
        path: a TOML file.
        preset: the one to start from, instead of the preset that the file names.
        learner: in the place of the file's or the preset's, before the file's fields change it; not of a complete file.
        meta_preset: likewise, of the tuning.
        follow: whether it may be a symbolic link, for a file that the user names.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or has an unknown key or a value of the wrong type.
    """
    field = "--config" if follow else "config.toml"
    try:
        data = tomllib.loads(read_text(path, follow=follow))
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(field, str(path), "a TOML file that can be read", f"check the name: {reason}") from None
    except DamagedFile as error:
        raise ConfigError(field, str(path), "a TOML file in UTF-8", str(error)) from None
    except (ValueError, RecursionError) as error:  # ValueError: no TOML, or a zero byte in the name
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise ConfigError(field, str(path), "a TOML file in UTF-8", f"correct it: {reason}") from None
    if preset is not None:
        data["preset"] = preset
    if data.get(_COMPLETE) is not True:
        if learner is not None:
            data["learner"] = learner
        if meta_preset is not None and isinstance(data.get("meta", {}), dict):
            data["meta"] = {**data.get("meta", {}), "preset": meta_preset}
    try:
        return config_from_dict(data)
    except ConfigError as error:
        if learner is None or error.field.partition(".")[0] not in ("network", "inner", "outer"):
            raise
        accepted = f"{error.accepted} (of the learner {learner}, which --learner names)"
        raise ConfigError(error.field, error.value, accepted, error.remedy) from None


def config_from_dict(data: Mapping[str, Any]) -> Config:
    """The configuration in nested dictionaries such as `tomllib` returns, on top of the preset that they name.

    Raises:
        ConfigError: an unknown key, a value of the wrong type, an unknown preset.
    """
    _refuse_unknown(data, {*_SECTIONS, *_NAMES, _COMPLETE}, prefix="")
    complete = _checked(_COMPLETE, data.get(_COMPLETE, False), bool)
    for section in _SECTIONS:
        if not isinstance(data.get(section, {}), Mapping):
            raise ConfigError(section, data[section], "a table", f"write it under a heading [{section}]")
        if complete and section not in data:
            _refuse_missing(section)
    data = translated(data, complete=complete)
    base = find_preset(_checked("preset", data.get("preset", DEFAULT_PRESET), str))
    learner = _checked("learner", data.get("learner", base.learner), str)
    is_new, base = learner != base.learner, base.with_learner(learner)
    if not complete:
        base = with_meta_preset(base, data.get("meta", {}).get("preset"), new_learner=is_new)
    changes = {
        section: _section(section, _below(base, section, data[section]), data[section], complete)
        for section in _SECTIONS
        if section in data
    }
    return dataclasses.replace(base, **changes)


def typed(config: Config) -> Config:
    """The same with plain numbers of Python where a program gave NumPy's, or a whole float for a whole number.

    Values of a wrong type stay as they are, for `mistyped` to find.
    """
    changes: dict[str, Any] = {}
    for section in _SECTIONS:
        options = getattr(config, section)
        if dataclasses.is_dataclass(options) and not isinstance(options, type):
            values = {}
            for name, hint in typing.get_type_hints(type(options)).items():
                given = getattr(options, name)
                matched, converted = _first_match(_plain(given, hint), hint)
                values[name] = converted if matched else given
            changes[section] = dataclasses.replace(options, **values)
    return dataclasses.replace(config, **changes)


def as_typed(field: str, value: Any, hint: Any) -> Any:
    """One value of a program or a file as its type is declared, likewise.

    Raises:
        ConfigError: it is of another type.
    """
    return _checked(field, _plain(value, hint), hint)


def mistyped(config: Config) -> Iterator[ConfigError]:
    """One problem for each field whose value is of another type than declared, as a file's would be refused.

    An unknown name among strings is left to the checks that know the nearest one.
    """
    for name, hint in typing.get_type_hints(Config).items():
        section = getattr(config, name)
        if name in _NAMES:
            yield from _mistyped(name, section, hint)
        elif not isinstance(section, hint):
            remedy = f"change fields of it: dataclasses.replace(config.{name}, ...)"
            yield ConfigError(name, section, f"a {hint.__name__}", remedy)
        else:
            for field, hint in typing.get_type_hints(type(section)).items():
                yield from _mistyped(f"{name}.{field}", getattr(section, field), hint)


def _mistyped(field: str, value: Any, hint: Any) -> Iterator[ConfigError]:
    if typing.get_origin(hint) is typing.Literal and isinstance(value, str):
        return
    try:
        _checked(field, value, hint)
    except ConfigError as problem:
        yield problem


def _plain(value: Any, hint: Any) -> Any:
    """A number as one of Python's, in a list and a table too; a whole one as an int where floats are not taken."""
    if isinstance(value, list | tuple):
        return tuple(_plain(entry, typing.get_args(hint)[0] if typing.get_args(hint) else hint) for entry in value)
    if isinstance(value, Mapping):
        return {name: _plain(entry, float) for name, entry in value.items()}
    if getattr(value, "shape", None) == ():  # of NumPy or JAX
        value = value.item()
    if not isinstance(value, float):
        return value
    whole = int in _options(hint) and float not in _options(hint) and value.is_integer()
    return int(value) if whole else value


def _below(base: Config, section: str, data: Mapping[str, Any]) -> Any:
    """The base of a file's section: the preset's, but for the options of another environment."""
    if section != "environment":
        return getattr(base, section)
    same = data.get("name", base.environment.name) == base.environment.name
    return base.environment if same else EnvironmentConfig(name=_checked("environment.name", data["name"], str))


def _section(prefix: str, base: Any, data: Mapping[str, Any], complete: bool) -> Any:
    hints = typing.get_type_hints(type(base))
    # As on the command line, where a field that is called as a word of Python's goes without its underscore.
    data = {f"{key}_" if f"{key}_" in hints else key: value for key, value in data.items()}
    _refuse_unknown(data, set(hints), prefix=prefix + ".")
    values = {key: as_typed(f"{prefix}.{key}", value, hints[key]) for key, value in data.items()}
    if "options" in values and not complete:
        values["options"] = {**base.options, **values["options"]}
    for key in [key for key in hints if key not in data and f"{prefix}.{key}" not in ADDED] if complete else ():
        if not _accepts_none(hints[key]):
            _refuse_missing(f"{prefix}.{key}")
        values[key] = None  # there is no other way to write it
    return dataclasses.replace(base, **values)


def _refuse_missing(field: str) -> NoReturn:
    """A complete file was written by the version that trained; today's default may be another algorithm."""
    accepted = f"a value for everything in a file with {_COMPLETE} = true"
    raise ConfigError(
        field, None, accepted, "add the value that the run was trained with, or use its version of gradweave"
    )


def _refuse_unknown(data: Mapping[str, Any], known: set[str], prefix: str) -> None:
    for key in data:
        if key not in known:
            near = nearest_name(key, sorted(known))
            remedy = f"did you mean {prefix}{near}?" if near else "remove it"
            raise ConfigError(prefix + key, data[key], "the fields " + ", ".join(sorted(known)), remedy)


def _accepts_none(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


def _checked(field: str, value: Any, hint: Any) -> Any:
    """`value` as the type `hint`: whole numbers become floats and arrays tuples where that is asked for."""
    matched, converted = _first_match(value, hint)
    if matched:
        return converted
    accepted = " or ".join(_describe(option) for option in _options(hint) if option is not type(None))
    raise ConfigError(field, value, accepted, f"give {field} a value of that type")


def _first_match(value: Any, hint: Any) -> tuple[bool, Any]:
    matches = (_match(value, option) for option in _options(hint))
    return next((match for match in matches if match[0]), (False, None))


def _options(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _match(value: Any, option: Any) -> tuple[bool, Any]:
    if typing.get_origin(option) is Mapping:
        plain = isinstance(value, Mapping) and all(isinstance(entry, int | float | str) for entry in value.values())
        return plain, value
    if typing.get_origin(option) is typing.Literal:
        return isinstance(value, str) and value in typing.get_args(option), value
    if typing.get_origin(option) is tuple:
        if not isinstance(value, list | tuple):
            return False, None
        entries = [_match(entry, typing.get_args(option)[0]) for entry in value]
        return all(matched for matched, _ in entries), tuple(entry for _, entry in entries)
    if option is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return _as_float(value) if number else (False, None)
    if option is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    return isinstance(value, option), value


def _as_float(value: int | float) -> tuple[bool, float | None]:
    try:
        return True, float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return False, None


def _describe(option: Any) -> str:
    if typing.get_origin(option) is typing.Literal:
        return ", ".join(repr(name) for name in typing.get_args(option))
    if typing.get_origin(option) is Mapping:
        return "a table of numbers, strings, true or false"
    if typing.get_origin(option) is tuple:
        return f"a list, each entry {_describe(typing.get_args(option)[0])}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a string", Path: "a path"}
    return names.get(option, str(option))
