"""Trains every arm and seed of sweep.py, or continues them, and writes the results.

levels.csv   every run, and every published one, at the points that the published logs have: discount (the mean over the
             0.37 million inner steps before), sampled and greedy return, environment steps really used
table.csv    every arm at these points: number of runs, least, median and greatest value
test.csv     the test that sweep.py fixes: permutation tests of the change and of the level of the discount
choice.csv   settings of the arms of five steps, on seeds of their own, and which was chosen
curves.csv   returns, discount and mean outer advantage of every run over its inner steps

A run counts as far as it has come. `published.csv` holds the ten logs of each arm of the authors (see results/README).
"""

import csv
import dataclasses
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from scipy.stats import permutation_test
from sweep import ARMS, CHOICES, LOGGED, PUBLISHED, SIZES, TEST_ARMS, Size, base

from _study.jobs import Collected, Flags, Job, begun_run, collect, finished_run, folders, jobs, train, with_changes
from _study.tables import configurations, provenance, setting_rows, write_study
from gradweave.config.schema import Config
from gradweave.errors import SeedFailed
from gradweave.reports.sweep_scores import best_setting
from gradweave.reports.tables import learning_curve
from gradweave.runs.metrics import read_metrics

WINDOW = 146 * 2560
"""Inner steps that a published discount is the mean of."""


def planned_jobs(size: Size, shared: Config, runs: Path) -> list[Job]:
    """Every arm with every seed, and the arms of the test with further seeds."""
    further = [seed for seed in size.test_seeds if seed not in size.seeds]
    planned = jobs(shared, {arm: ARMS[arm] for arm in size.arms}, size.seeds, size.inner_steps, runs)
    planned += jobs(shared, {arm: ARMS[arm] for arm in TEST_ARMS}, further, size.test_steps, runs)
    return counting_all(planned)


def counting_all(planned: Sequence[Job]) -> list[Job]:
    """The same runs, whose totals count inner steps, with totals of all steps."""
    return [job._replace(config=with_total_steps(job.config)) for job in planned]


def choice_jobs(size: Size, shared: Config, runs: Path) -> list[Job]:
    """Every setting of the arms of five steps, with the seeds to choose by."""
    settings = {name: changes for arm in size.five_step_arms for name, changes in CHOICES[arm].items()}
    return counting_all(jobs(shared, settings, size.choice_seeds, size.choice_steps, runs / "choice"))


def arm_of(choice: Job) -> str:
    """The arm that a run of `choice_jobs` is a setting of."""
    return choice.arm.partition("-rate")[0]


def choice_rows(size: Size, collected: Collected) -> list[dict[str, Any]]:
    """The settings of those arms all of whose runs are finished, each arm's best marked."""
    rows = []
    for arm in size.five_step_arms:
        own = [(job, path) for job, path in collected.finished if arm_of(job) == arm]
        if len(own) < len(CHOICES[arm]) * len(size.choice_seeds):
            continue
        found = setting_rows(own)
        best = best_setting(found)
        rows += [{"arm": arm, **row, "chosen": row["setting"] == best} for row in found]
    return rows


def five_step_jobs(size: Size, shared: Config, choices: Sequence[Mapping[str, Any]], runs: Path) -> list[Job]:
    """The arms of five steps whose setting is chosen."""
    arms = {row["arm"]: CHOICES[row["arm"]][row["setting"]] for row in choices if row["chosen"]}
    return counting_all(jobs(shared, arms, size.seeds, size.inner_steps, runs))


def with_total_steps(config: Config) -> Config:
    """`config`, whose total counts inner steps, with a total that counts all: outer rollouts and the very first one."""
    rollouts = 2 if config.own_outer_rollouts else 1
    return with_changes(config, {"run.total_steps": rollouts * config.run.total_steps + first_rollout(config)})


def first_rollout(config: Config) -> int:
    return config.inner.num_envs * config.inner.num_steps


def inner_steps(config: Config, step: int) -> float:
    return (step - first_rollout(config)) / (2 if config.own_outer_rollouts else 1)


def level_rows(job: Job, path: Path, logged: Iterable[int]) -> list[dict[str, Any]]:
    """One row for each logged point that the run has passed."""
    rows = list(read_metrics(path / "metrics.jsonl"))
    if not rows:  # begun a moment ago
        return []
    places = np.array([inner_steps(job.config, row["step"]) for row in rows])
    discounts = np.array([row["eta/discount"] for row in rows])
    found = []
    for point in logged:
        before = (places > point - WINDOW) & (places <= point)
        if not before.any() or places[-1] < point:
            continue
        entry = {"arm": job.arm, "seed": job.seed, "inner_steps": point, "discount": float(discounts[before].mean())}
        near = [(abs(at - point), row) for row, at in zip(rows, places, strict=True) if evaluated(row)]
        distance, played = min(near, key=lambda pair: pair[0], default=(math.inf, None))
        if played is not None and distance <= WINDOW:  # evaluations may be further apart than the published ones
            entry |= {
                "return_sampled": played["evaluation/return"],
                "return_greedy": played["evaluation/greedy_return"],
                "evaluated_at": int(inner_steps(job.config, played["step"])),
                "environment_steps": played["step"],
            }
        found.append(entry)
    return found


def evaluated(row: Mapping[str, Any]) -> bool:
    return row.get("evaluation/return") is not None


