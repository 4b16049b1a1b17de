"""Common parts of the studies in experiments/: flags, running every arm and seed, and finding the runs' files.

A study is a folder of three files: sweep.py is data, run.py writes, plot.py only reads. It has sizes: "full" is what is
published, "quick" shows in minutes that it works, "tiny" takes seconds and is for tests; some have a "long" one. Runs
can be spread over processes by arms and seeds (`--stage runs`); tables are made of finished runs (`--stage tables`)
and name the missing ones. Nothing here imports JAX before a run has to be trained.
"""

import dataclasses
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from gradweave.config.schema import Config
from gradweave.config.toml_file import read_config
from gradweave.errors import CheckpointError, ConfigError, NonFiniteError, RunInUse, SeedFailed, nearest_name
from gradweave.runs.metrics import read_metrics
from gradweave.runs.run_folder import has_last_checkpoint
from gradweave.training.launch import run_or_continue

__all__ = [
    "GAMES",
    "MARKS",
    "TINY_SNAKE",
    "Collected",
    "Flags",
    "Game",
    "GameFlags",
    "Job",
    "Size",
    "begun_run",
    "chosen",
    "collect",
    "finished_run",
    "folders",
    "jobs",
    "to_length",
    "train",
    "with_changes",
]

Size: TypeAlias = Literal["tiny", "quick", "full", "long"]

MARKS: Final[Mapping[str, str]] = {
    "tiny": "tiny: for tests only, shows nothing",
    "quick": "quick: minutes, not the study",
    "full": "",
    "long": "",
}
"""The mark on figures and tables of each size."""

TINY_SNAKE: Final[Mapping[str, Any]] = {
    "environment.options.num_rows": 6,
    "environment.options.num_cols": 6,
    "environment.options.time_limit": 20,
    "network.channels": (2, 2),
    "network.policy_layers": (4,),
    "network.value_layers": (4,),
    "inner.num_envs": 4,
    "inner.num_steps": 2,
    "meta.num_inner_steps": 2,
    "run.chunk_size": 2,
    "run.log_every": 1,
    "run.evaluation_episodes": 2,
    "run.max_episode_steps": 20,
}
"""A tiny study on Snake, as changes of its base."""


@dataclass(frozen=True)
class Flags:
    """The flags of every study's run.py."""

    size: Size = "full"
    """Full is the study; quick takes minutes, tiny seconds; long is offered by some."""
    arms: tuple[str, ...] = ()
    """Only these arms; by default all of them."""
    seeds: tuple[int, ...] = ()
    """Only these seeds; by default those of the size."""
    stage: Literal["all", "runs", "tables"] = "all"
    """Runs only, tables only (of what there is), or both."""
    runs: Path | None = None
    """Where runs lie; runs/NAME by default, runs/reproduce/NAME-SIZE/runs for sizes that are not published."""
    results: Path | None = None
    """Where tables and figures go; results/NAME by default, beside the runs for sizes that are not published."""

    def named(self, study: str) -> str:
        """A study's name in folders."""
        return study


def to_length(size: str) -> dict[str, Any]:
    """Changes for runs of millions of steps: evaluated on 128 episodes, and saved, after every million."""
    million = {
        "run.evaluation_episodes": 128,
        "run.evaluate_every": 200_000 if size == "quick" else 1_000_000,
        "run.checkpoint_every": 1_000_000,
        "run.keep_checkpoints": 2,
    }
    tiny = {**TINY_SNAKE, "meta.num_inner_steps": 1, "run.evaluate_every": 32}
    return {**million, **(tiny if size == "tiny" else {})}


Game: TypeAlias = Literal["masked", "unmasked", "unmasked-large"]

UNMASKED: Final[Mapping[str, Any]] = {
    "environment.options.action_mask": False,
    "environment.options.time_limit": 5000,
    "network.policy_scale": 1.0,
}
"""What makes the 12x12 game of the presets that of Bonnet et al. 2021, as changes: Jumanji's Snake of that time had no
mask, so that an illegal move ended the episode, and 5000 steps; their public code of 2022 draws the last policy layer
like every other one.
"""

