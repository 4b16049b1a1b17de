"""Runs the seeds of sweep.py, or continues them, and writes results/demo/.

There: rows.csv (learning curves), variance.csv (how noisy the meta-gradient of the trained agents is, by estimator),
agent.gif, config.toml and provenance.json.

Called again with the same options it continues stopped runs: `python experiments/demo/run.py --help`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import tyro
from sweep import SEEDS, TOTAL_STEPS, configuration

from gradweave.config.toml_file import write_config
from gradweave.measurement.sampling import default_estimators, estimator_samples, measure_agent
from gradweave.reports.episode import save_episode
from gradweave.reports.tables import learning_curve, write_rows
from gradweave.statistics.bootstrap import Estimate
from gradweave.statistics.paired import variance_ratio
from gradweave.training.launch import run_or_continue
from gradweave.training.loop import Summary

BURN_IN = 80  # rollouts before each sample, up to twice as many: 400 to 800 steps of every environment


@dataclass(frozen=True)
class Options:
    """What to run and where to write."""

    total_steps: int = TOTAL_STEPS
    seeds: tuple[int, ...] = SEEDS
    samples: int = 256
    runs: Path = Path("runs/demo")
    results: Path = Path("results/demo")


def variance_ratios(summary: Summary, seed: int, num_samples: int) -> list[dict[str, Any]]:
    """Variance of every estimator's meta-gradient at the trained agent, over that of the unmixed one."""
    samples = measure_agent(
        summary.agent,
        summary.state,
        key=jax.random.key(10_000 + seed),
        num_samples=num_samples,
        burn_in_rollouts=BURN_IN,
    )
    estimates = estimator_samples(samples, default_estimators(samples.num_inner_steps))
    rows = []
    for name, drawn in estimates.items():
        ratio = variance_ratio(drawn, estimates["unrolled"])
        parts = [("all", ratio.total, ratio.total_scale_free)]
        for index, parameter in enumerate(samples.names):
            parts.append((parameter, *(_entry(whole, index) for whole in (ratio.leaves, ratio.leaves_scale_free))))
        for parameter, raw, scale_free in parts:
            for scale, estimate in (("raw", raw), ("free of scale", scale_free)):
                ends = dict(zip(("ratio", "low", "high"), (float(end) for end in estimate), strict=True))
                known = {"seed": seed, "samples": num_samples, "estimator": name, "meta_parameter": parameter}
                rows.append({**known, "scale": scale, **ends})
    return rows


def _entry(estimate: Estimate, index: int) -> Estimate:
    return Estimate(*(end[index] for end in estimate))


def main(options: Options) -> None:
    """Run everything; finished runs are only read."""
    rows: list[dict[str, Any]] = []
    variances: list[dict[str, Any]] = []
    provenance = {}
    for seed in options.seeds:
        path, summary = run_or_continue(configuration(seed, str(options.runs / f"seed-{seed}"), options.total_steps))
        rows += [{"seed": seed, **row} for row in learning_curve(path)]
        variances += variance_ratios(summary, seed, options.samples)
        if seed == options.seeds[0]:
            options.results.mkdir(parents=True, exist_ok=True)
            config = configuration(seed, str(options.runs))
            save_episode(options.results / "agent.gif", summary.agent, summary.state, config, key=jax.random.key(seed))
        provenance[f"seed-{seed}"] = json.loads((path / "provenance.json").read_text()) | {
            "environment_steps": summary.environment_steps,
            "final_return_sampled": float(summary.sampled.returns.mean()),
            "final_return_greedy": float(summary.greedy.returns.mean()),
            "random_return": float(summary.random.returns.mean()),
        }
    write_rows(options.results / "rows.csv", rows)
    write_rows(options.results / "variance.csv", variances)
    write_config(configuration(SEEDS[0], str(options.runs), options.total_steps), options.results / "config.toml")
    (options.results / "provenance.json").write_text(json.dumps(provenance, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
