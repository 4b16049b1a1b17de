"""SIGTERM and SIGINT as something to be noted and dealt with at the next good moment."""

import contextlib
import signal
from collections.abc import Iterator

__all__ = ["noted_signals"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Notes both in the list that it yields instead of dying of them, so that what is under way can be finished and a
    checkpoint written. Outside of the main thread, where the caller has the signals, nothing is noted.
    """
    received: list[int] = []
    try:
        previous = {number: signal.signal(number, lambda number, _: received.append(number)) for number in _SIGNALS}
    except ValueError:  # not in the main thread
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
