r"""Does `--meta.preset auto` pay? PPO on several games, and the actor-critic; by default CartPole, 92,160 steps.

try.csv        rules from 40 random starts of the landscape's box and 20 times from the swept one, seeds 1100 to 1139;
               after a grid from two starts, seeds 1000 to 1003: to choose by
landscape.csv  plain learning at random learning rates and entropy costs, seeds 2000 and 2001, or at those of a grid,
               seed 2000, where a run takes a minute (longer runs of Snake 12x12 both): what a sweep would find
look.csv       plain, auto and rules from the configured values, seeds 1000 to 1003: to choose by on longer runs
starts.csv     plain and auto from five starts, from hopeless to swept, seeds 180 to 199; after a grid from two starts,
               seeds 180 to 189
configured.csv plain and auto from the configured values, seeds 120 to 124, for longer runs
random.csv     auto from 100 random starts of the landscape's box, seeds 8500 to 8599
long.csv       auto from 1e-5 in one run as long as all of a grid's together, seeds 130 to 134

Other rules and guards were looked at on seeds 0 to 119, 140 to 179, 1000 to 1139, 3000 to 8099 and 8200 to 8499;
what has no part here is from earlier forms of this file and by hand (before/, left-alone/, choosing/ and
patient-guard/, with their provenance beside them).
A row is an evaluation of one run after a ninth of its steps, which the environments counted. No seed to choose by is
reported.
A file is written after every rule, with a grid after every run, and runs that it has are kept, so that copies of this
command can share it, each with its own --starts or --arms.

    python experiments/auto/run.py landscape try starts random --results results/auto/cartpole
    python experiments/auto/run.py landscape starts --arena acrobot --results results/auto/acrobot
    python experiments/auto/run.py landscape try starts random --learner actor-critic --total-steps 276480 \
        --results results/auto/actor-critic
    python experiments/auto/run.py landscape --learner vtrace --results results/auto/vtrace
"""

import argparse
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
from gradweave.config.learners import LEARNERS
from gradweave.config.presets import PRESETS
from gradweave.config.schema import Config
from gradweave.config.search import SearchRange, draw
from gradweave.measurement.sample_store import current_source
from gradweave.reports.tables import read_rows, write_rows

STRETCHES = 9
EPISODES = 64  # of an evaluation
BOX = {"learning_rate": SearchRange(1e-6, 0.1), "entropy_cost": SearchRange(0.0, 0.5)}  # ARLBench's
NARROW = "entropy_cost=entropy-share:0.5,3e-3,0.03"
RETURN_CHOICE = "learning_rate=return-choice:1e-3,3e-4,3e-3"
GRID = [{"learning_rate": r, "entropy_cost": c} for r in (1e-4, 3e-4, 1e-3, 3e-3) for c in (0.001, 0.01, 0.1)]
BOUNDED = "entropy_cost=bounds:0.003,0.03"
RULES: Mapping[str, Sequence[str]] = {
    **{
        f"kl-anneal:{goal} and bounds of 0.003 and {highest}": (
            f"learning_rate=kl-anneal:{goal}",
            f"entropy_cost=bounds:0.003,{highest}",
        )
        for goal, highest in ((0.1, 0.03), (0.03, 0.03), (0.3, 0.03), (0.1, 0.01), (0.1, 0.1))
    },
    "kl-anneal:0.1": ("learning_rate=kl-anneal:0.1",),
    "kl-anneal:0.1 and a share of 0.5 within 0.003 to 0.03": ("learning_rate=kl-anneal:0.1", NARROW),
    "kl:0.001,0.1 and bounds of 0.003 and 0.03": ("learning_rate=kl:0.001,0.1", BOUNDED),
    "kl:0.001,0.1 and a share of 0.5 within 0.003 to 0.03": ("learning_rate=kl:0.001,0.1", NARROW),
    "kl:0.001,0.4 and bounds of 0.003 and 0.01": ("learning_rate=kl:0.001,0.4", "entropy_cost=bounds:0.003,0.01"),
    "return-choice": (RETURN_CHOICE,),
}
ACTOR_CRITIC_RULES: Mapping[str, Sequence[str]] = {
    **{
        name: RULES[name]
        for name in (
            "return-choice",
            "kl-anneal:0.1",
            "kl-anneal:0.1 and bounds of 0.003 and 0.1",
            "kl-anneal:0.1 and a share of 0.5 within 0.003 to 0.03",
        )
    },
    "return-choice, guarded": (RETURN_CHOICE,),
    **{f"kl-anneal:{goal}": (f"learning_rate=kl-anneal:{goal}",) for goal in (0.01, 0.003, 0.001, 0.0003)},
    **{f"kl-anneal:{goal}, guarded": (f"learning_rate=kl-anneal:{goal}",) for goal in (0.01, 0.003)},
    "kl-anneal:0.003 and bounds of 0.03 and 0.5": ("learning_rate=kl-anneal:0.003", "entropy_cost=bounds:0.03,0.5"),
    "kl-anneal:0.001 and bounds of 0.1 and 0.5": ("learning_rate=kl-anneal:0.001", "entropy_cost=bounds:0.1,0.5"),
    "kl-anneal:0.001 and a share of 0.8 within 0.003 to 0.5": (
        "learning_rate=kl-anneal:0.001",
        "entropy_cost=entropy-share:0.8,0.003,0.5",
    ),
    "return-choice of higher rates": ("learning_rate=return-choice:3e-3,1e-3,1e-2",),
}
"""Those that end in `guarded` have a guard."""
SWEPT = "swept"
STARTS = {"1e-6": 1e-6, "1e-5": 1e-5, "1e-4": 1e-4, "0.1": 0.1}