# 512 environments x 5 steps, as in the authors' code of 2022; a few more environment steps to a chunk than the others.
_LARGE: Final[Mapping[str, Any]] = {"inner.num_envs": 512, "run.chunk_size": 3}
GAMES: Final[Mapping[Game, Mapping[str, Any]]] = {
    "masked": {},
    "unmasked": UNMASKED,
    "unmasked-large": {**UNMASKED, **_LARGE},
}
"""Changes of the presets by game; "unmasked-large" has their batches, too, eight times those of the others."""


@dataclass(frozen=True)
class GameFlags(Flags):
    """The flags of studies that are made in several games."""

    game: Game = "masked"
    """With the action mask, or without, as published; results of the latter have a name of their own."""

    def named(self, study: str) -> str:
        """The study's name for this game."""
        return study if self.game == "masked" else f"{study}-{self.game}"


class Job(NamedTuple):
    """One run of a study."""

    arm: str
    seed: int
    config: Config

    @property
    def name(self) -> str:
        """ARM-SEED, also the name of its folder."""
        return f"{self.arm}-{self.seed}"


class Collected(NamedTuple):
    """Runs of a study, finished and missing.

    Attributes:
        finished: jobs that have reached their steps, each with the folder of its run.
        missing: names of those that have not.
    """

    finished: list[tuple[Job, Path]]
    missing: list[str]


def folders(name: str, flags: Flags) -> tuple[Path, Path]:
    """(runs, results) of a study; only full and long ones go where published results lie."""
    name = flags.named(name)
    published = flags.size in ("full", "long")
    work = Path("runs/reproduce") / f"{name}-{flags.size}"
    runs = Path("runs") / name if published else work / "runs"
    results = Path("results") / (name if flags.size == "full" else f"{name}-long") if published else work / "results"
    return flags.runs or runs, flags.results or results


def with_changes(config: Config, changes: Mapping[str, Any]) -> Config:
    """`config` with some fields replaced.

    Args:
        config: the base.
        changes: "section.field" -> value, or "environment.options.name" -> value.

    Example:
        >>> with_changes(Config(), {"inner.discount": 0.5}).inner.discount
        0.5
    """
    for name, value in changes.items():
        section, field, *option = name.split(".")
        before = getattr(config, section)
        value = {**getattr(before, field), option[0]: value} if option else value
        replaced = dataclasses.replace(before, **{field: value})
        config = dataclasses.replace(config, **{section: replaced})
    return config


def jobs(
    base: Config, arms: Mapping[str, Mapping[str, Any]], seeds: Sequence[int], total_steps: int, runs: Path
) -> list[Job]:
    """Every arm with every seed, seed by seed, so that a study stopped early has whole comparisons.

    Args:
        base: of all arms.
        arms: by name, the changes of each, as for `with_changes`.
        seeds: one run of each arm for each.
        total_steps: environment steps of each run.
        runs: the folder that holds the runs' folders, ARM-SEED.
    """
    found = []
    for seed in seeds:
        for arm, changes in arms.items():
            place = str(runs / f"{arm}-{seed}")
            common = {"run.seed": seed, "run.total_steps": total_steps, "run.runs_dir": place}
            found.append(Job(arm, seed, with_changes(base, {**changes, **common})))
    return found


