"""A run's folder: configuration, provenance, metrics and checkpoints, held by one process at a time.

    runs/<preset>-<utc time>-<4 random letters>/
      config.toml  provenance.json  metrics.jsonl  checkpoints/  figures/  lock

The lock is an flock on the file `lock`: the system frees it when the process ends, however it ends.
"""

import contextlib
import fcntl
import json
import os
import secrets
import string
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TextIO

from gradweave.training.config import Config
from gradweave.training.config_file import format_config, read_config
from gradweave.training.errors import CheckpointError, ConfigError, RunInUse, nearest_name
from gradweave.training.files import write_atomically
from gradweave.training.metrics import MetricsWriter
from gradweave.training.provenance import collect_provenance

if TYPE_CHECKING:  # imports JAX, which bad configurations must not wait for
    import gradweave.training.checkpoints

__all__ = ["SEEDS_FILE", "RunFolder", "find_run", "lock_folder", "new_name"]

SEEDS_FILE: Final = "seeds.json"
"""What marks a folder of several seeds' runs: see `gradweave.training.seeds`."""


class RunFolder:
    """A run's folder, locked unless it is only looked at. Use as a context manager, or call `close`."""

    def __init__(self, path: Path, config: Config, lock: TextIO | None) -> None:
        """Use `RunFolder.create`, `RunFolder.open` or `RunFolder.view`."""
        self.path = path
        self.config = config
        self._lock = lock
        self._metrics = None if lock is None else MetricsWriter(path / "metrics.jsonl")

    @classmethod
    def create(cls, config: Config, argv: Sequence[str] = (), name: str | None = None) -> "RunFolder":
        """Make a new folder in `config.run.runs_dir`, with config.toml and provenance.json in it.

        Args:
            config: of the run.
            argv: what to note in provenance.json as the command line.
            name: the folder's; by default made of preset, time and letters.

        Raises:
            ConfigError: the folder cannot be made there.
        """
        runs_dir = Path(config.run.runs_dir)
        path = runs_dir / (name or new_name(config))
        try:
            runs_dir.mkdir(parents=True, exist_ok=True)
            path.mkdir()
            for name in ("checkpoints", "figures"):
                (path / name).mkdir()
        except OSError as error:
            raise ConfigError(
                "run.runs_dir",
                config.run.runs_dir,
                f"a folder to write in ({error.strerror})",
                "choose another --runs-dir",
            ) from None
        lock = lock_folder(path)
        write_atomically(path / "config.toml", format_config(config))
        folder = cls(path, config, lock)
        folder.add_provenance(collect_provenance(config, argv))
        return folder

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Open the folder of an earlier run, to go on with it.

        Raises:
            ConfigError: there is no run, or its config.toml is bad.
            RunInUse: another process has it.
        """
        path = find_run(path)
        return cls(path, read_config(path / "config.toml"), lock_folder(path))

    @classmethod
    def view(cls, path: Path) -> "RunFolder":
        """Look at a run, also while another process goes on with it: nothing is locked, metrics stay as they are.

        Raises:
            ConfigError: there is no run, or its config.toml is bad.
        """
        path = find_run(path)
        return cls(path, read_config(path / "config.toml"), None)

    @property
    def metrics(self) -> MetricsWriter:
        """Where rows of metrics are written.

        Raises:
            ValueError: the run is only looked at.
        """
        if self._metrics is None:
            raise ValueError(f"{self.path} is only looked at; use RunFolder.open to write to it")
        return self._metrics

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        """The folder of the figures."""
        return self.path / "figures"

    def set_config(self, config: Config) -> None:
        """Replace config.toml, for a run that is to go on with other values."""
        write_atomically(self.path / "config.toml", format_config(config))
        self.config = config

    def add_provenance(self, entries: Mapping[str, Any]) -> None:
        """Add entries to provenance.json, such as the devices once JAX is up; an entry of the same name is replaced."""
        path = self.path / "provenance.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        write_atomically(path, json.dumps({**known, **entries}, indent=2, ensure_ascii=False) + "\n")

    def save_checkpoint(self, tree: Any, step: int, metadata: Mapping[str, Any] | None = None) -> Path:
        """Write a checkpoint of `step`, every row of metrics before it, and delete what is too old to keep.

        Raises:
            CheckpointError: it could not be written; the checkpoints before it are intact.
        """
        from gradweave.training.checkpoints import checkpoint_path, prune, save

        path = checkpoint_path(self.checkpoints, step)
        try:
            self.metrics.sync()
            save(path, tree, step, metadata)
            prune(self.checkpoints, self.config.run.keep_checkpoints)
        except OSError as error:
            raise CheckpointError(f"{path.name} cannot be written ({error.strerror}); older ones are intact") from None
        return path

    def load_checkpoint(
        self, like: Any, warn: Callable[[str], None] = warnings.warn
    ) -> "gradweave.training.checkpoints.Checkpoint":
        """Load the newest checkpoint that verifies, and remove the rows of metrics that were written after it.

        Nothing is removed when the run is only looked at.

        Raises:
            CheckpointError: there is none, or it does not fit `like`.
        """
        from gradweave.training.checkpoints import latest, load

        checkpoint = load(latest(self.checkpoints, warn), like)
        if self._metrics is not None:
            self._metrics.truncate_after(checkpoint.step)
        return checkpoint

    def close(self) -> None:
        """Close the metrics and free the folder for other processes."""
        if self._metrics is not None:
            self._metrics.close()
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def new_name(config: Config) -> str:
    """A name for a new folder: preset, time and four random letters, as two runs may start in one second."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    letters = "".join(secrets.choice(string.ascii_lowercase) for _ in range(4))
    return f"{config.preset}-{stamp}-{letters}"


def find_run(path: Path) -> Path:
    """`path`, when it is the folder of a run.

    Raises:
        ConfigError: it is not; the remedy names the most similar run beside it.
    """
    if (path / "config.toml").is_file():
        return path
    if (path / SEEDS_FILE).is_file():
        seeds = sorted(entry.parent for entry in path.glob("*/config.toml"))
        remedy = f"name one of its seeds, such as {seeds[0]}" if seeds else "start a run with `gradweave train`"
        raise ConfigError("RUN", str(path), "the folder of one run; this one has a run for each seed", remedy)
    beside = path.parent if path.parent.is_dir() else Path("runs")
    names = sorted(entry.parent.name for name in ("config.toml", SEEDS_FILE) for entry in beside.glob(f"*/{name}"))
    near = nearest_name(path.name, names)
    remedy = f"did you mean {beside / near}?" if near else "start a run with `gradweave train`"
    raise ConfigError("RUN", str(path), "the folder of a run, with a config.toml", remedy)


def lock_folder(path: Path) -> TextIO:
    """An open file that keeps other processes out of a folder until it is closed.

    Raises:
        RunInUse: another process has it.
    """
    file = (path / "lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise RunInUse(
            f"{path} is in use by process {holder or 'unknown'}; wait until it ends, or stop it with SIGTERM"
        ) from None
    with contextlib.suppress(OSError):  # a full disk must not keep a run from being resumed
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
    return file
