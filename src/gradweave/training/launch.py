"""Starting and continuing runs: JAX is imported here, after everything that can be refused has been refused."""

import contextlib
import dataclasses
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gradweave.config.schema import Config, NumDevices
from gradweave.config.toml_file import config_from_dict, format_config
from gradweave.config.validation import validate
from gradweave.errors import ConfigError
from gradweave.runs.locks import lock_folder
from gradweave.runs.progress import Progress
from gradweave.runs.run_folder import RunFolder, make_runs_dir
from gradweave.training.follower import NoFolder
from gradweave.training.hosts import ALONE, Hosts, join, share, together

if TYPE_CHECKING:  # imports JAX
    from gradweave.training.devices import Devices
    from gradweave.training.loop import Summary

__all__ = ["choose_devices", "launch", "open_together", "run_or_continue", "start_jax"]


def start_jax(num_devices: NumDevices, hosts: Hosts = ALONE) -> None:
    """Imports JAX, joins the run's other processes, and settles what has to be settled before JAX looks for devices."""
    join(hosts)
    from gradweave.training.devices import offer_cpu_devices
    from gradweave.training.runtime import enable_compilation_cache

    offer_cpu_devices(num_devices)
    enable_compilation_cache()


def choose_devices(config: Config) -> "Devices":
    """The devices to compute on; JAX has been started.

    Raises:
        ConfigError: there are fewer than `config.run.devices`, or the environments cannot be split over them.
    """
    from gradweave.training.devices import check_splittable, find_devices

    devices = find_devices(config)
    check_splittable(config, devices)
    return devices


def open_together(open_folder: Callable[[], RunFolder], hosts: Hosts) -> RunFolder | NoFolder:
    """The run's folder, opened by process 0; the other processes are told what configuration it has.

    Raises:
        GradweaveError: it cannot be opened; in every process.
    """
    if not hosts.several:
        return open_folder()
    opened: list[RunFolder] = []

    def produce() -> bytes:
        opened.append(open_folder())
        return format_config(opened[0].config).encode()

    text = share(produce).decode()
    return opened[0] if opened else NoFolder(config_from_dict(tomllib.loads(text)))


def launch(
    folder: RunFolder | NoFolder,
    *,
    resume: bool,
    hosts: Hosts = ALONE,
    devices: "Devices | None" = None,
    quiet: bool = False,
) -> "Summary":
    """Imports JAX and the loop, and trains in `folder` with a table on standard error.

    Args:
        folder: where, with the configuration.
        resume: go on from the newest checkpoint.
        hosts: the processes that share the run.
        devices: from `choose_devices`, if JAX has been started; None: start it.
        quiet: show nothing.

    Raises:
        GradweaveError: as `gradweave.training.loop.train`.
        HostLost: another process of the run is gone.
    """
    config = folder.config
    with contextlib.ExitStack() as stack:
        progress = Progress(config.moving_names, config.run.total_steps)
        if isinstance(folder, RunFolder) and not quiet:  # only process 0 shows anything
            stack.enter_context(progress)
        progress.message(f"run folder: {folder.path}")
        if config.planned_steps > 1.05 * config.run.total_steps:
            progress.message(
                f"{config.run.total_steps:,} steps are rounded up to {config.planned_steps:,}: a first rollout of "
                f"{config.inner.num_envs * config.inner.num_steps:,}, then whole chunks (--chunk-size "
                f"{config.run.chunk_size}) of windows of {config.window_steps:,} steps"
            )
        with progress.compiling("starting JAX"):
            if devices is None:
                start_jax(config.run.devices, hosts)
                devices = choose_devices(config)
            from gradweave.training.loop import train
            from gradweave.training.memory import explaining
            from gradweave.training.runtime import describe_devices

            folder.add_provenance(describe_devices(devices.total))
        with together() if hosts.several else contextlib.nullcontext(), explaining():
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
        RunInUse: another process has the run.
    """
    validate(config)
    with _only_run(config, argv) as folder:
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


def _only_run(config: Config, argv: Sequence[str]) -> RunFolder:
    """The folder of the one run in `config.run.runs_dir`, made if there is none."""
    runs_dir = make_runs_dir(config)
    with lock_folder(runs_dir):  # two that start at once would both find none
        found = sorted(path.parent for path in runs_dir.glob("*/config.toml"))
        if len(found) > 1:
            raise ConfigError(
                "run.runs_dir", config.run.runs_dir, "a folder with at most one run", "use another folder"
            )
        if found:
            return RunFolder.open(found[0], ["gradweave", *argv] if argv else None)
        return RunFolder.create(config, argv)
