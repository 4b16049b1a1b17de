"""`gradweave sweep [PRESET]`: what self-tuning is meant to spare you, done honestly, to compare with.

Plain actor-critic unless `--meta.learned` says otherwise, with every combination of the values that --grid names; each
run is an ordinary one. What all of them cost is said beside what the best of them reached.
"""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from gradweave.cli.seeds import raise_failed, train_runs
from gradweave.cli.train import TrainFlags, parse_all
from gradweave.training.config import Config
from gradweave.training.config_file import read_config, write_config
from gradweave.training.errors import NonFiniteError
from gradweave.training.hosts import ALONE, Hosts
from gradweave.training.seeds import check_seeds, is_finished, plan_shares
from gradweave.training.sweeps import SweepFolder, parse_grid, settings_of
from gradweave.training.trackers import check_tracker
from gradweave.training.validation import validate

__all__ = ["resume_sweep", "run"]

_NAMES = ("gradweave sweep", "Train plain actor-critics with every combination of some hyper-parameters.")
_USUAL = ("inner.learning-rate=3e-4,1e-3,3e-3", "inner.discount=0.9,0.97,0.997", "inner.entropy-cost=0.01,0.03")


@dataclass(frozen=True)
class _Flags(TrainFlags):
    """The flags of `gradweave sweep`."""

    grid: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FIELD=VALUE,... [FIELD=VALUE,... ...]")] = _USUAL
    """What to try: fields as flags name them, each with its values. The usual ones are those of returns-snake."""
    seeds: Annotated[int | None, tyro.conf.arg(metavar="N")] = 2
    """Seeds of each setting, from --seed on."""
    hosts: tyro.conf.Suppress[Hosts] = ALONE


def run(argv: Sequence[str]) -> int:
    """Sweep; returns the exit code."""
    base, flags = _parse(argv)
    settings = settings_of(parse_grid(flags.grid))
    num_seeds = 1 if flags.seeds is None else flags.seeds
    configs: dict[str, tuple[Any, Config]] = {}
    for name, setting in settings.items():
        own = [word for field, value in setting.items() for word in (f"--{field}", *value.split())]
        config, _ = _parse([*argv, *own])
        check_seeds(config, num_seeds, ALONE)
        validate(config)
        configs[name] = (setting, config)
    check_tracker(base.run.track)
    shares = plan_shares(base, len(configs) * num_seeds)
    with SweepFolder.create(base, configs, num_seeds, ["sweep", *argv]) as folder:
        return _go_on(folder, shares)


def resume_sweep(path: Path, changes: dict[str, Any]) -> int:
    """Go on with all runs that are not finished; returns the exit code.

    Args:
        path: of the sweep.
        changes: of the section `run` of every run's configuration; None: as it was.
    """
    with SweepFolder.open(path) as folder:
        folder.change({name: value for name, value in changes.items() if value is not None})
        return _go_on(folder, plan_shares(_config(folder), len(folder.runs)))


def _parse(argv: Sequence[str]) -> tuple[Config, _Flags]:
    return parse_all(argv, _Flags, *_NAMES, start=_plain)


def _plain(config: Config) -> Config:
    return dataclasses.replace(config, meta=dataclasses.replace(config.meta, learned=()))


def _config(folder: SweepFolder) -> Config:
    return read_config(next(iter(folder.runs.values())) / "config.toml")


def _go_on(folder: SweepFolder, shares: Sequence[tuple[int, ...]]) -> int:
    """Train every run to its end, then say what came of it.

    Raises:
        SeedFailed: one of them failed otherwise than by a value that is not finite, which is a result like others.
        Stopped: SIGTERM arrived; the runs have written their checkpoints.
        KeyboardInterrupt: SIGINT arrived, likewise.
    """
    named = {f"{setting}, seed {seed}": run for (setting, seed), run in folder.runs.items()}
    steps = _config(folder).run.total_steps
    cost = f"{len(named)} runs, {len(named) * steps:,} environment steps planned"
    print(f"{len(folder.settings)} settings, {cost}", file=sys.stderr, flush=True)
    failed = train_runs(folder.path, named, shares)
    _summarize(folder, steps)
    for name in [name for name, code in failed.items() if code == NonFiniteError.exit_code]:
        print(f"{name}: met a value that is not finite")
        del failed[name]
    raise_failed(folder.path, failed)
    return 0


def _summarize(folder: SweepFolder, steps: int) -> None:
    from gradweave.analysis.sweeps import best_setting, format_sweep, sweep_rows
    from gradweave.analysis.tables import write_rows

    rows = sweep_rows({key: run for key, run in folder.runs.items() if is_finished(run)}, steps)
    if not rows:
        return
    num_seeds = len(folder.runs) // len(folder.settings)
    whole = [row for row in rows if sum(other["setting"] == row["setting"] for other in rows) == num_seeds]
    best = best_setting(whole) if whole else None
    table = folder.path / "sweep.csv"
    write_rows(table, [{**row, "chosen": row["setting"] == best, **folder.settings[row["setting"]]} for row in rows])
    print(f"mean training return over the last quarter of the steps:\n{format_sweep(rows, num_seeds)}")
    print(f"environment steps of all runs: {sum(row['environment_steps'] for row in rows):,}\ntable: {table}")
    if best is None:
        return
    found = read_config(next(run for (name, _), run in folder.runs.items() if name == best) / "config.toml")
    last = max(seed for _, seed in folder.runs)
    runs_dir = str(folder.path.parent)
    config = dataclasses.replace(found, run=dataclasses.replace(found.run, seed=last + 1, runs_dir=runs_dir))
    write_config(config, folder.path / "best.toml")
    print(f"best: {best}. It was chosen by these scores, so they flatter it; on a seed that the sweep has not seen:")
    print(f"  gradweave train --config {folder.path / 'best.toml'}")
