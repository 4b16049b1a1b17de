"""`gradweave resume RUN`: go on with a run from its newest checkpoint that verifies; with all unfinished ones where
RUN holds several seeds or a sweep.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from gradweave.cli.one_run import run_loop
from gradweave.cli.seeds import refuse_hosts
from gradweave.config.schema import NumDevices
from gradweave.config.validation import validate
from gradweave.errors import CheckpointError
from gradweave.runs.run_folder import RunFolder, check_longer, checkpoint_steps
from gradweave.runs.seeds_folder import is_seeds_folder
from gradweave.runs.sweep_folder import is_sweep_folder
from gradweave.training.hosts import ALONE, Hosts, check_hosts
from gradweave.training.launch import choose_devices, open_together, start_jax

__all__ = ["run"]


@dataclass(frozen=True)
class _Flags:
    """The flags of `gradweave resume`."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run's folder, or that of several seeds, or of a sweep."""
    total_steps: int | None = None
    """Environment steps of the whole run, to go on for longer than was planned."""
    devices: NumDevices | None = None
    """Devices of each process to go on with; all: as many as there are. Left out: as many as before, or with several
    processes 1."""
    accept_changes: bool = False
    """Go on also where config.toml was edited since the newest checkpoint; provenance.json then says so."""
    hosts: Annotated[Hosts, tyro.conf.arg(name="")] = ALONE


def run(argv: Sequence[str]) -> int:
    """Resume; returns the exit code."""
    flags = tyro.cli(
        _Flags,
        prog="gradweave resume",
        description="Go on with a run from its newest checkpoint, as if it had never stopped.",
        args=list(argv),
    )
    check_hosts(flags.hosts)
    if is_seeds_folder(flags.run):
        from gradweave.cli.seeds import resume_seeds

        refuse_hosts(flags.hosts)
        changes = {"total_steps": flags.total_steps, "devices": flags.devices}
        return resume_seeds(flags.run, changes, accept_changes=flags.accept_changes)
    if is_sweep_folder(flags.run):
        from gradweave.cli.sweep import resume_sweep

        refuse_hosts(flags.hosts)
        accepts = flags.accept_changes or None
        changes = {"total_steps": flags.total_steps, "devices": flags.devices, "accept_changes": accepts}
        return resume_sweep(flags.run, changes)
    several = flags.hosts.several
    # Only process 0 can look into the folder, so that with several processes the flag decides for all.
    num_devices = 1 if several and flags.devices is None else flags.devices
    if several:
        start_jax(num_devices or 1, flags.hosts)
    with open_together(lambda: _open(flags, num_devices), flags.hosts) as folder:
        devices = choose_devices(folder.config) if several else None
        run_loop(folder, resume=True, hosts=flags.hosts, devices=devices)
    return 0


def _open(flags: _Flags, num_devices: NumDevices | None) -> RunFolder:
    """The run's folder, with the configuration to go on with.

    Raises:
        ConfigError: there is no run, or it cannot go on like this.
        CheckpointError: it has no checkpoint.
    """
    folder = RunFolder.open(flags.run, accept_changes=flags.accept_changes)
    try:
        changes: dict[str, Any] = {"total_steps": flags.total_steps, "devices": num_devices}
        changes = {name: value for name, value in changes.items() if value is not None}
        config = dataclasses.replace(folder.config, run=dataclasses.replace(folder.config.run, **changes))
        validate(config, num_processes=flags.hosts.num_processes or 1)
        steps = checkpoint_steps(folder.path)
        if not steps:
            raise CheckpointError(f"there is no checkpoint in {folder.checkpoints}; start again with `gradweave train`")
        if flags.total_steps is not None:
            check_longer(folder.path, flags.total_steps)
        if config != folder.config:
            folder.set_config(config)
    except BaseException:
        folder.close()
        raise
    return folder
