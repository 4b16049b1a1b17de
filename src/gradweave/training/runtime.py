"""What has to be settled around JAX itself: the persistent compilation cache, and what devices there are.

Compiled programs are code that later runs execute, so the cache lies in a folder that only the user can write.
"""

import os
import stat
from pathlib import Path
from typing import Any

__all__ = ["describe_devices", "enable_compilation_cache", "usable_cores"]


def enable_compilation_cache() -> Path | None:
    """Let JAX keep compiled programs in a private folder of the user's.

    The folder is `gradweave/jax` in $XDG_CACHE_HOME (by default ~/.cache), with mode 0700. A folder named by
    JAX_COMPILATION_CACHE_DIR is used instead, as it is. Costs nothing on the first run and saves the later ones most of
    their compilation.

    Returns:
        the folder, or None when there is none that is private and writable; runs then compile each time.
    """
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    folder = Path(chosen) if chosen else _private_folder()
    if folder is None:
        return None
    import jax

    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return folder


def usable_cores() -> int:
    """The cores this process may run on, which a scheduler can make fewer than there are."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_devices(num_used: int = 1) -> dict[str, Any]:
    """The devices JAX found, and how many of them are used, for provenance.json."""
    import jax

    return {
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
        "num_devices_used": num_used,
        "num_processes": jax.process_count(),
        "float": str(jax.numpy.zeros(()).dtype),
    }


def _private_folder() -> Path | None:
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The specification: a relative path there is to be ignored.
    root = Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()
    folder = root / "gradweave" / "jax"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        state = folder.lstat()
        if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid():
            return None
        folder.chmod(0o700)
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return None
    return folder if os.access(folder, os.W_OK) else None
