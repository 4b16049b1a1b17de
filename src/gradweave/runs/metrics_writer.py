"""Writing metrics.jsonl: every row at once, and none lost where it cannot be written or another program replaces it."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from gradweave.files import is_regular, open_appending, open_regular, set_aside, write_atomically
from gradweave.machine.streams import say
from gradweave.runs.metrics import format_row, parse_row, readable_part

__all__ = ["MetricsWriter", "warn_on_stderr"]


def warn_on_stderr(text: str) -> None:
    """Say something about a run's folder."""
    say(f"gradweave: {text}")


class MetricsWriter:
    """Appends rows to a metrics file, each at once as one line.

    A row that cannot be written is kept, and `trouble` says why; so does it when another program has replaced, deleted
    or changed the file. The rows until then can be put back by `restore`.
    """

    def __init__(self, path: Path, warn: Callable[[str], None] = warn_on_stderr) -> None:
        """Open `path` to append; an unfinished last line, left by a crash, is removed.

        An unreadable file is no reason not to go on: it is then kept as NAME.damaged, and `warn` told.

        Raises:
            OSError: nothing can be written there.
        """
        self._path = path
        self.last_step = -1
        """Environment steps of the last row, -1 where there is none."""
        self._failure: OSError | None = None
        self._waiting: list[bytes] = []
        good = readable_part(path)
        if good.damage is not None:
            aside = set_aside(path)
            warn(f"{good.damage}. The {good.num_rows} rows before it stay; the file as it was is {aside}")
            write_atomically(path, _first_bytes(aside, good.size) if good.size else b"")
        self._open(good.size, good.last_step)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row; where that fails it waits, and `trouble` says so.

        Raises:
            ValueError: `step` is missing, or not above that of the row before.
        """
        step = row.get("step")
        if step is None or int(step) <= self.last_step:
            raise ValueError(
                f"row has step {step!r}, the row before has {self.last_step}; steps must grow from row to row: "
                "call truncate_after with the step of the checkpoint before going on from it"
            )
        self._waiting.append(f"{format_row(row)}\n".encode())
        self.last_step = int(step)
        self._write_waiting()

    @property
    def unwritten(self) -> list[str]:
        """The rows that could not be written, as lines."""
        return [line.decode().rstrip("\n") for line in self._waiting]

    def trouble(self) -> str | None:
        """The fault of the file, in words; None as long as every row is in it."""
        if self._failure is not None:
            return f"{self._path.name} cannot be written ({self._failure.strerror})"
        own = os.fstat(self._file.fileno())
        try:
            there = self._path.lstat()
        except OSError:
            return f"{self._path.name} was deleted by another program"
        if (there.st_dev, there.st_ino) != (own.st_dev, own.st_ino):
            return f"{self._path.name} was replaced by another program"
        return None if own.st_size == self._size else f"{self._path.name} was changed by another program"

    def restore(self) -> bool:
        """Put the file back as this writer has written it, where another program has replaced, deleted or changed it.

        Returns:
            whether every row that was written is in it again; not where a program has changed the very file.

        Raises:
            OSError: it cannot be written.
        """
        with contextlib.suppress(OSError):
            own, there = os.fstat(self._file.fileno()), self._path.lstat()
            if (own.st_ino, own.st_dev, own.st_size) == (there.st_ino, there.st_dev, self._size):
                return True
        write_atomically(self._path, _pieces(self._file, self._size))
        self._file.close()
        good = readable_part(self._path)
        complete = good.size == self._size
        self._open(good.size, max(good.last_step, self.last_step))
        return complete

    def truncate_after(self, step: int) -> None:
        """Remove the rows of later steps, as going on from a checkpoint of `step` will write them again.

        Raises:
            OSError: the file cannot be written.
        """
        self._file.close()
        self._waiting.clear()
        kept = readable_part(self._path, until=step)
        self._open(kept.size, kept.last_step)

    def append_lines(self, lines: Sequence[str], until: int) -> None:
        """Append rows that were kept elsewhere, those after the last one here and up to step `until`."""
        for line in lines:
            row = parse_row(self._path, line)
            if self.last_step < row["step"] <= until:
                self.write(row)

    def sync(self) -> None:
        """Return when all rows are on the disk, not only in the system's memory; but for those that wait.

        Raises:
            OSError: the disk refuses them.
        """
        self._write_waiting()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self, size: int, last_step: int) -> None:
        """Go on after the first `size` bytes. Where others are cut off, or share the file, it becomes a new one."""
        if is_regular(self._path):
            status = self._path.lstat()
            if status.st_size != size or status.st_nlink > 1:
                write_atomically(self._path, _first_bytes(self._path, size))
        self._file = open_appending(self._path)
        self._size, self.last_step = size, last_step

    def _write_waiting(self) -> None:
        self._failure = None
        while self._waiting:
            left = memoryview(self._waiting[0])
            try:
                while left:
                    left = left[os.write(self._file.fileno(), left) :]
            except OSError as error:
                self._failure = error
                with contextlib.suppress(OSError):  # half a line must not stay
                    os.ftruncate(self._file.fileno(), self._size)
                return
            self._size += len(self._waiting.pop(0))


def _first_bytes(path: Path, size: int) -> Iterator[bytes]:
    with open_regular(path) as file:
        yield from _pieces(file, size)


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    file.seek(0)
    while size > 0 and (piece := file.read(min(size, 2**20))):
        size -= len(piece)
        yield piece
