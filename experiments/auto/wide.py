"""Nine hyper-parameters of PPO on CartPole, drawn at random: what do they earn, and from how many does auto get there?

landscape.csv  plain PPO with 256 random settings of the box, seeds 2600 to 2609 each
try.csv        auto without its bounds of lambda from 100 other ones, as they are and within bounds, seeds 8200 to 8299:
               to choose by
random.csv     plain, auto, and auto without its bounds of lambda, from 100 further ones, seeds 8700 to 8799
summary.csv    the 90th percentile of the landscape (a setting's mean over its seeds), and how many of random.csv's
               runs reach it

The box is ARLBench's for PPO (Becktepe et al. 2024, arXiv 2409.18827) as far as this PPO has it: learning rate, entropy
cost, minibatch size, lambda, clip range, whether advantages are standardised, value cost. Whether values are clipped is
drawn, too, and their clip range begins as the policy's; its bound on the gradient's norm is one of two. Everything
else is the preset's; 8 environments and 93,184 steps. A row is the evaluation of one run at its end.
A file is written after every group of settings that one program serves, and rows that it has are kept.

    python experiments/auto/wide.py landscape try random --results results/auto/wide
"""

import argparse
import dataclasses
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradweave.comparison.population import Population
from gradweave.config.auto import with_auto
from gradweave.config.configure import configure
from gradweave.config.schema import Config
from gradweave.measurement.sample_store import current_source
from gradweave.reports.tables import read_rows, write_rows

TOTAL_STEPS = 92_160  # and a first rollout
ROLLOUT = 8 * 128
AT_ONCE = 40
MINIBATCH_SIZES = (128, 256, 512)
GRADIENT_NORMS = (0.25, 0.75)
AS_CONFIGURED = "auto, lambda as configured"
BOUNDS: Mapping[str, Mapping[str, tuple[float, float]]] = {
    AS_CONFIGURED: {},
    "auto, lambda of 0.9 and above": {"lambda_": (0.9, 0.9999)},
    "auto, lambda of 0.95 and above": {"lambda_": (0.95, 0.9999)},
    "auto, lambda within 0.9 and 0.99": {"lambda_": (0.9, 0.99)},
    "auto, lambda within 0.9 and 0.99, clip range within 0.1 and 0.3": {
        "lambda_": (0.9, 0.99),
        "clip_range": (0.1, 0.3),
    },
}
"""What is tried beside the rest of auto: values outside begin at the nearer end, as those of the tuner `bounds` do."""
SETTINGS, SEEDS = 256, range(2600, 2610)
STARTS, START_SEED, TRIED_SEED = 100, 8700, 8200

Row = dict[str, Any]


class Setting(NamedTuple):
    """One point of the box."""

    number: int
    minibatch_size: int
    max_grad_norm: float
    normalize_advantages: bool
    clip_values: bool
    learning_rate: float
    entropy_cost: float
    lambda_: float
    clip_range: float
    value_cost: float

    @property
    def program(self) -> tuple[Any, ...]:
        """The settings that are constants of a compiled program."""
        return self[1:5]

    @property
    def numbers(self) -> dict[str, float]:
        """Those that are numbers in the state."""
        found = {name: getattr(self, name) for name in self._fields[5:]}
        return {**found, "value_clip_range": self.clip_range} if self.clip_values else found


def drawn(count: int, seed: int) -> list[Setting]:
    rng = random.Random(seed)
    return [
        Setting(
            number,
            rng.choice(MINIBATCH_SIZES),
            rng.choice(GRADIENT_NORMS),
            rng.random() < 0.5,
            rng.random() < 0.5,
            10 ** rng.uniform(-6, -1),
            rng.uniform(0.0, 0.5),
            rng.uniform(0.8, 0.9999),
            rng.uniform(0.0, 0.5),
            rng.uniform(0.0, 1.0),
        )
        for number in range(count)
    ]


def config(setting: Setting) -> Config:
    inner = {
        "num_minibatches": ROLLOUT // setting.minibatch_size,
        "max_grad_norm": setting.max_grad_norm,
        "normalize_advantages": setting.normalize_advantages,
        "clip_values": setting.clip_values,
    }
    run = {"total_steps": TOTAL_STEPS, "evaluation_episodes": 64}
    meta: dict[str, Any] = {"learned": [], "tuners": []}
    return configure("ppo", environment={"name": "gymnax:CartPole-v1"}, inner=inner, meta=meta, run=run)


