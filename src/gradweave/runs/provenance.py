"""Origin of a run: command line, commit and uncommitted changes, versions, platform, seed.

What only JAX knows (devices, backend) is added by `runtime.describe_devices` once it is imported. provenance.json holds
all of it for the process that began the run, and in the list `continued` the differences of those that went on.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gradweave.config.schema import Config
from gradweave.errors import DamagedFile
from gradweave.files import read_json, set_aside, write_atomically
from gradweave.runs.metrics_writer import warn_on_stderr

__all__ = [
    "ACCEPTED",
    "ProvenanceFile",
    "begin_process",
    "collect_provenance",
    "is_modified",
    "processes",
    "read_provenance",
    "recorded",
    "source_state",
]

_SUITES = ("jumanji", "gymnax", "jax-envelope", "brax", "navix", "craftax", "playground")
_PACKAGES = ("gradweave", "jax", "jaxlib", "equinox", "optax", *_SUITES, "numpy", "safetensors")
ACCEPTED: Final = "accepted_changes"
"""The entry that lists the changes of the configuration that were accepted."""

_MOST_BYTES: Final = 2**25
_MOST_DIFFERENCE: Final = 2**20  # characters; of more, only the beginning is kept, with the hash of all
_OWN = ("started", "argv")  # of each process, also where nothing else has changed


def collect_provenance(config: Config, argv: Sequence[str] = ()) -> dict[str, Any]:
    """A run's origin as far as known without importing JAX; `argv` is the command line after `gradweave`."""
    return _collect(config, ["gradweave", *argv])


class ProvenanceFile:
    """A run's provenance.json. Like every side file it never stops a run: a damaged one is kept as NAME.damaged."""

    def __init__(self, path: Path, config: Config, argv: Sequence[str] | None, *, continues: bool) -> None:
        """Nothing is read or written yet.

        Args:
            path: of the file.
            config: of the run.
            argv: the command line of this process; None: as the system has it.
            continues: processes before this one have trained.
        """
        self._path, self._config, self._argv, self._continues = path, config, argv, continues
        self._begun = False

    def add(self, entries: Mapping[str, Any]) -> None:
        """Add to the file's entry of this process, such as the devices once JAX is up.

        An entry of the same name is replaced, but none of those of earlier processes that have trained: each one that
        goes on with a run has its own entry in the list `continued`, recording differences from the start.
        """
        known = self._read()
        if not self._begun:
            known = begin_process(known, self._config, self._argv, continues=self._continues)
            self._begun = True
        if self._continues:
            own = known["continued"][-1]
            own.update({name: value for name, value in entries.items() if name in own or value != known.get(name)})
        else:
            known.update(entries)
        self._write(known)

    def note(self, entries: Mapping[str, Any]) -> None:
        """Set entries of the run, not of one process."""
        if entries:
            self._write({**self._read(), **entries})

    def _read(self) -> dict[str, Any]:
        try:
            return read_provenance(self._path) if os.path.lexists(self._path) else {}
        except (DamagedFile, OSError) as error:
            self._continues = self._begun = False
            try:
                warn_on_stderr(f"{error}. It is now {set_aside(self._path)}, and a new one is begun")
            except OSError:
                warn_on_stderr(str(error))
            return {}

    def _write(self, known: Mapping[str, Any]) -> None:
        try:
            write_atomically(self._path, json.dumps(known, indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            warn_on_stderr(f"{self._path} cannot be written ({error.strerror}); training does not need it")


def begin_process(
    known: Mapping[str, Any], config: Config, argv: Sequence[str] | None, *, continues: bool
) -> dict[str, Any]:
    """The entries of provenance.json when another process is about to train.

    Args:
        known: those of the processes before.
        config: of the run.
        argv: its command line; None: as the system has it.
        continues: the processes before have trained. Otherwise it is this one with which the run begins, though the
            folder was made by another command.
    """
    now = _collect(config, [Path(sys.argv[0]).name, *sys.argv[1:]] if argv is None else argv)
    if not continues:
        return {**known, **now, **{name: known[name] for name in _OWN if name in known}}
    entry = {name: value for name, value in now.items() if name in _OWN or value != known.get(name)}
    return {**known, "continued": [*known.get("continued", ()), entry]}


def read_provenance(path: Path) -> dict[str, Any]:
    """The content of provenance.json.

    Raises:
        DamagedFile: not a file of `RunFolder.add_provenance`.
        OSError: it is not there, or cannot be read.
    """
    found = read_json(path, _MOST_BYTES)
    continued = found.get("continued", [])
    if not isinstance(continued, list) or not all(isinstance(entry, dict) for entry in (found, *continued)):
        raise DamagedFile(path, "has something else than a list of objects as `continued`", "correct it, or remove it")
    for entry in (found, *continued):
        if not isinstance(entry.get("source"), dict | None):
            raise DamagedFile(path, "has a `source` that is no object", "correct it, or remove it")
    return found


def recorded(path: Path) -> tuple[str | None, list[Any]]:
    """The identity of the run in a folder, and the changes that were accepted, as far as provenance.json says."""
    try:
        found = read_provenance(path / "provenance.json")
    except (DamagedFile, OSError):
        return None, []
    run_id, accepted = found.get("run_id"), found.get(ACCEPTED)
    return run_id if isinstance(run_id, str) else None, accepted if isinstance(accepted, list) else []


def processes(saved: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The content of provenance.json as one complete entry for each process that trained, in order."""
    first = {name: value for name, value in saved.items() if name != "continued"}
    return [first, *({**first, **entry} for entry in saved.get("continued", ()))]


def _collect(config: Config, argv: Sequence[str]) -> dict[str, Any]:
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "argv": list(argv),
        "seed": config.run.seed,
        "source": source_state(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "num_cpus": os.cpu_count(),
        "versions": _versions(),
        "flags": {name: value for name, value in sorted(os.environ.items()) if _is_flag(name)},
    }


def _is_flag(name: str) -> bool:
    """Whether an environment variable may change results; the folder of compiled programs does not."""
    return name.startswith(("JAX_", "XLA_FLAGS")) and name != "JAX_COMPILATION_CACHE_DIR"


_DIFFERENCE = ("diff", "HEAD", "--", ":(top)", ":(top,exclude)results")


def source_state() -> dict[str, Any] | None:
    """Commit, and the difference of tracked files to it, of the checkout this package lies in; None outside of one.

    Either is None where git cannot say, which is not the same as no difference.
    The folder results/ is no source: experiments write there while they run.
    """
    here = Path(__file__).resolve()
    # A package installed inside somebody else's checkout is not tracked there.
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    commit = _git(here.parent, "rev-parse", "HEAD")
    return {"commit": (commit or "").strip() or None, "diff": _bounded(_git(here.parent, *_DIFFERENCE))}


def _bounded(difference: str | None) -> str | None:
    """The difference; of a very long one the beginning, and the SHA-256 of the whole."""
    if difference is None or len(difference) <= _MOST_DIFFERENCE:
        return difference
    digest = hashlib.sha256(difference.encode()).hexdigest()
    return f"{difference[:_MOST_DIFFERENCE]}\n... {len(difference):,} characters with SHA-256 {digest}\n"


def is_modified(source: Mapping[str, Any] | None) -> bool | None:
    """Whether a `source_state` has a difference; None where that is not known."""
    difference = (source or {}).get("diff")
    return None if difference is None else bool(difference)


def _git(folder: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(["git", *command], cwd=folder, capture_output=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", errors="replace")


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
