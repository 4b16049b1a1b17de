"""One seed of several, as a process of its own: `python -m gradweave.cli.one_seed RUN [CORE ...]`.

Starts the run, or goes on with it. Ends as `gradweave resume` does, with the same exit codes.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from gradweave.api.training import train_in
from gradweave.cli.main import answering
from gradweave.machine.processes import end_with_parent, use_cores
from gradweave.machine.signals import leaving_at_once
from gradweave.runs.run_folder import RunFolder
from gradweave.training.launch import launch

__all__ = ["command", "run"]


def command(path: Path, cores: Sequence[int]) -> list[str]:
    """The command line that trains in `path` on these cores."""
    return [sys.executable, "-m", "gradweave.cli.one_seed", str(path), *map(str, cores)]


def run(argv: Sequence[str]) -> int:
    """Train; returns the exit code."""
    end_with_parent()
    use_cores([int(core) for core in argv[1:]])
    trained = train_in(launch(lambda: RunFolder.open(Path(argv[0]))))
    assert trained is not None  # a seed is one process
    print(trained.summary)
    return 0


if __name__ == "__main__":
    with leaving_at_once():
        sys.exit(answering(lambda: run(sys.argv[1:])))
