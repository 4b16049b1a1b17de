"""A run's folder: configuration, provenance, metrics and checkpoints, held by one process at a time.

runs/<preset>-<environment>-<utc time>-<4 random letters>/
config.toml  provenance.json  metrics.jsonl  checkpoints/  figures/  lock
"""

import os
import re
import secrets
import string
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NoReturn

from gradweave.config.schema import Config
from gradweave.config.toml_file import format_config, read_config
from gradweave.errors import ConfigError, FolderLost, command_line, nearest_name
from gradweave.files import real_folder, write_atomically
from gradweave.machine.signals import say_when_leaving
from gradweave.runs.locks import lock_folder, not_writable
from gradweave.runs.metrics_writer import MetricsWriter, warn_on_stderr
from gradweave.runs.provenance import ACCEPTED, ProvenanceFile, recorded

if TYPE_CHECKING:  # NumPy takes a tenth of a second, which bad configurations need not wait for
    import gradweave.runs.checkpoints

__all__ = [
    "COMPARISON_FILE",
    "EVALUATION_FILE",
    "SEEDS_FILE",
    "SWEEP_FILE",
    "RunFolder",
    "checkpoint_steps",
    "find_run",
    "has_last_checkpoint",
    "make_runs_dir",
    "new_name",
    "newest_checkpoint",
    "run_name",
]

EVALUATION_FILE: Final = "evaluation.json"
"""Returns of the agent, and of random actions, at the end of training."""
SEEDS_FILE: Final = "seeds.json"
"""Marker of a folder of several seeds' runs: see `gradweave.runs.seeds_folder`."""
_OWN_FOLDERS: Final = ("checkpoints", "figures", "measure", "tensorboard", "wandb")
SWEEP_FILE: Final = "sweep.json"
"""Marker of the folder of a sweep: see `gradweave.runs.sweep_folder`."""
COMPARISON_FILE: Final = "compare.json"
"""Marker of the folder of a comparison: see `gradweave.runs.comparison_folder`."""


