"""The tuners that a configuration names: those of the library, and classes of the user's."""

import inspect
from typing import Any

from gradweave.agents.tuners import AbstractTuner
from gradweave.config.schema import Config
from gradweave.config.specs import Spec, resolve
from gradweave.config.tuners import TunerRow
from gradweave.envs.own import import_class
from gradweave.errors import ConfigError

__all__ = ["configured_tuners"]


def configured_tuners(config: Config) -> dict[str, AbstractTuner]:
    """The tuners by the names of their hyper-parameters.

    Raises:
        ConfigError: one is a class of the user's that cannot be imported, is no tuner, or does not take its numbers.
    """
    return {name: _tuner(spec, config.planned_windows) for name, spec in config.tuners.items()}


def _tuner(spec: Spec[TunerRow], windows: int) -> AbstractTuner:
    if not spec.row.own:
        arguments = (windows, spec.argument) if spec.row.timed else (spec.argument,)
        tuner: AbstractTuner = resolve(spec.row.constructor)(*arguments)
        return tuner
    try:
        return _own_tuner(spec.row.constructor, () if spec.argument is None else (spec.argument,))
    except ValueError as error:
        accepted = "a tuner of your own that can be made, as NAME=package.module:Class[:NUMBERS]"
        raise ConfigError("meta.tuners", spec.text, accepted, str(error)) from error


def _own_tuner(name: str, arguments: tuple[Any, ...]) -> AbstractTuner:
    kind = import_class(name, AbstractTuner, "gradweave.AbstractTuner", "tuners")
    if inspect.isabstract(kind):
        raise ValueError(f"{name} does not implement all of a tuner: give it move(value, state, seen)")
    try:
        inspect.signature(kind).bind(*arguments)
    except TypeError as error:
        if arguments:
            raise ValueError(
                f"{name} does not take one argument, a number or a tuple of several ({error}): leave the numbers out, "
                f"NAME={name}, or give its constructor such an argument"
            ) from error
        raise ValueError(
            f"{name} needs an argument ({error}): write NAME={name}:NUMBERS, or give it a default"
        ) from error
    tuner: AbstractTuner = kind(*arguments)
    return tuner
