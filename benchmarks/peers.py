"""Other people's code on the same work: Jumanji's A2C trainer, and TorchOpt's differentiable optimiser.

Neither is a dependency; what is not installed is left out (`pip install dm-haiku torch torchopt`).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradweave as gw

__all__ = ["JUMANJI_SIZES", "jumanji_a2c", "torchopt_toy", "weave_toy"]

JUMANJI_SIZES: Final[Mapping[str, Any]] = {
    "network.channels": (32, 32),
    "network.policy_layers": (64, 64),
    "network.value_layers": (128, 128),
    "network.shared_torso": False,
    "inner.num_envs": 128,
    "inner.num_steps": 20,
    "inner.discount": 0.997,
    "inner.lambda_": 0.95,
    "inner.value_cost": 1.0,
    "inner.entropy_cost": 0.01,
    "inner.learning_rate": 3e-4,
}
"""Jumanji's own configuration for Snake 12x12, said as ours."""
TOY_STATES = 10


def jumanji_a2c() -> tuple[Callable[[], None], int]:
    """(one update of Jumanji's A2C trainer on Snake 12x12 with its own sizes, environment steps of it).

    Raises:
        ImportError: dm-haiku is not installed.
    """
    from jumanji.environments import Snake
    from jumanji.training.agents.a2c import A2CAgent
    from jumanji.training.networks.snake.actor_critic import make_actor_critic_networks_snake
    from jumanji.training.types import ActingState, TrainingState
    from jumanji.wrappers import VmapAutoResetWrapper

    num_envs, num_steps = JUMANJI_SIZES["inner.num_envs"], JUMANJI_SIZES["inner.num_steps"]
    environment = VmapAutoResetWrapper(Snake(12, 12))
    networks = make_actor_critic_networks_snake(Snake(12, 12), 32, (64, 64), (128, 128))
    agent = A2CAgent(
        env=environment,
        n_steps=num_steps,
        total_batch_size=num_envs,
        actor_critic_networks=networks,
        optimizer=optax.adam(3e-4),
        normalize_advantage=False,
        discount_factor=0.997,
        bootstrapping_factor=0.95,
        l_pg=1.0,
        l_td=1.0,
        l_en=0.01,
    )
    params = agent.init_params(jax.random.PRNGKey(0))
    env_state, timestep = environment.reset(jax.random.split(jax.random.PRNGKey(1), num_envs))
    acting = ActingState(env_state, timestep, jax.random.PRNGKey(2), jnp.float32(0), jnp.float32(0))
    # As its train.py does: one replica a device under pmap, and a scan of updates inside.
    start = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], TrainingState(params_state=params, acting_state=acting))

    @functools.partial(jax.pmap, axis_name="devices")
    def epoch(state: Any) -> Any:
        return jax.lax.scan(lambda state, _: agent.run_epoch(state), state, None, 1)

    box = [start]

    def call() -> None:
        box[0], metrics = epoch(box[0])
        jax.block_until_ready((box[0], metrics))

    return call, num_envs * num_steps


def _toy_rewards(num_updates: int) -> np.ndarray:
    """Rewards of ten-step episodes, (updates + 1, 10): noise at every other step, 0.1 between."""
    rewards = np.full((num_updates + 1, TOY_STATES), 0.1, np.float32)
    rewards[:, ::2] = np.random.default_rng(0).normal(size=(num_updates + 1, TOY_STATES // 2))
    return rewards


def weave_toy(num_updates: int) -> Callable[[], np.ndarray]:
    """Meta-gradient of nine discounts, one a step, of a linear value learned by SGD; TorchOpt's MGRL toy, ours."""

    def backup(rewards: Any, discounts: Any) -> Any:
        def back(following: Any, step: Any) -> Any:
            value = step[0] + step[1] * following
            return value, value

        _, earlier = jax.lax.scan(back, rewards[-1], (rewards[:-1], discounts), reverse=True)
        return jnp.append(earlier, rewards[-1])

    def loss(values: Any, returns: Any, eta: Any, rewards: Any) -> tuple[Any, None]:
        return jnp.mean((values - returns) ** 2), None

    def outer_loss(state: Any, rewards: Any) -> tuple[Any, None]:
        return jnp.mean((state.params - backup(rewards, jnp.ones(TOY_STATES - 1))) ** 2), None

    learner = gw.GradientLearner(
        lambda values, eta, rewards: backup(rewards, eta),
        loss,
        optax.identity(),
        lambda eta: jnp.asarray(0.5, eta.dtype),
        outer_loss,
    )
    rewards = jnp.asarray(_toy_rewards(num_updates), float)
    raw = jnp.zeros(TOY_STATES - 1)

    @jax.jit
    def gradient(raw: Any) -> Any:
        start = learner.init(jnp.zeros(TOY_STATES))
        return gw.meta_gradient(learner, raw, gw.Interval(), start, rewards, None, mode=gw.MixedMode()).grad

    return lambda: np.asarray(gradient(raw))


def torchopt_toy(num_updates: int) -> Callable[[], np.ndarray]:
    """The same by `torchopt.MetaSGD` and PyTorch's automatic differentiation.

    Raises:
        ImportError: torch or torchopt is not installed.
    """
    import torch
    import torchopt

    rewards = torch.as_tensor(_toy_rewards(num_updates))
    features = torch.eye(TOY_STATES)
    raw = torch.zeros(TOY_STATES - 1, requires_grad=True)

    def backup(rewards: Any, discounts: Any) -> Any:
        returns = [rewards[-1]]
        for index in reversed(range(TOY_STATES - 1)):
            returns.append(rewards[index] + discounts[index] * returns[-1])
        return torch.stack(returns[::-1])

    def call() -> np.ndarray:
        raw.grad = None
        values = torch.nn.Linear(TOY_STATES, 1, bias=False)
        torch.nn.init.zeros_(values.weight)
        optimizer = torchopt.MetaSGD(values, lr=0.5)
        for index in range(num_updates):
            error = values(features)[:, 0] - backup(rewards[index], torch.sigmoid(raw))
            optimizer.step(torch.mean(error**2))
        error = values(features)[:, 0] - backup(rewards[num_updates], torch.ones(TOY_STATES - 1))
        torch.mean(error**2).backward()
        return np.array(raw.grad)

    return call
