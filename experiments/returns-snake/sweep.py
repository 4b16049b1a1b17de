"""Snake 12x12: does tuning its own hyper-parameters make an actor-critic learn better, and does mixing pay?

Every way of learning starts from the same poor hyper-parameters and again from good ones. Plain actor-critic with the
best of a small sweep stands beside them; the sweep has seeds of its own and its steps are counted.
"""

import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

from _study.jobs import GAMES, TINY_SNAKE, Game, with_changes
from gradweave.config.presets import preset
from gradweave.config.schema import Config
from gradweave.errors import ConfigError

ABOUT = "Snake 12x12 learning curves: plain, swept, one step, L steps and the mixes, from poor and from good values"
COST = {
    "tiny": "half a minute",
    "quick": "10 to 20 minutes",
    "full": "about 10 hours; runs of 6 million steps, in large batches 10 million, see --arms and --seeds",
    "long": "about 6 hours after the full one; three seeds of some arms go on to 30 million steps",
}

META_RATE = preset("quick").meta.learning_rate
STARTS: dict[str, dict[str, Any]] = {
    # Plain learning hardly gets off the ground with these in 600,000 steps (tried on seed 0).
    "poor": {"inner.discount": 0.8, "inner.lambda_": 0.8, "inner.entropy_cost": 0.1, "inner.learning_rate": 3e-4},
    # Jumanji's for Snake, but for batches that are eight times smaller: there it has 0.997 and 3e-4.
    "good": {"inner.discount": 0.97, "inner.lambda_": 0.95, "inner.entropy_cost": 0.01, "inner.learning_rate": 1e-3},
}
SLOW = {"meta.learning_rate": META_RATE / 5}
# Five times as many meta-steps to a chunk and between rows, so that all arms report after as many steps.
ONE_STEP = {"meta.num_inner_steps": 1, "meta.estimator": "unrolled", "run.chunk_size": 100, "run.log_every": 5}
WAYS: dict[str, dict[str, Any]] = {
    "plain": {"meta.learned": ()},
    "one-step": ONE_STEP,
    # Added when three seeds of the arm above had been seen: as much movement per environment step as the others.
    "one-step-slow": {**ONE_STEP, **SLOW},
    "unrolled": {"meta.estimator": "unrolled"},
    "window-mix": {"meta.estimator": "window-mix"},
    "horizon-mix": {"meta.estimator": "horizon-mix"},
    "adaptive-mix": {"meta.estimator": "adaptive-mix"},
}
# The best of the full size's sweep.
BEST_OF_SWEEP: dict[str, Any] = {
    "inner.discount": 0.997,
    "inner.lambda_": 0.95,
    "inner.entropy_cost": 0.03,
    "inner.learning_rate": 3e-3,
}
_DISCOUNTS = {**BEST_OF_SWEEP, **WAYS["horizon-mix"], "meta.learned": ("discount", "lambda_")}
DISCOUNTS_FROM: dict[str, dict[str, Any]] = {
    "poor": {**_DISCOUNTS, "inner.discount": 0.8, "inner.lambda_": 0.8},
    "swept": _DISCOUNTS,
}
# As many environment steps to a chunk as the others, and a row for as many.
LARGE_BATCHES = {"inner.num_envs": 256, "run.chunk_size": 5}
BOUND = {"meta.max_discount": 0.998}
FIXED_RATE = {"meta.learned": ("discount", "lambda_", "entropy_cost")}
# Added when the sweep had come out far ahead of self-tuning. Do longer windows get there, is it kept when tuned from?
ADDED: dict[str, dict[str, Any]] = {
    "horizon-mix-16-poor": {
        **STARTS["poor"],
        **WAYS["horizon-mix"],
        "meta.num_inner_steps": 16,
        # Nearly as many environment steps to a chunk and between rows as the others.
        "run.chunk_size": 6,
        "run.log_every": 6,
    },
    "horizon-mix-swept": {**BEST_OF_SWEEP, **WAYS["horizon-mix"]},
    # And when tuning had lost it: with smaller meta-steps, with the sweep's learning rate left alone.
    "horizon-mix-slow-poor": {**STARTS["poor"], **WAYS["horizon-mix"], **SLOW},
    "horizon-mix-slow-swept": {**BEST_OF_SWEEP, **WAYS["horizon-mix"], **SLOW},
    "horizon-mix-fixed-rate-poor": {
        **STARTS["poor"],
        **WAYS["horizon-mix"],
        **FIXED_RATE,
        "inner.learning_rate": BEST_OF_SWEEP["inner.learning_rate"],
    },
    "horizon-mix-fixed-rate-swept": {**BEST_OF_SWEEP, **WAYS["horizon-mix"], **FIXED_RATE},
    # And when smaller meta-steps had lost it too, with the entropy cost falling: only discount and lambda are tuned, or
    # the outer loss values entropy as the sweep's best learner does.
    "horizon-mix-discounts-poor": DISCOUNTS_FROM["poor"],
    "horizon-mix-discounts-swept": DISCOUNTS_FROM["swept"],
    "horizon-mix-outer-entropy-swept": {
        **BEST_OF_SWEEP,
        **WAYS["horizon-mix"],
        **SLOW,
        "outer.entropy_cost": BEST_OF_SWEEP["inner.entropy_cost"],
    },
    # And when the discount alone had passed 0.999 and lost the policy: it may no longer go above the outer loss's 0.997
    # by more than it takes to start there.
    "horizon-mix-bounded-poor": {**DISCOUNTS_FROM["poor"], **BOUND},
    "horizon-mix-bounded-swept": {**DISCOUNTS_FROM["swept"], **BOUND},
    # Four times the batch, all four tuned: is it noise that keeps it from getting there, or from staying?
    "horizon-mix-batch-poor": {**STARTS["poor"], **WAYS["horizon-mix"], **LARGE_BATCHES},
    "horizon-mix-batch-swept": {**BEST_OF_SWEEP, **WAYS["horizon-mix"], **LARGE_BATCHES},
}
# In large batches, instead of the chunk that one step has otherwise: a row is eight times as many environment steps.
ONE_STEP_LARGE = {"run.chunk_size": 15}
ADDED_SEEDS = 3
"""How many of a size's seeds the added arms have."""
_SHORT = {**STARTS["good"], "inner.discount": 0.8}
DISCOUNT_ALONE: dict[str, dict[str, Any]] = {
    **{f"{way}-short": {**_SHORT, **changes, "meta.learned": ("discount",)} for way, changes in WAYS.items()},
    "plain-short": {**_SHORT, **WAYS["plain"]},
    **{
        f"plain-{discount:g}-short": {**_SHORT, **WAYS["plain"], "inner.discount": discount}
        for discount in (0.9, 0.95, 0.99, 0.997)
    },
}
"""From good values but for the discount, which alone is learned; plain learning at several discounts beside it."""
STARTED = {f"{way}-{start}": {**STARTS[start], **WAYS[way]} for start in STARTS for way in WAYS}
ARMS = STARTED | ADDED | DISCOUNT_ALONE
MIXES = tuple(f"{way}-poor" for way in WAYS if way.endswith("-mix"))
SWEPT = "plain-swept"
"""The arm that has the best of `SWEEP`."""

