"""How well do presets do on games that nothing was tuned for? Five seeds, a minute each.

games.csv   mean return over 64 episodes (actions sampled) of the untrained policy and after every fifth of the steps
games.json  commit and settings of the newest start

PPO has the preset's values and `--meta.preset auto`, V-trace the preset's values and its own meta-gradient. Nothing but
the number of steps was chosen for a game. The files are written after every game, and games that are there are kept.

    python experiments/baselines/games.py --results results/baselines/games
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from evaluations import evaluations

from gradweave.config.auto import with_auto
from gradweave.config.configure import configure
from gradweave.config.schema import Config
from gradweave.measurement.sample_store import current_source
from gradweave.reports.tables import read_rows, write_rows

SEEDS = (0, 1, 2, 3, 4)
FIFTHS = 5
EPISODES = 64
PPO: Mapping[str, int] = {
    "gymnax:Catch-bsuite": 100_000,
    "gymnax:FourRooms-misc": 200_000,
    "gymnax:FrozenLake-misc": 200_000,
    "gymnax:DeepSea-bsuite": 200_000,
    "gymnax:MountainCar-v0": 200_000,
    "gymnax:MountainCarContinuous-v0": 200_000,
    "gymnax:Pendulum-v1": 500_000,
    "gymnax:PointRobot-misc": 200_000,
    "gymnax:Reacher-misc": 200_000,
    "gymnax:Asterix-MinAtar": 400_000,
    "gymnax:Freeway-MinAtar": 400_000,
    "jumanji:Maze-v0": 200_000,
    "jumanji:SlidingTilePuzzle-v0": 200_000,
    "jumanji:Minesweeper-v0": 200_000,
    "jumanji:Knapsack-v1": 200_000,
}
"""Environment steps of a run of PPO with auto."""
VTRACE: Mapping[str, int] = {"gymnax:CartPole-v1": 200_000}
"""Environment steps of a run of V-trace's preset."""

Row = dict[str, Any]


def config(learner: str, game: str, total_steps: int) -> Config:
    run = {"total_steps": total_steps, "evaluation_episodes": EPISODES}
    plain = configure(learner, environment={"name": game}, run=run)
    return with_auto(plain) if learner == "ppo" else plain


def train(learner: str, game: str, total_steps: int) -> list[Row]:
    """Six rows for each seed."""
    of_game = config(learner, game, total_steps)
    ends = [of_game.num_meta_steps * fifth // FIFTHS for fifth in range(FIFTHS + 1)]
    lengths = [end - before for before, end in itertools.pairwise([0, *ends])]
    return [{"learner": learner, "game": game, **row} for row in evaluations(of_game, SEEDS, lengths)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    file = options.results / "games.csv"
    rows: list[Row] = list(read_rows(file)) if file.exists() else []
    source = current_source()
    provenance = {**source, "device": "CPU", "seeds": SEEDS, "evaluation_episodes": EPISODES}
    for learner, games in (("vtrace", VTRACE), ("ppo", PPO)):
        for game, total_steps in games.items():
            if any((row["learner"], row["game"]) == (learner, game) for row in rows):
                continue
            begun = time.monotonic()
            rows += [{**row, "commit": source["commit"]} for row in train(learner, game, total_steps)]
            write_rows(file, rows)
            (options.results / "games.json").write_text(json.dumps(provenance, indent=1) + "\n")
            print(f"{learner} on {game}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
            jax.clear_caches()


if __name__ == "__main__":
    main()