Row = dict[str, Any]
Member = tuple[str, int, Mapping[str, float]]  # its name, its seed and its setting
Plan = tuple[Mapping[str, Config], Sequence[Member]]


class Arena(NamedTuple):
    """A game, and how much of it can be afforded."""

    environment: Mapping[str, Any]
    total_steps: int = 92_160
    at_once: int = 40
    grid: bool = False
    """Whether the landscape is a grid, and the starts are two with ten seeds each."""
    grid_seeds: tuple[int, ...] = (2000,)


UNMASKED = {"name": "jumanji:Snake-v1", "action_mask": False}
ARENAS = {
    "cartpole": Arena({"name": "gymnax:CartPole-v1"}),
    "acrobot": Arena({"name": "gymnax:Acrobot-v1"}),
    "breakout": Arena({"name": "gymnax:Breakout-MinAtar"}, 276_480, 1, grid=True),
    "snake-6x6": Arena({**UNMASKED, "num_rows": 6, "num_cols": 6}, 460_800, 1, grid=True),
    "snake": Arena({"name": "jumanji:Snake-v1"}, 811_008, 1, grid=True),
    "snake-longer": Arena({"name": "jumanji:Snake-v1"}, 1_622_016, 1, grid=True, grid_seeds=(2000, 2001)),
    "snake-unmasked": Arena(UNMASKED, 1_622_016, 1, grid=True, grid_seeds=(2000, 2001)),
}


def config(options: argparse.Namespace, tuners: Sequence[str] = (), *, guard: bool = False) -> Config:
    run = {"total_steps": options.total_steps, "evaluation_episodes": EPISODES}
    meta = {"learned": [], "tuners": list(tuners), "guard": guard}
    preset = options.learner if options.learner in PRESETS else "ppo"
    return configure(
        preset, learner=options.learner, environment=dict(ARENAS[options.arena].environment), meta=meta, run=run
    )


