"""Numbers that no run can use, with any options: too large for indices, or gone in single precision.

Training computes in float32 and counts in int32. Numbers beyond them would be rounded to 0, 1 or infinity without a
word, or end in a failure of XLA after minutes.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from gradweave.config.checks import flag
from gradweave.config.hyperparameters import single
from gradweave.config.schema import Config
from gradweave.config.specs import MOST_UPDATES
from gradweave.errors import ConfigError

__all__ = ["LARGEST", "MOST_STEPS", "unusable_numbers"]

_INDEX: Final = 2**31 - 1
MOST_STEPS: Final = 900_000_000_000  # the names of checkpoints have twelve digits
LARGEST: Final = {
    "environment.options.num_rows": 1000,
    "environment.options.num_cols": 1000,
    "network.channels": 65_536,
    "network.strides": 1024,
    "network.kernel_size": 1024,
    "network.policy_layers": 65_536,
    "network.value_layers": 65_536,
    "network.memory_size": 65_536,
    "inner.num_envs": 2**20,
    "inner.num_steps": 2**20,
    "meta.num_inner_steps": MOST_UPDATES,
    "run.total_steps": MOST_STEPS,
    "run.checkpoint_every": MOST_STEPS,
    "run.evaluate_every": MOST_STEPS,
    "run.seed": 2**32 - 1,
    "run.chunk_size": 1_000_000,
    "run.evaluation_episodes": 1_000_000,
    "run.measure_samples": 100_000_000,
}
_MOST_LAYERS: Final = 100
_LOST: Final = (math.inf, -math.inf)


def unusable_numbers(config: Config) -> Iterator[ConfigError]:
    """One problem for each such number of a configuration."""
    for section in dataclasses.fields(config):
        options = getattr(config, section.name)
        if not dataclasses.is_dataclass(options):
            continue
        for field in dataclasses.fields(options):
            value = getattr(options, field.name)
            name = f"{section.name}.{field.name}"
            entries = (
                {f"{name}.{key}": one for key, one in value.items()} if isinstance(value, Mapping) else {name: value}
            )
            for full, entry in entries.items():
                yield from _problem(full, entry)
    if config.inner.num_envs * config.inner.num_steps > _INDEX:
        accepted = f"at most {_INDEX // max(1, config.inner.num_steps):,} with {config.inner.num_steps} steps each"
        yield ConfigError("inner.num_envs", config.inner.num_envs, accepted, "lower --inner.num-envs")


def _problem(field: str, value: Any) -> Iterator[ConfigError]:
    largest = LARGEST.get(field, _INDEX)
    numbers = value if isinstance(value, tuple) else (value,)
    if len(numbers) > _MOST_LAYERS:
        yield ConfigError(field, f"{len(numbers)} values", f"at most {_MOST_LAYERS}", f"set {flag(field)} to fewer")
        return
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        if isinstance(number, int) and number > largest:
            yield ConfigError(field, number, f"at most {largest:,}", f"set {flag(field)} to a lower number")
        elif isinstance(number, float) and math.isfinite(number) and (single(number) or math.inf) in _LOST and number:
            accepted = "a number that single precision has: 0, or of a magnitude from 1.2e-38 to 3.4e38"
            yield ConfigError(field, number, accepted, f"set {flag(field)} to such a number")
