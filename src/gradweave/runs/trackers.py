"""Sends metrics to TensorBoard, Weights & Biases or Trackio as well; each comes with the extra of its name.

metrics.jsonl is written in any case; a tracker is a copy for looking at.
"""

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from gradweave.config.schema import Config
from gradweave.config.toml_file import config_to_dict
from gradweave.errors import ConfigError
from gradweave.runs.run_folder import run_name

__all__ = ["Tracker", "check_tracker", "make_tracker"]

_MODULES: Final = {"tensorboard": "tensorboardX", "wandb": "wandb", "trackio": "trackio"}
_PACKAGES: Final = {"tensorboard": "tensorboardX>=2.6", "wandb": "wandb>=0.19", "trackio": "trackio>=0.2"}


@runtime_checkable
class Tracker(Protocol):
    """Where rows of metrics go."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Send one row; `step` is its abscissa, and what is no number is left out."""

    def close(self) -> None:
        """Send what is left."""


def check_tracker(name: str) -> None:
    """Raise, before anything is started, when the package that `name` needs is not installed.

    Raises:
        ConfigError: it is missing; the remedy names the extra.
    """
    if name != "none" and importlib.util.find_spec(_MODULES[name]) is None:
        raise ConfigError(
            "run.track",
            name,
            f"trackers that are installed; {name} needs the package {_MODULES[name]}",
            f'pip install "{_PACKAGES[name]}", or leave --track out',
        )


def make_tracker(folder: Path | None, config: Config) -> Tracker:
    """The tracker that `config.run.track` names, for the run in `folder`; without a folder one that does nothing."""
    name = "none" if folder is None else config.run.track
    check_tracker(name)
    if folder is None or name == "none":
        return _NoTracker()
    module = importlib.import_module(_MODULES[name])
    if name == "tensorboard":
        return _TensorBoardTracker(module.SummaryWriter(str(folder / "tensorboard")))
    settings = {"project": "gradweave", "name": run_name(folder), "config": config_to_dict(config)}
    if name == "wandb":
        settings |= {"dir": str(folder), "id": run_name(folder), "resume": "allow"}
    else:
        settings |= {"resume": "allow"}
    module.init(**settings)
    return _ModuleTracker(module)


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if name != "step" and _is_number(value)}


def _is_number(value: Any) -> bool:
    if value is None or isinstance(value, str | bool | Mapping | list | tuple):
        return False
    return getattr(value, "ndim", 0) == 0


class _NoTracker:
    """Sends nothing anywhere."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class _TensorBoardTracker:
    """Writes event files into the run's folder."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def log(self, row: Mapping[str, Any]) -> None:
        """Write one scalar a number."""
        for name, value in _numbers(row).items():
            self._writer.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class _ModuleTracker:
    """wandb, or trackio, which has the same functions."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def log(self, row: Mapping[str, Any]) -> None:
        """Send all numbers of the row."""
        self._module.log(_numbers(row), step=int(row["step"]))

    def close(self) -> None:
        """Finish the run there."""
        self._module.finish()
