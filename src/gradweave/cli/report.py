"""`gradweave report RUN...`: figures and a self-contained report.html from the metrics of one or more runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gradweave.cli.flags import parse_flags
from gradweave.runs.seeds_folder import find_runs, is_finished, is_seeds_folder, seed_runs

__all__ = ["run"]


@dataclass(frozen=True)
class _Flags:
    """The flags of `gradweave report`."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN [RUN ...]")]
    """The folders of the runs; several, and the seeds of one folder, are drawn into the same figures."""
    output: Path | None = None
    """Folder to write to; by default the one given, or `report` beside the first of several."""


def run(argv: Sequence[str]) -> int:
    """Write the report; returns the exit code."""
    flags = parse_flags(
        _Flags,
        "gradweave report",
        "Draw the figures of one or more runs from their metrics.jsonl and write report.html.",
        argv,
        needs_words=True,
    )
    paths = [run for path in flags.runs for run in find_runs(path)]
    from gradweave.reports.report import write_report  # matplotlib takes a second
    from gradweave.reports.seed_summary import write_summary

    output = flags.output or (flags.runs[0] if len(flags.runs) == 1 else flags.runs[0].parent / "report")
    print(write_report(paths, output))
    for path in filter(is_seeds_folder, flags.runs):
        seeds = seed_runs(path)
        finished = {seed: run for seed, run in seeds.items() if is_finished(run)}
        if finished:
            write_summary(path, list(seeds), finished)
    return 0
