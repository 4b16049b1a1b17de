"""`gradweave resume RUN`: go on with a run from its newest checkpoint that verifies."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from gradweave.cli.train import run_loop
from gradweave.training.config import NumDevices
from gradweave.training.errors import CheckpointError
from gradweave.training.run_folder import RunFolder
from gradweave.training.validation import validate

__all__ = ["run"]


@dataclass(frozen=True)
class _Flags:
    """The flags of `gradweave resume`."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    total_steps: int | None = None
    """Environment steps of the whole run, to go on for longer than was planned."""
    devices: NumDevices | None = None
    """Devices of each process to go on with, if not as many as before; all: as many as there are."""


def run(argv: Sequence[str]) -> int:
    """Resume; returns the exit code."""
    flags = tyro.cli(
        _Flags,
        prog="gradweave resume",
        description="Go on with a run from its newest checkpoint, as if it had never stopped.",
        args=list(argv),
    )
    with RunFolder.open(flags.run) as folder:
        config = folder.config
        changes: dict[str, Any] = {"total_steps": flags.total_steps, "devices": flags.devices}
        changes = {name: value for name, value in changes.items() if value is not None}
        config = dataclasses.replace(config, run=dataclasses.replace(config.run, **changes))
        validate(config)
        if not any(folder.checkpoints.glob("*.safetensors")):
            raise CheckpointError(f"there is no checkpoint in {folder.checkpoints}; start again with `gradweave train`")
        if config != folder.config:
            folder.set_config(config)
        run_loop(folder, resume=True)
    return 0