def chosen(flags: Flags, everything: Iterable[Job]) -> list[Job]:
    """The jobs that --arms and --seeds name.

    Raises:
        ConfigError: there is no such arm or seed, or none of these arms has any of these seeds.
    """
    all_jobs = list(everything)
    arms, seeds = ({getattr(job, field): None for job in all_jobs} for field in ("arm", "seed"))
    for arm in flags.arms:
        if arm not in arms:
            near = nearest_name(arm, arms)
            remedy = f"did you mean {near!r}?" if near else "leave --arms out for all of them"
            raise ConfigError("--arms", arm, ", ".join(arms), remedy)
    kept = [job for job in all_jobs if not flags.arms or job.arm in flags.arms]
    if not flags.seeds:
        return kept
    unknown = [seed for seed in flags.seeds if seed not in seeds]
    if unknown:
        known = ", ".join(map(str, seeds))
        raise ConfigError("--seeds", unknown[0], known, "leave --seeds out for all of them")
    found = [job for job in kept if job.seed in flags.seeds]
    if not found:
        known = ", ".join(str(seed) for seed in dict.fromkeys(job.seed for job in kept))
        raise ConfigError(
            "--seeds", flags.seeds, f"{known} for {', '.join(flags.arms)}", "leave --seeds out for all of them"
        )
    return found


def train(flags: Flags, everything: Iterable[Job]) -> None:
    """Bring the chosen runs to their end, one after another.

    Finished ones are left alone, and so are those that another process has, which it says on standard error, as it does
    of those that fail.

    Raises:
        ConfigError: an arm or seed that does not exist, or a folder that holds the run of another configuration.
        SeedFailed: a run met a value that is not finite, or cannot be continued; all others have been tried.
        GradweaveError: as `gradweave.training.loop.train`, for failures that any other run would meet as well.
    """
    if flags.stage == "tables":
        return
    todo = chosen(flags, everything)
    failed: dict[str, int] = {}
    for index, job in enumerate(todo):
        if finished_run(job) is None:
            print(f"[{index + 1} of {len(todo)}] {job.name}", file=sys.stderr, flush=True)
            try:
                run_or_continue(job.config)
            except RunInUse as error:
                print(f"{job.name}: skipped: {error}", file=sys.stderr, flush=True)
            except (NonFiniteError, CheckpointError) as error:  # of this run alone, and again whenever it is continued
                print(f"{job.name}: failed: {error}", file=sys.stderr, flush=True)
                failed[job.name] = error.exit_code
    if failed:
        names = ", ".join(f"{name} ({code})" for name, code in failed.items())
        message = f"failed, with exit code: {names}; `--stage tables` makes tables of what is finished"
        raise SeedFailed(message, next(iter(failed.values())))


def collect(everything: Iterable[Job]) -> Collected:
    """Find the runs that have reached their steps; say on standard error which have not."""
    finished, missing = [], []
    for job in everything:
        path = finished_run(job)
        if path is None:
            missing.append(job.name)
        else:
            finished.append((job, path))
    if missing:
        print(f"{len(missing)} runs are missing or not finished: {', '.join(missing)}", file=sys.stderr, flush=True)
    return Collected(finished, missing)


def begun_run(job: Job) -> Path | None:
    """The folder of the job's run, however far it has come; None if there is none with the job's configuration."""
    for file in Path(job.config.run.runs_dir).glob("*/config.toml"):
        saved = read_config(file)
        run = dataclasses.replace(
            saved.run, total_steps=job.config.run.total_steps, runs_dir=job.config.run.runs_dir
        )  # a longer run contains this one, and one that was moved is the same
        if dataclasses.replace(saved, run=run) == job.config:
            return file.parent
    return None


def finished_run(job: Job) -> Path | None:
    """The folder of the job's run when that has its configuration and its steps, or more; None otherwise.

    The row that was evaluated at the end of these steps is there, and so is the checkpoint.
    """
    path = begun_run(job)
    if path is None or not has_last_checkpoint(path, job.config):
        return None
    return path if _is_evaluated(path, job.config.run.total_steps) else None


def _is_evaluated(path: Path, step: int) -> bool:
    """Whether a run was evaluated at this step or later."""
    rows = read_metrics(path / "metrics.jsonl")
    return any(row["step"] >= step and row.get("evaluation/return") is not None for row in rows)
