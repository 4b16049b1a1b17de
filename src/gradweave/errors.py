"""The exceptions that end a run, each with the exit code the command line answers with.

The codes are part of the public interface: 2 bad configuration or a damaged file, 3 no usable checkpoint, 4 a
non-finite value, 5 out of memory, 6 the run folder is in use, 7 another process of the run is gone, 8 the run's own
files cannot be written or were replaced, 143 stopped by SIGTERM after a checkpoint.
Nothing here imports JAX.
"""

import difflib
import shlex
from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DamagedFile",
    "FolderLost",
    "GradweaveError",
    "HostLost",
    "NonFiniteError",
    "OutOfMemory",
    "RunInUse",
    "SeedFailed",
    "Stopped",
    "command_line",
    "nearest_name",
]


class GradweaveError(Exception):
    """Base of every failure that a user can meet; `exit_code` is that of the command."""

    exit_code = 1


class ConfigError(GradweaveError, ValueError):
    """A configuration value that cannot be used: the field, the given value, the accepted ones, a remedy."""

    exit_code = 2

    def __init__(
        self, field: str, value: object, accepted: str, remedy: str, others: Iterable["ConfigError"] = ()
    ) -> None:
        """Describe one bad value; `others` are further bad values found in the same configuration."""
        self.field = field
        self.value = value
        self.accepted = accepted
        self.remedy = remedy
        self.others = tuple(others)
        self.own = f"{field.rstrip('_')} = {_shown(value)} cannot be used\n  accepted: {accepted}\n  remedy:   {remedy}"
        super().__init__("\n".join([self.own, *(str(other) for other in self.others)]))


def _shown(value: object) -> str:
    """A value in an error, at most a line of it."""
    try:
        text = repr(value) if not isinstance(value, int) or abs(value) < 10**100 else "a number of more than 100 digits"
    except RecursionError:
        text = f"a {type(value).__name__}, nested too deeply,"
    return text if len(text) <= 200 else f"{text[:200]} ..."


class DamagedFile(GradweaveError, ValueError):
    """A file of a run's folder that gradweave cannot have written: names the file, the line, and a remedy."""

    exit_code = 2

    def __init__(self, path: Path, what: str, remedy: str, line: int | None = None) -> None:
        """Say what is wrong with the file at `path`, or with one line of it, counted from 1."""
        self.path, self.line, self.remedy = path, line, remedy
        place = f"{path}" if line is None else f"{path}, line {line},"
        super().__init__(f"{place} {what}; {remedy}")


class CheckpointError(GradweaveError):
    """A checkpoint that is missing, damaged, or not shaped like the state it should be loaded into."""

    exit_code = 3


class NonFiniteError(GradweaveError, FloatingPointError):
    """A value that must be finite is not: says which tensor, and at which environment step."""

    exit_code = 4

    def __init__(
        self,
        tensor: str,
        where: int | str,
        remedy: str = "the last good checkpoint is kept. Lower the learning rates (--inner.learning-rate, "
        "--meta.learning-rate), set --meta.max-grad-norm, or skip such windows with --on-nonfinite skip.",
    ) -> None:
        """Name the tensor, and where it was met: an environment step of training, or in words."""
        self.tensor = tensor
        place = f"at environment step {where}" if isinstance(where, int) else where
        super().__init__(f"{tensor} is not finite {place}; {remedy}")


class OutOfMemory(GradweaveError, MemoryError):
    """The device has too little memory: says the predicted peak where it is known, and fields to lower."""

    exit_code = 5

    def __init__(self, remedy: str, predicted_bytes: int | None = None) -> None:
        """Name fields to lower, and how much memory the compiled program was predicted to need at its peak."""
        self.remedy = remedy
        self.predicted_bytes = predicted_bytes
        peak = "" if predicted_bytes is None else f" (predicted peak {predicted_bytes / 2**20:.0f} MiB)"
        super().__init__(f"out of memory{peak}: {remedy}")


class RunInUse(GradweaveError):
    """Another process holds the run folder."""

    exit_code = 6


class HostLost(GradweaveError):
    """Another process of this run is gone, or was never there."""

    exit_code = 7


class FolderLost(GradweaveError):
    """The run's own files cannot be written any more, or another program has replaced them: names the saved data."""

    exit_code = 8


class SeedFailed(GradweaveError):
    """A seed of a run of several ended with an error, whose exit code this has; the other seeds are as they ended."""

    def __init__(self, message: str, exit_code: int) -> None:
        """Name the seed and the remedy."""
        self.exit_code = exit_code
        super().__init__(message)


class Stopped(GradweaveError):
    """The run was asked to stop and did so after writing a checkpoint; `gradweave resume` goes on from there."""

    exit_code = 143


def command_line(command: str, *arguments: object) -> str:
    """A command of gradweave as it can be pasted into a shell, whatever the names of folders.

    Example:
        >>> command_line("resume", "my runs/a", "--total-steps", 100)
        "gradweave resume 'my runs/a' --total-steps 100"
    """
    words = [f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word) for word in arguments]
    return shlex.join(["gradweave", command, *words])


def nearest_name(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` most like `name`, or None when none is alike.

    Example:
        >>> nearest_name("quikc", ["quick", "snake"])
        'quick'
    """
    candidates = list(names)
    matches = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    if matches:
        return matches[0]
    starts = [candidate for candidate in candidates if name and candidate.startswith(name)]
    return starts[0] if starts else None
