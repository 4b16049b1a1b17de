"""Named configurations: `auto` (the default), `quick` (the demo), `snake` (longer), `snake-6x6`,
`discounting-chain`, `ppo` and `vtrace`.

[B21] is Bonnet et al. 2021 (arXiv 2111.00206), [B22] Bonnet et al. 2022 (arXiv 2211.10550). Departures from them
are in docs/paper-notes.md.
"""

import dataclasses
from collections.abc import Callable
from typing import Final

from gradweave.config.auto import with_auto
from gradweave.config.learners import ppo, vtrace
from gradweave.config.learners.actor_critic import InnerConfig, NetworkConfig, OuterConfig
from gradweave.config.schema import Config, EnvironmentConfig, MetaConfig, RunConfig
from gradweave.errors import ConfigError, nearest_name

__all__ = ["DEFAULT_PRESET", "PRESETS", "preset"]


_BOARD = EnvironmentConfig(
    "snake", {"num_rows": 12, "num_cols": 12, "time_limit": 4000}
)  # [B21] plays on Jumanji's board
_POOR = InnerConfig(discount=0.9, lambda_=0.9, entropy_cost=0.03)  # on purpose: the meta-gradient has to correct them
_FIVE_HORIZONS = MetaConfig(
    learned=("discount", "lambda_", "entropy_cost", "learning_rate"), num_inner_steps=5, estimator="horizon-mix"
)  # [B21]


def _quick() -> Config:
    """The demo: Snake 12 x 12 from poor hyper-parameters, minutes on two cores."""
    return Config(environment=_BOARD, inner=_POOR, meta=_FIVE_HORIZONS, preset="quick")


def _snake() -> Config:
    """The demo ten times as long: Snake 12 x 12, five horizons mixed uniformly, 20 million steps."""
    return Config(
        environment=_BOARD,
        inner=_POOR,
        meta=_FIVE_HORIZONS,
        run=RunConfig(total_steps=20_000_000, log_every=5, checkpoint_every=1_000_000, evaluate_every=1_000_000),
        preset="snake",
    )


def _snake_6x6() -> Config:
    """[B22]'s setting: Snake 6 x 6 from the board alone, one-step meta-gradients of the discount, separate networks."""
    return Config(
        environment=EnvironmentConfig(
            "snake", {"num_rows": 6, "num_cols": 6, "time_limit": 500, "grid_only": True, "action_mask": False}
        ),
        network=NetworkConfig(
            channels=(32, 32),
            strides=(2, 1),
            policy_layers=(64, 64),
            value_layers=(128, 128),
            policy_scale=1.0,
            shared_torso=False,
            outer_torso="own",
        ),
        inner=InnerConfig(
            num_envs=512,
            num_steps=5,
            discount=0.8,
            lambda_=0.95,
            entropy_cost=0.01,
            value_cost=0.5,
            learning_rate=5e-4,
            optimizer="rmsprop",
            rmsprop_decay=0.9,
        ),
        meta=MetaConfig(
            learned=("discount",),
            num_inner_steps=1,
            estimator="unrolled",
            learning_rate=3e-3,
            eps_root=1e-8,
            max_grad_norm=0.1,
        ),
        outer=OuterConfig(discount=1.0, lambda_=1.0, value_cost=0.0, entropy_cost=0.0, rollout="own"),
        run=RunConfig(
            total_steps=20_000_000,
            log_every=20,
            chunk_size=20,
            checkpoint_every=1_000_000,
            evaluate_every=1_000_000,
            max_episode_steps=500,
        ),
        preset="snake-6x6",
    )


def _discounting_chain() -> Config:
    """The discounting chain of bsuite: five rewards at delays 1 to 100; only the right discount finds the best one."""
    return Config(
        environment=EnvironmentConfig(name="discounting-chain"),
        network=NetworkConfig(policy_layers=(32,), value_layers=(32,)),
        inner=dataclasses.replace(_POOR, num_envs=32, num_steps=20),
        meta=dataclasses.replace(_FIVE_HORIZONS, learned=("discount", "lambda_")),
        outer=OuterConfig(discount=1.0, lambda_=1.0),
        run=RunConfig(total_steps=500_000, checkpoint_every=100_000, evaluate_every=100_000, max_episode_steps=200),
        preset="discounting-chain",
    )


def _ppo() -> Config:
    """PPO on CartPole, which tunes its learning rate and its entropy cost; a minute on two cores."""
    return Config(
        learner="ppo",
        environment=EnvironmentConfig("gymnax:CartPole-v1"),
        network=ppo.NetworkConfig(shared_torso=False),
        inner=ppo.InnerConfig(),
        meta=MetaConfig(learned=("learning_rate", "entropy_cost"), num_inner_steps=2, estimator="horizon-mix"),
        outer=OuterConfig(discount=0.99, lambda_=0.95),
        run=RunConfig(
            total_steps=400_000,
            chunk_size=8,
            checkpoint_every=50_000,
            evaluate_every=50_000,
            max_episode_steps=500,
            measure_samples=32,
        ),
        preset="ppo",
    )


def _auto() -> Config:
    """PPO with the tuning `--meta.preset auto`; on CartPole, a minute on two cores."""
    return dataclasses.replace(with_auto(_ppo()), preset="auto")


def _vtrace() -> Config:
    """V-trace on CartPole with leaky weights; tunes how leaky, its learning rate and its entropy cost."""
    cartpole = _ppo()
    return dataclasses.replace(
        cartpole,
        learner="vtrace",
        network=NetworkConfig(shared_torso=False),
        inner=vtrace.InnerConfig(alpha=0.9, scale_rewards="on"),  # unscaled, values learn slowly
        meta=dataclasses.replace(cartpole.meta, learned=(*cartpole.meta.learned, "alpha")),
        run=dataclasses.replace(cartpole.run, total_steps=200_000),
        preset="vtrace",
    )


DEFAULT_PRESET: Final = "auto"
"""Preset used when none is named."""

PRESETS: Final[dict[str, Callable[[], Config]]] = {
    "auto": _auto,
    "quick": _quick,
    "snake": _snake,
    "snake-6x6": _snake_6x6,
    "discounting-chain": _discounting_chain,
    "ppo": _ppo,
    "vtrace": _vtrace,
}
"""Every preset by its name; the first line of each function's docstring is its help."""


def preset(name: str) -> Config:
    """The configuration called `name`.

    Raises:
        ConfigError: no preset has this name; the remedy names the most similar one.

    Example:
        >>> preset("snake-6x6").inner.num_envs
        512
    """
    if name not in PRESETS:
        near = nearest_name(name, PRESETS)
        remedy = f"did you mean {near!r}?" if near else f"leave the preset out to run {DEFAULT_PRESET!r}"
        raise ConfigError("preset", name, ", ".join(PRESETS), remedy)
    return PRESETS[name]()
