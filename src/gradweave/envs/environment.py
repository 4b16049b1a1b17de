"""The environment contract: one environment, two pure functions, and no memory but the state handed in.

An environment never resets itself and never mixes up the two ways in which an episode stops:

- `terminated`: the episode really ended, its return is complete, nothing is left to bootstrap;
- `truncated`: the episode was cut off, its return goes on and is bootstrapped from `Step.observation`, which is
  therefore the outcome of the action and not the first observation of the next episode.

Batching, and resetting what ended, is `VectorEnvironment`'s work.
"""

import abc
from typing import Generic, NamedTuple, TypeVar, cast

import equinox as eqx
from jaxtyping import Array, Bool, Float, Key, Shaped

from gradweave.envs.observation import Observation

__all__ = ["AbstractEnvironment", "State", "Step"]

State = TypeVar("State")
"""The state of one environment: a pytree of arrays."""


class Step(NamedTuple):
    """One transition of one environment. `terminated` and `truncated` are never both True."""

    observation: Observation
    """Observation after the action; not reset, also when the episode ended here."""
    reward: Float[Array, ""]
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]


class AbstractEnvironment(eqx.Module, Generic[State]):
    """One environment. Both functions are pure, and can be jitted, vmapped and scanned.

    Stepping a state whose episode has ended is allowed but means nothing: reset first.
    """

    num_actions: eqx.AbstractVar[int]
    """Discrete actions are the integers 0 to `num_actions - 1`; of continuous ones, vectors of floats, their length; of
    several choices at once, the sum of their sizes."""
    can_truncate: eqx.AbstractVar[bool]
    """False promises that `truncated` is never True, so that nobody needs to keep final observations."""
    continuous = False
    """Whether actions are vectors of floats. Their usual range is -1 to 1; the environment clips actions outside of
    its own range. A class sets this by a static field of this name."""
    action_sizes = cast("tuple[int, ...] | None", None)
    """Several choices at once: the number of actions of each. An action is then a vector of integers, and the mask has
    a part for each choice, one behind the other. None: a single choice. A class sets this by a static field."""

    @abc.abstractmethod
    def reset(self, *, key: Key[Array, ""]) -> tuple[State, Observation]:
        """Begin an episode: the first state and its observation."""

    @abc.abstractmethod
    def step(self, state: State, action: Shaped[Array, "*action"], *, key: Key[Array, ""]) -> tuple[State, Step]:
        """Take one action: the next state and the transition that led there."""
