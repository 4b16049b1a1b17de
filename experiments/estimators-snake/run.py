"""Runs every arm and seed of sweep.py, or continues them, and writes results/estimators-snake/.

There: rows.csv (learning curves), table.csv (final returns, and the steps to a return of 20), provenance.json. Called
again with the same options it continues stopped runs.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from sweep import ARMS, SEEDS, TOTAL_STEPS, configuration

from gradweave.reports.tables import learning_curve, write_rows
from gradweave.training.launch import run_or_continue

GOAL = 20.0


@dataclass(frozen=True)
class Options:
    """What to run and where to write."""

    total_steps: int = TOTAL_STEPS
    seeds: tuple[int, ...] = SEEDS
    arms: tuple[str, ...] = tuple(ARMS)
    runs: Path = Path("runs/estimators-snake")
    results: Path = Path("results/estimators-snake")


def main(options: Options) -> None:
    """Run everything, seed by seed; finished runs are only read."""
    rows: list[dict[str, Any]] = []
    table: list[dict[str, Any]] = []
    provenance: dict[str, Any] = {}
    for seed in options.seeds:
        for arm in options.arms:
            config = configuration(
                arm, seed, str(options.runs / f"{arm.replace(' ', '-')}-{seed}"), options.total_steps
            )
            path, summary = run_or_continue(config)
            curve = [{"arm": arm, "seed": seed, **row} for row in learning_curve(path, num_rows=100)]
            rows += curve
            reached = [row["step"] for row in curve if row["return"] is not None and row["return"] >= GOAL]
            returns = summary.sampled.returns
            table.append(
                {
                    "arm": arm,
                    "seed": seed,
                    "environment_steps": summary.environment_steps,
                    "final_return": float(returns.mean()),
                    "steps_to_20": reached[0] if reached else None,
                }
            )
            provenance[f"{arm}-{seed}"] = json.loads((path / "provenance.json").read_text())
            write_rows(options.results / "rows.csv", rows)
            write_rows(options.results / "table.csv", table)
            (options.results / "provenance.json").write_text(json.dumps(provenance, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
