"""`gradweave sweep [PRESET]`: the search that self-tuning is to spare you, done honestly, to compare.

The learner without tuning, unless `--meta.learned` says otherwise, with settings that Optuna chooses: all of a grid,
or draws from ranges. Each run is an ordinary one, and the total cost is reported next to the best score. The same
command in the same folder, on any machine that sees it, is another worker.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import tyro

from gradweave.cli.seeds import check_seeds, plan_shares, raise_failed, raise_stopped, say_how_to_resume
from gradweave.cli.train import TrainFlags, parse_all
from gradweave.config.grid import flags_of, parse_grid, setting_name
from gradweave.config.schema import Config
from gradweave.config.sweep_space import Space, candidates, check_names, parse_space
from gradweave.config.toml_file import read_config, write_config
from gradweave.config.validation import validate
from gradweave.errors import ConfigError, command_line
from gradweave.machine.processes import run_jobs
from gradweave.machine.signals import noted_signals
from gradweave.machine.streams import say
from gradweave.runs.locks import waiting_lock
from gradweave.runs.sweep_folder import BASE_FILE, Pruning, Sampling, SweepPlan, join_sweep, read_plan, setting_runs
from gradweave.runs.trackers import check_tracker
from gradweave.training.hosts import ALONE, Hosts

if TYPE_CHECKING:  # Optuna takes a third of a second, which bad configurations need not wait for
    from gradweave.runs.sweep_study import SweepStudy

__all__ = ["resume_sweep", "run"]

_NAMES = ("gradweave sweep", "Train any learner, untuned unless --meta.learned says otherwise, with many settings.")
_USUAL = ("inner.learning-rate=3e-4,1e-3,3e-3", "inner.discount=0.9,0.97,0.997", "inner.entropy-cost=0.01,0.03")
_USUAL_TRIALS: Final = 20
_MOST_TRIALS: Final = 1_000_000
_OF_META_GRADIENT: Final = tuple(
    f"meta.{name}" for name in ("estimator", "mode", "optimizer", "learning-rate", "eps-root", "max-grad-norm")
)


def _arg(metavar: str) -> Any:
    """A flag with its default explained in its help."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


@dataclass(frozen=True)
class _Flags(TrainFlags):
    """The flags of `gradweave sweep`."""

    grid: Annotated[tuple[str, ...] | None, _arg("FIELD=VALUE,... [FIELD=VALUE,... ...]")] = None
    """Fields to try, as flags name them, each with its values. Left out, without --search: three learning rates,
    three discounts and two entropy costs, those of returns-snake."""
    search: Annotated[tuple[str, ...], _arg("FIELD=LOW:HIGH [FIELD=LOW:HIGH ...]")] = ()
    """Ranges to draw from, on a logarithmic scale where LOW is above 0 (a discount: that of its distance to 1);
    LOW:HIGH:even and LOW:HIGH:log say otherwise, FIELD=VALUE,VALUE,... is a choice."""
    sampler: Annotated[Sampling | None, _arg("NAME")] = None
    """Sampler of settings: grid, random or tpe. Left out: grid, with --search tpe."""
    trials: Annotated[int | None, _arg("N")] = None
    """Settings to try, where they are drawn (20 if left out); a grid has all of its own."""
    prune: Pruning = "none"
    """Give trials up early: those below the median of the others, or by successive halving."""
    name: Annotated[str | None, _arg("NAME")] = None
    """The folder's name in --runs-dir. Where it is there, this process becomes another worker of that sweep."""
    seeds: Annotated[int | None, tyro.conf.arg(metavar="N")] = 2
    """Seeds of each setting, from --seed on."""
    hosts: tyro.conf.Suppress[Hosts] = ALONE


def run(argv: Sequence[str]) -> int:
    """Sweep; returns the exit code."""
    plan, name = _plan(argv)
    shares = plan_shares(plan.base, plan.trials * plan.num_seeds)
    from gradweave.runs.sweep_study import begin_journal

    path = join_sweep(plan, name, begin_journal)
    # Its own plan, in which the fields may stand in another order: settings are named and drawn in that.
    return _work(path, read_plan(path), shares, ["sweep", *argv])


