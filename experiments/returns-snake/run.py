"""Trains every arm and seed of sweep.py, or continues them, and writes the results.

curves.csv       returns and meta-parameters of every run over its steps
final.csv        every run: final return of sampled and greedy play, mean return over the run, steps to a return of 20
table.csv        every arm: interquartile means over seeds with 95 % stratified bootstrap intervals
improvement.csv  probability that a run of one arm beats one of another
sweep.csv        settings of the plain learner's sweep, and its cost

Runs are independent: start several processes with `--stage runs` and different `--arms` and `--seeds`, and one with
`--stage tables` in the end. Runs that another process is training are skipped. The long size goes on with the runs of
the full one: some arms of it, the best mix, and arms that --arms names or that have a long run already.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from sweep import ADDED, ADDED_SEEDS, ARMS, GOAL, MIXES, REFERENCES, SIZES, SWEEP, SWEPT, Size, arms_of, base, size_of

from _study.jobs import Collected, Flags, Game, GameFlags, Job, collect, finished_run, folders, jobs, train
from _study.tables import aggregate, configurations, improvements, provenance, setting_rows, write_study
from gradweave.config.toml_file import read_config
from gradweave.errors import ConfigError, SeedFailed
from gradweave.measurement.sample_store import current_source
from gradweave.reports.sweep_scores import best_setting
from gradweave.reports.tables import learning_curve, metrics_until
from gradweave.statistics.few_seeds import interquartile_mean

COLUMNS = ("step", "return", "episode_length", "evaluation/return", "evaluation/greedy_return", "entropy")
SCORES = ("final_return", "final_greedy_return", "mean_return", f"steps_to_{GOAL:g}")


def sweep_jobs(size: Size, name: str, runs: Path, game: Game = "masked") -> list[Job]:
    return jobs(
        base(name, game), {key: SWEEP[key] for key in size.settings}, size.sweep_seeds, size.sweep_steps, runs / "sweep"
    )


def best_mix(runs: Path, game: Game = "masked") -> tuple[str | None, list[str]]:
    """The mix with the highest interquartile mean of final returns, of those with all seeds of the full size.

    Mixes with fewer are not compared: the choice would change with every seed that is finished.

    Returns:
        The mix, None while none has all seeds; and the names of the runs that mixes lack.
    """
    full = SIZES["full"]
    scores: dict[str, list[float]] = {arm: [] for arm in MIXES}
    lacking = []
    for job in jobs(base("full", game), {arm: ARMS[arm] for arm in MIXES}, full.seeds, full.total_steps, runs):
        path = finished_run(job)
        if path is None:
            lacking.append(job.name)
        else:
            scores[job.arm].append(final_row(job, path)["final_return"])
    whole = {arm: own for arm, own in scores.items() if len(own) == len(full.seeds)}
    return max(whole, key=lambda arm: float(interquartile_mean(whole[arm])), default=None), lacking


def long_arms(flags: GameFlags, runs: Path) -> tuple[list[str], list[str]]:
    """Further arms of the long size: the best mix, those that --arms names, and arms with a long run.

    An arm that was chosen, or named, by an earlier call stays in the tables by its runs.

    Returns:
        The arms, and the runs that the choice of the best mix lacks.

    Raises:
        ConfigError: runs are to be trained, but the best mix is not known yet, and --arms names none.
    """
    best, lacking = best_mix(runs, flags.game)
    if best is None and not flags.arms and flags.stage != "tables":
        accepted = f"long, after the full size with all seeds of one of {', '.join(MIXES)}"
        remedy = f"run what is missing in the full size, or name arms with --arms; missing: {', '.join(lacking)}"
        raise ConfigError("--size", "long", accepted, remedy)
    size = SIZES["long"]
    everything = jobs(base("long", flags.game), ARMS, size.seeds, size.total_steps, runs)
    found = {best, *flags.arms, *(job.arm for job in everything if is_begun(job))}
    how = "not chosen, for lack of" if best is None else f"{best}, chosen without"
    notes = [f"the best mix: {how} {', '.join(lacking)}"] if lacking else []
    for note in notes:
        print(note, file=sys.stderr, flush=True)
    return [arm for arm in ARMS if arm in found and arm not in size.arms], notes


def is_begun(job: Job) -> bool:
    """Whether there is a run in the job's folder that has, or is to have, as many steps."""
    saved = Path(job.config.run.runs_dir).glob("*/config.toml")
    return any(read_config(file).run.total_steps >= job.config.run.total_steps for file in saved)


