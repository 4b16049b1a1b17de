"""Starting and continuing runs: JAX is imported here, after everything that can be refused has been refused."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gradweave.training.config import Config
from gradweave.training.errors import ConfigError
from gradweave.training.progress import Progress
from gradweave.training.run_folder import RunFolder
from gradweave.training.validation import validate

if TYPE_CHECKING:  # imports JAX
    from gradweave.training.devices import Devices
    from gradweave.training.loop import Summary

__all__ = ["launch", "run_or_continue", "start_jax"]


def start_jax(config: Config) -> "Devices":
    """Imports JAX and finds the devices to compute on; what it does once for a process is not done again.

    Raises:
        ConfigError: there are fewer devices than `config.run.devices` asks for.
    """
    from gradweave.training.devices import check_splittable, find_devices, offer_cpu_devices
    from gradweave.training.runtime import enable_compilation_cache

    offer_cpu_devices(config.run.devices)
    enable_compilation_cache()
    devices = find_devices(config)
    check_splittable(config, devices)
    return devices


def launch(folder: RunFolder, *, resume: bool) -> "Summary":
    """Imports JAX and the loop, and trains in `folder` with a table on standard error.

    Raises:
        GradweaveError: as `gradweave.training.loop.train`.
    """
    config = folder.config
    with Progress(config.learned_names, config.run.total_steps) as progress:
        progress.message(f"run folder: {folder.path}")
        with progress.compiling("starting JAX"):
            devices = start_jax(config)
            from gradweave.training.loop import train
            from gradweave.training.runtime import describe_devices

            folder.add_provenance(describe_devices(devices.total))
        return train(config, folder, progress, resume=resume, devices=devices)


def run_or_continue(config: Config, argv: Sequence[str] = ()) -> "tuple[Path, Summary]":
    """Brings the one run in `config.run.runs_dir` to its end: starts it, continues it, or finds it finished.

    For experiments: called again with the same configuration it picks up where it was stopped, and it lengthens a run
    whose `total_steps` has grown.

    Args:
        config: checked here; its `runs_dir` must hold this run and no other.
        argv: what to note in provenance.json as the command line.

    Returns:
        The run's folder and how it ended.

    Raises:
        ConfigError: the folder holds several runs, or one of another configuration.
    """
    validate(config)
    found = sorted(path.parent for path in Path(config.run.runs_dir).glob("*/config.toml"))
    if len(found) > 1:
        raise ConfigError("run.runs_dir", config.run.runs_dir, "a folder with at most one run", "use another folder")
    if not found:
        with RunFolder.create(config, argv) as folder:
            return folder.path, launch(folder, resume=False)
    with RunFolder.open(found[0]) as folder:
        # A longer run is the same run, and so is one whose folder was moved, or that goes on with other devices.
        run = dataclasses.replace(
            folder.config.run,
            total_steps=config.run.total_steps,
            runs_dir=config.run.runs_dir,
            devices=config.run.devices,
        )
        if dataclasses.replace(folder.config, run=run) != config:
            raise ConfigError(
                "run.runs_dir",
                config.run.runs_dir,
                "a folder whose run has this very configuration",
                "use another folder, or remove this one",
            )
        folder.set_config(config)
        return folder.path, launch(folder, resume=any(folder.checkpoints.glob("*.safetensors")))
