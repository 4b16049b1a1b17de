"""Jumanji's environments under gradweave's contract, and its Snake in particular.

Where a step takes several discrete choices, they stay apart if Jumanji masks each for itself (agents, machines or
vehicles); if it masks combinations (a row and a column, say), a combination is one action, so that no mask is lost.
Continuous vectors of several agents are one vector, one behind the other. Rewards of several agents are added up.

Jumanji says with one number, the discount of the last step, how an episode stopped: 0 is a termination, more is a
truncation. Its Snake *terminates* at its time limit, so its episodes really end there, and the fraction of the limit
that is used up belongs to the observation.

Jumanji is stepped through its public interface and is imported when the first environment is made. It takes keys as
bare numbers, so typed keys are unwrapped for it; they have to be of JAX's default kind.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, Shaped

from gradweave.envs.boxes import Bounds, within
from gradweave.envs.environment import AbstractEnvironment, Step
from gradweave.envs.foreign import as_before, floats, foreign_code, settled
from gradweave.envs.observation import Observation

__all__ = ["BoardOrVector", "JumanjiEnvironment", "SnakeView", "from_suite", "snake"]

_BOARDS = ("grid", "board", "puzzle")


class JumanjiEnvironment(AbstractEnvironment[Any]):
    """A Jumanji environment.

    Continuous actions are clipped to -1 to 1, which spans the range that the environment takes.

    ```python
    JumanjiEnvironment(jumanji.make("Game2048-v1"))
    ```
    """

    num_actions: int = eqx.field(static=True)
    can_truncate: bool = eqx.field(static=True)
    continuous: bool = eqx.field(static=True)
    action_sizes: tuple[int, ...] | None = eqx.field(static=True)
    taken: "_Actions" = eqx.field(static=True)
    """The actions that `env` takes."""
    env: Any = eqx.field(static=True)
    observe: Callable[[Any], Observation] = eqx.field(static=True)

    def __init__(
        self, env: Any, observe: Callable[[Any], Observation] | None = None, *, can_truncate: bool | None = None
    ) -> None:
        """Adapt `env`.

        Args:
            env: a Jumanji environment, not one that resets itself or is batched already.
            observe: from Jumanji's observation to ours. By default Snake's own, or `BoardOrVector`.
            can_truncate: False to count every end of an episode as a termination, so that final observations need not
                be kept. By default True, except for Snake, which never truncates.

        Raises:
            ValueError: the environment's actions are neither discrete nor within bounds, or it resets itself.
        """
        from jumanji.environments import Snake

        self.taken = _actions(env)
        num_actions, self.action_sizes = self.taken.num_actions, self.taken.sizes
        self.continuous = self.taken.bounds is not None
        is_snake = isinstance(env.unwrapped, Snake)
        if observe is None:
            observe = SnakeView(env.unwrapped.time_limit) if is_snake else BoardOrVector(num_actions)
        self.num_actions = num_actions
        self.can_truncate = not is_snake if can_truncate is None else can_truncate
        self.env = env
        self.observe = observe

    def reset(self, *, key: Key[Array, ""]) -> tuple[Any, Observation]:
        """Begin an episode; the same as Jumanji's reset with the key's data."""
        with foreign_code():
            state, timestep = self.env.reset(jax.random.key_data(key))
            state = settled(state)
        return state, self.observe(timestep.observation)

    def step(self, state: Any, action: Shaped[Array, "*action"], *, key: Key[Array, ""]) -> tuple[Any, Step]:
        """Take one action. `key` is not used: Jumanji's states carry their own."""
        del key
        with foreign_code():
            next_state, timestep = self.env.step(state, self.taken.in_its_terms(action))
            next_state = as_before(next_state, state)
            last = timestep.last()
            terminated = last & jnp.all(timestep.discount == 0) if self.can_truncate else last
        observation = self.observe(timestep.observation)
        return next_state, Step(observation, floats(timestep.reward).sum(), terminated, last & ~terminated)


