"""Small trainings as processes of their own, to be killed and stopped, and what they leave behind."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from gradweave.runs.checkpoints import list_checkpoints

__all__ = ["Ended", "command", "final_hash", "only_run", "run_to_end", "start", "train_command", "wait_for"]

WINDOW_STEPS: Final = 40
SMALL: Final = (
    *("--inner.num-envs", "4", "--inner.num-steps", "5", "--meta.num-inner-steps", "2", "--chunk-size", "10"),
    *("--network.policy-layers", "8", "--network.value-layers", "8"),
    *("--evaluation-episodes", "2", "--max-episode-steps", "110", "--evaluate-every", "4000"),
    *("--checkpoint-every", "2000"),
)


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    said: str
    seconds: float
    peak_bytes: int


def train_command(runs_dir: Path, num_meta_steps: int, *more: str) -> list[str]:
    """The command line of a training of so many meta-steps of 40 environment steps."""
    steps = str(num_meta_steps * WINDOW_STEPS)
    return command("train", "discounting-chain", *SMALL, "--total-steps", steps, "--runs-dir", str(runs_dir), *more)


def command(*words: str) -> list[str]:
    """A command of gradweave."""
    return [sys.executable, "-m", "gradweave", *words]


def start(words: Sequence[str], **environment: str) -> "subprocess.Popen[str]":
    """Start a command; what it prints comes from one pipe."""
    return subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1", **environment},
    )


def run_to_end(words: Sequence[str], seconds: float = 300.0, **environment: str) -> Ended:
    """Run a command to its end, or kill it after so many seconds, which is code -9."""
    begun = time.monotonic()
    process = start(words, **environment)
    killer = threading.Timer(seconds, process.kill)
    killer.start()
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    killer.cancel()
    process.stdout.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    return Ended(process.returncode, said, time.monotonic() - begun, usage.ru_maxrss * 1024)


def wait_for(process: "subprocess.Popen[str]", text: str) -> str:
    """Read what a process prints until a line has `text`; returns everything read."""
    assert process.stdout is not None
    read = ""
    for line in process.stdout:
        read += line
        if text in line:
            break
    return read


def only_run(runs_dir: Path) -> Path:
    """The one run in a folder."""
    (found,) = runs_dir.glob("*/config.toml")
    return found.parent


def final_hash(run: Path) -> str:
    """What a run came to: its metrics, and the numbers of its newest checkpoint, whatever the run is called."""
    digest = hashlib.sha256((run / "metrics.jsonl").read_bytes())
    content = list_checkpoints(run / "checkpoints")[-1].read_bytes()
    digest.update(content[8 + int.from_bytes(content[:8], "little") :])
    return digest.hexdigest()[:16]
