"""The preset of tuning `auto`: each meta-parameter has a method that can see its effect.

The row of a learner has the methods; docs/auto.md has the evidence, and the seeds on which they were chosen.
"""

import dataclasses

from gradweave.config.learners import LEARNERS
from gradweave.config.schema import Config
from gradweave.errors import ConfigError

__all__ = ["is_auto", "lost_auto", "with_auto", "with_meta_preset"]


def with_auto(config: Config) -> Config:
    """The configuration with the tuning of `auto` for its learner, in the place of its own.

    Raises:
        ConfigError: the learner has no auto.

    Example:
        >>> from gradweave.config.presets import preset
        >>> with_auto(preset("ppo")).meta.guard
        True
    """
    auto = LEARNERS[config.learner].auto
    if not auto:
        accepted = f"none for the learner {config.learner}, which it was not tried with"
        raise ConfigError(
            "meta.preset", "auto", accepted, "--meta.preset none, and choose --meta.tuners or --meta.learned yourself"
        )
    plain = config.untuned()
    return dataclasses.replace(plain, meta=dataclasses.replace(plain.meta, preset="auto", **auto))


def is_auto(config: Config) -> bool:
    """Whether a configuration has exactly the tuning of `auto`."""
    return config.meta.preset == "auto" and config.meta == with_auto(config).meta


def lost_auto(config: Config, asked: str | None) -> str | None:
    """That the preset's `auto` was left out for a learner that has none, and nothing is tuned; None if not so.

    Args:
        config: that was resolved.
        asked: the `meta.preset` that was asked for; None without one.
    """
    if asked or config.preset != "auto" or LEARNERS[config.learner].auto or config.meta != config.untuned().meta:
        return None
    return f"nothing is tuned, as {config.learner} has no auto; --meta.learned and --meta.tuners choose what is"


def with_meta_preset(config: Config, name: str | None, *, new_learner: bool = False) -> Config:
    """The configuration under `meta.preset`, before further fields change it.

    Args:
        config: a preset.
        name: "auto" for its learner's `auto`, "none" for no tuning in the place of an `auto` of the preset's;
            None for the preset's own.
        new_learner: whether the learner is not the preset's: an `auto` of the preset's becomes that of the learner, or
            no tuning where it has none.

    Raises:
        ConfigError: auto is asked for, and the learner has none.
    """
    if name == "auto":
        return with_auto(config)
    if config.meta.preset != "auto" or (name is None and not new_learner):
        return config
    return with_auto(config) if name is None and LEARNERS[config.learner].auto else config.untuned()
