"""Snake 6x6 as Bonnet et al. 2022 (arXiv 2211.10550) play it, constant for constant: no mask, outer rollouts.

The setting is the preset `snake-6x6`; docs/paper-notes.md has the table of constants, theirs beside ours. Every arm
changes only what its name says.

A test was fixed before its runs were made, on seeds that no earlier run had: do runs whose outer loss is evaluated on
the next inner batch differ from runs with outer rollouts of their own, and either from the ten published ones?
Statistics: the change of the raw discount from 2.99 to 5.23 million inner steps, and its level at 6 million; exact
two-sided permutation tests of the difference of means, each at a level of 5 %. Arms `outer-critic` and
`outer-critic-next`, seeds 10 to 14.

Arms of five inner steps, unmixed and mixed, have the meta learning rate and the clipping that did best of four on seeds
of their own.
"""

import itertools
from typing import Any, NamedTuple

from _study.jobs import to_length, with_changes
from gradweave.config.presets import preset
from gradweave.config.schema import Config

ABOUT = "Snake 6x6 as in arXiv 2211.10550, without a mask: the learned discount with several outer losses"
COST = {
    "tiny": "half a minute",
    "quick": "15 minutes",
    "full": "runs of 6 or 10 million inner steps, 5 to 15 minutes each; see --arms and --seeds",
    "long": "goes on to 20 and 75 million inner steps, as in the paper: one to two hours each; arms of five steps, too",
}

_OUTER_CRITIC = {"outer.critic": "on"}
_NEXT = {"outer.rollout": "next"}
# Theirs: one target step of RMSProp, policies matched, twice the meta learning rate of the meta-gradient.
_BOOTSTRAPPED = {"meta.estimator": "bootstrapped", "meta.learning_rate": 6e-3}
ARMS: dict[str, dict[str, Any]] = {
    "outer-critic": _OUTER_CRITIC,
    "outer-critic-next": {**_OUTER_CRITIC, **_NEXT},
    "plain": {"meta.learned": (), "outer.rollout": "next"},
    "meta-gradient": {"outer.critic": "off"},
    "bootstrapped": {"outer.critic": "off", **_BOOTSTRAPPED},
    "bootstrapped-outer-critic": {**_OUTER_CRITIC, **_BOOTSTRAPPED},
}
"""In the order of the published table, the two arms of the test first."""
_FIVE_STEPS = {**_OUTER_CRITIC, "meta.num_inner_steps": 5, "run.chunk_size": 4, "run.log_every": 4}
FIVE_STEPS: dict[str, dict[str, Any]] = {
    f"{estimator}-5": {**_FIVE_STEPS, "meta.estimator": estimator}
    for estimator in ("horizon-mix", "window-mix", "unrolled")
}
"""Arms of five inner steps, with the outer critic; as many environment steps to a row as the others."""
CHOICES: dict[str, dict[str, dict[str, Any]]] = {
    arm: {
        f"{arm}-rate{rate:g}-norm{norm:g}": {**changes, "meta.learning_rate": rate, "meta.max_grad_norm": norm}
        # The published rate, and five times it: as much movement to an inner step. The published bound, and ten times.
        for rate, norm in itertools.product((3e-3, 1.5e-2), (0.1, 1.0))
    }
    for arm, changes in FIVE_STEPS.items()
}
"""Settings of each such arm, ranked by the training return over the last quarter of their runs."""
MILLION = 1_000_000
TEST_SEEDS = (10, 11, 12, 13, 14)
"""Of the two arms of the test."""
TEST_ARMS = ("outer-critic", "outer-critic-next")


LOGGED = tuple(updates * 2560 for updates in (438, 730, 1168, 1898, 2044, 2336, 3942, 7884, 15622, 29200))
"""Inner steps of the points of published.csv; of the last one returns are, and discounts 0.4 million later."""
PUBLISHED = {
    "mgrl_outer_critic": "published outer-critic",
    "mgrl": "published meta-gradient",
    "a2c": "published plain",
    "bootstrap_outer_critic": "published bootstrapped-outer-critic",
    "bootstrap": "published bootstrapped",
}
"""The arms of published.csv, and their names in tables."""


class Size(NamedTuple):
    """How much of it."""

    seeds: tuple[int, ...]
    """Of every arm."""
    inner_steps: int
    logged: tuple[int, ...]
    """Inner steps at which runs are compared."""
    test_points: tuple[int, int, int]
    """Inner steps of the test: the change from the first to the second, the level at the third."""
    test_seeds: tuple[int, ...] = ()
    """Of the arms of the test: these seeds as well."""
    test_steps: int = 0
    """Inner steps of runs for the test alone."""
    arms: tuple[str, ...] = tuple(ARMS)
    five_step_arms: tuple[str, ...] = ()
    choice_seeds: tuple[int, ...] = ()
    """Of their settings; not those that are reported."""
    choice_steps: int = 0
    """Inner steps of each setting's runs."""


_TEST_POINTS = (LOGGED[2], LOGGED[4], LOGGED[5])
_QUICK = (200_000, 400_000, 600_000)
SIZES = {
    "tiny": Size(
        (10,),
        128,
        (32, 64, 96),
        (32, 64, 96),
        (10, 11),
        128,
        ("plain", "outer-critic", "outer-critic-next"),
        ("horizon-mix-5",),
        (20,),
        128,
    ),
    "quick": Size((10, 11), 700_000, _QUICK, _QUICK, (10, 11), 700_000),
    "full": Size(TEST_SEEDS[:3], 10_200_000, LOGGED[:7], _TEST_POINTS, TEST_SEEDS, 6_200_000),
    "long": Size(
        TEST_SEEDS[:3],
        75 * MILLION,
        LOGGED,
        _TEST_POINTS,
        TEST_SEEDS,
        20_200_000,
        five_step_arms=tuple(FIVE_STEPS),
        choice_seeds=(20, 21),
        choice_steps=5_100_000,
    ),
}


def base(size: str) -> Config:
    """Base of all arms: the preset, evaluated on 128 episodes after every million steps."""
    return with_changes(preset("snake-6x6"), to_length(size))
