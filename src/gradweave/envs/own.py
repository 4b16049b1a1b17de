"""Classes of the user's, by the name `package.module:Class`: environments, whose options are what the constructor
takes, and other classes named so (`import_class`).

The class has to derive from that of the library, `AbstractEnvironment` for instance. Anything else is refused before it
is called: a configuration from elsewhere must not be able to call what it names. Importing the module still runs it, so
that a run with a class of one's own is as trustworthy as the module its configuration names.
"""

import difflib
import inspect
import os
import sys
import types
import typing
from collections.abc import Collection, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from gradweave.envs.suites import PREFIXES

if TYPE_CHECKING:
    from gradweave.envs.environment import AbstractEnvironment

__all__ = ["OptionError", "class_reference", "import_class", "make_own", "unfit_option", "unknown_option"]

_CONTRACT: Final = frozenset({"num_actions", "can_truncate"})
"""Fields of every environment, which are no options of a user's though a constructor may take them."""

_SIMPLE: Final[Mapping[type, str]] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a word",
    type(None): "None",
}


class OptionError(ValueError):
    """An option that an environment does not have, a value that does not fit it, or one that is missing.

    Attributes:
        option: its name.
        value: the given one; None without one.
        accepted: the accepted values, in words.
        remedy: the change to make.
    """

    def __init__(self, text: str, option: str, value: Any, accepted: str, remedy: str) -> None:
        super().__init__(text)
        self.option, self.value, self.accepted, self.remedy = option, value, accepted, remedy


def class_reference(name: str) -> tuple[str, str] | None:
    """Module and class, if `name` is written as `package.module:Class`; None if it is another kind of name.

    Example:
        >>> class_reference("games.corridor:Corridor"), class_reference("jumanji:Maze-v0")
        (('games.corridor', 'Corridor'), None)
    """
    module, colon, attribute = name.partition(":")
    if not colon or module in PREFIXES or not attribute.isidentifier():
        return None
    return (module, attribute) if all(part.isidentifier() for part in module.split(".")) else None


def make_own(name: str, options: Mapping[str, Any]) -> "AbstractEnvironment[Any]":
    """The environment `package.module:Class`, made with `options`. Imports JAX, and runs the module.

    Raises:
        ValueError: there is no such module or class, it is no environment, or it does not take these options.
    """
    from gradweave.envs.environment import AbstractEnvironment

    kind = import_class(name, AbstractEnvironment, "gradweave.envs.AbstractEnvironment", "environments")
    parameters = dict(list(inspect.signature(kind.__init__).parameters.items())[1:])
    fitting = _checked_options(name, kind, parameters, options)
    try:
        environment: AbstractEnvironment[Any] = kind(**fitting)
    except TypeError as error:
        if not inspect.isabstract(kind):
            raise
        raise ValueError(
            f"{name} does not implement all of the contract ({error}): give it reset, step, num_actions and "
            "can_truncate"
        ) from error
    return environment


def import_class(name: str, base: type, base_name: str, plural: str) -> Any:
    """The class `package.module:Class`, which has to derive from `base`; nothing else is ever called. Runs the module.

    Args:
        name: of the class; `class_reference` knows it.
        base: the class that it has to derive from.
        base_name: how a user writes that.
        plural: the word for such classes.

    Raises:
        ValueError: there is no such module or class, or it does not derive from `base`.
    """
    reference = class_reference(name)
    assert reference is not None
    module_name, attribute = reference
    if "" not in sys.path and os.getcwd() not in sys.path:  # as `python` has it; last, so that it hides no library
        sys.path.append(os.getcwd())
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name != missing and not module_name.startswith(f"{missing}."):
            raise  # the module itself lacks something
        package, _, rest = missing.rpartition(".")
        if package:
            where = f"the package {package} is at {_place(sys.modules[package])}, without {rest}.py: correct the name"
        else:
            file = module_name.replace(".", "/")
            where = f"call the command in the folder that has {file}.py, or name that folder in PYTHONPATH"
        raise ValueError(f"{name} cannot be imported, as there is no module {missing!r}: {where}") from error
    kind = getattr(module, attribute, None)
    if isinstance(kind, type) and issubclass(kind, base):
        return kind
    found = sorted(
        other
        for other, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module_name
    )
    what = "is not there" if kind is None else "is something else"
    remedy = f"{plural} of {module_name} are {', '.join(found)}" if found else "derive a class from it"
    raise ValueError(f"a class derived from {base_name} is wanted, but {name} {what}: {remedy}")


def _place(module: types.ModuleType) -> str:
    """The folder of a package, or the file of a module."""
    return str(next(iter(getattr(module, "__path__", [])), module.__file__))


def _checked_options(
    name: str, kind: type, parameters: Mapping[str, inspect.Parameter], options: Mapping[str, Any]
) -> dict[str, Any]:
    """The options as the constructor wants them: whole numbers become floats where it says float."""
    named = {
        key: parameter
        for key, parameter in parameters.items()
        if parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    }
    anything = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    unknown = [key for key in options if key not in named and not anything]
    if unknown:
        offered = [key for key in named if key not in _CONTRACT]
        near = difflib.get_close_matches(unknown[0], offered, n=1)
        raise unknown_option(name, unknown[0], options[unknown[0]], offered, near[0] if near else None)
    missing = [key for key, parameter in named.items() if parameter.default is parameter.empty and key not in options]
    if missing:
        remedy = f"give the option {missing[0]}, or the class a default"
        raise OptionError(
            f"{name} needs a value for {missing[0]}: {remedy}", missing[0], None, f"a value, which {name} needs", remedy
        )
    hints = _hints(kind)
    return {key: _fitting(name, key, value, hints.get(key)) for key, value in options.items()}


def _hints(kind: Any) -> Mapping[str, Any]:
    """Types of the constructor's arguments; none where they cannot be told."""
    try:
        return typing.get_type_hints(kind.__init__)
    except (NameError, TypeError):
        return {}


def _fitting(name: str, key: str, value: Any, hint: Any) -> Any:
    """The value of an option; types other than those of configurations are the class's own business."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = typing.get_args(hint) if union else (hint,)
    if not all(kind in _SIMPLE for kind in kinds) or type(value) in kinds:
        return value
    if float in kinds and type(value) is int:
        return float(value)
    raise unfit_option(name, key, value, " or ".join(_SIMPLE[kind] for kind in kinds))


def unknown_option(name: str, option: str, value: Any, offered: Collection[str], near: str | None) -> OptionError:
    """The error of an option that an environment does not have."""
    question = f" (did you mean {near!r}?)" if near else ""
    listed = ", ".join(offered)
    text = f"{name} has no option {option!r}{question}; {f'options are {listed}' if offered else 'it has none'}"
    accepted = f"{name} takes {listed or 'no options'}"
    flag = "--environment.options."
    remedy = f"did you mean {flag}{near.replace('_', '-')}?" if near else f"leave {flag}{option.replace('_', '-')} out"
    return OptionError(text, option, value, accepted, remedy)


def unfit_option(name: str, option: str, value: Any, accepted: str) -> OptionError:
    """The error of a value that an environment's option does not take."""
    text = f"{option} = {value!r} does not fit {name}: give {accepted}"
    return OptionError(
        text, option, value, accepted, f"--environment.options.{option.replace('_', '-')} takes such a value"
    )
