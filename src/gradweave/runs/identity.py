"""Identity of a checkpoint: its run, and the configuration with which it was written.

Every checkpoint carries both in its metadata, under its hash. A config.toml that was edited since would make the folder
lie about its past, so a difference is refused unless the user accepts it; accepted ones are in provenance.json.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from gradweave.config.schema import Config
from gradweave.config.toml_file import config_from_dict, config_to_dict
from gradweave.errors import CheckpointError, ConfigError, command_line
from gradweave.runs.checkpoints import Description, describe, newest_good
from gradweave.runs.provenance import recorded

__all__ = ["Change", "check_longer", "check_origin", "identify", "newest_own", "raise_changed", "unaccepted"]

_FREE: Final = (
    "total_steps",
    "runs_dir",
    "devices",
    "track",
    "checkpoint_every",
    "keep_checkpoints",
    "on_nonfinite",
    "finish",
)
"""Fields of the section `run` without influence on results so far."""

Change = tuple[str, Any, Any]
"""A field, its value in the checkpoint and its value in config.toml."""


def identify(config: Config, run_id: str | None) -> dict[str, Any]:
    """Metadata by which a checkpoint identifies its run."""
    return {"run": run_id, "config": config_to_dict(config)}


def check_origin(path: Path, found: Description, run_id: str | None) -> None:
    """Raise when the checkpoint at `path` was written by another run.

    Raises:
        CheckpointError: it was, or its configuration cannot be read.
    """
    own = found.metadata.get("run")
    if None not in (own, run_id) and own != run_id:
        raise CheckpointError(
            f"{path.name} belongs to another run ({own!s:.40}; by provenance.json this one is {run_id}: if that file "
            "is the one that does not belong here, remove it)"
        )
    _config_of(path, found)


def newest_own(run: Path) -> tuple[Path, Description] | None:
    """The newest good checkpoint of the run in a folder; None where there is none."""
    run_id, _ = recorded(run)

    def own(path: Path) -> Description:
        found = describe(path)
        check_origin(path, found, run_id)
        return found

    try:
        return newest_good(run / "checkpoints", own, lambda text: None)
    except CheckpointError:
        return None


def check_longer(run: Path, total_steps: int) -> None:
    """Refuse an end before the newest good checkpoint of the run in a folder; a file's name alone proves no steps.

    Raises:
        ConfigError: the run has taken more steps.
    """
    newest = newest_own(run)
    if newest is not None and total_steps < newest[1].step:
        accepted = f"{newest[1].step} or more, the steps that have been taken"
        raise ConfigError("run.total_steps", total_steps, accepted, "leave --total-steps out, or train anew")


def unaccepted(checkpoint: tuple[Path, Description], config: Config, accepted: Sequence[Any]) -> list[Change]:
    """The fields in which a configuration is no longer that of a checkpoint, but for those that may change.

    Args:
        checkpoint: of the run, and where it is.
        config: the run's, from its config.toml.
        accepted: changes that are no longer asked about, from `recorded`.
    """
    then = _config_of(*checkpoint)
    changes = [] if then is None else map(_plain, _differences(then, config))
    return [change for change in changes if list(change) not in accepted]


def raise_changed(run: Path, step: int, changes: Sequence[Change]) -> NoReturn:
    """Raise an error that names the fields of config.toml changed since a checkpoint.

    Raises:
        ConfigError: with both values of every field.
    """
    remedy = f"put it back in config.toml, or go on with it: {command_line('resume', run, '--accept-changes')}"
    problems = [
        ConfigError(field, now, f"{then!r}, as in the checkpoint of step {step:,}", remedy)
        for field, then, now in changes
    ]
    first = problems[0]
    raise ConfigError(first.field, first.value, first.accepted, first.remedy, others=problems[1:])


def _config_of(path: Path, found: Description) -> Config | None:
    """The configuration in a checkpoint; None in those of versions that did not write it."""
    plain = found.metadata.get("config")
    if plain is None:
        return None
    if not isinstance(plain, Mapping):
        raise CheckpointError(f"{path.name} is no checkpoint: its configuration is a {type(plain).__name__}")
    try:
        return config_from_dict({**plain, "complete": True})
    except ConfigError as error:
        raise CheckpointError(f"{path.name} has a configuration that this version does not know: {error}") from None


def _differences(then: Config, now: Config) -> Iterator[Change]:
    for section in dataclasses.fields(Config):
        old, new = getattr(then, section.name), getattr(now, section.name)
        if not dataclasses.is_dataclass(old):
            if old != new:
                yield section.name, old, new
            continue
        for field in dataclasses.fields(old):
            values = getattr(old, field.name), getattr(new, field.name)
            if values[0] != values[1] and not (section.name == "run" and field.name in _FREE):
                yield (f"{section.name}.{field.name}", *values)


def _plain(change: Change) -> Change:
    """A change as JSON gives it back."""
    field, *values = change
    then, now = (_as_json(value) for value in values)
    return field, then, now


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value