def published_rows(file: Path, logged: Sequence[int]) -> list[dict[str, Any]]:
    """The published runs as rows of levels.csv; their returns and discounts are of the same ten seeds, in no order."""
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    for row in csv.DictReader(file.open(encoding="utf-8")):
        point = min(int(float(row["step"])) * 2560, logged[-1])  # the last discount is 0.4 million steps later
        name = {"gamma": "discount", "return": "return_sampled"}.get(row["quantity"])
        if point not in logged or name is None or row["arm"] not in PUBLISHED:
            continue
        name = "return_greedy" if row["arm"] == "a2c" and name == "return_sampled" else name
        key = (PUBLISHED[row["arm"]], row["seed_file"], point)
        known = {"arm": key[0], "seed": key[1], "inner_steps": point}
        found.setdefault(key, known)[name] = float(row["value"])
    return list(found.values())


def table_rows(levels: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for arm in dict.fromkeys(row["arm"] for row in levels):
        for point in sorted({row["inner_steps"] for row in levels if row["arm"] == arm}):
            for score in ("discount", "return_sampled", "return_greedy"):
                own = [row for row in levels if (row["arm"], row["inner_steps"]) == (arm, point)]
                values = [row[score] for row in own if row.get(score) is not None]
                if values:
                    known = {"arm": arm, "inner_steps": point, "score": score, "num_runs": len(values)}
                    rows.append({**known, "min": min(values), "median": float(np.median(values)), "max": max(values)})
    return rows


def statistics(levels: Sequence[Mapping[str, Any]], arm: str, points: Sequence[int]) -> dict[str, list[float]]:
    """Of every run of an arm: the change of the raw discount between two points, and its level at a third."""
    early, late, end = points
    known = {(row["seed"], row["inner_steps"]): row["discount"] for row in levels if row["arm"] == arm}
    seeds = [seed for seed, point in known if point == end]
    return {
        "change": [logit(known[seed, late]) - logit(known[seed, early]) for seed in seeds],
        "level": [logit(known[seed, end]) for seed in seeds],
    }


def logit(discount: float) -> float:
    return math.log(discount / (1 - discount))


def test_rows(levels: Sequence[Mapping[str, Any]], points: Sequence[int], planned: int) -> list[dict[str, Any]]:
    """The permutation tests of sweep.py; `decided` once every arm of ours has all its planned seeds."""
    ours, published = TEST_ARMS, PUBLISHED["mgrl_outer_critic"]
    rows = []
    for one, other in ((ours[0], ours[1]), (ours[0], published), (ours[1], published)):
        found = [statistics(levels, arm, points) for arm in (one, other)]
        for name in ("change", "level"):
            first, second = (each[name] for each in found)
            if min(len(first), len(second)) < 2:
                continue
            result = permutation_test((first, second), difference, n_resamples=np.inf, vectorized=True)
            complete = all(len(each[name]) >= planned for each in found)
            rows.append(
                {
                    "statistic": name,
                    "arm": one,
                    "other": other,
                    "num_runs": len(first),
                    "num_others": len(second),
                    "mean": float(np.mean(first)),
                    "other_mean": float(np.mean(second)),
                    "p": float(result.pvalue),
                    "decided": complete,
                }
            )
    return rows


def difference(first: Any, second: Any, axis: int) -> Any:
    return np.mean(first, axis) - np.mean(second, axis)


def curve_rows(job: Job, path: Path) -> list[dict[str, Any]]:
    names = ("return", "evaluation/return", "evaluation/greedy_return", "eta/discount", "outer_advantage")
    known = {"arm": job.arm, "seed": job.seed}
    return [
        {**known, "inner_steps": inner_steps(job.config, row["step"]), "step": row["step"]}
        | {name: row.get(name) for name in names}
        for row in learning_curve(path, 80, job.config.run.total_steps)
    ]


def main(flags: Flags) -> None:
    size = SIZES[flags.size]
    runs, results = folders("snake-6x6", flags)
    shared = base(flags.size)
    tried = choice_jobs(size, shared, runs)
    wanted = [job for job in tried if not flags.arms or arm_of(job) in flags.arms]
    failure = None
    try:
        train(Flags(stage=flags.stage), wanted)
    except SeedFailed as error:  # raised when the other arms, which need no choice, have been trained
        failure = error
    choices = choice_rows(size, collect(tried))
    planned = planned_jobs(size, shared, runs) + five_step_jobs(size, shared, choices, runs)
    # An arm of five steps waits for its choice, of which a run may have failed, or be trained by another process.
    waiting = [arm for arm in size.five_step_arms if arm not in {row["arm"] for row in choices}]
    for arm in waiting:
        if not flags.arms or arm in flags.arms:
            print(f"{arm}: its settings are not finished", file=sys.stderr, flush=True)
    ready = tuple(arm for arm in flags.arms if arm not in waiting)
    if ready or not flags.arms:
        train(dataclasses.replace(flags, arms=ready), planned)
    if failure is not None:
        raise failure
    if flags.stage == "runs":
        return
    begun = [(job, path) for job in planned if (path := begun_run(job)) is not None]
    missing = [job.name for job in (*tried, *planned) if finished_run(job) is None]
    missing += [f"{arm}: its settings are not finished" for arm in waiting]
    levels = [row for job, path in begun for row in level_rows(job, path, size.logged)]
    levels += published_rows(Path(__file__).parent / "published.csv", LOGGED)
    tables = {
        "levels": levels,
        "table": table_rows(levels),
        "test": test_rows(levels, size.test_points, len(size.test_seeds)),
        "choice": choices,
        "curves": [row for job, path in begun for row in curve_rows(job, path)],
    }
    sources = provenance(Collected(begun, missing))
    about = {"configurations": configurations(planned), **sources}
    if choices:
        about["choice"] = {"configurations": configurations(tried), **provenance(collect(tried))}
    write_study(results, flags.size, tables, about)


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__))
