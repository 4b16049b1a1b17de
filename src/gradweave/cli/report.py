"""`gradweave report RUN...`: figures and a self-contained report.html from the metrics of one or more runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gradweave.training.run_folder import find_run

__all__ = ["run"]


@dataclass(frozen=True)
class _Flags:
    """The flags of `gradweave report`."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN [RUN ...]")]
    """The folders of the runs; several are drawn into the same figures."""
    output: Path | None = None
    """Folder to write to; by default the run's own, or `report` beside the first of several."""


def run(argv: Sequence[str]) -> int:
    """Write the report; returns the exit code."""
    flags = tyro.cli(
        _Flags,
        prog="gradweave report",
        description="Draw the figures of one or more runs from their metrics.jsonl and write report.html.",
        args=list(argv) or ["--help"],
    )
    paths = [find_run(path) for path in flags.runs]
    from gradweave.analysis.report import write_report  # matplotlib takes a second

    output = flags.output or (paths[0] if len(paths) == 1 else paths[0].parent / "report")
    print(write_report(paths, output))
    return 0
