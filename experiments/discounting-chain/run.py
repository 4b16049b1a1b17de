"""Trains every arm and seed of sweep.py, or continues them, and writes the results.

curves.csv  discount, return and mean outer advantage of every run over its steps
table.csv   every arm: final discount, how often it is far enough, how often the best chain is chosen
exact.csv   the discounts that have to be reached, by hand
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from sweep import ARMS, BEST_REWARD, CHAINS, DELAYS, SIZES, base, threshold

from _study.jobs import Flags, Job, collect, folders, jobs, train
from _study.tables import aggregate, configurations, provenance, write_study
from gradweave.reports.tables import learning_curve, metrics_until

COLUMNS = ("step", "return", "evaluation/return", "eta/discount", "outer_advantage", "meta_gradient/discount")


def curve_rows(job: Job, path: Path) -> list[dict[str, Any]]:
    way, delay = parts(job.arm)
    known = {"arm": job.arm, "way": way, "delay": delay, "seed": job.seed}
    return [
        {**known, **{name: row.get(name) for name in COLUMNS}}
        for row in learning_curve(path, 60, job.config.run.total_steps)
    ]


def parts(arm: str) -> tuple[str, int]:
    way, _, delay = arm.rpartition("-delay")
    return way, int(delay)


def scores(job: Job, path: Path) -> dict[str, float]:
    """Of one run; the discount and the outer advantage are means over its last tenth."""
    rows = metrics_until(path, job.config.run.total_steps)
    last = rows[-max(1, len(rows) // 10) :]
    discount = float(np.mean([row["eta/discount"] for row in last]))
    found = {
        "final_discount": discount,
        "far_enough": float(discount > threshold(parts(job.arm)[1])),
        # The return is 1.1 with the best chain and 1 with any other.
        "best_chain_chosen": (rows[-1]["evaluation/return"] - 1) / (BEST_REWARD - 1),
        "best_chain_chosen_greedily": (rows[-1]["evaluation/greedy_return"] - 1) / (BEST_REWARD - 1),
    }
    advantages = [row["outer_advantage"] for row in last if row.get("outer_advantage") is not None]
    return found | ({"outer_advantage": float(np.mean(advantages))} if advantages else {})


def table_rows(found: Sequence[tuple[Job, Path]], planned: Sequence[Job]) -> list[dict[str, Any]]:
    by_arm: dict[str, dict[int, Mapping[str, float]]] = {}
    for job, path in found:
        by_arm.setdefault(job.arm, {})[job.seed] = scores(job, path)
    rows = []
    for arm in dict.fromkeys(job.arm for job in planned):
        own = by_arm.get(arm, {})
        way, delay = parts(arm)
        missing = " ".join(str(job.seed) for job in planned if job.arm == arm and job.seed not in own)
        for score in dict.fromkeys(name for one in own.values() for name in one) or ("final_discount",):
            values = [one[score] for one in own.values()]
            known = {
                "arm": arm,
                "way": way,
                "delay": delay,
                "score": score,
                "mean": float(np.mean(values)) if values else None,
            }
            rows.append({**known, **aggregate(values), "threshold": threshold(delay), "missing_seeds": missing})
    return rows


def main(flags: Flags) -> None:
    size = SIZES[flags.size]
    runs, results = folders("discounting-chain", flags)
    planned = jobs(base(flags.size), {arm: ARMS[arm] for arm in size.arms}, size.seeds, size.total_steps, runs)
    train(flags, planned)
    if flags.stage == "runs":
        return
    found = collect(planned)
    tables = {
        "curves": [row for job, path in found.finished for row in curve_rows(job, path)],
        "table": table_rows(found.finished, planned),
        "exact": [{"delay": DELAYS[chain], "threshold": threshold(DELAYS[chain])} for chain in CHAINS],
    }
    write_study(results, flags.size, tables, {"configurations": configurations(planned), **provenance(found)})


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__))
