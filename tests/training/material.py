"""Material for these tests: a small run, how to train it without a table, and what to compare afterwards."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gradweave.config.presets import preset
from gradweave.config.schema import Config
from gradweave.runs.progress import Progress
from gradweave.runs.run_folder import RunFolder
from gradweave.training.devices import DEFAULT_DEVICE, Devices
from gradweave.training.loop import Summary, train

NUM_ENVS, NUM_STEPS, LENGTH, CHUNK = 4, 5, 2, 3
WINDOW = NUM_ENVS * NUM_STEPS * LENGTH


def small(tmp_path: Path, num_chunks: int = 4, *, normalize_observations: bool = False, **meta: Any) -> Config:
    """A run of seconds on the discounting chain."""
    config = preset("discounting-chain")
    return dataclasses.replace(
        config,
        inner=dataclasses.replace(
            config.inner, num_envs=NUM_ENVS, num_steps=NUM_STEPS, normalize_observations=normalize_observations
        ),
        meta=dataclasses.replace(config.meta, num_inner_steps=LENGTH, **meta),
        network=dataclasses.replace(config.network, policy_layers=(8,), value_layers=(8,)),
        run=dataclasses.replace(
            config.run,
            total_steps=num_chunks * CHUNK * WINDOW,
            chunk_size=CHUNK,
            checkpoint_every=CHUNK * WINDOW,
            evaluate_every=0,
            evaluation_episodes=3,
            max_episode_steps=120,
            runs_dir=str(tmp_path),
        ),
    )


def run(config: Config, folder: RunFolder, *, resume: bool = False, devices: Devices = DEFAULT_DEVICE) -> Summary:
    """Trains, and shows nothing."""
    with open(os.devnull, "w") as nowhere, Progress(config.meta.learned, 1, stream=nowhere) as progress:
        return train(config, folder, progress, resume=resume, devices=devices)


def leaves(state: Any) -> list[np.ndarray[Any, Any]]:
    """Every array of a state, keys as numbers."""
    keyless = jax.tree.map(lambda leaf: jax.random.key_data(leaf) if leaf.dtype == state.key.dtype else leaf, state)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(keyless)]
