"""TorchOpt's differentiable optimiser on the same work: the meta-gradient of its toy, by it and by ours.

It is no dependency; where it is not installed it is left out (`pip install torch torchopt`).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradweave as gw

__all__ = ["torchopt_toy", "weave_toy"]

TOY_STATES = 10


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
