"""Standard error that may fail: its terminal is closed, its reader is gone, its disk is full, or there never was one.

What is said there is a courtesy; training, its files and its exit code must not depend on it.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["forgiving", "say", "standard_error"]

_FAILURES: Final = (OSError, ValueError)  # ValueError: the file was closed


class _Forgiving:
    """A stream whose failures are not those of the program that writes to it. What cannot be written is dropped."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what can be written; returns the number of characters given."""
        if self._stream is not None:
            with contextlib.suppress(*_FAILURES):
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        if self._stream is not None:
            with contextlib.suppress(*_FAILURES):
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal that is still there."""
        with contextlib.suppress(*_FAILURES):
            return self._stream is not None and bool(self._stream.isatty())
        return False

    def close(self) -> None:
        """Leave the stream open: it is the process's, and whoever closes it would silence all others."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def forgiving(stream: Any) -> Any:
    """The same stream, where a failed write is dropped; None, where there is no stream, stands for one to nowhere."""
    return stream if isinstance(stream, _Forgiving) else _Forgiving(stream)


def say(text: str) -> None:
    """Print a line on standard error, if that can be done; control characters, from a file or a name, as escapes."""
    plain = (letter if letter.isprintable() or letter in "\n\t" else ascii(letter)[1:-1] for letter in text)
    print("".join(plain), file=forgiving(sys.stderr), flush=True)


@contextlib.contextmanager
def standard_error() -> Iterator[None]:
    """Let standard error be forgiving for everything in the process, until the context is left.

    Descriptors 0 to 2 that the process was started without lead to nowhere from then on: the next file that is opened
    would have such a number, and would be given the messages of libraries.
    """
    _fill_descriptors()
    before = sys.stderr
    sys.stderr = forgiving(before)
    try:
        yield
    finally:
        sys.stderr = before
        _discard_the_rest(before)


def _fill_descriptors() -> None:
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


def _discard_the_rest(stream: Any) -> None:
    """Drop text that could not be written, or the interpreter would fail at it again, with an exit code of its own."""
    if stream is None:
        return
    try:
        stream.flush()
    except _FAILURES:
        with contextlib.suppress(*_FAILURES):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
            stream.flush()
