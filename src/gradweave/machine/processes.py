"""Several programs at once, each on its share of the cores: started, watched, stopped together, waited for.

For the seeds of a run. When this process is told to stop, the programs get SIGTERM and may take their time to write a
checkpoint. Should this process die, the programs see the end of their standard input: see `end_with_parent`.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from gradweave.errors import GradweaveError
from gradweave.files import open_appending
from gradweave.machine.runtime import usable_cores

__all__ = ["Job", "default_backend", "end_with_parent", "run_jobs", "share_cores", "use_cores"]

_SECONDS_BETWEEN_LOOKS: Final = 0.1


class Job(NamedTuple):
    """A program to run.

    Attributes:
        name: of the job.
        command: the command to start, for a share of the cores.
        log: the file to which its output is appended.
    """

    name: str
    command: Callable[[tuple[int, ...]], Sequence[str]]
    log: Path


def share_cores(num_shares: int, least: int = 1) -> list[tuple[int, ...]]:
    """The usable cores in equal shares, so that a program gets the same whichever share is free.

    Args:
        num_shares: as many as these, or fewer where there are not enough cores.
        least: cores of a share.

    Returns:
        The numbers of the cores of each share; empty tuples where processes cannot be tied to cores.
    """
    count = usable_cores()
    num_shares = max(1, min(num_shares, count // least))
    if not hasattr(os, "sched_getaffinity"):  # not on macOS
        return [()] * num_shares
    cores, size = sorted(os.sched_getaffinity(0)), count // num_shares
    return [tuple(cores[index * size : (index + 1) * size]) for index in range(num_shares)]


def use_cores(cores: Sequence[int]) -> None:
    """Tie this process to cores; before JAX is imported, which makes a thread for each. Nothing if there are none."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def end_with_parent() -> None:
    """Have this process receive SIGTERM when its standard input, held open by its parent, comes to an end."""

    def watch() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock a thread must not hold when Python ends
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def run_jobs(
    jobs: Iterable[Job | None],
    shares: Sequence[tuple[int, ...]],
    received: Sequence[int],
    *,
    started: Callable[[Job], None],
    ended: Callable[[Job, int], None],
    looked: Callable[[Sequence[Job]], Collection[str] | None] = lambda running: None,
) -> dict[str, int]:
    """Run jobs, as many at a time as there are shares of the cores, in order.

    Args:
        jobs: jobs to run; names differ. The next one is asked for when there is a free share; None: there is none as
            long as those that run go on.
        shares: the cores for each of those that run at the same time.
        received: signals that this process has noted, growing while this goes on. At the first the jobs that run get
            SIGTERM, and no further ones are started.
        started: called when a job has been started.
        ended: called with its exit code when it has ended.
        looked: called several times a second with the jobs that run; returns the names of those to be stopped.

    Returns:
        The exit code of each job that was started; 128 + n for one that died of signal n.
    """
    waiting, free = iter(jobs), list(shares)
    running: list[tuple[Job, subprocess.Popen[bytes], tuple[int, ...]]] = []
    codes: dict[str, int] = {}
    told: set[str] = set()
    try:
        while True:
            while free and not received and (job := next(waiting, None)) is not None:
                cores = free.pop(0)
                running.append((job, _start(job, cores), cores))
                started(job)
            if not running:
                return codes
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            for entry in [entry for entry in running if entry[1].poll() is not None]:
                job, process, cores = entry
                running.remove(entry)
                free.append(cores)
                codes[job.name] = _close(process)
                ended(job, codes[job.name])
            stopped = looked([job for job, _, _ in running]) or ()
            for job, process, _ in running:
                if (received or job.name in stopped) and job.name not in told:
                    told.add(job.name)  # a second signal would have it leave without a checkpoint
                    process.terminate()  # SIGINT too becomes this: background programs begin with SIGINT ignored
    finally:
        for _, process, _ in running:  # only after an error in here
            process.terminate()
            _close(process)


def _start(job: Job, cores: tuple[int, ...]) -> "subprocess.Popen[bytes]":
    with open_appending(job.log) as log:
        # A session of its own: Ctrl-C in a terminal reaches this process only, which passes on one SIGTERM.
        return subprocess.Popen(
            job.command(cores), stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def _close(process: "subprocess.Popen[bytes]") -> int:
    code = process.wait()
    assert process.stdin is not None
    process.stdin.close()
    return code if code >= 0 else 128 - code


def default_backend() -> str:
    """JAX's default backend, found in a separate process: this one must not take an accelerator's memory.

    Raises:
        GradweaveError: JAX does not start; with its message.
    """
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return "cpu"
    asked = [sys.executable, "-c", "import jax; print(jax.default_backend())"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GradweaveError(f"JAX does not start here:\n{done.stderr.strip()}")
    return done.stdout.split()[-1]