class RunFolder:
    """A run's folder, locked unless it is only looked at. Use as a context manager, or call `close`."""

    def __init__(self, path: Path, config: Config, lock: BinaryIO | None, argv: Sequence[str] | None = None) -> None:
        """Use `RunFolder.create`, `RunFolder.open` or `RunFolder.view`."""
        self.path = path
        self.config = config
        """The one to go on with; where it is another than in config.toml, `save_config` writes it."""
        self._saved = config
        self._accepted: Mapping[str, Any] = {}
        self._lock = lock
        self._metrics = None
        self._run_id = recorded(path)[0]
        if lock is not None:
            rows = path / "metrics.jsonl"
            try:
                self._metrics = MetricsWriter(rows)
            except OSError as error:
                raise FolderLost(f"{rows} cannot be written ({error.strerror}); nothing has been changed") from None
        origin = path / "provenance.json"
        continues = self._metrics is not None and self._metrics.last_step >= 0 and os.path.lexists(origin)
        self._provenance = ProvenanceFile(origin, config, argv, continues=continues)

    @classmethod
    def create(cls, config: Config, argv: Sequence[str] = (), name: str | None = None) -> "RunFolder":
        """Make a new folder in `config.run.runs_dir`, with config.toml and provenance.json in it.

        Args:
            config: of the run.
            argv: the command line for provenance.json.
            name: the folder's; by default made of preset, time and letters.

        Raises:
            ConfigError: the folder cannot be made there.
        """
        path = make_runs_dir(config) / (name or new_name(config))
        try:
            path.mkdir()
            for part in ("checkpoints", "figures"):
                (path / part).mkdir()
        except OSError as error:
            raise not_writable(config.run.runs_dir, error) from None
        lock = lock_folder(path)
        write_atomically(path / "config.toml", format_config(config))
        folder = cls(path, config, lock, ["gradweave", *argv])
        folder._run_id = secrets.token_hex(8)
        folder._provenance.note({"run_id": folder._run_id})
        folder.add_provenance({})
        again = command_line("train", "--config", path / "config.toml")
        say_when_leaving(f"no step has been taken; begin again with: {again}")
        return folder

    @classmethod
    def open(cls, path: Path, argv: Sequence[str] | None = None, *, accept_changes: bool = False) -> "RunFolder":
        """Open the folder of an earlier run, to go on with it.

        Args:
            path: the folder.
            argv: the command line for provenance.json; by default that of this process.
            accept_changes: go on also where config.toml has other values than the newest checkpoint was written with,
                and note them in provenance.json when `save_config` is called.

        Raises:
            ConfigError: there is no run, or its config.toml is bad, or it was edited since the newest checkpoint.
            DamagedFile: a part of it that is to be a folder is a link or a file.
            RunInUse: another process has it.
            FolderLost: nothing can be written in it.
        """
        from gradweave.runs.identity import newest_own, raise_changed, unaccepted

        path = find_run(path)
        config = read_config(path / "config.toml")
        lock = lock_folder(path)
        try:
            for name in _OWN_FOLDERS:
                if os.path.lexists(path / name):
                    real_folder(path / name)
            newest = newest_own(path)
            run_id, accepted = recorded(path)
            changes = [] if newest is None else unaccepted(newest, config, accepted)
            if newest is not None and changes and not accept_changes:
                raise_changed(path, newest[1].step, changes)
            folder = cls(path, config, lock, argv)
        except BaseException:
            lock.close()
            raise
        if newest is not None:
            folder._say_saved(newest[1].step)
        found = None if newest is None else newest[1].metadata.get("run")
        if run_id is None and isinstance(found, str):  # provenance.json is lost
            folder._run_id = found
            folder._provenance.note({"run_id": found})
        folder._accepted = {ACCEPTED: [*accepted, *changes]} if changes else {}
        return folder

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
        """The writer of rows of metrics.

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

    def save_config(self) -> None:
        """Write `config` of a run that can go on with it, and what was accepted; if for longer, its final files go.

        Raises:
            FolderLost: config.toml cannot be written, and is as it was; or the earlier files cannot be removed.
        """
        self._provenance.note(self._accepted)
        if self.config == self._saved:
            return
        file = self.path / "config.toml"
        longer = self.config.run.total_steps > self._saved.run.total_steps
        try:
            write_atomically(file, format_config(self.config))
            self._saved = self.config
            for name in ("report.html", "measurement.json", EVALUATION_FILE) if longer else ():
                file = self.path / name
                file.unlink(missing_ok=True)
        except OSError as error:
            raise FolderLost(f"{file} cannot be replaced ({error.strerror}); make room for it, and try again") from None

    def add_provenance(self, entries: Mapping[str, Any]) -> None:
        """Add to the entry of this process in provenance.json; see `gradweave.runs.provenance.ProvenanceFile`."""
        self._provenance.add(entries)

    def check_origin(self, path: Path) -> None:
        """Raise when the checkpoint at `path` was written by another run.

        Raises:
            CheckpointError: it was, or it is damaged.
        """
        from gradweave.runs.checkpoints import describe
        from gradweave.runs.identity import check_origin

        check_origin(path, describe(path), self._run_id)

    def save_checkpoint(
        self,
        arrays: Mapping[str, "gradweave.runs.checkpoints.SavedArray"],
        step: int,
        metadata: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write a checkpoint of `step`, every row of metrics before it, and delete those too old to keep.

        Rows that cannot be written go into the checkpoint, from which `go_on_from` writes them.

        Raises:
            FolderLost: it could not be written. DamagedFile: `checkpoints` has become a link or a file.
        """
        from gradweave.runs.checkpoints import checkpoint_path, prune, write
        from gradweave.runs.identity import identify

        path = checkpoint_path(self.checkpoints, step)
        if not os.path.lexists(self.checkpoints):
            warn_on_stderr(f"{self.checkpoints} was deleted; it is made again, without the older checkpoints")
        own = identify(self.config, self._run_id)
        try:
            real_folder(self.checkpoints, make=True)
            self.metrics.sync()
            unwritten = self.metrics.unwritten
            write(path, arrays, step, {**own, **({"unwritten": unwritten} if unwritten else {}), **(metadata or {})})
            self._say_saved(step)
            prune(self.checkpoints, self.config.run.keep_checkpoints)
        except OSError as error:
            what = f"`{command_line('resume', self.path)}` goes on" if newest_checkpoint(self.path) else "train again"
            raise FolderLost(f"{path} cannot be written ({error.strerror}); free some space, then {what}") from None
        return path

    def _say_saved(self, step: int) -> None:
        again = command_line("resume", self.path)
        say_when_leaving(f"the newest checkpoint is of environment step {step}; go on with: {again}")

    def trouble(self) -> str | None:
        """The fault of the file of metrics, in words; None as long as every row is in it."""
        return self.metrics.trouble()

    def rescue(
        self, trouble: str, arrays: Mapping[str, "gradweave.runs.checkpoints.SavedArray"], step: int
    ) -> NoReturn:
        """Save what can be saved after `trouble`, the rows so far and a checkpoint of `step`, and say what was.

        Raises:
            FolderLost: always.
        """
        try:
            rows = "its rows are written again" if self.metrics.restore() else "rows of it are lost"
        except OSError as error:
            rows = f"its rows cannot be put back ({error.strerror})"
        if self.metrics.unwritten:
            rows = f"the {len(self.metrics.unwritten)} rows that it lacks are in the checkpoint"
        again = f"go on with: {command_line('resume', self.path)}"
        try:
            self.save_checkpoint(arrays, step)
        except FolderLost as error:
            raise FolderLost(f"{trouble}, and {error}; {again}") from None
        raise FolderLost(f"{trouble}; {rows}; a checkpoint was saved at environment step {step}; {again}")

    def go_on_from(self, path: Path, step: int, metadata: Mapping[str, Any] | None = None) -> None:
        """Remove the rows of metrics that were written after the checkpoint at `path`, of this step.

        Newer checkpoints are set aside: they go with the rows that were removed. Rows that could only be kept in the
        checkpoint are written. Nothing is changed in a run that is only looked at.

        Args:
            path: of the checkpoint.
            step: its environment steps.
            metadata: the checkpoint's.

        Raises:
            FolderLost: nothing can be written; no checkpoint is lost.
        """
        from gradweave.runs.checkpoints import set_newer_aside

        if self._metrics is None:
            return
        unwritten = (metadata or {}).get("unwritten", ())
        try:
            set_newer_aside(path)
            self._metrics.truncate_after(step)
        except OSError as error:
            raise FolderLost(f"{self.path} cannot be written ({error.strerror}); no checkpoint is lost") from None
        self._metrics.append_lines([line for line in unwritten if isinstance(line, str)], step)
        last = self._metrics.last_step
        if last != step and step > self.config.inner.num_envs * self.config.inner.num_steps:
            warn_on_stderr(f"metrics.jsonl lacks the rows after step {max(last, 0):,} up to the checkpoint's, {step:,}")
            self._provenance.note({"missing_rows": {"after": last, "until": step}})

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
    """A name for a new folder: what it trains, the time and four letters, as two runs may start in one second."""
    environment = re.sub(r"[^a-z0-9]+", "-", config.environment.name.lower()).strip("-")
    what = config.preset if config.preset.startswith(environment) else f"{config.preset}-{environment}"
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    letters = "".join(secrets.choice(string.ascii_lowercase) for _ in range(4))
    return f"{what}-{stamp}-{letters}"


