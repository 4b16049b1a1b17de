"""`gradweave sweep [PRESET]`: what self-tuning is meant to spare you, done honestly, to compare with.

Plain actor-critic unless `--meta.learned` says otherwise, with every combination of the values that --grid names; each
run is an ordinary one. Their total cost is reported next to the best score.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from gradweave.cli.seeds import check_seeds, plan_shares, raise_failed, train_runs
from gradweave.cli.train import TrainFlags, parse_all
from gradweave.config.grid import flags_of, parse_grid, settings_of
from gradweave.config.schema import Config
from gradweave.config.toml_file import read_config, write_config
from gradweave.config.validation import validate
from gradweave.errors import ConfigError, NonFiniteError, command_line
from gradweave.runs.seeds_folder import is_finished
from gradweave.runs.sweep_folder import SweepFolder
from gradweave.runs.trackers import check_tracker
from gradweave.training.hosts import ALONE, Hosts

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
    check_seeds(base, num_seeds, ALONE)
    check_tracker(base.run.track)
    _refuse_flags_of(settings, argv)
    configs: dict[str, tuple[Any, Config]] = {}
    for name, setting in settings.items():
        config, _ = _parse([*argv, *flags_of(setting)])
        validate(config)
        twin = next((other for other, (_, known) in configs.items() if known == config), None)
        if twin is not None:
            raise ConfigError("--grid", name, f"settings that differ; this one is {twin}", "leave one of them out")
        configs[name] = (setting, config)
    shares = plan_shares(base, len(configs) * num_seeds)
    with SweepFolder.create(base, configs, num_seeds, ["sweep", *argv]) as folder:
        return _go_on(folder, shares)


def resume_sweep(path: Path, changes: Mapping[str, Any]) -> int:
    """Go on with all runs that are not finished; returns the exit code.

    Args:
        path: of the sweep.
        changes: what --total-steps, --devices, --track and --accept-changes say; only None can be.

    Raises:
        ConfigError: a change was asked for, after which runs could not be compared.
    """
    for name, value in changes.items():
        if value is not None:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(flag, value, "a sweep goes on as it was planned", f"leave {flag} out, or sweep anew")
    with SweepFolder.open(path) as folder:
        config = read_config(next(iter(folder.runs.values())) / "config.toml")
        return _go_on(folder, plan_shares(config, len(folder.runs)))


def _parse(argv: Sequence[str]) -> tuple[Config, _Flags]:
    return parse_all(argv, _Flags, *_NAMES, start=Config.untuned)


def _refuse_flags_of(settings: Mapping[str, Mapping[str, str]], argv: Sequence[str]) -> None:
    """Raise where a flag gives a value to a field that is swept.

    Raises:
        ConfigError: it does.
    """
    given = {word.partition("=")[0].removeprefix("--").replace("_", "-") for word in argv if word.startswith("--")}
    for field in next(iter(settings.values())):
        if field in given:
            raise ConfigError(f"--{field}", "a flag", "a field that is swept, or one value for all", "leave one out")


def _go_on(folder: SweepFolder, shares: Sequence[tuple[int, ...]]) -> int:
    """Train every run to its end, then say what came of it.

    Raises:
        SeedFailed: one of them failed otherwise than by a value that is not finite, which is a result like others.
        Stopped: SIGTERM arrived; the runs have written their checkpoints.
        KeyboardInterrupt: SIGINT arrived, likewise.
    """
    named = {f"{setting}, seed {seed}": run for (setting, seed), run in folder.runs.items()}
    cost = f"{len(named)} runs, {len(named) * folder.total_steps:,} environment steps planned"
    print(f"{len(folder.settings)} settings, {cost}", file=sys.stderr, flush=True)
    known = folder.diverged
    failed = train_runs(folder.path, {name: run for name, run in named.items() if run not in known}, shares)
    diverged = [name for name, code in failed.items() if code == NonFiniteError.exit_code]
    folder.note_diverged([named[name] for name in diverged])
    _summarize(folder)
    raise_failed(folder.path, {name: code for name, code in failed.items() if name not in diverged})
    return 0


def _summarize(folder: SweepFolder) -> None:
    from gradweave.reports.sweep_scores import best_setting, format_sweep, sweep_rows, whole_settings
    from gradweave.reports.tables import write_rows

    runs, table, chosen = folder.runs, folder.path / "sweep.csv", folder.path / "best.toml"
    finished = [run for run in runs.values() if is_finished(run)]
    rows = sweep_rows(runs, folder.total_steps, finished=finished, diverged=folder.diverged)
    whole = whole_settings(rows)
    best = best_setting([row for row in rows if row["setting"] in whole]) if whole else None
    write_rows(table, [{**row, "chosen": row["setting"] == best, **folder.settings[row["setting"]]} for row in rows])
    print(f"mean training return over the last quarter of the steps:\n{format_sweep(rows)}")
    print(f"environment steps of all runs: {sum(row['environment_steps'] for row in rows):,}\ntable: {table}")
    if best is None:
        chosen.unlink(missing_ok=True)
        print("no setting has a score from each of its seeds, so that none is the best")
        return
    found = read_config(next(run for (name, _), run in runs.items() if name == best) / "config.toml")
    unseen = (max(seed for _, seed in runs) + 1) % 2**32
    path = folder.path if folder.path.name else folder.path.resolve()  # of "." the parent is "."
    config = dataclasses.replace(found.run, seed=unseen, runs_dir=str(path.parent), total_steps=folder.total_steps)
    write_config(dataclasses.replace(found, run=config), chosen)
    print(f"best: {best}. It was chosen by these scores, so they flatter it; on a seed that the sweep has not seen:")
    print(f"  {command_line('train', '--config', chosen)}")
