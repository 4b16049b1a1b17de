"""Trains every arm and seed of sweep.py, or continues them, and writes the results.

curves.csv   returns, discount and mean outer advantage of every run over its inner steps
reports.csv  every run at the reported inner steps: sampled and greedy return, discount, outer advantage, environment
             steps really used
table.csv    every arm at these steps: interquartile means over seeds with 95 % bootstrap intervals

The batch that evaluates an update is the next update's own, so that environment steps exceed inner steps by one rollout
only; where each update is evaluated on a batch of its own they are twice as many.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from sweep import ADDED, ADDED_INNER_STEPS, ADDED_SEEDS, ARMS, SIZES, Size, base

from _study.jobs import Flags, Job, collect, folders, jobs, train, with_changes
from _study.tables import aggregate, configurations, improvements, provenance, write_study
from gradweave.config.schema import Config
from gradweave.reports.tables import learning_curve, metrics_until

SCORES = ("return_sampled", "return_greedy", "training_return", "discount", "outer_advantage")


def planned_jobs(size: Size, shared: Config, runs: Path) -> list[Job]:
    """Every arm with every seed, and the added arms with some; the rollout before the first update comes on top of
    their inner steps.
    """
    planned = jobs(shared, {arm: ARMS[arm] for arm in size.arms}, size.seeds, size.inner_steps, runs)
    for arm in size.added:
        seeds = size.seeds[: ADDED_SEEDS.get(arm, 1)]
        planned += jobs(shared, {arm: ADDED[arm]}, seeds, min(ADDED_INNER_STEPS, size.inner_steps), runs)
    steps = [job.config.run.total_steps + rollout_steps(job) for job in planned]
    return [
        job._replace(config=with_changes(job.config, {"run.total_steps": total}))
        for job, total in zip(planned, steps, strict=True)
    ]


def rollout_steps(job: Job) -> int:
    return job.config.inner.num_envs * job.config.inner.num_steps


def report_rows(job: Job, path: Path, reports: Sequence[int]) -> list[dict[str, Any]]:
    """One row for each report: the first evaluation at or after it, and means over the last tenth of steps before."""
    rows = metrics_until(path, job.config.run.total_steps)
    found, begin = [], 0
    for inner_steps in reports:
        end = next((i for i, row in enumerate(rows) if reached(job, row, inner_steps)), None)
        if end is None:
            break
        stretch = rows[begin : end + 1]
        tenth = stretch[-max(1, len(stretch) // 10) :]
        ended = [row for row in tenth if row["num_episodes"]]
        weights = [row["num_episodes"] for row in ended]
        found.append(
            {
                "arm": job.arm,
                "seed": job.seed,
                "report": inner_steps,
                "inner_steps": rows[end]["step"] - rollout_steps(job),
                "environment_steps": rows[end]["step"],
                "return_sampled": rows[end]["evaluation/return"],
                "return_greedy": rows[end]["evaluation/greedy_return"],
                "training_return": float(np.average([row["return"] for row in ended], weights=weights))
                if ended
                else None,
                "discount": rows[end]["eta/discount"],
                "outer_advantage": mean_of(tenth, "outer_advantage"),
            }
        )
        begin = end + 1
    return found


def reached(job: Job, row: Mapping[str, Any], inner_steps: int) -> bool:
    return row["step"] - rollout_steps(job) >= inner_steps and row.get("evaluation/return") is not None


def mean_of(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [row[name] for row in rows if row.get(name) is not None]
    return float(np.mean(values)) if values else None


def curve_rows(job: Job, path: Path) -> list[dict[str, Any]]:
    names = ("return", "evaluation/return", "evaluation/greedy_return", "eta/discount", "outer_advantage")
    known = {"arm": job.arm, "seed": job.seed}
    return [
        {
            **known,
            "inner_steps": row["step"] - rollout_steps(job),
            "step": row["step"],
            **{name: row.get(name) for name in names},
        }
        for row in learning_curve(path, 80, job.config.run.total_steps)
    ]


def table_rows(reports: Sequence[Mapping[str, Any]], planned: Sequence[Job], size: Size) -> list[dict[str, Any]]:
    rows = []
    ends = {job.arm: job.config.run.total_steps - rollout_steps(job) for job in planned}
    for arm, end in ends.items():
        for inner_steps in (report for report in size.reports if report <= end):
            own = [row for row in reports if (row["arm"], row["report"]) == (arm, inner_steps)]
            seeds = {row["seed"] for row in own}
            missing = " ".join(str(job.seed) for job in planned if job.arm == arm and job.seed not in seeds)
            for score in SCORES:
                values = [row[score] for row in own if row[score] is not None]
                known = {"arm": arm, "report": inner_steps, "score": score}
                rows.append({**known, **aggregate(values), "missing_seeds": missing})
    return rows


def improvement_rows(reports: Sequence[Mapping[str, Any]], last: int) -> list[dict[str, Any]]:
    scores: dict[str, list[float]] = {}
    for row in reports:
        if row["report"] == last:
            scores.setdefault(row["arm"], []).append(row["return_sampled"])
    return improvements(scores, [arm for arm in ("plain", "meta-gradient", "outer-critic") if arm in scores])


def main(flags: Flags) -> None:
    size = SIZES[flags.size]
    runs, results = folders("snake-6x6-outer-critic", flags)
    planned = planned_jobs(size, base(flags.size), runs)
    train(flags, planned)
    if flags.stage == "runs":
        return
    found = collect(planned)
    reports = [row for job, path in found.finished for row in report_rows(job, path, size.reports)]
    tables = {
        "curves": [row for job, path in found.finished for row in curve_rows(job, path)],
        "reports": reports,
        "table": table_rows(reports, planned, size),
        "improvement": improvement_rows(reports, size.reports[-1]),
    }
    write_study(results, flags.size, tables, {"configurations": configurations(planned), **provenance(found)})


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__))
