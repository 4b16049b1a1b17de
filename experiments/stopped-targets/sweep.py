"""How far "stopped" targets depart from the derivative: window lengths, seeds, and the agent that is looked at."""

import dataclasses

from gradweave.config.learners.actor_critic import LEARNABLE
from gradweave.config.presets import preset
from gradweave.config.schema import Config, EnvironmentConfig

LENGTHS = (1, 2, 5, 10)
SEEDS = tuple(range(8))
NUM_WARM_UPS = 100
"""Windows of plain learning beforehand, so that there are values to bootstrap from: 80,000 environment steps."""
STEPS = (2e-6, 6e-7, 2e-7)
"""Of finite differences, in unconstrained meta-parameters."""
WRITINGS = ("differentiated", "stopped")


def configuration(seed: int, targets: str, num_inner_steps: int) -> Config:
    """The demo's learner on Snake 6 x 6, smaller; every meta-parameter is differentiated."""
    base = preset("quick")
    return dataclasses.replace(
        base,
        environment=EnvironmentConfig("snake", {"num_rows": 6, "num_cols": 6, "time_limit": 500}),
        network=dataclasses.replace(base.network, channels=(8, 8), policy_layers=(32,), value_layers=(32,)),
        inner=dataclasses.replace(base.inner, num_envs=32, learning_rate=3e-3, eps=1e-5, targets=targets),
        meta=dataclasses.replace(
            base.meta, learned=LEARNABLE, num_inner_steps=num_inner_steps, estimator="unrolled", learning_rate=1e-30
        ),
        run=dataclasses.replace(base.run, seed=seed),
    )
