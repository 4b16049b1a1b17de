"""What every test runs under: float64, strict dtype promotion, checks on key reuse and on the arguments of every call.

JAX is configured here and not through environment variables, so that a command started by a test as a process of its
own runs as a user would run it; only the platform, the compilation cache and how it compiles are handed on.
"""

import gc
import os
import signal
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling takes most of the time of a run, so all processes, and all later runs, share what was compiled. JAX locks
# its cache against other processes only if the cache is bounded.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))
os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(2 * 1024**3))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
# Programs are small here and run once, and most of the time of compiling goes into making them fast. From 0.11 on there
# is one way to fuse, and naming the other ends the process.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 "
    + ("--xla_cpu_use_fusion_emitters=false " if version("jaxlib").startswith("0.10.") else "")
    + "--xla_cpu_parallel_codegen_split_count=1",
)
os.environ.setdefault("MPLBACKEND", "agg")

# A shell has background jobs ignore it, and programs started by tests would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import jax
import pytest
from jaxtyping import install_import_hook

# Tracing makes many objects that live long: collecting them less often saves a twentieth.
gc.set_threshold(200_000, 20, 100)

# Two, for the tests that split environments over devices; all others use the first.
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_debug_key_reuse", True)

# Has to come before the first import of gradweave: from here on its annotations are checked at every call.
install_import_hook(["gradweave", "_study"], "beartype.beartype")

EXHAUSTIVE = Path(__file__).parent / "exhaustive.txt"


def exhaustive_names() -> tuple[str, ...]:
    """How the names of tests begin that only `make test-all` runs."""
    lines = EXHAUSTIVE.read_text().splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that tests/exhaustive.txt names; where all tests are collected, every line has to name some."""
    beginnings = exhaustive_names()
    for item in items:
        if item.nodeid.startswith(beginnings):
            item.add_marker(pytest.mark.exhaustive)
            item.add_marker(pytest.mark.slow)
    if config.args == config.getini("testpaths"):
        unused = [name for name in beginnings if not any(item.nodeid.startswith(name) for item in items)]
        if unused:
            raise pytest.UsageError(f"tests/exhaustive.txt names no test by {', '.join(unused)}: correct these lines")
