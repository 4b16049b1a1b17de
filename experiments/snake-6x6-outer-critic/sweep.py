"""A masked variant of the Snake 6x6 of Bonnet et al. 2022 (arXiv 2211.10550): an outer critic or not.

Not theirs are the action mask, a small last policy layer, and the batch that the outer loss is evaluated on; the rest
is: the discount is learned from 0.8, the board alone is seen, 512 environments x 5 steps, RMSProp 5e-4
with decay 0.9, lambda 0.95, value cost 0.5, entropy cost 0.01, separate networks, outer discount and lambda 1 with the
policy term only, one inner update, meta-Adam 3e-3 with 1e-8 inside the root, meta-gradients clipped at 0.1.
"""

from typing import Any, NamedTuple

from _study.jobs import to_length, with_changes
from gradweave.config.presets import preset
from gradweave.config.schema import Config

ABOUT = "a masked variant of the Snake 6x6 of arXiv 2211.10550: the learned discount with and without an outer critic"
COST = {
    "tiny": "half a minute",
    "quick": "15 minutes",
    "full": "runs of 40 million inner steps, 10 to 40 minutes each, and added ones of 10; see --arms and --seeds",
    "long": "goes on to 75 million inner steps, as in the paper",
}

ARMS: dict[str, dict[str, Any]] = {
    "plain": {"meta.learned": ()},
    "meta-gradient": {"outer.critic": "off"},
    "outer-critic": {"outer.critic": "on"},
    "outer-critic-L5-mix": {
        "outer.critic": "on",
        "meta.num_inner_steps": 5,
        "meta.estimator": "horizon-mix",
        # As many inner steps to a chunk and between rows as the arms with one update in a window.
        "run.chunk_size": 4,
        "run.log_every": 4,
    },
}
_FAST = {"meta.learning_rate": 1e-2}
# As many environment steps to a chunk and between rows as the others.
_LONG_ROLLOUTS = {"inner.num_steps": 20, "run.chunk_size": 5, "run.log_every": 5}
# Added when the discount had gone further without an outer critic, and had sunk with five mixed steps: is it so at a
# higher meta learning rate, with rollouts four times as long? Shorter runs.
ADDED: dict[str, dict[str, Any]] = {
    f"{arm}-{name}": {**ARMS[arm], **changes}
    for name, changes in {"fast": _FAST, "long-rollouts": _LONG_ROLLOUTS}.items()
    for arm in ("meta-gradient", "outer-critic")
} | {
    # As much movement per inner step as with one update in a window.
    "outer-critic-L5-mix-fast": {**ARMS["outer-critic-L5-mix"], "meta.learning_rate": 1.5e-2},
}
ADDED_SEEDS = {"meta-gradient-fast": 3, "outer-critic-fast": 3}
"""How many of a size's seeds an added arm has, if more than one: where the first made a large difference."""
MILLION = 1_000_000
ADDED_INNER_STEPS = 10 * MILLION
"""Of the added arms, or as many as the size has."""
REPORTS = (1, 2, 5, 10, 20, 40, 75)
"""Million inner steps after which everything is reported, as far as a run goes."""


class Size(NamedTuple):
    """How much of it."""

    seeds: tuple[int, ...]
    inner_steps: int
    reports: tuple[int, ...]
    """Inner steps."""
    arms: tuple[str, ...] = tuple(ARMS)
    added: tuple[str, ...] = ()
    """Of the added arms."""


SIZES = {
    "tiny": Size((0,), 64, (32, 64), ("plain", "outer-critic"), ("outer-critic-long-rollouts",)),
    "quick": Size((0, 1), 600_000, (200_000, 400_000, 600_000)),
    "full": Size(
        (0, 1, 2), 40 * MILLION, tuple(count * MILLION for count in REPORTS if count <= 40), added=tuple(ADDED)
    ),
    "long": Size((0, 1, 2), 75 * MILLION, tuple(count * MILLION for count in REPORTS)),
}


def base(size: str) -> Config:
    """Base of all arms: the `snake-6x6` preset with an action mask, a small last policy layer, and the outer loss
    evaluated on the next inner batch. This is another problem than the paper's, which experiments/snake-6x6 has.
    """
    masked = {"environment.options.action_mask": True, "network.policy_scale": 0.01, "outer.rollout": "next"}
    return with_changes(preset("snake-6x6"), {**masked, **to_length(size)})
