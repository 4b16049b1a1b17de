"""A user's module: an environment, one that breaks the contract in a way of choice, and things that are none."""

from typing import Any

import equinox as eqx
import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np

from gradweave.envs import AbstractEnvironment, Observation, Step


class Corridor(AbstractEnvironment[Any]):
    """Walk to the right end: reward 1. Out of time after 12 steps."""

    length: int = eqx.field(static=True, default=4)
    slip: float = 0.25
    num_actions: int = eqx.field(static=True, default=2)
    can_truncate: bool = eqx.field(static=True, default=True)

    def reset(self, *, key: Any) -> tuple[Any, Observation]:
        del key
        state = {"place": jnp.zeros((), jnp.int32), "time": jnp.zeros((), jnp.int32)}
        return state, self.observe(state)

    def step(self, state: Any, action: Any, *, key: Any) -> tuple[Any, Step]:
        move = jnp.where(jax.random.bernoulli(key, self.slip), 0, 2 * action - 1)
        place, time = jnp.clip(state["place"] + move, 0, self.length - 1).astype(jnp.int32), state["time"] + 1
        state, there = {"place": place, "time": time}, place == self.length - 1
        return state, Step(self.observe(state), there.astype(float), there, (time >= 12) & ~there)

    def observe(self, state: Any) -> Observation:
        view = (jnp.arange(self.length, dtype=jnp.int32) == state["place"]).astype(float)
        return Observation(view, jnp.zeros(0), jnp.ones(2, bool))


class Sized(Corridor):
    """Has a constructor of its own, with a number that has no default."""

    def __init__(self, size: int, *, wide: bool = False, name: str | None = None, cells: Any = ()) -> None:
        del wide, name, cells
        self.length, self.slip, self.num_actions, self.can_truncate = size, 0.0, 2, True


class Unfinished(AbstractEnvironment[Any]):
    """Has no step."""

    num_actions: int = eqx.field(static=True, default=2)
    can_truncate: bool = eqx.field(static=True, default=False)

    def reset(self, *, key: Any) -> tuple[Any, Observation]:
        raise NotImplementedError


class NoEnvironment:
    """Must never be called."""

    def __init__(self) -> None:
        raise AssertionError("was called")


def outside(function: Any, shape: tuple[int, ...]) -> Any:
    """What a function gives whenever it is called, unseen by JAX."""
    return jax.experimental.io_callback(function, jax.ShapeDtypeStruct(shape, jnp.result_type(float)))


def drawn_outside(length: int) -> Any:
    """Somewhere between the first two places of a corridor, drawn by NumPy: the sum is the same always.

    Drawn from so many that two draws differ for certain; the copies of an environment share one call.
    """

    def drawn() -> Any:
        share = np.random.default_rng().random()
        return share * np.eye(length)[0] + (1 - share) * np.eye(length)[1]

    return outside(drawn, (length,))


class Broken(Corridor):
    """`how` says which promise is broken."""

    how: str = eqx.field(static=True, default="")

    def step(self, state: Any, action: Any, *, key: Any) -> tuple[Any, Step]:
        after, step = super().step(state, action, key=key)
        early = state["time"] >= 3
        match self.how:
            case "no array operations" if early:
                pass
            case "state's type":
                after["time"] = after["time"].astype(jnp.int16)
            case "state's fields":
                after["new"] = after["time"]
            case "reward's type":
                step = step._replace(reward=step.reward.astype(jnp.int32))
            case "ends' shape":
                step = step._replace(terminated=step.terminated[None])
            case "view's axes":
                step = step._replace(observation=step.observation._replace(view=jnp.zeros((2, 2))))
            case "mask":
                step = step._replace(observation=step.observation._replace(action_mask=jnp.ones(3, bool)))
            case "another draw each time":
                step = step._replace(reward=step.reward + np.random.default_rng().uniform())
            case "infinite reward":
                step = step._replace(reward=step.reward / jnp.where(early, 0.0, 1.0))
            case "view is no number":
                view = jnp.where(early, jnp.nan, step.observation.view)
                step = step._replace(observation=step.observation._replace(view=view))
            case "nothing allowed":
                mask = ~early & step.observation.action_mask
                step = step._replace(observation=step.observation._replace(action_mask=mask))
            case "both ends":
                step = step._replace(truncated=step.truncated | step.terminated)
            case "nothing is written yet":
                raise NotImplementedError
            case "view's length":
                step = step._replace(observation=step.observation._replace(view=jnp.zeros(5)))
            case "scalars' length":
                step = step._replace(observation=step.observation._replace(scalars=jnp.zeros(1)))
            case "view is drawn outside of JAX":
                step = step._replace(observation=step.observation._replace(view=drawn_outside(self.length)))
            case "error in a callback":
                step = step._replace(reward=step.reward + outside(lambda: 1 / 0, ()))
            case "step is a tuple":
                return after, tuple(step)  # type: ignore[return-value]
        return after, step
