"""Programs side by side: each on its share, at most so many at once, stopped together, none left behind."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gradweave.machine import processes
from gradweave.machine.processes import Job, default_backend, run_jobs, share_cores
from gradweave.machine.signals import noted_signals


def job(tmp_path: Path, name: str, program: str) -> Job:
    return Job(name, lambda cores: [sys.executable, "-c", program, *map(str, cores)], tmp_path / f"{name}.log")


def run(
    jobs: list[Job], shares: list[tuple[int, ...]], received: list[int] | None = None
) -> tuple[dict[str, int], int]:
    """Exit codes, and how many ran at most at the same time."""
    now: set[str] = set()
    most = [0]

    def started(job: Job) -> None:
        now.add(job.name)
        most[0] = max(most[0], len(now))

    codes = run_jobs(jobs, shares, received or [], started=started, ended=lambda job, code: now.remove(job.name))
    return codes, most[0]


@pytest.mark.parametrize(
    ("cores", "num_shares", "least", "expected"),
    [
        ({0, 1}, 2, 1, [(0,), (1,)]),
        ({0, 1}, 5, 1, [(0,), (1,)]),
        ({0, 1}, 1, 1, [(0, 1)]),
        ({2, 3, 5, 7, 8}, 2, 1, [(2, 3), (5, 7)]),
        ({0, 1, 2, 3, 4}, 5, 2, [(0, 1), (2, 3)]),
        ({0}, 3, 4, [(0,)]),
    ],
)
def test_shares_are_equal_and_disjoint(
    cores: set[int],
    num_shares: int,
    least: int,
    expected: list[tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores, raising=False)
    assert share_cores(num_shares, least) == expected


def test_one_at_a_time_and_every_exit_code_is_kept(tmp_path: Path) -> None:
    jobs = [job(tmp_path, str(code), f"print('hello'); raise SystemExit({code})") for code in (0, 3, 4)]
    assert run(jobs, [()]) == ({"0": 0, "3": 3, "4": 4}, 1)
    assert jobs[1].log.read_text() == "hello\n"


def test_as_many_at_once_as_there_are_shares(tmp_path: Path) -> None:
    jobs = [job(tmp_path, str(index), "import sys; print(sys.argv[1])") for index in range(3)]
    codes, most = run(jobs, [(5,), (6,)])
    assert most == 2
    assert set(codes.values()) == {0}
    assert {one.log.read_text() for one in jobs} == {"5\n", "6\n"}


def test_a_signal_is_handed_on_and_nothing_more_is_started(tmp_path: Path) -> None:
    careful = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(143)); print('up', flush=True)"
    jobs = [job(tmp_path, name, f"{careful}; time.sleep(60)") for name in ("first", "second")]
    with noted_signals() as received:

        def looked(running: object) -> None:
            if jobs[0].log.read_text() and not received:
                os.kill(os.getpid(), signal.SIGTERM)

        codes = run_jobs(jobs, [()], received, started=lambda job: None, ended=lambda job, code: None, looked=looked)
    assert received == [signal.SIGTERM]
    assert codes == {"first": 143}


def test_one_that_is_given_up_is_stopped_and_what_comes_later_is_started(tmp_path: Path) -> None:
    careful = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(143)); print('up', flush=True)"
    hopeless, other = job(tmp_path, "hopeless", f"{careful}; time.sleep(60)"), job(tmp_path, "other", "")
    ready: list[Job] = [hopeless]

    def looked(running: object) -> list[str]:
        return ["hopeless"] if hopeless.log.read_text() else []

    def ended(done: Job, code: int) -> None:
        if done is hopeless:
            ready.append(other)

    jobs = (ready.pop() if ready else None for _ in itertools.count())
    codes = run_jobs(jobs, [(), ()], [], started=lambda job: None, ended=ended, looked=looked)
    assert codes == {"hopeless": 143, "other": 0}


def test_dying_of_a_signal_is_128_and_more(tmp_path: Path) -> None:
    codes, _ = run([job(tmp_path, "killed", "import os; os.kill(os.getpid(), 9)")], [()])
    assert codes == {"killed": 137}


def test_an_error_in_here_leaves_nothing_running(tmp_path: Path) -> None:
    def broken(running: object) -> None:
        raise RuntimeError("the view is broken")

    note = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    sleeper = job(tmp_path, "sleeper", note)

    def looked(running: object) -> None:
        if sleeper.log.read_text():
            broken(running)

    with pytest.raises(RuntimeError, match="view is broken"):
        run_jobs([sleeper], [()], [], started=lambda job: None, ended=lambda job, code: None, looked=looked)
    with pytest.raises(ProcessLookupError):
        os.kill(int(sleeper.log.read_text()), 0)


def test_a_program_ends_with_its_parent() -> None:
    """Its standard input comes to an end when the parent is gone, whatever ended the parent."""
    program = "import time; from gradweave.machine.processes import end_with_parent as end; end(); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    time.sleep(0.5)
    assert child.poll() is None
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(30) == -signal.SIGTERM


def test_the_backend_is_asked_for_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert default_backend() == "cpu"
    monkeypatch.setenv("JAX_PLATFORMS", "")
    answer = subprocess.CompletedProcess([], 0, "a line of somebody's\ngpu\n", "")
    monkeypatch.setattr(processes.subprocess, "run", lambda *_, **__: answer)
    assert default_backend() == "gpu"
