"""Seeds in processes of their own, one core each, stepped together: the other way to compute several seeds at once.

As a program this file is one worker: it compiles a meta-step, then takes as many steps as each number it reads says.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

__all__ = ["SeedsInProcesses"]

_STEPS: Final = 2
"""Meta-steps of one call, so that waking the workers does not count."""


class SeedsInProcesses:
    """A program as `timing.alternate` takes it: one call steps one seed in each of several pinned processes.

    Attributes:
        calls_per_unit: what a call's time is divided by, as that of `timing.Program`.
        peak_bytes: temporary memory of one process times their number, by the compiler's account.
    """

    def __init__(self, changes: Mapping[str, Any], num_learned: int, num_updates: int, num_processes: int) -> None:
        """Starts the workers, at most one for each usable core, and waits until they have compiled."""
        from gradweave.machine.processes import share_cores

        shares = share_cores(num_processes)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the workers are
        self._workers = [self._start(changes, num_learned, num_updates, share) for share in shares]
        self.calls_per_unit = num_updates * len(shares) * _STEPS
        self.peak_bytes = sum(int(self._hear(worker)) for worker in self._workers)

    def __call__(self) -> None:
        for worker in self._workers:
            assert worker.stdin is not None
            worker.stdin.write(f"{_STEPS}\n")
            worker.stdin.flush()
        for worker in self._workers:
            self._hear(worker)

    def __enter__(self) -> "SeedsInProcesses":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.communicate()  # the end of its input is the worker's end
        self._errors.close()

    def _start(
        self, changes: Mapping[str, Any], num_learned: int, num_updates: int, cores: tuple[int, ...]
    ) -> "subprocess.Popen[str]":
        command = [sys.executable, str(Path(__file__)), repr((dict(changes), num_learned, num_updates, cores))]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._errors, text=True)

    def _hear(self, worker: "subprocess.Popen[str]") -> str:
        assert worker.stdout is not None
        line = worker.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError("a worker ended: " + self._errors.read().decode(errors="replace"))
        return line


def main() -> None:
    """One worker; its arguments are a literal of Python."""
    import ast

    changes, num_learned, num_updates, cores = ast.literal_eval(sys.argv[1])
    if cores:
        os.sched_setaffinity(0, cores)  # before JAX counts the cores
    from variants import meta_step

    from gradweave.training.runtime import enable_compilation_cache

    enable_compilation_cache()
    program = meta_step(changes, num_learned, num_updates)
    program()
    print(program.peak_bytes, flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            program()
        print("done", flush=True)


if __name__ == "__main__":
    main()