@dataclass(frozen=True)
class SnakeView:
    """Observation of Jumanji's Snake: the board's five channels, and the used fraction of the time limit.

    The channels are body, head, tail, fruit and the body's cells numbered from tail to head, scaled to at most 1.
    """

    time_limit: int
    """Steps after which an episode ends."""
    grid_only: bool = False
    """Leave `scalars` empty."""

    def __call__(self, observation: Any) -> Observation:
        """Translate one observation of Snake."""
        progress = floats(observation.step_count) / self.time_limit
        scalars = jnp.zeros(0, progress.dtype) if self.grid_only else progress[None]
        return Observation(floats(observation.grid), scalars, observation.action_mask)


@dataclass(frozen=True)
class BoardOrVector:
    """Default observation of any environment of Jumanji.

    A field `grid`, `board` or `puzzle` of two or three axes is the view (one of two axes gets a channel axis), and all
    other numbers, in order, are the scalars. Without such a field all numbers together are the view. A field
    `action_mask` of the right size is the mask; otherwise, and where it allows nothing, everything is allowed. Nothing
    is scaled: where numbers are large, hand a function of your own to `JumanjiEnvironment`.
    """

    num_actions: int

    def __call__(self, observation: Any) -> Observation:
        """Translate one observation."""
        fields = dict(observation._asdict() if hasattr(observation, "_asdict") else vars(observation))
        mask = self._mask(fields.pop("action_mask", None))
        name = next((name for name in _BOARDS if name in fields and jnp.ndim(fields[name]) in (2, 3)), None)
        if name is None:
            return Observation(_flat(fields), jnp.zeros(0, jnp.result_type(float)), mask)
        board = floats(fields.pop(name))
        return Observation(board if board.ndim == 3 else board[..., None], _flat(fields), mask)

    def _mask(self, mask: Array | None) -> Bool[Array, " num_actions"]:
        if mask is None or mask.size != self.num_actions:
            return jnp.ones(self.num_actions, bool)
        allowed = mask.astype(bool).ravel()
        return allowed | ~allowed.any()  # FlatPack's episodes go on where no block fits any more


def snake(
    num_rows: int = 12, num_cols: int = 12, time_limit: int = 4000, *, grid_only: bool = False
) -> JumanjiEnvironment:
    """Jumanji's Snake: reward 1 for each fruit, until the snake dies, fills the board or runs out of time.

    Args:
        num_rows: rows of the board, at least 2.
        num_cols: columns of the board, at least 2.
        time_limit: steps after which an episode terminates; at least 1.
        grid_only: hide from the agent how much of the time limit is used up.

    Raises:
        ValueError: a size or limit is too small.
    """
    for name, value, lowest in (("num_rows", num_rows, 2), ("num_cols", num_cols, 2), ("time_limit", time_limit, 1)):
        if value < lowest:
            raise ValueError(f"{name} = {value} makes no game of Snake: give a whole number of at least {lowest}")
    return JumanjiEnvironment(_snake(num_rows, num_cols, time_limit), SnakeView(time_limit, grid_only))


def from_suite(name: str, /, **options: Any) -> JumanjiEnvironment:
    """The environment that Jumanji registers as `name`; `options` are those of its constructor, and of the generator of
    its levels, whose other options stay as they are.
    """
    with foreign_code():
        import jumanji

        env = jumanji.make(name)
        if options:
            taken = _parameters(env.unwrapped)
            own = {option: value for option, value in options.items() if option in taken}
            if len(own) < len(options):
                own["generator"] = _with_levels(env.unwrapped, {k: v for k, v in options.items() if k not in own})
            env = jumanji.make(name, **own)
    return JumanjiEnvironment(env)


def _with_levels(env: Any, options: dict[str, Any]) -> Any:
    """The generator of an environment's levels with other options."""
    generator = _either(env, "generator")
    present = {option: _either(generator, option) for option in _parameters(generator)}
    return type(generator)(**(present | options))


