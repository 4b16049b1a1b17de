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

from gradweave.cli.flags import parse_flags
from gradweave.cli.seeds import how_far
from gradweave.config.toml_file import read_config
from gradweave.errors import command_line
from gradweave.runs.locks import is_in_use
from gradweave.runs.metrics import MetricsTail
from gradweave.runs.progress import Progress
from gradweave.runs.run_folder import checkpoint_steps, find_run, has_last_checkpoint
from gradweave.runs.seeds_folder import is_finished, is_seeds_folder, seed_runs
from gradweave.runs.sweep_folder import is_sweep_folder, read_plan, setting_runs

__all__ = ["run"]

_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_BETWEEN_ROWS = 4.0
_SECONDS_BETWEEN_SEEDS = 10.0
_ROWS_OF_THE_PAST = 10
_ENDED = {"finished": "done", "diverged": "met a value that is not finite", "pruned": "given up"}


@dataclass(frozen=True)
class _Flags:
    """The flags of `gradweave watch`."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run's folder, or that of several seeds, or of a sweep."""


def run(argv: Sequence[str]) -> int:
    """Watch until no process has the run any more; returns the exit code."""
    flags = parse_flags(
        _Flags,
        "gradweave watch",
        "Show the table of a run that another process trains, until it ends; Ctrl-C leaves the run alone.",
        argv,
        needs_words=True,
    )
    if is_seeds_folder(flags.run):
        runs = {f"seed {seed}": run for seed, run in seed_runs(flags.run).items()}
        _watch_several(flags.run, runs, "report.html", time.sleep)
    elif is_sweep_folder(flags.run):
        _watch_sweep(flags.run, time.sleep)
    else:
        _watch_run(find_run(flags.run), time.sleep)
    return 0


def _watch_run(path: Path, wait: Callable[[float], object]) -> None:
    """Show the past in a few rows, and then each new row."""
    from gradweave.reports.tables import curve_of

    config = read_config(path / "config.toml")
    tail = MetricsTail(path / "metrics.jsonl")
    with Progress(config.moving_names, config.run.total_steps, stream=sys.stdout) as progress:
        progress.message(f"run folder: {path}")
        goes_on = _goes_on(path)  # before reading: a process that let go of it has written all
        rows = tail.read()
        for row in curve_of(rows, _ROWS_OF_THE_PAST):
            progress.update(row)
        if goes_on and not is_in_use(path):
            progress.message("it waits for its turn")
        shown_at, shown_step = time.monotonic(), rows[-1]["step"] if rows else 0
        unshown = []
        while goes_on:
            wait(_SECONDS_BETWEEN_LOOKS)
            goes_on = _goes_on(path)
            config = read_config(path / "config.toml")  # a resume for longer writes it once it has compiled
            progress.total_steps = config.run.total_steps
            unshown += tail.read()
            elapsed = time.monotonic() - shown_at
            if unshown and (elapsed >= _SECONDS_BETWEEN_ROWS or not goes_on):
                (row,) = curve_of(unshown, 1)
                progress.update({**row, "steps_per_second": (row["step"] - shown_step) / elapsed})
                shown_at, shown_step, unshown = time.monotonic(), row["step"], []
                if goes_on and row["step"] >= config.run.total_steps:
                    progress.message("all steps are taken; the result is being measured and drawn")
        progress.message(_how_it_ended(path, has_last_checkpoint(path, config), "report.html", "report"))


def _goes_on(path: Path) -> bool:
    """Whether a process trains the run, or has it queued among its seeds."""
    several = path.resolve().parent
    return is_in_use(path) or (is_seeds_folder(several) and is_in_use(several) and not is_finished(path))


def _watch_several(path: Path, runs: Mapping[str, Path], result: str, wait: Callable[[float], object]) -> None:
    """Say how far every run is, now and then.

    Args:
        path: the folder that holds them.
        runs: the folder of each, by its name.
        result: the file that they come to.
        wait: waits a number of seconds.
    """
    while True:
        in_use = is_in_use(path)
        ended = {run: "done" for run in runs.values() if is_finished(run)}
        for name, run in runs.items():
            print(f"{name}: {ended.get(run) or how_far(run / 'metrics.jsonl')}", flush=True)
        if not in_use:
            break
        wait(_SECONDS_BETWEEN_SEEDS)
    print(_how_it_ended(path, len(ended) == len(runs), result, "resume"))


def _watch_sweep(path: Path, wait: Callable[[float], object]) -> None:
    """Say how far every run is that the workers of a sweep have begun, now and then."""
    from gradweave.runs.sweep_study import SweepStudy

    plan = read_plan(path)
    study = SweepStudy(path, plan)
    while True:
        records = study.records()
        in_use = any(is_in_use(path / record.name) for record in records)
        for record in records:
            for seed, run in setting_runs(path, record.name).items():
                ended = _ENDED.get(record.outcome_of(seed, run))
                print(f"{record.name}, seed {seed}: {ended or how_far(run / 'metrics.jsonl')}", flush=True)
        print(f"{len(records)} of {plan.trials} settings have been begun", flush=True)
        if not in_use:
            break
        wait(_SECONDS_BETWEEN_SEEDS)
    print(_how_it_ended(path, study.ended, "sweep.csv", "resume"))


def _how_it_ended(path: Path, done: bool, result: str, command: str) -> str:
    if done:
        file = path / result
        return f"finished: {file}" if file.is_file() else f"finished; `{command_line(command, path)}` makes {result}"
    if (path / "config.toml").is_file() and not checkpoint_steps(path):
        again = command_line("train", "--config", path / "config.toml")
        return f"no process trains this, and it has no checkpoint; `{again}`"
    return f"no process trains this; `{command_line('resume', path)}` goes on"