def resume_sweep(path: Path, changes: Mapping[str, Any]) -> int:
    """Go on with all runs that are not finished and that no other worker has; returns the exit code.

    Args:
        path: of the sweep.
        changes: --total-steps, --devices, --track and --accept-changes; all must be None.

    Raises:
        ConfigError: a change was asked for, after which runs could not be compared.
    """
    for name, value in changes.items():
        if value is not None:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(flag, value, "a sweep goes on as it was planned", f"leave {flag} out, or sweep anew")
    plan = read_plan(path)
    shares = plan_shares(plan.base, plan.trials * plan.num_seeds)
    return _work(path, plan, shares, ["resume", str(path)])


def _plan(argv: Sequence[str]) -> tuple[SweepPlan, str | None]:
    """Parse a command line: the plan of a sweep, checked, and the folder's name.

    Raises:
        ConfigError: it cannot be.
    """
    base, flags = _parse(argv)
    if flags.grid is not None:
        parse_grid(flags.grid)
    grid = flags.grid if flags.grid is not None else () if flags.search else _USUAL
    space = parse_space(grid, flags.search, base)
    num_seeds = 1 if flags.seeds is None else flags.seeds
    check_seeds(base, num_seeds, ALONE)
    check_tracker(base.run.track)
    _refuse_flags_of(space, argv)
    _refuse_unread(space, base)
    _check_name(flags.name)
    sampling = flags.sampler or ("tpe" if flags.search else "grid")
    trials = _num_trials(sampling, flags.trials, space)
    check_names(space)
    _check_settings(space, argv)
    return SweepPlan(base, space, sampling, trials, num_seeds, flags.prune), flags.name


def _parse(argv: Sequence[str]) -> tuple[Config, _Flags]:
    return parse_all(argv, _Flags, *_NAMES, start=Config.untuned)


def _num_trials(sampling: Sampling, trials: int | None, space: Space) -> int:
    """The number of trials.

    Raises:
        ConfigError: a grid with ranges or `trials`, or no trials.
    """
    choices = [values for values in space.values() if isinstance(values, tuple)]
    most = math.prod(map(len, choices)) if len(choices) == len(space) else None
    if sampling == "grid":
        if most is None:
            remedy = "--sampler random or tpe, or values in the place of LOW:HIGH"
            raise ConfigError("--sampler", sampling, "a grid of values, without ranges", remedy)
        if trials is not None:
            accepted = f"nothing with --sampler grid, which tries all {most} settings"
            raise ConfigError("--trials", trials, accepted, "leave it out, or draw with --sampler random")
        return most
    if trials is not None and not 1 <= trials <= _MOST_TRIALS:
        raise ConfigError("--trials", trials, f"from 1 to {_MOST_TRIALS:,}", f"--trials {_USUAL_TRIALS}, say")
    wanted = _USUAL_TRIALS if trials is None else trials
    return wanted if most is None else min(wanted, most)


def _check_name(name: str | None) -> None:
    """Raise where a folder cannot be called so.

    Raises:
        ConfigError: it cannot.
    """
    if name is not None and (not name or name[0] in ".-" or "/" in name or "\0" in name):
        accepted = "the name of a folder within --runs-dir, without a slash"
        raise ConfigError("--name", name, accepted, "--name learning-rates, say")


def _check_settings(space: Space, argv: Sequence[str]) -> None:
    """Raise where a setting cannot be trained, or is the same as another.

    Raises:
        ConfigError: it cannot.
    """
    configs: dict[str, Config] = {}
    for setting in candidates(space):
        name = setting_name(setting)
        config, _ = _parse([*argv, *flags_of(setting)])
        validate(config)
        twin = next((other for other, known in configs.items() if known == config), None)
        if twin is not None:
            raise ConfigError("--grid", name, f"settings that differ; this one is {twin}", "leave one of them out")
        configs[name] = config


def _refuse_flags_of(space: Space, argv: Sequence[str]) -> None:
    """Raise where a flag gives a value to a field that is swept.

    Raises:
        ConfigError: it does.
    """
    flags = [word.partition("=")[0].removeprefix("--") for word in argv if word.startswith("--")]
    given = {flag.replace("_", "-").rstrip("-") for flag in flags}
    for field in space:
        if field in given:
            raise ConfigError(f"--{field}", "a flag", "a field that is swept, or one value for all", "leave one out")


