"""`gradweave watch RUN`: the table of a run that another process trains, as it grows; of several runs how far each is.

It only reads, so it can be started and left at any time, and any number of times.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gradweave.cli.seeds import how_far
from gradweave.training.config_file import read_config
from gradweave.training.metrics import MetricsTail
from gradweave.training.progress import Progress
from gradweave.training.run_folder import find_run, has_last_checkpoint, is_in_use
from gradweave.training.seeds import is_finished, is_seeds_folder, seed_runs
from gradweave.training.sweeps import is_sweep_folder, sweep_runs

__all__ = ["run"]

_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_BETWEEN_ROWS = 4.0
_SECONDS_BETWEEN_SEEDS = 10.0
_ROWS_OF_THE_PAST = 10


@dataclass(frozen=True)
class _Flags:
    """The flags of `gradweave watch`."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run's folder, or that of several seeds, or of a sweep."""


def run(argv: Sequence[str]) -> int:
    """Watch until no process has the run any more; returns the exit code."""
    flags = tyro.cli(
        _Flags,
        prog="gradweave watch",
        description="Show the table of a run that another process trains, until it ends; Ctrl-C leaves the run alone.",
        args=list(argv) or ["--help"],
    )
    if is_seeds_folder(flags.run):
        runs = {f"seed {seed}": run for seed, run in seed_runs(flags.run).items()}
        _watch_several(flags.run, runs, "report.html", time.sleep)
    elif is_sweep_folder(flags.run):
        runs = {f"{setting}, seed {seed}": run for (setting, seed), run in sweep_runs(flags.run).items()}
        _watch_several(flags.run, runs, "sweep.csv", time.sleep)
    else:
        _watch_run(find_run(flags.run), time.sleep)
    return 0


def _watch_run(path: Path, wait: Callable[[float], object]) -> None:
    """Show what has been, in a few rows, and then what comes."""
    from gradweave.analysis.tables import curve_of

    config = read_config(path / "config.toml")
    tail = MetricsTail(path / "metrics.jsonl")
    with Progress(config.learned_names, config.run.total_steps, stream=sys.stdout) as progress:
        progress.message(f"run folder: {path}")
        in_use = is_in_use(path)  # before reading: whoever has let go of it has written all
        rows = tail.read()
        for row in curve_of(rows, _ROWS_OF_THE_PAST):
            progress.update(row)
        shown_at, shown_step = time.monotonic(), rows[-1]["step"] if rows else 0
        unshown = []
        while in_use:
            wait(_SECONDS_BETWEEN_LOOKS)
            in_use = is_in_use(path)
            unshown += tail.read()
            elapsed = time.monotonic() - shown_at
            if unshown and (elapsed >= _SECONDS_BETWEEN_ROWS or not in_use):
                (row,) = curve_of(unshown, 1)
                progress.update({**row, "steps_per_second": (row["step"] - shown_step) / elapsed})
                shown_at, shown_step, unshown = time.monotonic(), row["step"], []
                if in_use and row["step"] >= config.run.total_steps:
                    progress.message("all steps are taken; what came of them is being measured and drawn")
        done = has_last_checkpoint(path, config)
        progress.message(_how_it_ended(path, done, path / "report.html", f"gradweave report {path}"))


def _watch_several(path: Path, runs: Mapping[str, Path], result: str, wait: Callable[[float], object]) -> None:
    """Say how far every run is, now and then; `result` is the file that they come to."""
    while True:
        in_use = is_in_use(path)
        for name, run in runs.items():
            print(f"{name}: {'done' if is_finished(run) else how_far(run / 'metrics.jsonl')}", flush=True)
        if not in_use:
            break
        wait(_SECONDS_BETWEEN_SEEDS)
    print(_how_it_ended(path, all(map(is_finished, runs.values())), path / result, f"gradweave resume {path}"))


def _how_it_ended(path: Path, done: bool, result: Path, makes_it: str) -> str:
    if not done:
        return f"no process trains this; `gradweave resume {path}` goes on"
    return f"finished: {result}" if result.is_file() else f"finished; `{makes_it}` makes {result.name}"
