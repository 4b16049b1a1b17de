"""Files of a run's folder: written whole or not at all; read only if they are regular and not too large.

A folder may come from somebody else, or be damaged. Nothing here follows a symbolic link at the end of a path, waits
for a pipe, or reads more than the caller allows.
"""

import contextlib
import io
import json
import math
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from gradweave.errors import DamagedFile

__all__ = [
    "SMALL",
    "is_regular",
    "open_appending",
    "open_regular",
    "parse_json",
    "read_bytes",
    "read_json",
    "read_text",
    "real_folder",
    "set_aside",
    "write_atomically",
]

SMALL: Final = 2**20
"""The most bytes of a configuration and of the lists that mark a folder."""
_REMOVE: Final = "remove it, or take the folder from where it is whole"


def open_regular(path: Path, *, most: int | None = None, follow: bool = False) -> io.BufferedReader:
    """An open regular file to read from.

    Args:
        path: the file.
        most: bytes that it may have; None: any number, for files read piece by piece.
        follow: whether it may be a symbolic link, for a file that the user names.

    Raises:
        DamagedFile: it is a link, a pipe, a device or a folder, or it is larger.
        OSError: it is not there, or cannot be read.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    if not follow and path.is_symlink():
        raise DamagedFile(path, "is a symbolic link, which is not followed", _REMOVE)
    descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DamagedFile(path, "is no regular file", _REMOVE)
        if most is not None and status.st_size > most:
            raise DamagedFile(path, f"has {status.st_size:,} bytes, where at most {most:,} are read", _REMOVE)
        return io.BufferedReader(io.FileIO(descriptor, "r"))
    except BaseException:
        os.close(descriptor)
        raise


def open_appending(path: Path) -> io.FileIO:
    """An open regular file to read and to append to, made if there is none; unbuffered.

    Raises:
        DamagedFile: it is a link, a pipe, a device or a folder.
        OSError: it cannot be written.
    """
    if path.is_symlink():
        raise DamagedFile(path, "is a symbolic link, which is not followed", _REMOVE)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DamagedFile(path, "is no regular file", _REMOVE)
    return io.FileIO(descriptor, "a+")


def read_bytes(path: Path, most: int, *, follow: bool = False) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises:
        DamagedFile: as `open_regular`.
        OSError: likewise.
    """
    with open_regular(path, most=most, follow=follow) as file:
        content = file.read(most + 1)
    if len(content) > most:  # it grew
        raise DamagedFile(path, f"has more than {most:,} bytes", _REMOVE)
    return content


def read_text(path: Path, most: int = SMALL, *, follow: bool = False) -> str:
    """The same as text in UTF-8.

    Raises:
        DamagedFile: as `open_regular`, or it is no UTF-8.
        OSError: as `open_regular`.
    """
    try:
        return read_bytes(path, most, follow=follow).decode()
    except UnicodeDecodeError as error:
        raise DamagedFile(path, f"is no text in UTF-8 (byte {error.start})", _REMOVE) from None


def read_json(path: Path, most: int = SMALL) -> dict[str, Any]:
    """The JSON object in a regular file.

    Raises:
        DamagedFile: as `read_text`, or it holds something else, or a number that no float has.
        OSError: as `open_regular`.
    """
    return _parsed(path, read_text(path, most), None, parse_int=_whole, parse_float=_finite)


def parse_json(path: Path, text: str, line: int | None = None) -> dict[str, Any]:
    """The JSON object that is the content of a file, or one line of it.

    Raises:
        DamagedFile: it is something else; NaN and infinities are no JSON.
    """
    return _parsed(path, text, line)


def _parsed(path: Path, text: str, line: int | None, **numbers: Any) -> dict[str, Any]:
    try:
        found = json.loads(text, parse_constant=_refuse_constant, **numbers)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else _short(error)
        raise DamagedFile(path, f"is no JSON ({reason})", _REMOVE, line) from None
    if not isinstance(found, dict):
        raise DamagedFile(path, f"holds a {type(found).__name__} where a JSON object is expected", _REMOVE, line)
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:20]} is too large a number")
    return number


def _whole(digits: str) -> int:
    _finite(digits)  # int would take any number of digits, and a float of it fails where it is used
    return int(digits)


def _short(error: Exception) -> str:
    return str(error).split("\n")[0][:120]


def is_regular(path: Path) -> bool:
    """Whether there is a regular file, and no link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return False


def real_folder(path: Path, *, make: bool = False) -> Path:
    """`path`, where it is a folder and no link to one, so that writes and deletions stay inside.

    Args:
        path: a folder inside of a run's.
        make: make it, if there is nothing.

    Raises:
        DamagedFile: it is a link or no folder.
        OSError: it cannot be made, or is not there.
    """
    if make:
        with contextlib.suppress(FileExistsError):
            path.mkdir()
    mode = path.lstat().st_mode
    if not stat.S_ISDIR(mode):
        what = "is a symbolic link" if stat.S_ISLNK(mode) else "is no folder"
        raise DamagedFile(path, f"{what}; its files must lie in the run's own folder", _REMOVE)
    return path


def set_aside(path: Path) -> Path:
    """Rename a damaged file to NAME.damaged; returns the new name."""
    aside = path.with_name(f"{path.name}.damaged")
    os.replace(path, aside)
    return aside


def write_atomically(path: Path, content: str | bytes | Iterable[bytes]) -> None:
    """Replace a file: readers see the old or the new content, also after a crash. Text is written as UTF-8, with ? in
    the place of what has none: arguments and names of files may be any bytes.

    A link of that name is replaced, its target is not touched. Of several processes that write the same file at once,
    the last one's content stays.

    Raises:
        OSError: it cannot be written; the earlier file is intact.
    """
    if isinstance(content, str):
        content = content.encode(errors="replace")
    parts = [content] if isinstance(content, bytes) else content
    # Hidden from listings, and unique to this process: no other writes into it, or renames it too early.
    temporary = path.with_name(f".{os.getpid()}.{path.name}.tmp")
    try:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()  # left by a process of the same number, or laid there as a trap
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, 0o666), "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
