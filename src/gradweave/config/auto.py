"""What `--meta.preset auto` is: each meta-parameter tuned by what can see it.

docs/auto.md says what is known of each entry, and on which seeds it was chosen.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from gradweave.config.schema import Config

__all__ = ["AUTO", "with_auto"]

AUTO: Final[Mapping[str, Mapping[str, Any]]] = {
    "actor-critic": {"tuners": ("learning_rate=kl:0.001",), "guard": True},
    "ppo": {"tuners": ("learning_rate=kl:0.01",), "guard": True},
}
"""Fields of the section `meta` by the learner's name."""


def with_auto(config: Config) -> Config:
    """The configuration with what `auto` tunes for its learner, in the place of what it tuned.

    Example:
        >>> from gradweave.config.presets import preset
        >>> with_auto(preset("ppo")).meta.guard
        True
    """
    plain = config.untuned()
    return dataclasses.replace(plain, meta=dataclasses.replace(plain.meta, preset="auto", **AUTO[config.learner]))
