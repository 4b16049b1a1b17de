"""Does a memory pay where one is needed? PPO on gymnax's MemoryChain without one, with a GRU and with an S5 layer.

The bit that is asked for was shown `LENGTH` steps before: 1 is the best mean return, 0 is chance.

    python experiments/baselines/memory.py --results results/baselines/memory-chain
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from evaluations import evaluations

from gradweave.config.configure import configure
from gradweave.config.schema import Config
from gradweave.measurement.sample_store import current_source
from gradweave.reports.tables import write_rows

LENGTH = 10
SEEDS = (0, 1, 2, 3, 4)
MEMORIES = ("none", "gru", "s5")
TOTAL_STEPS = 60_000
STRETCHES = 5


def config(memory: str) -> Config:
    size = {} if memory == "none" else {"memory_size": 32}
    return configure(
        "ppo",
        environment={"name": "gymnax:MemoryChain-bsuite", "options": {"memory_length": LENGTH}},
        network={"memory": memory, "shared_torso": True, **size},
        inner={"num_steps": 64, "learning_rate": 1e-3},
        meta={"learned": [], "num_inner_steps": 1, "estimator": "unrolled"},
        run={"total_steps": TOTAL_STEPS, "evaluation_episodes": 128, "max_episode_steps": 2 * LENGTH},
    )


def returns(memory: str) -> list[dict[str, Any]]:
    """Five rows for each seed."""
    of_memory = config(memory)
    rollout = of_memory.inner.num_envs * of_memory.inner.num_steps  # before the first window
    length = -(-((TOTAL_STEPS - rollout) // of_memory.window_steps) // STRETCHES)
    return [{"memory": memory, **row} for row in evaluations(of_memory, SEEDS, [length] * STRETCHES)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    source, rows = current_source(), []
    for memory in MEMORIES:
        begun = time.monotonic()
        rows += returns(memory)
        print(f"{memory}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    write_rows(options.results / "seeds.csv", rows)
    provenance = {**source, "device": "CPU", "memory_length": LENGTH, "total_steps": TOTAL_STEPS}
    (options.results / "seeds.json").write_text(json.dumps(provenance, indent=1) + "\n")


if __name__ == "__main__":
    main()
