"""Where a run came from: command line, commit and uncommitted changes, versions, platform, seed.

What only JAX knows (devices, backend) is added by `runtime.describe_devices` once it is imported. provenance.json holds
all of it for the process that began the run, and in the list `continued` what was otherwise for those that went on.
"""

import hashlib
import importlib.metadata
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
from gradweave.files import read_json

__all__ = ["begin_process", "collect_provenance", "is_modified", "processes", "read_provenance", "source_state"]

_PACKAGES = ("gradweave", "jax", "jaxlib", "equinox", "optax", "jumanji", "gymnax", "numpy", "safetensors")
_MOST_BYTES: Final = 2**25
_MOST_DIFFERENCE: Final = 2**20  # characters; of more, only the beginning is kept, with the hash of all
_OWN = ("started", "argv")  # of each process, also where nothing else has changed


def collect_provenance(config: Config, argv: Sequence[str] = ()) -> dict[str, Any]:
    """Everything about a run's origin that can be known without importing JAX; `argv` is what follows `gradweave`."""
    return _collect(config, ["gradweave", *argv])


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
        DamagedFile: it is not what `RunFolder.add_provenance` writes.
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
    """Whether an environment variable may change what is computed; where compiled programs lie does not."""
    return name.startswith(("JAX_", "XLA_FLAGS")) and name != "JAX_COMPILATION_CACHE_DIR"


_DIFFERENCE = ("diff", "HEAD", "--", ":(top)", ":(top,exclude)results")


def source_state() -> dict[str, Any] | None:
    """Commit, and the difference of tracked files to it, of the checkout this package lies in; None outside of one.

    Either is None where git cannot say, which is not the same as no difference.
    What lies in results/ is no source: experiments write there while they run.
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
