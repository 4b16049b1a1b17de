"""Where do the arrows point? The meta-gradient's sign against what a change of a meta-parameter does to the return.

Agents are trained plainly; at moments of it everything stands still. From there (1) the meta-gradient is sampled,
horizon by horizon, and (2) learning goes on with each meta-parameter a little higher and a little lower, with the same
randomness on both sides, and the return is evaluated after one update up to a thousand. An update is a rollout of PPO
with its epochs and minibatches.
"""

from typing import Any, NamedTuple

from _study.jobs import with_changes
from gradweave.config.presets import preset
from gradweave.config.schema import Config

ABOUT = "CartPole: the sign of the meta-gradient against the true effect on the return, from 1 to 1,000 updates"
COST = {"tiny": "half a minute", "quick": "10 minutes", "full": "an hour or more"}

LEARNED = ("learning_rate", "entropy_cost", "discount", "lambda_")
SHIFT = 0.5
"""Of a raw value, to both sides: a factor of 1.65 for rates and costs, a discount of 0.99 becomes 0.9836 or 0.9939."""
EVOLUTION_SIGMA = 0.5
"""Of evolution strategies with one perturbation of all meta-parameters for as long as learning goes on (ES-Single)."""
HELD = 1e-12
"""Meta learning rate while the agents are trained: nothing moves."""


class Size(NamedTuple):
    """How much of it."""

    seeds: tuple[int, ...]
    """Of the agents."""
    moments: tuple[int, ...]
    """Environment steps at which everything stands still; the first checkpoint at or after each."""
    horizons: int
    """Updates of the longest meta-gradient."""
    num_samples: int
    """Of the meta-gradient."""
    updates: tuple[int, ...]
    """After how many the return is evaluated."""
    num_pairs: int
    """Of runs with a higher and a lower value, for each meta-parameter."""
    num_evolution_pairs: int
    num_episodes: int
    checkpoint_every: int


SIZES = {
    "tiny": Size((0, 1), (64,), 2, 4, (1, 2), 2, 2, 2, 64),
    "quick": Size((0, 1), (10_000, 40_000), 5, 64, (1, 3, 10, 30, 100), 8, 32, 32, 10_000),
    "full": Size((0, 1, 2, 3), (10_000, 40_000, 160_000), 10, 256, (1, 3, 10, 30, 100, 300, 1000), 8, 32, 32, 10_000),
}


def base(size: str) -> Config:
    """PPO as practitioners run it, with shorter rollouts than the preset so that a thousand of them can be afforded."""
    changes: dict[str, Any] = {
        "inner.num_envs": 8,
        "inner.num_steps": 4 if size == "tiny" else 32,
        "meta.learned": LEARNED,
        "meta.tuners": (),
        "meta.guard": False,
        "meta.learning_rate": HELD,
        "meta.num_inner_steps": 1,
        "meta.estimator": "unrolled",
        "run.checkpoint_every": SIZES[size].checkpoint_every,
        "run.keep_checkpoints": 1000,
        "run.evaluate_every": 0,
        "run.evaluation_episodes": SIZES[size].num_episodes,
    }
    if size == "tiny":
        changes |= {"network.policy_layers": (4,), "network.value_layers": (4,), "run.max_episode_steps": 20}
        changes |= {"inner.num_epochs": 1, "inner.num_minibatches": 2, "run.chunk_size": 1}
    return with_changes(preset("ppo"), changes)
