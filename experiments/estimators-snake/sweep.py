"""The demo's agent as it was (outer critic on the policy's torso), with other estimators and without tuning itself."""

import dataclasses
from typing import Any

from gradweave.config.presets import preset
from gradweave.config.schema import Config

SEEDS = (0, 1, 2)
BEFORE: dict[str, Any] = {"network.outer_torso": "shared", "outer.value_cost": 0.5}
"""Defaults of that time: this study is why they were changed."""
TOTAL_STEPS = 1_200_000
ARMS: dict[str, dict[str, Any]] = {
    "plain": {"meta.learned": ()},
    "idle critic": {"meta.learned": (), "outer.critic": "on"},
    "unrolled": {"meta.estimator": "unrolled"},
    "window-mix": {"meta.estimator": "window-mix"},
    "horizon-mix": {"meta.estimator": "horizon-mix"},
    "adaptive-mix": {"meta.estimator": "adaptive-mix"},
}
"""Changes of the `quick` preset; all arms start from the same hyper-parameters. The idle critic is plain
learning with an outer critic that is trained and used by nobody: it shows the cost of the outer critic."""


def configuration(arm: str, seed: int, runs_dir: str, total_steps: int = TOTAL_STEPS) -> Config:
    """The `quick` preset with the arm's changes, evaluated on 128 episodes at the end."""
    base = preset("quick")
    run = dataclasses.replace(
        base.run, seed=seed, runs_dir=runs_dir, total_steps=total_steps, evaluation_episodes=128, evaluate_every=0
    )
    config = dataclasses.replace(base, run=run)
    for name, value in {**BEFORE, **ARMS[arm]}.items():
        section, field = name.split(".")
        config = dataclasses.replace(
            config, **{section: dataclasses.replace(getattr(config, section), **{field: value})}
        )
    return config
