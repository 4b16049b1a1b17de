"""Options of a measurement, and their checks before JAX is imported."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gradweave.config.checks import check_flags
from gradweave.config.estimators import measurable_estimator, parse_reference
from gradweave.config.numbers import LARGEST, MOST_STEPS
from gradweave.config.schema import Config
from gradweave.errors import ConfigError

__all__ = ["MeasureOptions", "check_measurable", "check_options"]


_LIMITS: Final = {
    "samples": (2, LARGEST["run.measure_samples"]),
    "burn_in": (0, 2**31 - 1),
    "horizons": (1, LARGEST["meta.num_inner_steps"]),
    "seed": (0, 2**32 - 1),
    "step": (0, MOST_STEPS),
}


@dataclass(frozen=True)
class MeasureOptions:
    """Options of a measurement: the flags of `gradweave measure`, and the keywords of `gradweave.measure`."""

    samples: int | None = None
    """Independent windows; by default the run's `measure_samples`."""
    burn_in: int | None = None
    """Rollouts between the checkpoint and each window, up to twice as many, so that the windows' environments do not
    resemble each other; by default those of a recent episode, from 20 to 100."""
    horizons: int | None = None
    """Inner updates in one window (L), which may be more than in training; by default as in training."""
    output: Path | None = None
    """Folder to write to; by default `measure` in the run's own."""
    estimators: tuple[str, ...] = ()
    """Estimators to compare, named as for train: unrolled, truncated:M, horizon:K, horizon-mix[:WEIGHTS],
    truncation-mix[:WEIGHTS], adaptive-mix[:CRITERION]; by default a selection. Variances are compared with the first
    one's."""
    reference: str = "longest"
    """The reference of bias, cosine, error and sign: the longest horizon, or unroll:K, a longer one of K updates."""
    batch_sizes: tuple[int, ...] = ()
    """Other numbers of environments in a batch to measure with, each with as many samples."""
    seed: int = 0
    """Seed of the measurement."""
    step: int | None = None
    """Environment steps of the checkpoint to measure; by default that of an unfinished measurement, or the newest."""


def check_options(options: MeasureOptions, num_samples: int, length: int) -> int:
    """Raise when options cannot be used.

    Args:
        options: as given.
        num_samples: the resulting number of samples.
        length: the resulting number of inner updates.

    Returns:
        Updates in the windows that are sampled, after which the reference takes the outer loss.

    Raises:
        ConfigError: with the flag, the accepted values and a remedy.
    """
    _check_numbers(options)
    _check_estimators(options.estimators, length, num_samples)
    return parse_reference(options.reference, length)


def check_measurable(config: Config) -> None:
    """Raise when a run's meta-gradient cannot be measured.

    Raises:
        ConfigError: it learned nothing, or has a sampling correction.
    """
    if not config.meta.learned:
        raise ConfigError(
            "RUN", "a run that learned no meta-parameter", "a run with --meta.learned", "train one, and measure that"
        )
    if config.meta.sampling_correction:
        accepted = "a run without one: samples would leave its share of the meta-gradient out"
        raise ConfigError("RUN", "a run with a sampling correction", accepted, "train one without it, and measure that")


def _check_numbers(options: MeasureOptions) -> None:
    for size in options.batch_sizes:
        if not 1 <= size <= LARGEST["inner.num_envs"]:
            remedy = "leave --batch-sizes out for the size of training alone"
            accepted = f"whole numbers of at least 1, and at most {LARGEST['inner.num_envs']:,}"
            raise ConfigError("--batch-sizes", size, accepted, remedy)
    check_flags(options, _LIMITS)


def _check_estimators(names: Sequence[str], length: int, num_samples: int) -> None:
    for name in names:
        row = measurable_estimator(name, length).row
        if row.name == "adaptive-mix" and num_samples < 4:  # weights of one half, of two or more, for the other
            raise ConfigError("--samples", num_samples, f"at least 4 with {name}", "--samples 128, say")
