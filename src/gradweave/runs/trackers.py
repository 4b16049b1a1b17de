"""Sends metrics to TensorBoard, Weights & Biases or Trackio as well; each comes with the extra of its name.

metrics.jsonl is written in any case; a tracker is a copy for looking at. It is somebody else's program, so it lives in
a thread of its own: whatever it raises, however long it takes, the run goes on as if there were none. A thread does not
stop it from changing the process: `os._exit`, `os.chdir`, JAX's settings, the recursion limit, files that it closes.
"""

import importlib
import importlib.util
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from gradweave.config.schema import Config
from gradweave.config.toml_file import config_to_dict
from gradweave.errors import ConfigError
from gradweave.runs.metrics_writer import warn_on_stderr
from gradweave.runs.run_folder import run_name

__all__ = ["Tracker", "check_tracker", "make_tracker"]

_WAITING_ROWS: Final = 1000
_CLOSING_SECONDS: Final = 30.0
_MODULES: Final = {"tensorboard": "tensorboardX", "wandb": "wandb", "trackio": "trackio"}
_PACKAGES: Final = {"tensorboard": "tensorboardX>=2.6", "wandb": "wandb>=0.19", "trackio": "trackio>=0.2"}


@runtime_checkable
class Tracker(Protocol):
    """A receiver of rows of metrics."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Send one row; `step` is its abscissa, and only numbers are sent."""

    def close(self) -> None:
        """Send the remaining rows."""


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


def make_tracker(
    folder: Path | None, config: Config, warn: Callable[[str], None] = warn_on_stderr, *, patience: float | None = None
) -> Tracker:
    """The tracker that `config.run.track` names, for the run in `folder`; without a folder one that does nothing.

    It begins in a thread of its own. Where its package is missing, as on another machine, `warn` is told, and nothing
    is sent.

    Args:
        folder: the run's.
        config: of the run.
        warn: told, once, why the tracker was switched off, or that rows are left out because it falls behind.
        patience: seconds to wait for it in the end; by default half a minute.
    """
    name = "none" if folder is None else config.run.track
    if folder is None or name == "none":
        return _NoTracker()
    try:
        check_tracker(name)
    except ConfigError as error:
        warn(f"nothing is sent to {name}: {error.remedy}")
        return _NoTracker()
    return _Apart(name, lambda: _begin(name, folder, config), warn, _CLOSING_SECONDS if patience is None else patience)


def _begin(name: str, folder: Path, config: Config) -> Tracker:
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


class _Apart:
    """A tracker in a thread, which is given copies of rows and waited for only in the end, and not for long."""

    def __init__(self, name: str, begin: Callable[[], Tracker], warn: Callable[[str], None], patience: float) -> None:
        self._name, self._begin, self._warn, self._patience = name, begin, warn, patience
        self._rows: queue.Queue[Mapping[str, Any] | None] = queue.Queue(_WAITING_ROWS)
        self._off = threading.Event()
        self._behind = False
        self._thread = threading.Thread(target=self._run, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def log(self, row: Mapping[str, Any]) -> None:
        """Hand over a row's numbers; one for which there is no room is left out."""
        if self._off.is_set():
            return
        try:
            self._rows.put_nowait({"step": int(row["step"]), **_numbers(row)})
        except queue.Full:
            if not self._behind:
                self._behind = True
                self._warn(f"{self._name} falls behind, and rows are left out there; metrics.jsonl has every row")

    def close(self) -> None:
        """Wait until it has sent the remaining rows, but not for ever."""
        try:
            self._rows.put(None, timeout=self._patience)
        except queue.Full:
            pass
        else:
            self._thread.join(self._patience)
        if self._thread.is_alive():
            self._warn(f"{self._name} does not end, and is left behind; metrics.jsonl has every row")

    def _run(self) -> None:
        row: Mapping[str, Any] | None = {}
        try:
            tracker = self._begin()
            while (row := self._rows.get()) is not None:
                tracker.log(row)
            tracker.close()
        except BaseException as error:  # SystemExit, too: a tracker does not end the run
            self._off.set()
            what = f"{type(error).__name__}: {_words(error)}".rstrip(": ")
            self._warn(f"{self._name} is switched off ({what}); metrics.jsonl has every row")
            while row is not None:  # a thread that waits to put something in can go on
                row = self._rows.get()


def _words(error: BaseException) -> str:
    """What an exception says; nothing where it cannot even do that."""
    try:
        return f"{error!s:.200}"
    except BaseException:
        return ""


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
