"""`gradweave play RUN`: let a trained agent play one episode, and write it as a GIF."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gradweave.api.run import load_run
from gradweave.cli.flags import parse_flags
from gradweave.config.checks import check_flags
from gradweave.config.numbers import MOST_STEPS
from gradweave.errors import ConfigError
from gradweave.machine.streams import say
from gradweave.training.loading import check_run

__all__ = ["run"]


@dataclass(frozen=True)
class _Flags:
    """The flags of `gradweave play`."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    greedy: bool = False
    """Always take the most probable action, instead of sampling as in training."""
    output: Path | None = None
    """The GIF to write; by default `agent.gif` in the run's folder."""
    seed: int = 0
    """Seed of the episode."""
    max_steps: int | None = None
    """Steps after which the episode is cut off; by default the run's `max_episode_steps`."""
    step: int | None = None
    """Environment steps of the checkpoint to play; by default the newest."""


def run(argv: Sequence[str]) -> int:
    """Play, write the GIF and print the return; returns the exit code."""
    flags = parse_flags(
        _Flags,
        "gradweave play",
        "Let a trained agent play one episode, and write it as a GIF.",
        argv,
        needs_words=True,
    )
    check_flags(flags, {"seed": (0, 2**32 - 1), "max_steps": (1, 2**31 - 1), "step": (0, MOST_STEPS)})
    check_run(flags.run, flags.step)
    output = flags.run / "agent.gif" if flags.output is None else flags.output
    if output.suffix.lower() != ".gif":
        raise ConfigError("--output", str(output), "a file whose name ends in .gif", f"--output {output}.gif")
    if not output.parent.is_dir():
        raise ConfigError("--output", str(output), "a file in a folder that exists", f"make {output.parent} first")
    _play(flags, output)
    return 0


def _play(flags: _Flags, output: Path) -> None:
    from gradweave.training.runtime import enable_compilation_cache

    enable_compilation_cache()
    run = load_run(flags.run, flags.step, say)
    played = run.play(output, seed=flags.seed, greedy=flags.greedy, max_steps=flags.max_steps)
    print(f"return {played.episode_return:g} in {played.num_steps} steps: {output}")
