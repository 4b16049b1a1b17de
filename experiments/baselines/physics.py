"""Is plain PPO as good, and as fast, as Brax's own, on a task of Brax? Equal constants, equal environment steps.

physics.csv  mean return over 32 episodes (actions sampled) after every fifth of the steps, five seeds, both
speed.csv    environment steps a second of training alone, theirs and ours in turns in one process; ours also with
             layers, activation and distribution of actions as Brax has them

Needs Python 3.12 and Brax beside gradweave (docs/suites.md). Learning rate, discount, entropy cost, epochs and
reward scale are those of Brax's training notebook for the task. Batches are smaller, so that 300,000 steps are many
updates; README.md beside the results lists every constant and the differences.

    python experiments/baselines/physics.py returns speed --results results/baselines/brax
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dropped
import jax
from evaluations import evaluations

from gradweave.config.configure import configure
from gradweave.config.schema import Config
from gradweave.measurement.sample_store import current_source
from gradweave.reports.tables import write_rows
from gradweave.training.build import build_agent, init_state

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
ROLLOUTS = 20
"""Of a round of speed.csv."""
UNCOUNTED = 2
"""Rounds at the beginning, which compile."""
THEIR_NETWORK: Mapping[str, Any] = {
    "policy_layers": (32,) * 4,
    "value_layers": (256,) * 5,
    "activation": "swish",
    "action_distribution": "tanh-gaussian",
    "action_scale": "dependent",
}
"""The defaults of Brax's `make_ppo_networks`, said as ours."""

Row = dict[str, Any]


def our_config(**network: Any) -> Config:
    return configure(
        "ppo",
        environment={"name": f"envelope:brax/{TASK}"},
        network=network,
        inner=SETTINGS,
        meta={"learned": [], "num_inner_steps": 1, "estimator": "unrolled"},
        run={"total_steps": TOTAL_STEPS, "evaluation_episodes": EPISODES, "max_episode_steps": EPISODE_STEPS},
    )


def our_returns() -> list[Row]:
    fifth = TOTAL_STEPS // FIFTHS // ROLLOUT_STEPS
    lengths = [fifth - 1, *[fifth] * (FIFTHS - 1)]  # one rollout is collected before the first window
    return [{"library": "gradweave", **row} for row in evaluations(our_config(), SEEDS, lengths)]


def train_theirs(**options: Any) -> Any:
    """The result of Brax's `ppo.train`, with the constants above."""
    from brax import envs
    from brax.training.agents.ppo import train as ppo

    dropped.put_back()
    return ppo.train(
        envs.get_environment(TASK),
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
        **options,
    )


def their_returns(seed: int) -> list[Row]:
    rows: list[Row] = []

    def note(steps: int, metrics: Any) -> None:
        if steps:  # the first evaluation is of the agent before training
            mean = float(metrics["eval/episode_reward"])
            rows.append({"library": "brax", "seed": seed, "environment_steps": int(steps), "return": mean})

    train_theirs(num_timesteps=TOTAL_STEPS, num_evals=FIFTHS + 1, num_eval_envs=EPISODES, seed=seed, progress_fn=note)
    return rows


def our_round(**network: Any) -> tuple[Callable[[], None], int]:
    """(`ROLLOUTS` rollouts of training, which go on from those of the call before; weights of the network)."""
    config = our_config(**network)
    agent = build_agent(config)
    box = [init_state(agent, config, key=jax.random.key(0))]

    @jax.jit
    def train(state: Any) -> Any:
        return jax.lax.scan(lambda state, _: (agent.step(state)[0], None), state, length=ROLLOUTS)[0]

    def call() -> None:
        box[0] = jax.block_until_ready(train(box[0]))

    return call, num_weights(box[0].learner.params)


def num_weights(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def speed(repeats: int = 21) -> list[Row]:
    """Training alone, one seed: ours train in the calls that Brax's trainer makes after each of its own rounds.

    Brax compiles anew in every `ppo.train`, so all of its rounds are in a single one, and its rate is the one that it
    reports of a round, which leaves out all else. Its first two rounds compile; the first two of all are not counted.
    """
    programs = {"gradweave": our_round(), "gradweave, layers of Brax": our_round(**THEIR_NETWORK)}
    rows: list[Row] = []

    def turn(steps: int, metrics: Any) -> None:
        repeat = steps // (ROLLOUTS * ROLLOUT_STEPS) - UNCOUNTED
        rates = {"brax": float(metrics["training/sps"])}
        for library, (program, _) in programs.items():
            begun = time.perf_counter()
            program()
            rates[library] = ROLLOUTS * ROLLOUT_STEPS / (time.perf_counter() - begun)
        for library, rate in rates.items() if repeat > 0 else ():
            rows.append({"game": TASK, "library": library, "repeat": repeat, "steps_per_second": round(rate)})

    rounds = repeats + UNCOUNTED
    trained = train_theirs(
        num_timesteps=rounds * ROLLOUTS * ROLLOUT_STEPS, num_evals=rounds + 1, run_evals=False, progress_fn=turn
    )
    weights = {"brax": num_weights(trained[1][1:]), **{library: count for library, (_, count) in programs.items()}}
    print(f"weights: {weights}", file=sys.stderr, flush=True)
    if weights["brax"] != weights["gradweave, layers of Brax"]:
        raise RuntimeError(f"the layers are not those of Brax: {weights} weights")
    return rows


def write(path: Path, rows: Sequence[Row], source: Mapping[str, Any], **told: Any) -> None:
    write_rows(path, rows)
    libraries = {name: version(name) for name in ("jax", "brax", "jax-envelope")}
    settings = {"task": TASK, "reward_scale": REWARD_SCALE, "episode_steps": EPISODE_STEPS, **SETTINGS}
    about = {**source, "device": "CPU", "libraries": libraries, "settings": settings, **told}
    path.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=("returns", "speed"))
    parser.add_argument("--results", type=Path, required=True)
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    source, begun = current_source(), time.monotonic()
    if "returns" in options.parts:
        rows = our_returns()
        print(f"gradweave: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        for seed in SEEDS:
            rows += their_returns(seed)
            print(f"Brax, seed {seed}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        write(options.results / "physics.csv", rows, source)
    if "speed" in options.parts:
        rows = speed()
        repeats = max(row["repeat"] for row in rows)
        write(options.results / "speed.csv", rows, source, repeats=repeats, their_network=THEIR_NETWORK)


if __name__ == "__main__":
    main()
