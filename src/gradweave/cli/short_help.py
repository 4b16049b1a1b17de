"""`gradweave train --help`: the flags that people use, of the hundred there are; `--help-all` lists them all.

Every flag is parsed either way. For the short help the other fields are suppressed in classes derived from the real
ones, so that names, defaults and texts have one source.
"""

import dataclasses
from typing import Annotated, Any, Final

import tyro

__all__ = ["COMMON", "HELP_ALL", "with_common_flags"]

HELP_ALL: Final = "--help-all"

COMMON: Final = {
    "environment": ("name",),
    "inner": ("num_envs", "discount", "entropy_cost", "learning_rate"),
    "meta": ("learned", "num_inner_steps", "estimator", "learning_rate"),
    "run": ("total_steps", "seed", "devices", "runs_dir", "finish"),
    "": ("preset", "config", "seeds"),
}
"""The fields that `--help` shows, by section; those of no section are the command's own."""


def with_common_flags(default: Any) -> Any:
    """The same flags, of a class in which all but `COMMON` are suppressed.

    Args:
        default: flags of a command, an instance of a dataclass.
    """
    changes = {}
    for field in dataclasses.fields(default):
        value = getattr(default, field.name)
        if field.name in COMMON:
            changes[field.name] = _with_fields(value, COMMON[field.name])
        elif field.name not in COMMON[""]:
            changes[field.name] = value
    return _derived(default, {name: _kind(default, name, value) for name, value in changes.items()}, changes)


def _with_fields(section: Any, shown: tuple[str, ...]) -> Any:
    hidden = {field.name: field.type for field in dataclasses.fields(section) if field.name not in shown}
    return _derived(section, {name: Annotated[kind, tyro.conf.Suppress] for name, kind in hidden.items()}, {})


def _kind(default: Any, name: str, value: Any) -> Any:
    """The annotation of a field of the command's flags: of a section its derived class, else suppressed."""
    annotation = next(field.type for field in dataclasses.fields(default) if field.name == name)
    if name not in COMMON:
        return Annotated[annotation, tyro.conf.Suppress]
    metadata = getattr(annotation, "__metadata__", ())
    return Annotated[(type(value), *metadata)] if metadata else type(value)


def _derived(original: Any, annotations: dict[str, Any], changes: dict[str, Any]) -> Any:
    """An instance of a class derived from the original's, with other annotations and values of some fields."""
    values = {field.name: getattr(original, field.name) for field in dataclasses.fields(original)} | changes
    fields = [(name, annotation, dataclasses.field(default=None)) for name, annotation in annotations.items()]
    kind = dataclasses.make_dataclass(type(original).__name__, fields, bases=(type(original),), frozen=True)
    kind.__doc__ = type(original).__doc__
    return kind(**values)