def _refuse_unread(space: Space, base: Config) -> None:
    """Raise where a field of the meta-gradient is swept, and nothing is learned: its settings would be the same.

    Raises:
        ConfigError: it is.
    """
    learns = bool(base.meta.learned) or "meta.learned" in space
    for field in space:
        if field in _OF_META_GRADIENT and not learns:
            accepted = "fields that have an effect; nothing is learned"
            raise ConfigError("--grid", field, accepted, f"add --meta.learned discount, say, or leave {field} out")


def _work(path: Path, plan: SweepPlan, shares: Sequence[tuple[int, ...]], argv: Sequence[str]) -> int:
    """Train trials until none is left to claim, then summarise the sweep so far.

    Raises:
        SeedFailed: a run failed otherwise than by a value that is not finite, which is a result like others.
        Stopped: SIGTERM arrived; the runs have written their checkpoints.
        KeyboardInterrupt: SIGINT arrived, likewise.
    """
    from gradweave.cli.sweep_worker import Worker
    from gradweave.runs.sweep_study import SweepStudy

    study, num_runs = SweepStudy(path, plan), plan.trials * plan.num_seeds
    cost = f"{num_runs} runs, {num_runs * plan.base.run.total_steps:,} environment steps planned"
    say(f"{plan.trials} settings, {cost}\nfolder: {path}; up to {len(shares)} at a time")

    def configure(setting: Mapping[str, str]) -> Config:
        return parse_all(["--config", str(path / BASE_FILE), *flags_of(setting)], _Flags, *_NAMES)[0]

    worker = Worker(study, configure, argv)
    say_how_to_resume(path)
    try:
        with noted_signals() as received:
            run_jobs(worker.jobs(), shares, received, started=worker.started, ended=worker.ended, looked=worker.looked)
    finally:
        worker.close()
    raise_stopped(path, worker.runs, received)
    with waiting_lock(path / "claims.lock"):  # the last of several workers to get here has the whole
        _summarize(study)
    raise_failed(path, worker.failed)
    return 0


def _summarize(study: "SweepStudy") -> None:
    from gradweave.reports.sweep_scores import best_setting, format_sweep, sweep_rows, whole_settings
    from gradweave.reports.tables import write_rows

    path, plan = study.path, study.plan
    total, table, chosen = plan.base.run.total_steps, path / "sweep.csv", path / "best.toml"
    records = {record.name: record for record in study.records()}
    runs = {(name, seed): run for name in records for seed, run in setting_runs(path, name).items()}
    if not runs:
        print("no run has been begun by now")
        return
    ended = {key: records[key[0]].outcome_of(key[1], run) for key, run in runs.items()}
    finished, diverged, pruned = (
        [runs[key] for key, outcome in ended.items() if outcome == name] for name in ("finished", "diverged", "pruned")
    )
    rows = sweep_rows(runs, total, finished=finished, diverged=diverged, pruned=pruned)
    whole = whole_settings(rows)
    best = best_setting([row for row in rows if row["setting"] in whole]) if whole else None
    write_rows(table, [{**row, "chosen": row["setting"] == best, **records[row["setting"]].setting} for row in rows])
    print(f"mean training return over the last quarter of the steps:\n{format_sweep(rows)}")
    given_up = [row["environment_steps"] for row in rows if row["outcome"] == "pruned"]
    of_these = f", of these {sum(given_up):,} in runs that were given up" if given_up else ""
    print(f"environment steps of all runs: {sum(row['environment_steps'] for row in rows):,}{of_these}\ntable: {table}")
    if not study.ended:
        print(f"not all trials have ended: others train them, or `{command_line('resume', path)}` goes on")
    elif len(records) < plan.trials:
        print(f"{len(records)} of {plan.trials} settings were tried: the sampler found no others in the given ranges")
    if best is None:
        chosen.unlink(missing_ok=True)
        print("no setting has a score from each of its seeds, so that none is the best")
        return
    found = read_config(next(run for (name, _), run in runs.items() if name == best) / "config.toml")
    unseen = (max(seed for _, seed in runs) + 1) % 2**32
    parent = (path if path.name else path.resolve()).parent  # of "." the parent is "."
    config = dataclasses.replace(found.run, seed=unseen, runs_dir=str(parent), total_steps=total)
    write_config(dataclasses.replace(found, run=config), chosen)
    print(f"best: {best}. It was chosen by these scores, so they flatter it; on a seed that the sweep has not seen:")
    print(f"  {command_line('train', '--config', chosen)}")