def within(numbers: Mapping[str, float], bounds: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Each number, or the nearer end where it lies outside of its bounds."""
    return {**numbers, **{name: min(max(numbers[name], low), high) for name, (low, high) in bounds.items()}}


def of_arm(arm: str, plain: Config) -> Config:
    """Plain learning, auto, or auto without what `BOUNDS` tries."""
    if arm == "plain":
        return plain
    config = with_auto(plain)
    if arm not in BOUNDS:
        return config
    tuners = tuple(tuner for tuner in config.meta.tuners if not tuner.startswith("lambda="))
    return dataclasses.replace(config, meta=dataclasses.replace(config.meta, tuners=tuners))


def ends(runs: Sequence[tuple[str, Setting, int]]) -> list[Row]:
    """One row for each (arm, setting, seed), which one program serves."""
    begun = time.monotonic()
    plain = config(runs[0][1])
    population = Population(of_arm(runs[0][0], plain), AT_ONCE)
    state = population.begin(
        [seed for *_, seed in runs],
        [within(setting.numbers, BOUNDS.get(arm, {})) for arm, setting, _ in runs],
    )
    _, found = population.advance(state, plain.num_meta_steps)
    print(f"from {runs[0][0]}: {len(runs)} runs in {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return [
        {
            "arm": arm,
            **setting._asdict(),
            "seed": seed,
            "environment_steps": int(found.environment_steps[index]),
            "evaluation_return": float(found.evaluation_return[index]),
            "finite": bool(found.finite[index]),
        }
        for index, (arm, setting, seed) in enumerate(runs)
    ]


def part(file: Path, arms: Sequence[str], members: Sequence[tuple[Setting, int]]) -> bool:
    """Make and write the rows that a file lacks, of arms that one program serves; returns whether any were missing."""
    rows: list[Row] = [*read_rows(file)] if file.exists() else []
    done = {(row["arm"], int(row["number"]), int(row["seed"])) for row in rows}
    known = len(rows)
    for program in sorted({setting.program for setting, _ in members}):
        of_program = [(setting, seed) for setting, seed in members if setting.program == program]
        missing = [
            (arm, setting, seed)
            for arm in arms
            for setting, seed in of_program
            if (arm, setting.number, seed) not in done
        ]
        if missing:
            rows += ends(missing)
            write_rows(file, rows)
    return len(rows) > known


def summary(folder: Path) -> list[Row]:
    means: dict[str, list[float]] = {}
    for row in read_rows(folder / "landscape.csv"):
        means.setdefault(row["number"], []).append(float(row["evaluation_return"]))
    level = float(np.percentile([np.mean(returns) for returns in means.values()], 90))
    rows: list[Row] = [{"what": "the 90th percentile of the landscape", "found": round(level, 1), "of": len(means)}]
    starts = read_rows(folder / "random.csv")
    for arm in dict.fromkeys(row["arm"] for row in starts):
        returns = [float(row["evaluation_return"]) for row in starts if row["arm"] == arm]
        reached = sum(found >= level for found in returns)
        rows.append({"what": f"random starts from which it is reached by {arm}", "found": reached, "of": len(returns)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=["landscape", "try", "random"])
    parser.add_argument("--results", type=Path, required=True)
    options = parser.parse_args()
    folder: Path = options.results
    folder.mkdir(parents=True, exist_ok=True)
    about = {**current_source(), "device": "CPU", "total_steps": TOTAL_STEPS, "at_once": AT_ONCE}
    tried = [(setting, TRIED_SEED + setting.number) for setting in drawn(STARTS, TRIED_SEED)]
    begun = [(setting, START_SEED + setting.number) for setting in drawn(STARTS, START_SEED)]
    groups: Mapping[str, Sequence[tuple[Sequence[str], Sequence[tuple[Setting, int]]]]] = {
        "landscape": [(("plain",), [(setting, seed) for setting in drawn(SETTINGS, 2500) for seed in SEEDS])],
        "try": [(tuple(BOUNDS), tried)],
        "random": [((arm,), begun) for arm in ("plain", "auto", AS_CONFIGURED)],
    }
    for name in options.parts:
        if any([part(folder / f"{name}.csv", arms, members) for arms, members in groups[name]]):
            (folder / f"{name}.json").write_text(json.dumps(about, indent=1) + "\n")
    if (folder / "landscape.csv").is_file() and (folder / "random.csv").is_file():
        write_rows(folder / "summary.csv", summary(folder))


if __name__ == "__main__":
    main()
