"""What `--meta.preset auto` is: each meta-parameter tuned by what can see it.

The row of a learner says what that is; docs/auto.md says what is known of it, and on which seeds it was chosen.
"""

import dataclasses

from gradweave.config.learners import LEARNERS
from gradweave.config.schema import Config
from gradweave.errors import ConfigError

__all__ = ["with_auto"]


def with_auto(config: Config) -> Config:
    """The configuration with what `auto` tunes for its learner, in the place of what it tuned.

    Raises:
        ConfigError: the learner has no auto.

    Example:
        >>> from gradweave.config.presets import preset
        >>> with_auto(preset("ppo")).meta.guard
        True
    """
    auto = LEARNERS[config.learner].auto
    if not auto:
        accepted = f"none for the learner {config.learner}, of which nothing is known"
        raise ConfigError("meta.preset", "auto", accepted, "leave --meta.preset out, and choose --meta.tuners yourself")
    plain = config.untuned()
    return dataclasses.replace(plain, meta=dataclasses.replace(plain.meta, preset="auto", **auto))
