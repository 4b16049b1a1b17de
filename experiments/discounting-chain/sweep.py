"""bsuite's Discounting Chain: where meta-gradients take the discount, and whether that is far enough.

The first action picks a chain, and each pays once: 1.1 after the best chain's delay, 1 after those of the others, of
which the earliest comes at once. The best one is worth taking from the start when 1.1 gamma^(delay - 1) > 1, that is,
with a discount above 1.1^(-1 / (delay - 1)): the exact answer, to be reached from 0.9.
"""

from typing import Any, NamedTuple

from _study.jobs import with_changes
from gradweave.config.presets import preset
from gradweave.config.schema import Config

ABOUT = "Discounting Chain: where the discount goes with and without an outer critic, against the exact answer"
COST = {"tiny": "15 seconds", "quick": "2 minutes", "full": "20 minutes"}

DELAYS = (1, 3, 10, 30, 100)
BEST_REWARD = 1.1
CHAINS = (1, 2, 4)
"""Which chain pays most, in three versions of the environment: those of delay 3, 10 and 100."""

WAYS: dict[str, dict[str, Any]] = {
    "plain": {"meta.learned": ()},
    "plain-far-sighted": {"meta.learned": (), "inner.discount": 0.9999},
    "one-step": {"meta.num_inner_steps": 1, "meta.estimator": "unrolled", "outer.critic": "off", "run.log_every": 5},
    "one-step-critic": {"meta.num_inner_steps": 1, "meta.estimator": "unrolled", "run.log_every": 5},
    "mix": {"outer.critic": "off"},
    "mix-critic": {},
}
"""Plain with the starting discount and with one that is high enough for every chain; one step and five mixed horizons,
with the inner critic's values in the outer loss or with an outer critic's."""

ARMS = {
    f"{way}-delay{DELAYS[chain]}": {**changes, "environment.options.best_chain": chain}
    for chain in CHAINS
    for way, changes in WAYS.items()
}


class Size(NamedTuple):
    """How much of it."""

    seeds: tuple[int, ...]
    total_steps: int
    arms: tuple[str, ...] = tuple(ARMS)


SIZES = {
    "tiny": Size((0,), 64, ("plain-delay3", "mix-critic-delay3")),
    "quick": Size((0, 1), 1_000_000, tuple(arm for arm in ARMS if arm.endswith("delay3"))),
    "full": Size((0, 1, 2), 8_000_000),
}


def threshold(delay: int) -> float:
    """The discount above which the chain of this delay is the best from the start."""
    return BEST_REWARD ** (-1 / (delay - 1))


def base(size: str) -> Config:
    """Base of all arms: the preset, with the discount alone learned, from 0.9."""
    changes: dict[str, Any] = {
        "meta.learned": ("discount",),
        "meta.learning_rate": 0.02,
        # The choice is made in one step of a hundred: with the preset's 32 environments noise alone moves the discount.
        "inner.num_envs": 256,
        # The policy term only, as in Bonnet et al. 2022 (arXiv 2211.10550): an outer value loss would pull the discount
        # of an inner critic upwards, whether or not that is good for the policy.
        "outer.value_cost": 0.0,
        "run.evaluation_episodes": 256,
        "run.evaluate_every": 2_000_000,
        "run.checkpoint_every": 4_000_000,
        "run.keep_checkpoints": 2,
    }
    tiny = {"inner.num_envs": 4, "inner.num_steps": 2, "meta.num_inner_steps": 2, "run.chunk_size": 2}
    tiny |= {"run.evaluation_episodes": 2, "run.max_episode_steps": 20, "run.log_every": 1}
    return with_changes(preset("discounting-chain"), {**changes, **(tiny if size == "tiny" else {})})
