"""`gradweave measure RUN`: bias, variance and signal-to-noise of the meta-gradient of a trained agent, by estimator."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gradweave.cli.flags import parse_flags
from gradweave.measurement.of_run import measure_run
from gradweave.measurement.options import MeasureOptions

if TYPE_CHECKING:  # imports JAX, which bad flags must not wait for
    from gradweave.measurement.result import Measurement

__all__ = ["run"]


@dataclass(frozen=True)
class _Flags:
    """The flags of `gradweave measure`."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    options: Annotated[MeasureOptions, tyro.conf.arg(name="")] = dataclasses.field(default_factory=MeasureOptions)


def run(argv: Sequence[str]) -> int:
    """Measure, print the table and write the files; returns the exit code."""
    flags = parse_flags(
        _Flags,
        "gradweave measure",
        "Sample the meta-gradient of a trained agent and compare estimators on the same samples.",
        argv,
        needs_words=True,
    )
    found = measure_run(flags.run, flags.options, first=_show)
    print("\n" + "\n".join(str(file) for file in found.files))
    return 0


def _show(found: "Measurement") -> None:
    print(found)