def _parameters(made: Any) -> list[str]:
    """Arguments of an object's class."""
    return list(inspect.signature(type(made)).parameters)


def _either(made: Any, name: str) -> Any:
    """An attribute that may have an underscore before its name."""
    return getattr(made, name) if hasattr(made, name) else getattr(made, f"_{name}")


@lru_cache
def _snake(num_rows: int, num_cols: int, time_limit: int) -> Any:
    """One object for each size, so that equal environments are equal and nothing compiled for one is compiled again."""
    with foreign_code():
        from jumanji.environments import Snake

        return Snake(num_rows, num_cols, time_limit)


class _Actions(NamedTuple):
    """The actions that an environment takes."""

    num_actions: int
    sizes: tuple[int, ...] | None = None
    """Of several choices at once."""
    combined: tuple[int, ...] | None = None
    """Sizes of the choices that one action stands for, if Jumanji wants them apart."""
    bounds: Bounds | None = None
    """Of continuous actions."""
    shape: tuple[int, ...] = ()
    """Of continuous actions, before they are one vector."""

    def in_its_terms(self, action: Shaped[Array, "*action"]) -> Shaped[Array, "*theirs"]:
        """An action of ours as Jumanji takes it."""
        if self.bounds is not None:
            return within(self.bounds, action).reshape(self.shape)
        action = action.astype(jnp.int32)
        if self.combined is not None:
            action = jnp.stack(jnp.unravel_index(action, self.combined)).astype(jnp.int32)
        return action


def _actions(env: Any) -> _Actions:
    """The actions of an environment, or an explanation of why it cannot be used."""
    from jumanji.specs import BoundedArray, DiscreteArray, MultiDiscreteArray
    from jumanji.wrappers import AutoResetWrapper, VmapAutoResetWrapper, VmapWrapper

    name = type(env.unwrapped).__name__
    if isinstance(env, AutoResetWrapper | VmapAutoResetWrapper | VmapWrapper):
        raise ValueError(
            f"{name} comes in a {type(env).__name__}, but a bare environment is wanted: hand over env.unwrapped, "
            "VectorEnvironment does the batching and resetting"
        )
    spec = env.action_spec
    if isinstance(spec, DiscreteArray):
        return _Actions(int(spec.num_values))
    mask = getattr(getattr(env.observation_spec, "action_mask", None), "shape", None)
    if isinstance(spec, MultiDiscreteArray):
        sizes = tuple(int(size) for size in np.ravel(spec.num_values))
        if len(set(sizes)) == 1 and mask == (len(sizes), sizes[0]):
            return _Actions(sum(sizes), sizes)
        return _Actions(math.prod(sizes), combined=sizes)
    if isinstance(spec, BoundedArray):
        low, high = (np.broadcast_to(bound, spec.shape).astype(float) for bound in (spec.minimum, spec.maximum))
        if jnp.issubdtype(spec.dtype, jnp.floating) and np.isfinite(low).all() and np.isfinite(high).all():
            return _Actions(
                low.size, bounds=(tuple(low.ravel().tolist()), tuple(high.ravel().tolist())), shape=spec.shape
            )
        # MultiCVRP's choices are no MultiDiscreteArray, and its greatest node is one that there is not.
        if jnp.issubdtype(spec.dtype, jnp.integer) and mask is not None and mask[:-1] == spec.shape == (mask[0],):
            return _Actions(math.prod(mask), (mask[1],) * mask[0])
    raise ValueError(
        f"{name} has actions {spec!r}, but discrete ones or such within bounds are wanted: write an environment around "
        "it, or take one of those that `gradweave environments` lists"
    )


def _flat(fields: dict[str, Any]) -> Float[Array, " size"]:
    """All numbers of all fields in one vector, in the order of the fields."""
    leaves = [leaf for field in fields.values() for leaf in jax.tree.leaves(field)]
    return jnp.concatenate([jnp.zeros(0, jnp.result_type(float)), *(floats(leaf).ravel() for leaf in leaves)])