def final_row(job: Job, path: Path) -> dict[str, Any]:
    """The scores of one run."""
    until = job.config.run.total_steps
    rows = metrics_until(path, until)
    curve = [row for row in learning_curve(path, 100, until) if row["return"] is not None]
    reached = [row["step"] for row in curve if row["return"] >= GOAL]
    return {
        "arm": job.arm,
        "seed": job.seed,
        "environment_steps": rows[-1]["step"],
        "final_return": rows[-1]["evaluation/return"],
        "final_greedy_return": rows[-1]["evaluation/greedy_return"],
        "mean_return": float(np.mean([row["return"] for row in curve])) if curve else None,
        f"steps_to_{GOAL:g}": reached[0] if reached else None,
    }


def curve_rows(job: Job, path: Path) -> list[dict[str, Any]]:
    rows = learning_curve(path, 60, job.config.run.total_steps)
    names = [name for name in rows[0] if name in COLUMNS or name.startswith("eta/")]
    return [{"arm": job.arm, "seed": job.seed, **{name: row[name] for name in names}} for row in rows]


def table_rows(final: Sequence[Mapping[str, Any]], planned: Sequence[Job]) -> list[dict[str, Any]]:
    rows = []
    for arm in dict.fromkeys(job.arm for job in planned):
        own = {row["seed"]: row for row in final if row["arm"] == arm}
        missing = " ".join(str(job.seed) for job in planned if job.arm == arm and job.seed not in own)
        for score in SCORES:
            values = [row[score] for row in own.values() if row[score] is not None]
            rows.append({"arm": arm, "score": score, **aggregate(values), "missing_seeds": missing})
    return rows


def improvement_rows(final: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for score in ("final_return", "mean_return"):
        scores: dict[str, list[float]] = {}
        for row in final:
            if row[score] is not None:
                scores.setdefault(row["arm"], []).append(row[score])
        rows += [{"score": score, **row} for row in improvements(scores, [arm for arm in REFERENCES if arm in scores])]
    return rows


def main(flags: GameFlags) -> None:
    source = current_source()
    size = size_of(flags.size, flags.game)
    runs, results = folders("returns-snake", flags)
    more, notes = long_arms(flags, runs) if flags.size == "long" else ([], [])
    arms = arms_of((*size.arms, *more), flags.game)
    tried = sweep_jobs(size, flags.size, runs, flags.game) if SWEPT in size.arms else []
    failure = None
    if not flags.arms or SWEPT in flags.arms:
        try:
            train(Flags(stage=flags.stage), tried)
        except SeedFailed as error:  # raised when the other arms, which need no sweep, have been trained
            failure = error
    swept = collect(tried)
    settings = setting_rows(swept.finished)
    if tried and not swept.missing:
        arms[SWEPT] = SWEEP[best_setting(settings)]
    if swept.missing:
        print(f"{SWEPT}: its sweep is not finished", file=sys.stderr, flush=True)
    planned = [
        job
        for job in jobs(base(flags.size, flags.game), arms, size.seeds, size.total_steps, runs)
        if job.arm not in ADDED or job.seed in size.seeds[:ADDED_SEEDS]
    ]
    ready = tuple(arm for arm in flags.arms if arm != SWEPT or not swept.missing)
    if ready or not flags.arms:
        train(dataclasses.replace(flags, arms=ready), planned)
    if failure is not None:
        raise failure
    if flags.stage == "runs":
        return
    found = collect(planned)
    found.missing.extend(notes)
    if tried and swept.missing:
        found.missing.append(f"{SWEPT}: its sweep is not finished")
    write_study(results, flags.size, tables_of(found, planned, settings), about(found, planned, settings), source)


def tables_of(
    found: Collected, planned: Sequence[Job], settings: Sequence[Mapping[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Every table by its name; `settings` are the rows of the sweep."""
    final = [final_row(job, path) for job, path in found.finished]
    chosen = {row["setting"]: row["setting"] == best_setting(settings) for row in settings}
    return {
        "curves": [row for job, path in found.finished for row in curve_rows(job, path)],
        "final": final,
        "table": table_rows(final, planned),
        "improvement": improvement_rows(final),
        "sweep": [{**row, "chosen": chosen[row["setting"]]} for row in settings],
    }


def about(found: Collected, planned: Sequence[Job], settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Provenance of the runs, and the cost of the sweep."""
    cost = {"environment_steps": sum(row["environment_steps"] for row in settings), "runs": len(settings)}
    return {"configurations": configurations(planned), **provenance(found), "sweep": cost}


if __name__ == "__main__":
    main(tyro.cli(GameFlags, description=__doc__))
