"""Settings of JAX around training: the persistent compilation cache and the devices."""

from pathlib import Path
from typing import Any

import jax

from gradweave.machine.runtime import compilation_cache_folder

__all__ = ["describe_devices", "enable_compilation_cache"]


def enable_compilation_cache() -> Path | None:
    """Let JAX keep compiled programs in `gradweave.machine.runtime.compilation_cache_folder()`.

    Costs nothing on the first run and saves the later ones most of their compilation.

    Returns:
        the folder, or None when there is none that is private and writable; runs then compile each time.
    """
    folder = compilation_cache_folder()
    if folder is None:
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return folder


def describe_devices(num_used: int = 1) -> dict[str, Any]:
    """The devices JAX found, and how many of them are used, for provenance.json."""
    return {
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
        "num_devices_used": num_used,
        "num_processes": jax.process_count(),
        "float": str(jax.numpy.zeros(()).dtype),
    }
