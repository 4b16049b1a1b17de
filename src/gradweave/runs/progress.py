"""Progress of a run: a live table on a terminal, aligned plain lines everywhere else.

Rows use the names of `gradweave.runs.metrics`. Rich is imported only when something is shown on a terminal.
"""

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, TextIO, cast, runtime_checkable

from gradweave.machine.streams import forgiving

__all__ = ["Progress", "format_duration"]

_SHOWN_ROWS = 12
_TICK_SECONDS = 5.0


@runtime_checkable
class TextStream(Protocol):
    """A stream of text: an open text file, standard error, a StringIO."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> object: ...

    def isatty(self) -> bool: ...


@runtime_checkable
class _View(Protocol):
    """How rows, messages and the state of a compilation are shown."""

    def row(self, cells: Sequence[str]) -> None: ...

    def message(self, text: str) -> None: ...

    def status(self, text: str | None) -> None: ...

    def close(self) -> None: ...


class Progress:
    """Shows a run's progress. A context manager: the live table is there between enter and exit.

    Example:
        >>> with Progress(["discount"], total_steps=1000, stream=sys.stdout, live=False) as progress:
        ...     progress.update({"step": 500, "return": 1.5, "eta/discount": 0.9, "steps_per_second": 250.0})
             steps     return   discount    steps/s       left
               500       1.50     0.9000        250         2s
    """

    def __init__(
        self, learned: Sequence[str], total_steps: int, *, stream: TextStream | None = None, live: bool | None = None
    ) -> None:
        """Prepare to show `learned` meta-parameters of a run of `total_steps` environment steps.

        Args:
            learned: names of the meta-parameters; a row gives each as `eta/NAME`.
            total_steps: environment steps of the whole run.
            stream: where to; standard error unless given, so that standard output stays free for results.
            live: a table that redraws itself, or plain lines; by default a table if `stream` is a terminal.
        """
        self._learned = tuple(learned)
        self.total_steps = total_steps
        """For the time that is left; it may be changed."""
        self._stream: TextStream = forgiving(sys.stderr) if stream is None else stream
        self._live = self._stream.isatty() if live is None else live
        self._view: _View | None = None

    def __enter__(self) -> "Progress":
        headings = ["steps", "return", *(name.rstrip("_") for name in self._learned), "steps/s", "left"]
        self._view = _LiveView(headings, self._stream) if self._live else _PlainView(headings, self._stream)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._view is not None:
            self._view.close()
        self._view = None

    def update(self, row: Mapping[str, Any]) -> None:
        """Show one row of metrics."""
        if self._view is not None:
            self._view.row(self._cells(row))

    def message(self, text: str) -> None:
        """Show a line of text."""
        if self._view is not None:
            self._view.message(text)

    @contextlib.contextmanager
    def compiling(self, what: str = "compiling") -> Iterator[None]:
        """Show that the program is being compiled, and for how long, until the context is left."""
        start = time.monotonic()
        done = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(what, start, done), daemon=True)
        ticker.start()
        finished = False
        try:
            yield
            finished = True
        finally:
            done.set()
            ticker.join()
            if self._view is not None:
                self._view.status(None)
                if finished:
                    self._view.message(f"{what}: done in {time.monotonic() - start:.1f} s")

    def _tick(self, what: str, start: float, done: threading.Event) -> None:
        interval = 0.25 if self._live else _TICK_SECONDS
        waited = False
        while not waited:
            if self._view is not None:
                self._view.status(f"{what} ... {time.monotonic() - start:.0f} s")
            waited = done.wait(interval)

    def _cells(self, row: Mapping[str, Any]) -> list[str]:
        step = int(row["step"])
        rate = _number(row.get("steps_per_second"))
        left = format_duration((self.total_steps - step) / rate) if rate is not None and rate > 0 else "-"
        etas = [_format_eta(_number(row.get(f"eta/{name}"))) for name in self._learned]
        mean_return = _number(row.get("return"))
        return [
            f"{step:,}",
            "-" if mean_return is None else f"{mean_return:.2f}",
            *etas,
            "-" if rate is None else f"{rate:,.0f}",
            left,
        ]


def format_duration(seconds: float) -> str:
    """Seconds as a short text.

    Example:
        >>> [format_duration(s) for s in (3.2, 75, 3700, 90000)]
        ['3s', '1m15s', '1h01m', '1d01h']
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _format_eta(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.001 else f"{value:.2e}"


class _PlainView:
    """One aligned line a row; the headings again every 20 rows, for logs that are read in the middle."""

    def __init__(self, headings: Sequence[str], stream: TextStream) -> None:
        self._widths = [max(10, len(heading) + 1) for heading in headings]
        self._headings = headings
        self._stream = stream
        self._num_rows = 0

    def row(self, cells: Sequence[str]) -> None:
        if self._num_rows % 20 == 0:
            self.message(self._join(self._headings))
        self._num_rows += 1
        self.message(self._join(cells))

    def message(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def status(self, text: str | None) -> None:
        if text is not None:
            self.message(text)

    def close(self) -> None:
        self._stream.flush()

    def _join(self, cells: Sequence[str]) -> str:
        return " ".join(cell.rjust(width) for cell, width in zip(cells, self._widths, strict=True))


def _fitting(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> tuple[list[str], list[int], int]:
    """Headings, over several lines where one is too long, which columns fit into `width`, and the gap between them.

    Steps, return and the remaining time stay; the speed goes first, then meta-parameters from the right.
    """

    def needed(headings: Sequence[str], chosen: Sequence[int], gap: int) -> int:
        longest = (max(map(len, [*headings[index].split("\n"), *(row[index] for row in rows)])) for index in chosen)
        return sum(longest) + gap * len(chosen)

    everything = list(range(len(headings)))
    if needed(headings, everything, 2) <= width:
        return list(headings), everything, 2
    broken = [heading.replace("_", "\n").replace("/", "\n") if "_" in heading else heading for heading in headings]
    for gone in (None, len(headings) - 2, *range(len(headings) - 3, 1, -1)):
        everything = [index for index in everything if index != gone]
        if needed(broken, everything, 1) <= width:
            break
    return broken, everything, 1


class _LiveView:
    """The last rows as a table that redraws itself, with the state of a compilation below it."""

    def __init__(self, headings: Sequence[str], stream: TextStream) -> None:
        from rich.console import Console
        from rich.live import Live

        self._headings = headings
        self._rows: deque[Sequence[str]] = deque(maxlen=_SHOWN_ROWS)
        self._status: str | None = None
        self._console: Console = Console(file=cast(TextIO, stream))
        self._live: Live = Live(console=self._console, get_renderable=self._render, refresh_per_second=4)
        self._live.start()

    def row(self, cells: Sequence[str]) -> None:
        self._rows.append(cells)

    def message(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def status(self, text: str | None) -> None:
        self._status = text

    def close(self) -> None:
        self._live.refresh()
        self._live.stop()

    def _render(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        parts: list[Table | Text] = []
        if self._rows:
            rows = list(self._rows)
            headings, chosen, gap = _fitting(self._headings, rows, self._console.width)
            table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
            for index in chosen:
                table.add_column(headings[index], justify="right", no_wrap=True)
            for cells in rows:
                table.add_row(*(cells[index] for index in chosen))
            parts.append(table)
        if self._status is not None:
            parts.append(Text(self._status))
        return Group(*parts)
