"""Signals: the process leaves at once and says what was saved, or finishes what is under way, but not at a second."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from gradweave.cli.main import main
from gradweave.errors import Stopped
from gradweave.machine.signals import STOPPING, interruptible, leaving_at_once, noted_signals

CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]

HEAD = (
    "import hashlib, signal, sys, time\n"
    "from gradweave.machine.signals import interruptible, leaving_at_once, noted_signals, say_when_leaving\n"
    "with leaving_at_once():\n"
    "  say_when_leaving('nothing was saved')\n"
    "  print('ready', flush=True)\n"
)
BUSY = {
    "in a call that takes minutes": "  hashlib.pbkdf2_hmac('sha256', b'x', b'y', 10**9)\n",
    "where every exception is swallowed": (
        "  while True:\n    try:\n      time.sleep(60)\n"
        "    except BaseException:\n      print('swallowed', flush=True)\n"
    ),
}


def start(code: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(("number", "code"), CODES)
@pytest.mark.parametrize("busy", BUSY)
def test_the_process_leaves_at_once_whatever_it_does(busy: str, number: int, code: int) -> None:
    with start(HEAD + BUSY[busy]) as process:
        begun = time.monotonic()
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
    assert process.returncode == code and time.monotonic() - begun < 5
    (line,) = said.strip().splitlines()
    assert signal.Signals(number).name in line and "nothing was saved" in line


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_second_signal_does_not_wait(number: int, code: int) -> None:
    body = (
        "  with noted_signals() as received:\n"
        "    print('noting', flush=True)\n"
        "    while not received:\n      time.sleep(0.01)\n"
        "    print('noted', received, flush=True)\n"
        "    hashlib.pbkdf2_hmac('sha256', b'x', b'y', 10**9)\n"
    )
    with start(HEAD + body) as process:
        assert process.stdout is not None and process.stdout.readline() == "noting\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == f"noted [{int(signal.SIGTERM)}]\n"
        process.send_signal(number)
        process.communicate(timeout=20)
    assert process.returncode == code


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_that_is_ignored_from_the_start_stays_ignored(number: int) -> None:
    """As under nohup, or SIGINT in a background job of a shell."""
    ignoring = f"import signal\nsignal.signal({int(number)}, signal.SIG_IGN)\n"
    with start(ignoring + HEAD + "  time.sleep(0.5)\n  print('done', flush=True)\n") as process:
        process.send_signal(number)
        shown, _ = process.communicate(timeout=20)
    assert (process.returncode, shown) == (0, "done\n")


def test_after_it_everything_is_as_before() -> None:
    before = [signal.getsignal(number) for number in STOPPING]
    with leaving_at_once(), noted_signals():
        assert signal.getsignal(signal.SIGTERM) is not before[0]
    assert [signal.getsignal(number) for number in STOPPING] == before
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("number", STOPPING)
def test_signals_are_noted_at_once(number: int) -> None:
    with noted_signals() as received:
        os.kill(os.getpid(), number)
        assert received == [number]


@pytest.mark.parametrize("raised", [KeyboardInterrupt, Stopped])
def test_work_that_can_be_interrupted_is(raised: type[BaseException]) -> None:
    number = signal.SIGINT if raised is KeyboardInterrupt else signal.SIGTERM
    with pytest.raises(raised, match=signal.Signals(number).name), interruptible():
        os.kill(os.getpid(), number)
        time.sleep(10)


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Stopped)])
@pytest.mark.parametrize("asks", [True, False])
def test_an_exception_that_a_library_swallows_is_raised_again(number: int, raised: type, asks: bool) -> None:
    """As in a call back from compiled code; at the next place that asks, or else at the end of the work."""
    done = []
    with pytest.raises(raised, match=signal.Signals(number).name), interruptible() as check:
        with contextlib.suppress(KeyboardInterrupt, Stopped):
            os.kill(os.getpid(), number)
            time.sleep(10)
        if asks:
            check()
        done.append("the rest of the work")
    assert bool(done) != asks


def test_a_handler_that_a_library_puts_in_the_place_of_ours_does_not_stay() -> None:
    """As that of `jax.distributed`, which hears of SIGTERM from then on, and nobody else does."""
    with leaving_at_once():
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        with noted_signals() as received:
            os.kill(os.getpid(), signal.SIGTERM)
            assert received == [signal.SIGTERM]


SHUTDOWNS = {
    "a thread that goes on": "threading.Thread(target=time.sleep, args=(20,)).start()\nprint('ready', flush=True)\n",
    "an exit function": "atexit.register(lambda: (print('ready', flush=True), time.sleep(20)))\n",
    "modules being taken down": (
        "class Late:\n  def __del__(self, write=os.write, sleep=time.sleep):\n    write(1, b'ready\\n')\n    sleep(2)\n"
        "late = Late()\n"
    ),
}


@pytest.mark.parametrize("number", STOPPING)
@pytest.mark.parametrize("shutdown", SHUTDOWNS)
def test_a_signal_after_the_exit_code_is_decided_does_not_change_it(shutdown: str, number: int) -> None:
    code = (
        "import atexit, os, sys, threading, time\nfrom gradweave.cli.main import main\nsys.argv = ['gradweave', 'x']\n"
        f"code = main()\n{SHUTDOWNS[shutdown]}sys.exit(code)\n"
    )
    with start(code) as process:
        begun = time.monotonic()
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 2 and time.monotonic() - begun < 10
    assert said.startswith("gradweave: command") and "at once" not in said


def test_a_call_with_arguments_leaves_the_signals_of_its_process_as_they_were() -> None:
    before = [signal.getsignal(number) for number in STOPPING]
    assert main(["--version"]) == 0
    assert [signal.getsignal(number) for number in STOPPING] == before