SWEEP = {
    f"lr{rate:g}-discount{discount:g}-entropy{cost:g}": {
        "meta.learned": (),
        "inner.lambda_": 0.95,
        "inner.learning_rate": rate,
        "inner.discount": discount,
        "inner.entropy_cost": cost,
    }
    for rate, discount, cost in itertools.product((3e-4, 1e-3, 3e-3), (0.9, 0.97, 0.997), (0.01, 0.03))
}
"""The 18 settings of the sweep, ranked by the training return over the last quarter of their runs."""

REFERENCES = (
    *("plain-poor", "plain-good", SWEPT, "one-step-poor", "one-step-slow-poor", "unrolled-poor"),
    *("plain-short", "one-step-slow-short", "unrolled-short"),
)
"""Baselines of all arms."""
LONG_ARMS = ("plain-good", "plain-poor", SWEPT, "one-step-slow-poor", "unrolled-poor")
"""Of the long size, with the best mix of the full one; the sweep is not lengthened."""
_TUNED = ("one-step-slow", "unrolled", "window-mix", "horizon-mix")
LARGE_ARMS = (
    *(arm for arm in DISCOUNT_ALONE if arm.startswith("plain")),
    *(f"{way}-short" for way in _TUNED),
    *(f"{way}-poor" for way in ("plain", *_TUNED)),
    SWEPT,
)
"""Of the full size in large batches: the discount alone, then all four from poor values."""
GOAL = 20.0
"""A return to count the steps to."""


class Size(NamedTuple):
    """How much of it."""

    seeds: tuple[int, ...]
    total_steps: int
    sweep_seeds: tuple[int, ...]
    """Other seeds than those that are reported."""
    sweep_steps: int
    arms: tuple[str, ...] = (*STARTED, *ADDED, SWEPT)
    settings: tuple[str, ...] = tuple(SWEEP)


_FEW = ("lr0.0003-discount0.997-entropy0.01", "lr0.001-discount0.997-entropy0.01")
SIZES = {
    "tiny": Size((0,), 64, (100,), 64, ("horizon-mix-poor", SWEPT), _FEW),
    "quick": Size((0, 1), 200_000, (100,), 100_000, settings=_FEW),
    "full": Size((0, 1, 2, 3, 4), 6_000_000, (100, 101), 2_000_000),
    "long": Size((0, 1, 2), 30_000_000, (100, 101), 2_000_000, LONG_ARMS),
}


def size_of(name: str, game: Game) -> Size:
    """A size in a game; large batches have arms of their own, and in the full one more steps.

    Raises:
        ConfigError: there is no such size in this game.
    """
    if game != "unmasked-large":
        return SIZES[name]
    if name == "long":
        raise ConfigError("--size", name, "tiny, quick or full with --game unmasked-large", "leave --size out")
    size = SIZES[name]
    if name == "tiny":
        return size
    return size._replace(arms=LARGE_ARMS, total_steps=10_000_000 if name == "full" else size.total_steps)


def arms_of(names: Iterable[str], game: Game) -> dict[str, dict[str, Any]]:
    """The arms of these names and their changes, but for the best of the sweep, which is not known here."""
    found = {name: ARMS[name] for name in names if name in ARMS}
    if game != "unmasked-large":
        return found
    return {
        name: {**changes, **(ONE_STEP_LARGE if changes.get("meta.num_inner_steps") == 1 else {})}
        for name, changes in found.items()
    }


def base(size: str, game: Game = "masked") -> Config:
    """Base of all arms: the `quick` preset, evaluated on 128 episodes every million steps."""
    changes = {
        "run.evaluation_episodes": 128,
        "run.evaluate_every": 1_000_000,
        "run.checkpoint_every": 1_000_000,
        "run.keep_checkpoints": 2,
    }
    return with_changes(preset("quick"), {**changes, **GAMES[game], **(TINY_SNAKE if size == "tiny" else {})})
