"""Configuration files of earlier versions in today's words, so that their runs can still be read.

An estimator's argument had a field of its own for each estimator, and so had reverse mode's rematerialisation; today it
stands behind the name: `estimator = "truncated"` with `window = 3` is `estimator = "truncated:3"`. An environment's
options were fields of their section; there was one learner.
"""

from collections.abc import Mapping
from typing import Any, Final

from gradweave.errors import ConfigError

__all__ = ["ADDED", "translated"]

ADDED: Final = (
    "run.finish",
    "run.on_nonfinite",
    "inner.scale_rewards",
    "inner.normalize_observations",
    "inner.auxiliary_heads",
    "inner.auxiliary_discount",
    "inner.auxiliary_lambda",
    "inner.auxiliary_cost",
    "network.activation",
    "network.action_distribution",
    "network.action_scale",
    "network.memory",
    "network.memory_size",
    "meta.tuners",
    "meta.guard",
    "meta.preset",
)
"""Fields that complete files of earlier versions lack; defaults keep those versions' behaviour."""

_OF_ESTIMATOR: Final = {
    "truncated": ("window",),
    "horizon-mix": ("weights", "mix_lambda"),
    "window-mix": ("weights", "mix_lambda"),
    "trace": ("trace_decay",),
    "bootstrapped": ("target_steps",),
    "random-truncation": ("follow_probability",),
}
_GONE: Final = ("weights", "mix_lambda", "window", "trace_decay", "target_steps", "follow_probability", "remat")
_MIX_LAMBDA: Final = 0.9  # the default of the field that is gone
_DEFAULTS: Final = {"window": None, "trace_decay": 0.9, "target_steps": 1, "follow_probability": 0.5}


_OLD_VALUE_CLIP_RANGE: Final = 0.2  # without effect where values are not clipped
_OLD_DEFAULTS: Final = {"grid_only": False, "action_mask": True}


def translated(data: Mapping[str, Any], *, complete: bool) -> dict[str, Any]:
    """A file in today's words.

    Args:
        data: as it was read; its sections are tables.
        complete: whether the file holds every field, those without effect, too.

    Raises:
        ConfigError: see `_meta`.
    """
    new = dict(data)
    if complete:
        new.setdefault("learner", "actor-critic")
    if complete and new["learner"] == "ppo" and "inner" in new:
        new["inner"] = _ppo(new["inner"])
    if "meta" in new:
        new["meta"] = _meta(new["meta"], complete=complete)
    if "environment" in new:
        new["environment"] = _environment(new["environment"], complete=complete)
    return new


def _ppo(inner: Mapping[str, Any]) -> Mapping[str, Any]:
    """A complete section [inner] of PPO, where values that were clipped had the clip range of the ratio."""
    if "value_clip_range" in inner or "clip_range" not in inner:
        return inner
    own = inner["clip_range"] if inner.get("clip_values") else _OLD_VALUE_CLIP_RANGE
    return {**inner, "value_clip_range": own}


def _environment(section: Mapping[str, Any], *, complete: bool) -> Mapping[str, Any]:
    """Options among the options; those that had no effect are left out of a complete file."""
    options = section.get("options", {})
    beside = {name: value for name, value in section.items() if name not in ("name", "options")}
    if complete:
        beside = {name: value for name, value in beside.items() if value != _OLD_DEFAULTS.get(name)}
    if not isinstance(options, Mapping) or not (beside or complete):
        return section
    named = {"name": section["name"]} if "name" in section else {}
    return {**named, "options": {**beside, **options}}


def _meta(meta: Mapping[str, Any], *, complete: bool) -> Mapping[str, Any]:
    """A file's section [meta] without the fields that are gone.

    Args:
        meta: the section as it was read.
        complete: whether the file holds every field, those without effect, too.

    Raises:
        ConfigError: a field that is gone stands in a file that names no estimator, or mode, that it belongs to; or it
            has a value that nothing today has.
    """
    meta = _without_layers(meta)
    old = {name: meta[name] for name in _GONE if name in meta}
    if not old:
        return meta
    new = {name: value for name, value in meta.items() if name not in _GONE}
    used = ["remat"] if new.get("mode") == "reverse" else []
    if "remat" in old and used and old["remat"] != "none":
        new["mode"] = f"reverse:{old['remat']}"
    estimator = new.get("estimator")
    fields = _OF_ESTIMATOR.get(estimator, ()) if isinstance(estimator, str) else ()
    argument = _argument({name: old[name] for name in fields if name in old})
    if argument is not None:
        new["estimator"] = f"{estimator}:{argument}"
    for name in old:
        if not complete and name not in (*used, *fields):
            accepted = "arguments behind a name, as in estimator = 'truncated:3' or mode = 'reverse:step'"
            raise ConfigError(f"meta.{name}", old[name], accepted, f"leave {name} out, and write the argument so")
    return new


def _without_layers(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without the sizes of the schedule's network, which are always one hidden layer of 8 units today."""
    layers = meta.get("schedule_layers", [8])
    if meta.get("schedule") == "network" and list(layers) != [8]:
        accepted = "[8], which is the only size today"
        raise ConfigError("meta.schedule_layers", layers, accepted, "use the version of gradweave that trained the run")
    return {name: value for name, value in meta.items() if name != "schedule_layers"}


def _argument(old: Mapping[str, Any]) -> str | None:
    """The argument after the colon in today's notation; None if there is none."""
    weights = old.get("weights", "uniform")
    if weights == "geometric":
        return f"geometric:{old.get('mix_lambda', _MIX_LAMBDA)}"
    if isinstance(weights, list | tuple):
        return ",".join(str(weight) for weight in weights)
    rest = [value for name, value in old.items() if name in _DEFAULTS and value != _DEFAULTS[name]]
    return str(rest[0]) if rest else None
