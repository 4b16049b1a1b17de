"""Resources of a process: cores, and a private folder for compiled programs.

Compiled programs are code that later runs execute, so the cache lies in a folder that only the user can write.
"""

import os
import shutil
import stat
from pathlib import Path

__all__ = ["compilation_cache_folder", "usable_cores"]


def compilation_cache_folder() -> Path | None:
    """The folder for compiled programs: `gradweave/jax` in $XDG_CACHE_HOME (by default ~/.cache), with mode 0700.

    A folder named by JAX_COMPILATION_CACHE_DIR is used instead, as it is.

    Returns:
        The folder, or None where there is none that is private and writable.
    """
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    return Path(chosen) if chosen else _private_folder()


def usable_cores() -> int:
    """The cores this process may run on, which a scheduler can make fewer than there are."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _private_folder() -> Path | None:
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # The specification: a relative path there is to be ignored.
        root = Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()
        if not root.is_absolute():
            return None
        folder = root / "gradweave" / "jax"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        state = folder.lstat()
        if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or not _held(folder.parent):
            return None
        folder.chmod(0o700)
        _remove_foreign(folder)
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return None
    return folder if os.access(folder, os.W_OK) else None


def _held(folder: Path) -> bool:
    """Whether nobody else can replace the content of a folder, or of one above it."""
    for place in (folder.resolve(), *folder.resolve().parents):
        state = place.stat()
        if state.st_uid not in (os.getuid(), 0):
            return False
        if _others_write(state) and not state.st_mode & stat.S_ISVTX:
            return False
    return True


def _others_write(state: os.stat_result) -> bool:
    """Whether somebody else may write; a group with the user's own number is the user's alone, as many systems have."""
    group = state.st_mode & stat.S_IWGRP and state.st_gid != os.getuid()
    return bool(group or state.st_mode & stat.S_IWOTH)


def _remove_foreign(folder: Path) -> None:
    """Delete files that others may have put into the folder while they could: it would be executed.

    JAX makes folders of its own in it, on GPUs one of tuned kernels; in them it is the same.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            state = entry.stat(follow_symlinks=False)
            own = state.st_uid == os.getuid()
            if own and stat.S_ISDIR(state.st_mode):
                os.chmod(entry.path, 0o700)
                _remove_foreign(Path(entry.path))
            elif stat.S_ISDIR(state.st_mode):
                shutil.rmtree(entry.path)
            elif not own or not stat.S_ISREG(state.st_mode) or _others_write(state):
                os.unlink(entry.path)
