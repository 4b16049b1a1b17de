"""A preset with other values, checked: the configuration that a Python program trains."""

from collections.abc import Mapping
from typing import Any

from gradweave.config.presets import DEFAULT_PRESET
from gradweave.config.schema import Config
from gradweave.config.toml_file import config_from_dict
from gradweave.config.validation import validate

__all__ = ["configure"]


def configure(preset: str = DEFAULT_PRESET, /, **sections: Mapping[str, Any]) -> Config:
    """A preset with other values in some of its fields.

    The sections and fields are those of a configuration file, `environment`, `network`, `inner`, `meta`, `outer` and
    `run`; lists may be given for tuples.

    Args:
        preset: the preset's name.
        **sections: of each section the fields that differ from the preset.

    Raises:
        ConfigError: an unknown preset or field, a value of the wrong type, or values that do not go together.

    Example:
        >>> config = configure("quick", inner={"discount": 0.95}, run={"total_steps": 60_000})
        >>> config.inner.discount, config.run.total_steps
        (0.95, 60000)
    """
    config = config_from_dict({**sections, "preset": preset})
    validate(config)
    return config
