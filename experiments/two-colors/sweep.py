"""Two Colors: does tuning the entropy cost pay in a world that does not stay as it is, and does a context help?

Which of two objects pays is swapped every 100,000 steps, and nothing that is seen says so. An agent that was certain
has to become uncertain again. After Luketina et al. 2022 (arXiv 2209.06159), whose game and arms these are.
"""

from typing import Any, NamedTuple

from _study.jobs import with_changes
from gradweave.config.presets import preset
from gradweave.config.schema import Config

ABOUT = "Two Colors: the entropy cost tuned one to six steps ahead, or bootstrapped, with and without a context"
COST = {"tiny": "half a minute", "quick": "20 minutes", "full": "about 3 hours a seed; see --arms and --seeds"}

META_RATE = 1e-4
"""Of Adam, as a public replication of Flennerhag et al. 2021 has it (MagiFeeney/Bootstrapped-Meta-Learning)."""
OUTER_ENTROPY = 0.12
"""In the outer loss, from the same; without any, a meta-gradient takes the entropy cost away."""
SWAP_EVERY = 100_000
STEPS_AHEAD = (3, 1, 6)
"""K, the most telling first: arms are made in this order."""

PLAIN: dict[str, Any] = {"meta.learned": (), "meta.num_inner_steps": 1, "meta.estimator": "unrolled"}
COSTS = {"plain": 0.1, "plain-low": 0.03, "plain-high": 0.3}
"""Entropy costs of plain learning; the first is also where tuning starts."""


def _ways(steps: int) -> dict[str, dict[str, Any]]:
    """Differentiated through K updates; or matched, from K updates, to where K more lead, the last on the outer loss.

    The last step of a target starts where the window ends, so that K and K of the target are 2 K - 1 updates.
    """
    target = {"meta.num_inner_steps": 2 * steps - 1, "meta.estimator": f"bootstrapped:{steps}"}
    return {
        f"meta-{steps}": {"meta.num_inner_steps": steps, "meta.estimator": "unrolled"},
        # A target that is reached without a bonus for entropy in its last step.
        f"bootstrapped-{steps}": {**target, "outer.entropy_cost": 0.0},
    }


CONTEXT: dict[str, Any] = {"meta.schedule": "rewards"}
TUNED = {name: changes for steps in STEPS_AHEAD for name, changes in _ways(steps).items()}
ARMS: dict[str, dict[str, Any]] = {
    **{name: {**PLAIN, "inner.entropy_cost": cost} for name, cost in COSTS.items()},
    **{
        f"{name}{suffix}": {**changes, **context}
        for name, changes in TUNED.items()
        for suffix, context in (("", {}), ("-context", CONTEXT))
    },
}


class Size(NamedTuple):
    """How much of it."""

    seeds: tuple[int, ...]
    total_steps: int
    arms: tuple[str, ...] = tuple(ARMS)


SIZES = {
    "tiny": Size((0,), 64, ("plain", "meta-1-context")),
    "quick": Size((0,), 1_000_000, ("plain", "meta-3", "meta-3-context", "bootstrapped-3", "bootstrapped-3-context")),
    "full": Size((0, 1, 2, 3, 4), 10_000_000),
}


def base(size: str) -> Config:
    """Base of all arms."""
    tiny = size == "tiny"
    hidden = (4,) if tiny else (256, 256)
    windows = 2 if tiny else 500
    changes: dict[str, Any] = {
        "environment.name": "two-colors",
        "environment.options": {"swap_every": 8 if tiny else SWAP_EVERY, "step_cost": True},
        "network.policy_layers": hidden,
        "network.value_layers": hidden,
        "network.shared_torso": False,
        # One stream, plain gradient steps of 0.1 on 16 steps of it, discount 0.99: those of Flennerhag et al. 2021. The
        # cost of a step, two layers and targets of one step (lambda 0) as in that replication of it.
        "inner.num_envs": 1,
        "inner.num_steps": 16,
        "inner.optimizer": "sgd",
        "inner.learning_rate": 0.1,
        "inner.discount": 0.99,
        "inner.lambda_": 0.0,
        "inner.entropy_cost": COSTS["plain"],
        "meta.learned": ("entropy_cost",),
        "meta.learning_rate": META_RATE,
        "outer.discount": 0.99,
        "outer.lambda_": 0.0,
        "outer.entropy_cost": OUTER_ENTROPY,
        "run.chunk_size": windows,
        "run.log_every": windows,
        "run.evaluate_every": 0,
        "run.evaluation_episodes": 1,
        "run.max_episode_steps": 16,
        "run.checkpoint_every": 16 if tiny else 1_000_000,
        "run.keep_checkpoints": 1,
    }
    return with_changes(preset("quick"), changes)
