"""Snake 12x12: is a multi-step meta-gradient a better signal, how much noisier is it, and does mixing pay?

A self-tuning agent is trained, and at several moments its meta-gradient is sampled for every horizon up to 16. Claims
of Bonnet et al. 2021 (arXiv 2111.00206) that are looked at: (1) longer horizons point in a better direction in
expectation, (2) at a price in variance, (3) mixing cuts the variance threefold (returns are returns-snake's part).
"""

from typing import Any, NamedTuple

from _study.jobs import GAMES, TINY_SNAKE, Game, with_changes
from gradweave.config.presets import preset
from gradweave.config.schema import Config

ABOUT = "Snake 12x12: bias, variance and mixes of the meta-gradient up to 16 steps, at moments of training"
COST = {"tiny": "half a minute", "quick": "10 minutes", "full": "2 to 3 hours"}

MIXES = tuple(
    f"{family}:{weights}" for family in ("horizon-mix", "window-mix") for weights in ("uniform", 0.5, 0.8, 0.9, 0.95)
)
ESTIMATORS = ("unrolled", *MIXES, "adaptive-mix", "adaptive-mix:least-error")
"""The unmixed one first: the baseline of the others' variance."""


class Size(NamedTuple):
    """How much of it."""

    seeds: tuple[int, ...]
    moments: tuple[int, ...]
    """Environment steps; the first checkpoint at or after each is measured."""
    horizons: int
    """L of the samples."""
    lengths: tuple[int, ...]
    """Windows that mixes are looked at on; shorter ones are the beginnings of the longest."""
    num_samples: int
    burn_in: int
    """Rollouts before each sample, 5 steps of every environment each; up to twice as many."""
    checkpoint_every: int


SIZES = {
    "tiny": Size((0,), (16, 32), 3, (2, 3), 6, 1, 16),
    "quick": Size((0,), (100_000, 300_000), 8, (5, 8), 64, 40, 50_000),
    "full": Size((0, 1, 2), (100_000, 400_000, 1_000_000, 2_000_000, 4_000_000), 16, (2, 5, 10, 16), 320, 80, 100_000),
}

LARGE_BATCHES: dict[str, Any] = {
    "moments": (100_000, 1_000_000, 4_000_000),
    "num_samples": 96,
    "burn_in": 16,
}
"""Of the full size with batches of 512 x 5, whose samples take eight times the environment steps."""


def size_of(name: str, game: Game) -> Size:
    """The size of this name in a game; the full one has fewer moments and samples in large batches."""
    size = SIZES[name]
    return size._replace(**LARGE_BATCHES) if (name, game) == ("full", "unmasked-large") else size


def base(size: str, game: Game = "masked") -> Config:
    """The agent: the `quick` preset, all checkpoints kept."""
    changes: dict[str, Any] = {
        "run.checkpoint_every": size_of(size, game).checkpoint_every,
        "run.keep_checkpoints": 1000,
        "run.evaluate_every": 1_000_000,
    }
    return with_changes(preset("quick"), {**changes, **GAMES[game], **(TINY_SNAKE if size == "tiny" else {})})
