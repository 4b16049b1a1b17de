"""Starting and continuing runs: JAX is imported here, after everything that can be refused has been refused."""

import contextlib
import dataclasses
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gradweave.config.schema import Config, NumDevices
from gradweave.config.toml_file import config_from_dict, format_config, read_config, typed
from gradweave.config.validation import validate
from gradweave.envs.own import class_reference
from gradweave.errors import ConfigError, command_line
from gradweave.runs.locks import lock_folder
from gradweave.runs.progress import Progress
from gradweave.runs.run_folder import RunFolder, make_runs_dir, newest_checkpoint
from gradweave.training.follower import NoFolder
from gradweave.training.hosts import ALONE, Hosts, check_same, join, share, together

if TYPE_CHECKING:  # imports JAX
    from gradweave.training.devices import Devices
    from gradweave.training.loop import Summary

__all__ = ["check_own_classes", "launch", "run_or_continue", "start_jax"]


def start_jax(num_devices: NumDevices, hosts: Hosts = ALONE) -> "Devices":
    """Import JAX, join the run's other processes, and find devices.

    Raises:
        ConfigError: there are fewer devices.
        HostLost: the other processes were not there in time.
    """
    join(hosts)
    from gradweave.training.devices import find_devices
    from gradweave.training.runtime import enable_compilation_cache

    enable_compilation_cache()
    return find_devices(num_devices)


@contextlib.contextmanager
def launch(
    open_folder: Callable[[], RunFolder],
    *,
    resume: bool | None = None,
    config: Config | None = None,
    num_devices: NumDevices = 1,
    hosts: Hosts = ALONE,
    quiet: bool = False,
) -> "Iterator[tuple[RunFolder | NoFolder, Summary]]":
    """A run's folder and how training in it ended; every run is started here. The folder is locked until the end.

    Args:
        open_folder: makes or opens it; called by process 0 alone.
        resume: go on from the newest checkpoint; None, of one process alone: if there is one.
        config: of a run that has no folder yet; mistakes that take JAX to find are then found before there is one.
        num_devices: of each of several processes, where `config` does not say it.
        hosts: the processes that share the run.
        quiet: show nothing on standard error.

    Raises:
        ConfigError: there are fewer devices, or the environments cannot be split over them or made at all.
        KeyboardInterrupt: interrupted; it says how to go on.
        GradweaveError: as `open_folder`, in every process, and `gradweave.training.loop.train`.
        HostLost: another process of the run is gone.
    """
    devices = None
    if config is not None:
        devices = _devices_before_the_folder(config, hosts)
    elif hosts.several:
        devices = start_jax(num_devices, hosts)
    with _open_together(open_folder, hosts) as folder:
        if config is None and devices is not None:
            devices = devices.checked(folder.config)
        if resume is None:
            assert isinstance(folder, RunFolder)
            resume = any(folder.checkpoints.glob("*.safetensors"))
        try:
            summary = _trained(folder, resume=resume, hosts=hosts, devices=devices, quiet=quiet)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("" if isinstance(folder, NoFolder) else _how_to_go_on(folder)) from None
        yield folder, summary


def run_or_continue(config: Config, argv: Sequence[str] = ()) -> "tuple[Path, Summary]":
    """Bring the one run in `config.run.runs_dir` to its end: start it, continue it, or find it finished.

    For experiments: called again with the same configuration it picks up where it was stopped, and it lengthens a run
    whose `total_steps` has grown.

    Args:
        config: checked here; its `runs_dir` must hold this run and no other.
        argv: the command line for provenance.json.

    Returns:
        The run's folder and how it ended.

    Raises:
        ConfigError: the folder holds several runs, or one of another configuration.
        RunInUse: another process has the run.
    """
    config = typed(config)
    validate(config)
    with launch(lambda: _only_run(config, argv)) as (folder, summary):
        assert isinstance(folder, RunFolder)
        return folder.path, summary


def _devices_before_the_folder(config: Config, hosts: Hosts) -> "Devices | None":
    """The devices of a new run where JAX has to be asked what can go wrong; None where nothing can."""
    if not (hosts.several or _names_own_class(config) or config.run.devices != 1):
        return None
    devices = start_jax(config.run.devices, hosts)
    check_own_classes(config)
    devices = devices.checked(config)
    if hosts.several:
        check_same(format_config(config))
    return devices


def check_own_classes(config: Config) -> None:
    """Make the environment and the tuners once where one is a class of the user's; imports JAX there.

    Raises:
        ConfigError: one cannot be made.
    """
    if not _names_own_class(config):
        return
    from gradweave.training.build import configured_environment
    from gradweave.training.tuners import configured_tuners

    configured_environment(config)
    configured_tuners(config)


def _names_own_class(config: Config) -> bool:
    """Whether the environment or a tuner is a class of the user's."""
    tuners = config.tuners.values()
    return class_reference(config.environment.name) is not None or any(spec.row.own for spec in tuners)


def _open_together(open_folder: Callable[[], RunFolder], hosts: Hosts) -> RunFolder | NoFolder:
    """The run's folder, opened by process 0; the other processes are told its configuration.

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


def _trained(
    folder: RunFolder | NoFolder, *, resume: bool, hosts: Hosts, devices: "Devices | None", quiet: bool
) -> "Summary":
    """Import JAX, if nothing had to before, and the loop, and train with a table on standard error."""
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
                devices = start_jax(config.run.devices).checked(config)
            from gradweave.training.loop import train
            from gradweave.training.memory import explaining
            from gradweave.training.runtime import describe_devices

            folder.add_provenance(describe_devices(devices.total))
        with together() if hosts.several else contextlib.nullcontext(), explaining():
            return train(config, folder, progress, resume=resume, devices=devices)


def _only_run(config: Config, argv: Sequence[str]) -> RunFolder:
    """The folder of the one run in `config.run.runs_dir`, made if there is none, with the configuration as it is now.

    A longer run is the same run, and so is one whose folder was moved, or that goes on with other devices.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_found_or_made(config, argv))
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
        folder.config = config
        stack.pop_all()  # from here on whoever opened it closes it
    return folder


def _found_or_made(config: Config, argv: Sequence[str]) -> RunFolder:
    """The folder of the one run in `config.run.runs_dir`."""
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


def _how_to_go_on(folder: RunFolder) -> str:
    """Of a run that was interrupted: where the newest checkpoint is, and the command that goes on from it."""
    checkpoint = newest_checkpoint(folder.path)
    if checkpoint is None:
        return f"there is no checkpoint in {folder.checkpoints} yet; train again"
    saved, wanted = (vars(config.run) for config in (read_config(folder.path / "config.toml"), folder.config))
    given = {"--total-steps": "total_steps", "--devices": "devices", "--track": "track"}
    changed = {flag: wanted[name] for flag, name in given.items() if saved[name] != wanted[name]}  # not written yet
    again = command_line("resume", folder.path, *(word for pair in changed.items() for word in pair))
    return f"the checkpoint is {checkpoint}; go on with: {again}"
