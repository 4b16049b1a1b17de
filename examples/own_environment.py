"""An environment of one's own: a corridor with a small reward near by and a large one far away.

The class below is all that a run needs: `gradweave train ppo --environment.name own_environment:Corridor`, called in
this folder. Here it is checked, and a plain actor-critic is trained on it. Runs in about half a minute on one core.
"""

import tempfile
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

import gradweave as gw
from gradweave.envs import AbstractEnvironment, Observation, Step


class Place(NamedTuple):
    """State of an episode: arrays of definite types."""

    cell: jax.Array
    time: jax.Array


class Corridor(AbstractEnvironment[Place]):
    """Start in cell 2. The left end pays 0.2, the right end 1; out of time after `time_limit` steps."""

    length: int = eqx.field(static=True, default=10)
    time_limit: int = eqx.field(static=True, default=50)
    slip: float = 0.1  # probability of staying where one is
    num_actions: int = eqx.field(static=True, default=2)
    can_truncate: bool = eqx.field(static=True, default=True)

    def reset(self, *, key):
        del key  # every episode begins alike
        place = Place(jnp.asarray(2, jnp.int32), jnp.zeros((), jnp.int32))
        return place, self._observe(place)

    def step(self, state, action, *, key):
        stays = jax.random.bernoulli(key, self.slip)
        cell = state.cell + jnp.where(stays, 0, 2 * action - 1).astype(jnp.int32)
        place = Place(cell, state.time + 1)
        left, right = cell <= 0, cell >= self.length - 1
        reward = jnp.where(right, 1.0, jnp.where(left, 0.2, 0.0))
        ended = left | right  # a real end; running out of time is none, and the return goes on behind it
        return place, Step(self._observe(place), reward, ended, (place.time >= self.time_limit) & ~ended)

    def _observe(self, place: Place) -> Observation:
        view = (jnp.arange(self.length, dtype=jnp.int32) == place.cell).astype(jnp.result_type(float))
        return Observation(view, jnp.zeros(0, view.dtype), jnp.ones(self.num_actions, bool))


def main(quick: bool = False) -> dict[str, float]:
    report = gw.check_environment(Corridor())
    print(report)
    assert report.ok

    with tempfile.TemporaryDirectory() as folder:
        config = gw.configure(
            "quick",
            environment={"name": "own_environment:Corridor", "options": {"length": 8}},
            network={"policy_layers": (16,), "value_layers": (16,)},
            inner={"num_envs": 32, "num_steps": 10, "discount": 0.97, "learning_rate": 5e-3},
            meta={"learned": ()},
            run={"total_steps": 10_000 if quick else 100_000, "finish": "none", "runs_dir": folder},
        )
        run = gw.train(config, quiet=quick)
    return {
        "return at the beginning": float(run.metrics["return"][0]),
        "return at the end": float(run.metrics["return"][-1]),
    }


if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name:<26}{value:.3g}")
