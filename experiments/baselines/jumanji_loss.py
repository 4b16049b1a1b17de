"""Does anything but chance lie between our actor-critic and Jumanji's A2C on Snake 12x12? One program, two losses.

snake-losses.csv  fruits of 1000 steps of training over every fifth of 297,600 environment steps, and the mean return of
                  32 episodes after it, actions sampled, cut off at 500 steps; ten seeds, both losses

Everything is ours and the same for both: network, rollouts, optimiser, keys. One arm takes the library's gradient, the
other that of Jumanji's loss, written down once more with rlax and log-softmax. Needs rlax. Ninety seconds for both arms
of a seed on one core.

    python experiments/baselines/jumanji_loss.py --results results/baselines/jumanji
"""

import argparse
import functools
import json
import sys
import time
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jumanji_a2c import ENTROPY_COST, FIFTHS, GAMES, LAMBDA, VALUE_COST, our_config

from gradweave.agents import SelfTuning
from gradweave.core import GradientLearner
from gradweave.measurement.sample_store import current_source
from gradweave.reports.tables import read_rows, write_rows
from gradweave.training.build import build_agent, init_state
from gradweave.training.evaluation import evaluate

GAME = GAMES["snake"]
UPDATES = 186  # of a fifth
EPISODE_STEPS = 500
SEEDS = range(100, 110)
LOSSES = ("gradweave", "jumanji")


def jumanji_loss(params: Any, batch: Any) -> jax.Array:
    """The loss of `A2CAgent.a2c_loss` in Jumanji 1.1.2 on one of our batches."""
    import rlax

    trajectory = batch.trajectory
    outputs = jax.vmap(jax.vmap(lambda observation: params(observation)))(trajectory.observations)
    mask = trajectory.observations.action_mask[:-1]
    logits = jnp.where(mask, outputs.logits[:-1], jnp.finfo(jnp.float32).min)
    discounts = GAME.discount * (1.0 - trajectory.terminations)
    td_lambda = functools.partial(rlax.td_lambda, lambda_=LAMBDA, stop_target_gradients=True)
    values = outputs.value
    advantages = jax.vmap(td_lambda, 1, 1)(values[:-1], trajectory.rewards, discounts, values[1:])
    log_probs = jax.nn.log_softmax(logits)
    taken = jnp.take_along_axis(log_probs, trajectory.actions[..., None], -1)[..., 0]
    entropy = -jnp.sum(jnp.exp(log_probs) * jnp.where(log_probs > -1e30, log_probs, 0.0), -1).mean()
    policy = -jnp.mean(jax.lax.stop_gradient(advantages) * taken)
    return policy + VALUE_COST * jnp.mean(advantages**2) - ENTROPY_COST * entropy


def run(agent: SelfTuning, loss: str, seed: jax.Array) -> Any:
    """(mean reward of a step, mean return afterwards) of every fifth."""
    learner = cast(GradientLearner, agent.problem)

    def update(state: Any, _: None) -> tuple[Any, jax.Array]:
        eta, before = agent.eta(state.raw), state.learner
        if loss == "gradweave":
            gradient = learner.inner_gradient(before, eta, state.batch)[0]
        else:
            gradient = jax.grad(jumanji_loss)(before.params, state.batch)
        after = learner.apply_gradient(gradient, before, eta)
        key, rollout_key = jax.random.split(state.key)
        rollout, batch, _ = agent.collect(after.params, state.raw, state.rollout, key=rollout_key)
        state = state._replace(learner=after, rollout=rollout, batch=batch, key=key)
        return state, batch.trajectory.rewards.mean()

    def fifth(state: Any, _: None) -> Any:
        state, rewards = jax.lax.scan(update, state, length=UPDATES)
        key = jax.random.fold_in(state.key, 0x5EED)
        played = evaluate(
            agent,
            state.learner.params,
            state.raw,
            key=key,
            greedy=False,
            num_episodes=GAME.episodes,
            max_steps=EPISODE_STEPS,
        )
        return state, (rewards.mean(), played.returns.mean())

    state = init_state(agent, our_config(GAME), key=jax.random.key(seed))
    return jax.lax.scan(fifth, state, length=FIFTHS)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    options = parser.parse_args()
    file = options.results / "snake-losses.csv"
    rows: list[dict[str, Any]] = [*read_rows(file)] if file.exists() else []
    done = {(row["loss"], int(row["seed"])) for row in rows}
    agent = build_agent(our_config(GAME))
    programs = {loss: jax.jit(functools.partial(run, agent, loss)) for loss in LOSSES}
    for seed in options.seeds:
        for loss in LOSSES:
            if (loss, seed) in done:
                continue
            begun = time.monotonic()
            found = zip(*map(np.asarray, programs[loss](seed)), strict=True)
            rows += [
                {
                    "loss": loss,
                    "seed": seed,
                    "environment_steps": (1 + UPDATES * (number + 1)) * GAME.num_envs * GAME.num_steps,
                    "fruits_of_1000_steps": round(1000 * float(reward), 2),
                    "return": round(float(played), 1),
                }
                for number, (reward, played) in enumerate(found)
            ]
            write_rows(file, rows)
            print(f"{loss}, seed {seed}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    settings = GAME._replace(updates_of_a_fifth=UPDATES, episode_steps=EPISODE_STEPS)._asdict()
    about = {**current_source(), "device": "CPU", "settings": settings}
    (options.results / "snake-losses.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
