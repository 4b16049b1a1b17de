"""`gradweave resume RUN`: go on with a run from its newest checkpoint that verifies; with all unfinished ones where
RUN holds several seeds, a sweep or a comparison.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gradweave.api.training import open_to_resume, train_in
from gradweave.cli.flags import parse_flags
from gradweave.cli.seeds import refuse_hosts
from gradweave.config.schema import NumDevices, Tracker
from gradweave.runs.comparison_folder import is_comparison_folder
from gradweave.runs.seeds_folder import is_seeds_folder
from gradweave.runs.sweep_folder import is_sweep_folder
from gradweave.training.hosts import ALONE, Hosts, check_hosts
from gradweave.training.launch import launch

__all__ = ["run"]


@dataclass(frozen=True)
class _Flags:
    """The flags of `gradweave resume`."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run's folder, or that of several seeds, or of a sweep or a comparison."""
    total_steps: int | None = None
    """Environment steps of the whole run, to go on for longer than was planned."""
    devices: NumDevices | None = None
    """Devices of each process to go on with; all: as many as there are. Left out: as many as before, or with several
    processes 1."""
    track: Tracker | None = None
    """Send metrics to another tracker than before, or to none."""
    accept_changes: bool = False
    """Go on also where config.toml was edited since the newest checkpoint; provenance.json then says so."""
    hosts: Annotated[Hosts, tyro.conf.arg(name="")] = ALONE


def run(argv: Sequence[str]) -> int:
    """Resume; returns the exit code."""
    flags = parse_flags(
        _Flags,
        "gradweave resume",
        "Go on with a run from its newest checkpoint, as if it had never stopped.",
        argv,
    )
    check_hosts(flags.hosts)
    if is_seeds_folder(flags.run):
        from gradweave.cli.seeds import resume_seeds

        refuse_hosts(flags.hosts)
        changes = {"total_steps": flags.total_steps, "devices": flags.devices, "track": flags.track}
        return resume_seeds(flags.run, changes, accept_changes=flags.accept_changes)
    if is_sweep_folder(flags.run):
        from gradweave.cli.sweep import resume_sweep

        refuse_hosts(flags.hosts)
        accepts = flags.accept_changes or None
        changes = {"total_steps": flags.total_steps, "devices": flags.devices, "accept_changes": accepts}
        changes["track"] = flags.track
        return resume_sweep(flags.run, changes)
    if is_comparison_folder(flags.run):
        from gradweave.cli.compare import resume_comparison

        refuse_hosts(flags.hosts)
        changes = {"total_steps": flags.total_steps, "devices": flags.devices, "track": flags.track}
        return resume_comparison(flags.run, {**changes, "accept_changes": flags.accept_changes or None})
    several = flags.hosts.several
    # Only process 0 can look into the folder, so that with several processes the flag decides for all.
    num_devices = 1 if several and flags.devices is None else flags.devices
    started = launch(
        lambda: open_to_resume(
            flags.run,
            flags.total_steps,
            num_devices,
            flags.track,
            accept_changes=flags.accept_changes,
            num_processes=flags.hosts.num_processes or 1,
        ),
        resume=True,
        num_devices=num_devices or 1,
        hosts=flags.hosts,
    )
    trained = train_in(started)
    if trained is not None:  # only process 0 has something to say
        print(trained.summary)
    return 0
