"""Locks: a folder is held by one process at a time.

The lock is an flock on the file `lock` in the folder: the system frees it when the process ends, however it ends.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from gradweave.errors import ConfigError, RunInUse
from gradweave.files import open_appending, open_regular

__all__ = ["is_in_use", "lock_folder", "not_writable", "waiting_lock"]

_LOCK_ATTEMPTS: Final = 3


def lock_folder(path: Path) -> BinaryIO:
    """An open file that keeps other processes out of a folder until it is closed.

    Raises:
        RunInUse: another process has it.
        ConfigError: it cannot be written in, or its file system has no locks.
        DamagedFile: `lock` in it is a link, or no file.
    """
    try:
        file = open_appending(path / "lock")
    except OSError as error:
        raise not_writable(str(path), error) from None
    try:
        _flock(file)
    except OSError as error:
        holder = _holder(file)
        file.close()
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise _without_locks(path, error) from None
        raise RunInUse(f"{path} is in use by process {holder}; wait until it ends, or stop it with SIGTERM") from None
    if os.fstat(file.fileno()).st_nlink == 1:  # of a backup made of hard links the copies must stay as they are
        with contextlib.suppress(OSError):  # a full disk must not keep a run from being resumed
            file.truncate(0)
            file.write(f"{os.getpid()}\n".encode())
    return file


@contextlib.contextmanager
def waiting_lock(file: Path) -> Iterator[None]:
    """Keep other processes out of the context; wait for those inside.

    Raises:
        ConfigError: the file cannot be written, or its file system has no locks.
        DamagedFile: it is a link, or no file.
    """
    try:
        opened = open_appending(file)
    except OSError as error:
        raise not_writable(str(file.parent), error) from None
    with opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX)
        except OSError as error:
            raise _without_locks(file.parent, error) from None
        yield


def _without_locks(path: Path, error: OSError) -> ConfigError:
    accepted = f"a folder on a file system with locks ({error.strerror})"
    return ConfigError("run.runs_dir", str(path), accepted, "keep runs on another file system")


def _holder(file: BinaryIO) -> str:
    """The process that wrote its number into the file."""
    file.seek(0)
    text = file.read(32).decode(errors="replace").strip()
    return text if text.isdecimal() else "unknown"


def _flock(file: BinaryIO) -> None:
    """Lock, if need be at a later attempt: a process that asks whether a folder is in use has it for a moment."""
    for _ in range(_LOCK_ATTEMPTS - 1):
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            time.sleep(0.01)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_in_use(path: Path) -> bool:
    """Whether a process has a folder locked."""
    with contextlib.suppress(FileNotFoundError), open_regular(path / "lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return True
    return False


def not_writable(place: str, error: OSError) -> ConfigError:
    """The error that says that nothing can be written at `place`."""
    accepted = f"a folder to write in ({error.strerror})"
    return ConfigError("run.runs_dir", place, accepted, "choose another --runs-dir")
