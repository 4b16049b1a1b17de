"""Runs the seeds of sweep.py, or continues them, and writes results/demo/: rows.csv, config.toml and provenance.json.

Called again with the same options it continues what was stopped: `python experiments/demo/run.py --help`.
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from sweep import SEEDS, TOTAL_STEPS, configuration

from gradweave.training.config_file import write_config
from gradweave.training.launch import run_or_continue
from gradweave.training.metrics import read_metrics

NUM_ROWS = 250  # kept of each seed: enough for a curve


@dataclass(frozen=True)
class Options:
    """What to run and where to write."""

    total_steps: int = TOTAL_STEPS
    seeds: tuple[int, ...] = SEEDS
    runs: Path = Path("runs/demo")
    results: Path = Path("results/demo")


def curve(path: Path, seed: int) -> list[dict[str, Any]]:
    """A run's metrics over equal stretches of environment steps: means, the return over the episodes that ended."""
    rows = list(read_metrics(path / "metrics.jsonl"))
    names = sorted({name for row in rows for name in row} - {"step", "return", "num_episodes"})
    stretches = [rows[i * len(rows) // NUM_ROWS : (i + 1) * len(rows) // NUM_ROWS] for i in range(NUM_ROWS)]
    curve = []
    for stretch in filter(None, stretches):
        ended = [row for row in stretch if row["num_episodes"]]
        counts = [row["num_episodes"] for row in ended]
        averages = {"return": np.average([row["return"] for row in ended], weights=counts) if ended else None}
        for name in names:
            values = [row[name] for row in stretch if row.get(name) is not None]
            averages[name] = float(np.mean(values)) if values else None
        curve.append({"seed": seed, "step": stretch[-1]["step"], "num_episodes": sum(counts), **averages})
    return curve


def main(options: Options) -> None:
    """Runs everything; what is finished already is only read."""
    rows: list[dict[str, Any]] = []
    provenance = {}
    for seed in options.seeds:
        path, summary = run_or_continue(configuration(seed, str(options.runs / f"seed-{seed}"), options.total_steps))
        rows += curve(path, seed)
        provenance[f"seed-{seed}"] = json.loads((path / "provenance.json").read_text()) | {
            "environment_steps": summary.environment_steps,
            "final_return_sampled": float(summary.sampled.returns.mean()),
            "final_return_greedy": float(summary.greedy.returns.mean()),
            "random_return": float(summary.random.returns.mean()),
        }
    options.results.mkdir(parents=True, exist_ok=True)
    with (options.results / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}
            )
    write_config(configuration(SEEDS[0], str(options.runs), options.total_steps), options.results / "config.toml")
    (options.results / "provenance.json").write_text(json.dumps(provenance, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
