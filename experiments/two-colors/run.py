"""Trains every arm and seed of sweep.py, or continues them, and writes the results.

phases.csv  reward per step and entropy cost of every run over each two phases (one episode: 200,000 steps)
table.csv   every arm: the reward of its whole life, as many steps as all of it, and the reward of its last fifth
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from sweep import ARMS, SIZES, base

from _study.jobs import Flags, Job, collect, folders, jobs, train
from _study.tables import aggregate, configurations, provenance, write_study
from gradweave.reports.tables import metrics_until


def phase_rows(job: Job, path: Path) -> list[dict[str, Any]]:
    """One row for each episode of two phases that ended, the entropy cost as its mean over them."""
    rows, costs = [], []
    per_episode = 2 * job.config.environment.options["swap_every"]
    for row in metrics_until(path, job.config.run.total_steps):
        costs.append(row["eta/entropy_cost"])
        if row["num_episodes"]:
            known = {"arm": job.arm, "seed": job.seed, "step": row["step"]}
            rows.append({**known, "reward": row["return"] / per_episode, "entropy_cost": float(np.mean(costs))})
            costs = []
    return rows


def table_rows(phases: Sequence[dict[str, Any]], planned: Sequence[Job]) -> list[dict[str, Any]]:
    """Every arm, of the seeds that are finished."""
    rows = []
    for arm in dict.fromkeys(job.arm for job in planned):
        lives = {
            seed: [row["reward"] for row in phases if (row["arm"], row["seed"]) == (arm, seed)]
            for seed in _seeds(phases, arm)
        }
        missing = " ".join(str(job.seed) for job in planned if job.arm == arm and job.seed not in lives)
        scores = {
            "life": [float(np.mean(life)) for life in lives.values()],
            "last_fifth": [float(np.mean(life[-max(1, len(life) // 5) :])) for life in lives.values()],
        }
        for score, values in scores.items():
            mean = float(np.mean(values)) if values else None
            rows.append({"arm": arm, "score": score, "mean": mean, **aggregate(values), "missing_seeds": missing})
    return rows


def _seeds(phases: Sequence[dict[str, Any]], arm: str) -> list[int]:
    return sorted({row["seed"] for row in phases if row["arm"] == arm})


def main(flags: Flags) -> None:
    size = SIZES[flags.size]
    runs, results = folders("two-colors", flags)
    planned = jobs(base(flags.size), {arm: ARMS[arm] for arm in size.arms}, size.seeds, size.total_steps, runs)
    train(flags, planned)
    if flags.stage == "runs":
        return
    found = collect(planned)
    phases = [row for job, path in found.finished for row in phase_rows(job, path)]
    tables = {"phases": phases, "table": table_rows(phases, planned)}
    write_study(results, flags.size, tables, {"configurations": configurations(planned), **provenance(found)})


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__))
