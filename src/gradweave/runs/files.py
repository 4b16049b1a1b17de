"""Files that are there whole or not at all."""

import contextlib
import os
from pathlib import Path

__all__ = ["write_atomically"]


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file: readers see the old or the new content, also after a crash. Text is written as UTF-8.

    Of several processes that write the same file at once, the last one's content stays.

    Raises:
        OSError: it cannot be written; what was there before is intact.
    """
    # Hidden from listings, and unique to this process: no other writes into it, or renames it too early.
    temporary = path.with_name(f".{os.getpid()}.{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
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
