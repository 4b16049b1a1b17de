"""Progress: aligned plain lines, the live table, and compilation that is seen to go on."""

import io
import re
import time

import pytest

from gradweave.runs import progress as module
from gradweave.runs.progress import Progress, format_duration

ROW = {"step": 1000, "return": 2.345, "eta/discount": 0.95, "eta/learning_rate": 3e-4, "steps_per_second": 500.0}


def test_plain_lines_are_aligned_under_their_headings() -> None:
    stream = io.StringIO()
    with Progress(["discount", "learning_rate"], 91_000, stream=stream) as progress:
        progress.update(ROW)
        progress.update({"step": 2000, "return": None})
        progress.message("checkpoint written")
    heading, first, second, message = stream.getvalue().splitlines()
    assert heading.split() == ["steps", "return", "discount", "learning_rate", "steps/s", "left"]
    assert first.split() == ["1,000", "2.35", "0.9500", "3.00e-04", "500", "3m00s"]
    assert second.split() == ["2,000", "-", "-", "-", "-", "-"]
    assert message == "checkpoint written"
    assert len(heading) == len(first) == len(second)
    assert heading.index("discount") + len("discount") == first.index("0.9500") + len("0.9500")


def test_headings_are_repeated() -> None:
    stream = io.StringIO()
    with Progress([], 10**6, stream=stream, live=False) as progress:
        for step in range(21):
            progress.update({"step": step})
    assert stream.getvalue().count("steps/s") == 2


def test_live_table_shows_the_last_rows_and_messages() -> None:
    stream = io.StringIO()
    with Progress(["discount"], 91_000, stream=stream, live=True) as progress:
        for step in range(20):
            progress.update({**ROW, "step": step * 1000})
        progress.message("[not markup]")
    text = stream.getvalue()
    assert "[not markup]" in text
    assert "discount" in text
    assert "19,000" in text


@pytest.mark.parametrize("live", [False, True])
def test_compiling_shows_elapsed_time(live: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TICK_SECONDS", 0.02)
    stream = io.StringIO()
    with Progress([], 10, stream=stream, live=live) as progress:
        with progress.compiling():
            time.sleep(0.1)
        time.sleep(0.05)
        after = stream.getvalue()
    assert "compiling: done in 0.1 s" in after
    if not live:
        assert after.count("compiling ... 0 s") >= 3


def test_compiling_that_fails_does_not_claim_to_be_done() -> None:
    stream = io.StringIO()
    with Progress([], 10, stream=stream, live=False) as progress, pytest.raises(KeyError), progress.compiling():
        raise KeyError("x")
    assert "done" not in stream.getvalue()


def test_nothing_is_shown_outside_of_the_context() -> None:
    stream = io.StringIO()
    progress = Progress([], 10, stream=stream, live=False)
    progress.update(ROW)
    progress.message("x")
    with progress.compiling():
        pass
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1.0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (3599.9, "1h00m"), (86400.0 * 2 + 3600, "2d01h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("width", "gone"), [(120, set()), (60, {"steps/s"}), (40, {"steps/s", "rate", "entropy"})])
def test_a_narrow_terminal_loses_whole_columns(width: int, gone: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    stream, names = io.StringIO(), ["discount", "lambda_", "entropy_cost", "learning_rate"]
    with Progress(names, 91_000_000, stream=stream, live=True) as progress:
        progress.update({**ROW, "step": 1_000_000, "eta/lambda_": 0.9, "eta/entropy_cost": 0.01})
    text = stream.getvalue()
    lines = re.sub(r"\x1b\[[0-9?;]*[A-Za-z]", "", text).splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in text
    shown = {"steps", "return", "discount", "lambda", "entropy", "rate", "steps/s", "left"}
    words = set(re.split(r"[\s_]+", " ".join(lines)))
    assert shown - words == gone
    assert "1,000,000" in words and "2.35" in words
