"""The demo's agent at length: three seeds of the `quick` preset, up to four million environment steps each."""

import dataclasses

from gradweave.config.presets import preset
from gradweave.config.schema import Config

SEEDS = (0, 1, 2)
TOTAL_STEPS = 4_000_000


def configuration(seed: int, runs_dir: str, total_steps: int = TOTAL_STEPS) -> Config:
    """The `quick` preset, longer, evaluated on 128 episodes every 200,000 steps."""
    base = preset("quick")
    run = dataclasses.replace(
        base.run, seed=seed, runs_dir=runs_dir, total_steps=total_steps, evaluation_episodes=128, evaluate_every=200_000
    )
    return dataclasses.replace(base, run=run)