def make_runs_dir(config: Config) -> Path:
    """The folder in which a run's own folder is to be made; it is there afterwards.

    Raises:
        ConfigError: it cannot be made.
    """
    path = Path(config.run.runs_dir)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_writable(config.run.runs_dir, error) from None
    return path


def find_run(path: Path) -> Path:
    """`path`, when it is the folder of a run.

    Raises:
        ConfigError: it is not; the remedy names the most similar run beside it.
    """
    if os.path.lexists(path / "config.toml"):
        return path
    if (path / SEEDS_FILE).is_file():
        seeds = sorted(entry.parent for entry in path.glob("*/config.toml"))
        remedy = f"name one of its seeds, such as {seeds[0]}" if seeds else "start a run with `gradweave train`"
        raise ConfigError("RUN", str(path), "the folder of one run; this one has a run for each seed", remedy)
    if (path / SWEEP_FILE).is_file():
        settings = sorted(entry.parent for entry in path.glob(f"*/{SEEDS_FILE}"))
        remedy = f"name one of its settings, such as {settings[0]}, or one of its seeds"
        raise ConfigError("RUN", str(path), "the folder of one run; this one is that of a sweep", remedy)
    if (path / COMPARISON_FILE).is_file():
        page = path / "comparison.md"
        remedy = f"read {page}" if page.is_file() else f"end it first: {command_line('resume', path)}"
        raise ConfigError("RUN", str(path), "the folder of one run; this one is that of a comparison", remedy)
    if runs := sorted(entry.parent for entry in path.glob("*/config.toml")):
        raise ConfigError("RUN", str(path), "the folder of one run", f"name one of the runs in it, such as {runs[0]}")
    beside = path.parent if path.parent.is_dir() else Path("runs")
    names = sorted(
        entry.parent.name for name in ("config.toml", SEEDS_FILE, SWEEP_FILE) for entry in beside.glob(f"*/{name}")
    )
    near = nearest_name(path.name, names)
    remedy = f"did you mean {beside / near}?" if near else "start a run with `gradweave train`"
    raise ConfigError("RUN", str(path), "the folder of a run, with a config.toml", remedy)


def has_last_checkpoint(path: Path, config: Config) -> bool:
    """Whether a run's folder has the checkpoint that a run of this configuration ends with, or a later one."""
    first = config.inner.num_envs * config.inner.num_steps  # the rollout before the first meta-step
    return max(checkpoint_steps(path), default=0) >= first + config.num_meta_steps * config.window_steps


def checkpoint_steps(path: Path) -> list[int]:
    """The environment steps at which a run's folder has checkpoints, in order."""
    return sorted(int(file.stem) for file in (path / "checkpoints").glob("*.safetensors") if file.stem.isdecimal())


def newest_checkpoint(path: Path) -> Path | None:
    """The file of a run's newest checkpoint, verified or not; None before the first."""
    steps = checkpoint_steps(path)
    return path / "checkpoints" / f"{steps[-1]:012d}.safetensors" if steps else None


def run_name(path: Path) -> str:
    """A run's name beside others: its folder's name, after that of the folder of several seeds if it lies in
    one, because there all are called seed-0, seed-1, ...
    """
    path = path.resolve()
    return f"{path.parent.name}-{path.name}" if (path.parent / SEEDS_FILE).is_file() else path.name
