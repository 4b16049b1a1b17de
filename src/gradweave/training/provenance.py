"""Where a run came from: command line, commit and uncommitted changes, versions, platform, seed.

What only JAX knows (devices, backend) is added by `runtime.describe_devices` once it is imported.
"""

import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradweave.training.config import Config

__all__ = ["collect_provenance", "source_state"]

_PACKAGES = ("gradweave", "jax", "jaxlib", "equinox", "optax", "jumanji", "gymnax", "numpy", "safetensors")


def collect_provenance(config: Config, argv: Sequence[str] = ()) -> dict[str, Any]:
    """Everything about a run's origin that can be known without importing JAX."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "argv": ["gradweave", *argv],
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

    What lies in results/ is no source: experiments write there while they run.
    """
    here = Path(__file__).resolve()
    # A package installed inside somebody else's checkout is not tracked there.
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    commit = _git(here.parent, "rev-parse", "HEAD")
    return {"commit": (commit or "").strip() or None, "diff": _git(here.parent, *_DIFFERENCE) or ""}


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