def train(arm: str, of_arm: Config, population: Population, members: Sequence[Member]) -> list[Row]:
    """Nine rows for each member."""
    begun = time.monotonic()
    length, left_over = divmod(of_arm.num_meta_steps, STRETCHES)
    if left_over:
        sys.exit(f"{of_arm.num_meta_steps} windows are not {STRETCHES} stretches, so that auto's end would not come")
    rows: list[Row] = []
    state = population.begin([seed for _, seed, _ in members], [setting for *_, setting in members])
    for stretch in range(STRETCHES):
        state, found = population.advance(state, length)
        rows += [
            {
                "arm": arm,
                "start": start,
                "seed": seed,
                **{f"first_{name}": value for name, value in setting.items()},
                "stretch": stretch,
                "environment_steps": int(found.environment_steps[index]),
                "training_return": float(found.training_return[index]),
                "evaluation_return": float(found.evaluation_return[index]),
                "learning_rate": float(found.eta["learning_rate"][index]),
                "entropy_cost": float(found.eta["entropy_cost"][index]),
                "finite": bool(found.finite[index]),
            }
            for index, (start, seed, setting) in enumerate(members)
        ]
    print(f"{arm}: {len(members)} runs in {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return rows


def with_rules(options: argparse.Namespace) -> dict[str, Config]:
    """Plain learning and the learner's rules."""
    rules = ACTOR_CRITIC_RULES if options.learner == "actor-critic" else RULES
    tried = {name: config(options, tuners, guard=name.endswith("guarded")) for name, tuners in rules.items()}
    return {"plain": config(options), **tried}


def trial(options: argparse.Namespace) -> Plan:
    best = swept(options.results)
    if ARENAS[options.arena].grid:
        known = {"1e-5": {**best, "learning_rate": 1e-5}, SWEPT: best}
        members: list[Member] = [(name, seed, known[name]) for seed in range(1000, 1004) for name in known]
    else:
        rng = random.Random(1000)
        members = [("random", 1100 + number, draw(BOX, rng)) for number in range(40)]
        members += [(SWEPT, seed, best) for seed in range(1100, 1120)]
    return with_rules(options), members


def look(options: argparse.Namespace) -> Plan:
    members: list[Member] = [("preset", seed, {}) for seed in range(1000, 1004)]
    return with_rules(options), members


def landscape(options: argparse.Namespace) -> Plan:
    if ARENAS[options.arena].grid:
        seeds = ARENAS[options.arena].grid_seeds
        return {"plain": config(options)}, [(str(n), seed, setting) for seed in seeds for n, setting in enumerate(GRID)]
    rng = random.Random(2000)
    settings = [draw(BOX, rng) for _ in range(64)]
    members: list[Member] = [(str(n), seed, setting) for seed in (2000, 2001) for n, setting in enumerate(settings)]
    return {"plain": config(options)}, members


def starts(options: argparse.Namespace) -> Plan:
    best = swept(options.results)
    known = {name: {"learning_rate": rate, "entropy_cost": best["entropy_cost"]} for name, rate in STARTS.items()}
    settings = {**known, SWEPT: best}
    seeds = range(180, 200)
    if ARENAS[options.arena].grid:
        settings, seeds = {name: settings[name] for name in ("1e-5", SWEPT)}, range(180, 190)
    members: list[Member] = [(name, seed, setting) for seed in seeds for name, setting in settings.items()]
    plain = config(options)
    return {"plain": plain, "auto": with_auto(plain)}, members


def configured(options: argparse.Namespace) -> Plan:
    members: list[Member] = [("preset", seed, {}) for seed in range(120, 125)]
    plain = config(options)
    return {"plain": plain, "auto": with_auto(plain)}, members


def random_starts(options: argparse.Namespace) -> Plan:
    rng = random.Random(8500)
    members: list[Member] = [(str(number), 8500 + number, draw(BOX, rng)) for number in range(100)]
    return {"auto": with_auto(config(options))}, members


def long(options: argparse.Namespace) -> Plan:
    options.total_steps = len(GRID) * ARENAS[options.arena].total_steps
    first = {**swept(options.results), "learning_rate": 1e-5}
    members: list[Member] = [("1e-5", seed, first) for seed in range(130, 135)]
    return {"auto": with_auto(config(options))}, members


def runs_of(file: Path) -> set[tuple[str, str, int]]:
    """Arm, start and seed of every run that a file has."""
    rows = read_rows(file) if file.exists() else []
    return {(row["arm"], row["start"], int(row["seed"])) for row in rows}


def swept(results: Path) -> dict[str, float]:
    """The landscape's setting with the highest mean evaluation over the second half of its steps, both seeds."""
    scores: dict[str, list[float]] = {}
    settings: dict[str, dict[str, float]] = {}
    for row in read_rows(results / "landscape.csv"):
        if int(row["stretch"]) > STRETCHES // 2:
            scores.setdefault(row["start"], []).append(float(row["evaluation_return"]))
            settings[row["start"]] = {name: float(row[f"first_{name}"]) for name in BOX}
    return settings[max(scores, key=lambda start: np.mean(scores[start]))]


PARTS = {
    "try": trial,
    "look": look,
    "landscape": landscape,
    "starts": starts,
    "configured": configured,
    "random": random_starts,
    "long": long,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--learner", choices=list(LEARNERS), default="ppo")
    parser.add_argument("--arena", choices=list(ARENAS), default="cartpole")
    parser.add_argument("--total-steps", type=int, help="by default the arena's")
    parser.add_argument("--arms", nargs="*", default=[], help="rules, all of them when left out")
    parser.add_argument("--starts", nargs="*", default=[], help="of their names, all of them when left out")
    parser.add_argument("--at-once", type=int, help="runs side by side; by default the arena's")
    options = parser.parse_args()
    options.at_once = options.at_once or ARENAS[options.arena].at_once
    options.results.mkdir(parents=True, exist_ok=True)
    source = current_source()
    steps = options.total_steps or ARENAS[options.arena].total_steps
    for part in options.parts:
        options.total_steps = steps
        arms, members = PARTS[part](options)
        file = options.results / f"{part}.csv"
        if {seed for _, _, seed in runs_of(file)} - {seed for _, seed, _ in members}:
            sys.exit(f"{file} has runs of other seeds: give another --results")
        asked = [member for member in members if not options.starts or member[0] in options.starts]
        for name in options.arms or arms:
            population = Population(arms[name], options.at_once)
            missing = [member for member in asked if (name, *member[:2]) not in runs_of(file)]
            together = options.at_once if ARENAS[options.arena].grid else max(1, len(missing))
            for first in range(0, len(missing), together):
                found = train(name, arms[name], population, missing[first : first + together])
                known = [*read_rows(file)] if file.exists() else []
                write_rows(file, known + found)
        provenance = {
            **source,
            "learner": options.learner,
            "environment": ARENAS[options.arena].environment,
            "device": "CPU",
            "total_steps": options.total_steps,
            "at_once": options.at_once,
        }
        (options.results / f"{part}.json").write_text(json.dumps(provenance, indent=1) + "\n")


if __name__ == "__main__":
    main()
