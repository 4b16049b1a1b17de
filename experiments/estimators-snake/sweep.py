"""The demo's agent on Snake 12×12 with other estimators, and without tuning itself; three seeds each."""

import dataclasses

from gradweave.training.config import Config
from gradweave.training.presets import preset

SEEDS = (0, 1, 2)
TOTAL_STEPS = 500_000
ARMS = {
    "plain": {"learned": ()},
    "unrolled": {"estimator": "unrolled"},
    "window-mix": {"estimator": "window-mix"},
    "horizon-mix": {"estimator": "horizon-mix"},
    "adaptive-mix": {"estimator": "adaptive-mix"},
}
"""What differs from the `quick` preset's meta-gradient; all arms start from the same poor hyper-parameters."""


def configuration(arm: str, seed: int, runs_dir: str, total_steps: int = TOTAL_STEPS) -> Config:
    """The `quick` preset with the arm's meta-gradient, evaluated on 128 episodes at the end."""
    base = preset("quick")
    run = dataclasses.replace(
        base.run, seed=seed, runs_dir=runs_dir, total_steps=total_steps, evaluation_episodes=128, evaluate_every=0
    )
    return dataclasses.replace(base, meta=dataclasses.replace(base.meta, **ARMS[arm]), run=run)
