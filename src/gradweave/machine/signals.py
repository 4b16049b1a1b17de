"""SIGINT, SIGTERM and SIGHUP: leave at once, or note them and finish the work under way; a second one leaves at once.

Python calls its handlers only between two of its own instructions, which can be long: compiling takes many seconds,
and while JAX starts an exception from a handler may be swallowed. So a thread of its own reads of signals from the pipe
that the system's handler writes to, and ends the process.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn

from gradweave.errors import Stopped
from gradweave.machine.streams import forgiving

__all__ = [
    "STOPPING",
    "exit_code_decided",
    "ignore_signals",
    "interruptible",
    "leaving_at_once",
    "noted_signals",
    "say_when_leaving",
]

STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""The signals that are dealt with here. One that is ignored when the process starts, as under nohup, stays ignored."""
_SHOW_CURSOR: Final = "\x1b[?25h"  # a live table hides it


class _Watch:
    """Handlers for the signals and the thread that reads of them, from `start` to `stop`."""

    def __init__(self) -> None:
        self.received: list[int] | None = None
        """Signals noted so far; None: leave at once."""
        self._num_noted = self._num_seen = 0  # since they have been noted, by the handler and by the thread
        self._num_settled = 0  # of an earlier list, which the thread has yet to see
        self._lock = threading.RLock()  # the handler may interrupt the main thread where that holds it
        self._previous: dict[int, Any] = {}
        self._decided = False

    def start(self) -> None:
        """Begin; only in the main thread."""
        self._read, write = os.pipe()
        os.set_blocking(write, False)
        self._write = write
        for number in STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._note)
        self._previous_descriptor = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._read_on, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, and leave everything as it was before."""
        signal.set_wakeup_fd(self._previous_descriptor)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        os.close(self._write)
        self._thread.join()
        os.close(self._read)

    def decide(self, code: int) -> None:
        """Leave at once with `code` at a signal from now on, after `stop`, too."""

        def leave(number: int, frame: object) -> NoReturn:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(RuntimeError):  # the signal came while it was being written
                    forgiving(stream).flush()
            os._exit(code)

        with self._lock:
            self._decided = True
        for number in self._previous:
            self._previous[number] = leave
            signal.signal(number, leave)

    @contextlib.contextmanager
    def noting(self, received: list[int]) -> Iterator[None]:
        """Note signals in a list until the context is left."""
        before = self.received
        for number in self._previous:  # jax.distributed puts a handler of its own in the place of ours
            signal.signal(number, self._note)
        with self._lock:
            self.received, self._num_noted, self._num_seen = received, 0, 0
        try:
            yield
        finally:
            with self._lock:
                self._num_settled += max(0, self._num_noted - self._num_seen)
                self.received, self._num_noted, self._num_seen = before, 0, 0

    def _note(self, number: int, frame: object) -> None:
        with self._lock:
            received = self.received
            self._num_noted += received is not None
        if received is not None:
            received.append(number)

    def _read_on(self) -> None:
        while numbers := os.read(self._read, 64):
            for number in numbers:
                if number in self._previous and self._is_too_much():
                    _leave(number)

    def _is_too_much(self) -> bool:
        """Whether a signal that the thread sees is to be left at."""
        with self._lock:
            if self._decided:
                return False
            if self._num_settled > 0:
                self._num_settled -= 1
                return False
            self._num_seen += 1
            return self.received is None or self._num_seen > 1


class _Raising(list[int]):
    """Raises where others note, and again when asked: a library may have swallowed the exception."""

    def append(self, number: int) -> None:
        super().append(number)
        self.check()

    def check(self) -> None:
        """Raise for the first signal, if there was one."""
        if not self:
            return
        number = self[0]
        name = signal.Signals(number).name
        if number == signal.SIGINT:
            raise KeyboardInterrupt(f"interrupted by {name}")
        raise Stopped(f"stopped by {name}")


_watch: _Watch | None = None
_saved: str = ""


def say_when_leaving(text: str) -> None:
    """Set the message for leaving at once: the saved files, and how to go on."""
    global _saved
    _saved = text


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """Leave at once, with exit code 130 for SIGINT and 143 for the others, whatever is under way.

    Outside of the main thread, where the caller has the signals, nothing is changed.
    """
    with _watching():
        say_when_leaving("")
        yield


def exit_code_decided(code: int) -> None:
    """Let no signal change the exit code any more: the process leaves at once with it, also while Python shuts down.

    For a process that ends after `leaving_at_once`. Python's own handlers end before its modules are taken down: an
    exit function should call `ignore_signals` then.
    """
    if _watch is not None:
        _watch.decide(code)


def ignore_signals() -> None:
    """Ignore them for the rest of the process."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Note signals in the list that it yields instead of leaving, so that the work under way can be finished and a
    checkpoint written; at the second one leave at once. Outside of the main thread nothing is noted.
    """
    received: list[int] = []
    with _watching() as watch:
        if watch is None:
            yield received
            return
        with watch.noting(received):
            yield received


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Raise an exception at a signal, for work that can be interrupted anywhere and keeps its results so far.

    KeyboardInterrupt at SIGINT, `Stopped` at the others; at a second signal leave at once. What is yielded raises it
    again, where a library has swallowed it, as calls back from compiled code do; the end of the context does, too.
    """
    received = _Raising()
    with _watching() as watch:
        if watch is None:
            yield received.check
            return
        with watch.noting(received):
            yield received.check
            received.check()


@contextlib.contextmanager
def _watching() -> Iterator[_Watch | None]:
    """The watch there is, or a new one until the context is left; None outside of the main thread."""
    global _watch
    if threading.current_thread() is not threading.main_thread():
        yield None
        return
    if _watch is not None:
        yield _watch
        return
    _watch = _Watch()
    _watch.start()
    try:
        yield _watch
    finally:
        _watch.stop()
        _watch = None


def _leave(number: int) -> NoReturn:
    """Name the saved files and end the process, from any thread, without waiting for anything."""
    end = _SHOW_CURSOR if forgiving(sys.stderr).isatty() else ""
    text = f"{end}\ngradweave: {signal.Signals(number).name}, left at once{'; ' if _saved else ''}{_saved}\n"
    with contextlib.suppress(OSError):
        os.write(2, text.encode())
    os._exit(130 if number == signal.SIGINT else 143)
