"""Is plain PPO as good as Brax's own, on a task of Brax? Equal constants, equal environment steps.

physics.csv  mean return over 32 episodes (actions sampled) after every fifth of the steps, five seeds, both

Needs Python 3.12 and Brax beside gradweave (docs/suites.md). Learning rate, discount, entropy cost, epochs and
reward scale are those of Brax's training notebook for the task. Batches are smaller, so that 300,000 steps are many
updates; README.md beside the results lists every constant and the differences.

    python experiments/baselines/physics.py --results results/baselines/brax
"""

import argparse
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dropped

from gradweave.comparison.population import Population
from gradweave.config.configure import configure
from gradweave.config.schema import Config
from gradweave.measurement.sample_store import current_source
from gradweave.reports.tables import write_rows

TASK = "inverted_pendulum"
SEEDS = (0, 1, 2, 3, 4)
TOTAL_STEPS = 307_200
FIFTHS = 5
EPISODES = 32
EPISODE_STEPS = 1000
SETTINGS: dict[str, Any] = {
    "num_envs": 32,
    "num_steps": 16,
    "num_epochs": 4,
    "num_minibatches": 8,
    "learning_rate": 3e-4,
    "discount": 0.97,
    "lambda_": 0.95,
    "entropy_cost": 1e-2,
    "max_grad_norm": 1.0,
    "clip_range": 0.3,
    "normalize_observations": True,
}
REWARD_SCALE = 10.0
"""Theirs; ours has a running scale."""
ROLLOUT_STEPS = SETTINGS["num_envs"] * SETTINGS["num_steps"]

Row = dict[str, Any]


def our_config() -> Config:
    return configure(
        "ppo",
        environment={"name": f"envelope:brax/{TASK}"},
        inner=SETTINGS,
        meta={"learned": [], "num_inner_steps": 1, "estimator": "unrolled"},
        run={"total_steps": TOTAL_STEPS, "evaluation_episodes": EPISODES, "max_episode_steps": EPISODE_STEPS},
    )


def our_returns() -> list[Row]:
    population = Population(our_config(), len(SEEDS))
    members = population.begin(SEEDS, [{}] * len(SEEDS))
    rows = []
    for fifth in range(FIFTHS):
        begun = int(fifth == 0)  # with one rollout: it is collected before the first window
        members, found = population.advance(members, TOTAL_STEPS // FIFTHS // ROLLOUT_STEPS - begun)
        for index, seed in enumerate(SEEDS):
            steps, mean = int(found.environment_steps[index]), float(found.evaluation_return[index])
            rows.append({"library": "gradweave", "seed": seed, "environment_steps": steps, "return": mean})
    return rows


def their_returns(seed: int) -> list[Row]:
    from brax import envs
    from brax.training.agents.ppo import train as ppo

    dropped.put_back()
    rows: list[Row] = []

    def note(steps: int, metrics: Any) -> None:
        if steps:  # the first evaluation is of the agent before training
            mean = float(metrics["eval/episode_reward"])
            rows.append({"library": "brax", "seed": seed, "environment_steps": int(steps), "return": mean})

    ppo.train(
        envs.get_environment(TASK),
        num_timesteps=TOTAL_STEPS,
        num_envs=SETTINGS["num_envs"],
        unroll_length=SETTINGS["num_steps"],
        num_minibatches=SETTINGS["num_minibatches"],
        batch_size=SETTINGS["num_envs"] // SETTINGS["num_minibatches"],
        num_updates_per_batch=SETTINGS["num_epochs"],
        learning_rate=SETTINGS["learning_rate"],
        discounting=SETTINGS["discount"],
        gae_lambda=SETTINGS["lambda_"],
        entropy_cost=SETTINGS["entropy_cost"],
        max_grad_norm=SETTINGS["max_grad_norm"],
        clipping_epsilon=SETTINGS["clip_range"],
        normalize_observations=SETTINGS["normalize_observations"],
        reward_scaling=REWARD_SCALE,
        episode_length=EPISODE_STEPS,
        num_evals=FIFTHS + 1,
        num_eval_envs=EPISODES,
        seed=seed,
        progress_fn=note,
    )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    source, begun = current_source(), time.monotonic()
    rows = our_returns()
    print(f"gradweave: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    for seed in SEEDS:
        rows += their_returns(seed)
        print(f"Brax, seed {seed}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    write_rows(options.results / "physics.csv", rows)
    libraries = {name: version(name) for name in ("jax", "brax", "jax-envelope")}
    told = {"task": TASK, "reward_scale": REWARD_SCALE, "episode_steps": EPISODE_STEPS, **SETTINGS}
    about = {**source, "device": "CPU", "libraries": libraries, "settings": told}
    (options.results / "physics.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
