"""Environments by name, each with the options it takes; names and options are checked without loading JAX.

`make_environment("snake", num_rows=6, num_cols=6)` is what configurations and the command line use. Names with a prefix
come from elsewhere: `jumanji:Game2048-v1`, `gymnax:CartPole-v1`, `envelope:brax/ant` (`gradweave.envs.suites`), or a
class of your own, `package.module:Class` (`gradweave.envs.own`), whose options are known when it is made. In a program
an environment needs no name: hand over the object itself.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from gradweave.envs.catalogue import CATALOGUE, UNTRIED, Option
from gradweave.envs.own import class_reference, make_own, unfit_option, unknown_option
from gradweave.envs.suites import missing, refused_suite, suite_of

if TYPE_CHECKING:
    from gradweave.envs.environment import AbstractEnvironment

__all__ = ["ENVIRONMENTS", "explain_name", "make_environment", "validate_environment"]

_EVERYWHERE: Final = {"action_mask": Option()}

ENVIRONMENTS: Final[Mapping[str, Mapping[str, Option]]] = {
    name: {**row.options, **_EVERYWHERE} for name, row in CATALOGUE.items()
}
"""Every name, and the options it takes. `action_mask=False`, which all take, hides the mask (`Unmasked`)."""

_LISTED: Final = "a name that `gradweave environments` lists, or a class of your own as package.module:Class"


def make_environment(name: str, /, **options: Any) -> "AbstractEnvironment[Any]":
    """The environment called `name`.

    ```python
    environment = make_environment("snake", num_rows=6, num_cols=6)
    ```

    Raises:
        ValueError: an unknown name or option, a value that is not accepted, or a suite that is not installed.
    """
    validate_environment(name, options)
    if not options.pop("action_mask", True):
        from gradweave.envs.unmasked import Unmasked

        return Unmasked(make_environment(name, **options))
    if class_reference(name) is not None:
        return make_own(name, options)
    suite, _, suite_name = name.rpartition(":")
    if suite:
        return _of_suite(suite, suite_name, options)
    place = CATALOGUE[name].place
    assert place is not None
    return getattr(import_module(f"gradweave.envs.{place[0]}"), place[1])(**options)


def _of_suite(suite: str, name: str, options: Mapping[str, Any]) -> "AbstractEnvironment[Any]":
    """An environment of a suite, whose own refusals of values are of any kind."""
    module = import_module(f"gradweave.envs.{suite}")
    try:
        environment: AbstractEnvironment[Any] = module.from_suite(name, **options)
    except Exception as error:
        if not options:
            raise
        given = ", ".join(f"{option} = {value!r}" for option, value in options.items())
        words = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
        raise ValueError(
            f"{suite}:{name} cannot be made with {given}, as its suite refuses them ({words}): choose other values"
        ) from error
    return environment


def validate_environment(name: str, options: Mapping[str, Any]) -> None:
    """Check that `make_environment(name, **options)` will be understood; loads neither JAX nor a suite.

    Of a class of your own only the name is checked here.

    Raises:
        ValueError: with the given name, the accepted ones, and the nearest right one.
    """
    wrong = explain_name(name)
    if wrong is not None:
        raise ValueError(f"there is no environment {name!r} to train on: {wrong[1]}; accepted: {wrong[0]}")
    if class_reference(name) is not None:
        return
    accepted = ENVIRONMENTS[name]
    for option, value in options.items():
        if option not in accepted:
            raise unknown_option(name, option, value, accepted, _nearest(option, accepted))
        if not accepted[option].accepts(value):
            raise unfit_option(name, option, value, str(accepted[option]))
    suite = suite_of(name)
    if suite is not None and (lacking := missing(suite)):
        raise ValueError(f"{name} is from {suite.title}, which {lacking}")


def explain_name(name: str) -> tuple[str, str] | None:
    """None for a name that can be made; otherwise (accepted names, remedy).

    Example:
        >>> explain_name("Game2048-v1")[1]
        "did you mean 'jumanji:Game2048-v1'?"
    """
    if file := re.fullmatch(r"(?:\./)?(\w[\w/]*)\.py:(\w+)", name):
        return _LISTED, f"a module is named without .py: {file[1].replace('/', '.')}:{file[2]}"
    if file := re.fullmatch(r".*/(\w+)\.py:(\w+)", name):
        return _LISTED, f"call the command in the folder that has {file[1]}.py, with the name {file[1]}:{file[2]}"
    if name in ENVIRONMENTS or class_reference(name) is not None:
        return None
    if wrong := refused_suite(name):
        return _LISTED, f"{wrong}; `gradweave environments` lists others"
    near = _nearest(name, [*ENVIRONMENTS, *UNTRIED])
    if near in UNTRIED:
        theirs = near.removeprefix("envelope:").replace("/", "::", 1)
        remedy = "could not be tried, as its model is cloned from a repository when it is first made: in a program, try"
        return _LISTED, f"{near} {remedy} EnvelopeEnvironment(envelope.create({theirs!r}))"
    return _LISTED, "see `gradweave environments`" if near is None else f"did you mean {near!r}?"


def _without_suite(name: str) -> str:
    return name.rpartition(":")[2]


def _nearest(given: str, names: Iterable[str]) -> str | None:
    """The nearest right name, or None. A suite's prefix, or all but the last part, may have been forgotten."""
    known = {name.lower(): name for name in names}
    short = {_without_suite(key): name for key, name in known.items()}
    known = {**{key.rpartition("/")[2]: name for key, name in short.items()}, **short, **known}
    near = difflib.get_close_matches(given.lower(), known, n=1, cutoff=0.6)
    return known[near[0]] if near else None
