"""Environments of jax-envelope under gradweave's contract: Brax, Navix, Craftax and MuJoCo Playground.

jax-envelope (Python 3.12 or newer) gives all of them one interface: `init(key)` and `step(state, action)`, no automatic
reset, spaces of observations and actions, and `terminated` apart from `truncated`. Time limits are its own wrapper's,
so that a suite's time-out is never mistaken for an end. An episode that terminates in its very last step counts as
terminated. Keys are handed over as bare numbers, because what a suite keeps of them in its state is saved as numbers.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, Shaped

from gradweave.envs.boxes import Bounds, bounds_of, within
from gradweave.envs.environment import AbstractEnvironment, Step
from gradweave.envs.foreign import as_before, floats, foreign_code, settled
from gradweave.envs.observation import Observation

__all__ = ["EnvelopeEnvironment", "from_suite"]

_MOST_CATEGORIES: Final = 32
"""The most categories that are seen one-hot; more are taken as sizes, such as those of brightness."""
_WRAPPED: Final = ("AutoResetWrapper", "VmapWrapper", "VmapEnvsWrapper", "PooledInitVmapWrapper")
_FOR_CRITICS: Final = "privileged_state"


class EnvelopeEnvironment(AbstractEnvironment[Any]):
    """An environment of jax-envelope with discrete actions, several discrete choices, or one continuous vector.

    An observation may be one array or a tree of them. Categories become one-hot (along the channels of a board); other
    integers are scaled to 0 to 1; floats stay as they are. A single array of two or three axes is the view, and all
    other numbers are the scalars; otherwise all numbers together are the view. A part `action_mask` with an entry for
    each action is the mask. A part `privileged_state`, which MuJoCo Playground adds for critics in simulation, is left
    out: the policy must not see it.

    ```python
    EnvelopeEnvironment(envelope.create("brax::ant"))
    ```
    """

    num_actions: int = eqx.field(static=True)
    can_truncate: bool = eqx.field(static=True)
    continuous: bool = eqx.field(static=True)
    action_sizes: tuple[int, ...] | None = eqx.field(static=True)
    bounds: Bounds | None = eqx.field(static=True)
    action_shape: tuple[int, ...] = eqx.field(static=True)
    held: "_Held" = eqx.field(static=True)
    parts: tuple["_Part", ...] = eqx.field(static=True)

    def __init__(self, env: Any) -> None:
        """Adapt `env`, as `envelope.create` returns it.

        Raises:
            ValueError: it resets itself or is batched, its actions are of no accepted kind, or it shows nothing.
        """
        layers = _layers(env)
        name = layers[-1]
        if wrapped := next((layer for layer in layers if layer in _WRAPPED), None):
            raise ValueError(
                f"{name} comes in a {wrapped}, but a bare environment is wanted: hand it over without, "
                "VectorEnvironment does the batching and resetting"
            )
        with foreign_code():
            space, seen = env.action_space, env.observation_space
        sizes = np.asarray(space.n) if hasattr(space, "n") else None
        self.bounds = bounds_of(name, space) if sizes is None else None
        self.continuous = sizes is None
        self.action_sizes = None if sizes is None or sizes.ndim == 0 else tuple(map(int, sizes.ravel()))
        self.action_shape = tuple(space.shape)
        self.num_actions = len(self.bounds[0]) if self.bounds is not None else int(np.sum(space.n))
        self.can_truncate = True
        self.held = _Held(env)
        self.parts = _parts(seen, self.num_actions)
        if not any(part.use in ("board", "numbers") for part in self.parts):
            raise ValueError(f"{name} shows nothing, {seen!r}: choose another environment")

    def reset(self, *, key: Key[Array, ""]) -> tuple[Any, Observation]:
        """Begin an episode; the same as `init` with the key's data."""
        with foreign_code():
            state, info = self.held.env.init(jax.random.key_data(key))
            state = settled(state)
        return state, self._observe(info.obs)

    def step(self, state: Any, action: Shaped[Array, "*action"], *, key: Key[Array, ""]) -> tuple[Any, Step]:
        """Take one action. `key` is not used: states of jax-envelope carry their own."""
        del key
        action = action.astype(jnp.int32) if self.bounds is None else within(self.bounds, action)
        given = jax.tree.map(lambda leaf: leaf, state)  # Brax writes into the metrics of the state that it is given
        with foreign_code():
            next_state, info = self.held.env.step(given, action.reshape(self.action_shape))
            next_state = as_before(next_state, state)
            terminated = jnp.asarray(info.terminated, bool).reshape(())
            truncated = jnp.asarray(info.truncated, bool).reshape(()) & ~terminated
        return next_state, Step(self._observe(info.obs), floats(info.reward).reshape(()), terminated, truncated)

    def _observe(self, seen: Any) -> Observation:
        """Translate one observation."""
        leaves = list(zip(self.parts, jax.tree.leaves(seen), strict=True))
        boards = [part.encoded(leaf) for part, leaf in leaves if part.use == "board"]
        masks = [jnp.asarray(leaf, bool).ravel() for part, leaf in leaves if part.use == "mask"]
        numbers = [part.encoded(leaf).ravel() for part, leaf in leaves if part.use == "numbers"]
        flat = jnp.concatenate([jnp.zeros(0, jnp.result_type(float)), *numbers])
        mask: Bool[Array, " num_actions"] = masks[0] if masks else jnp.ones(self.num_actions, bool)
        return Observation(boards[0], flat, mask) if boards else Observation(flat, flat[:0], mask)


@lru_cache
def from_suite(name: str, /, *, max_episode_steps: int | None = None, **options: Any) -> EnvelopeEnvironment:
    """The environment that jax-envelope calls `suite::name`, given as `suite/name`.

    The same object for the same arguments, so that nothing is compiled twice.

    Args:
        name: such as `brax/ant`.
        max_episode_steps: steps after which an episode is cut off; None for the suite's own limit.
        **options: arguments of the suite's constructor, fields of its configuration, or fields of Craftax's parameters.

    Returns:
        The environment under gradweave's contract.

    Raises:
        ImportError: jax-envelope or the suite is not installed.
        ValueError: as `EnvelopeEnvironment`, or Craftax has no such parameter.
    """
    suite = name.partition("/")[0]
    with foreign_code(), jax.debug_key_reuse(False), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Explicit Navix backend settings")  # max_steps, which is the same limit
        import envelope

        create = partial(envelope.create, name.replace("/", "::", 1), max_episode_steps=max_episode_steps or "default")
        if suite == "craftax":
            env = _with_parameters(create(), options)
        elif "penalty_coeff" in options:  # times steps / max_steps, and max_steps is infinite if it is not given
            env = create(env_kwargs={**options, "max_steps": max_episode_steps or create().max_steps})
        else:
            env = create(env_kwargs=options) if options else create()
    return EnvelopeEnvironment(env)


def _with_parameters(limited: Any, options: Mapping[str, Any]) -> Any:
    """Craftax's environment within its time limit, with fields of its two kinds of parameters replaced, in their types.

    `envelope.create` takes the first kind whole, and none of the second, from which the environment is built.

    Raises:
        ValueError: an option that is a field of neither.
    """
    outer = limited.env
    inner, params = outer.craftax_env, outer.env_params
    static = inner.static_env_params
    of_params, of_static = (
        {key: type(getattr(fields, key))(value) for key, value in options.items() if hasattr(fields, key)}
        for fields in (params, static)
    )
    if unknown := set(options) - set(of_params) - set(of_static):
        raise ValueError(f"Craftax has no parameter {', '.join(sorted(unknown))}: see `gradweave environments`")
    if of_static:
        outer = outer.replace(craftax_env=type(inner)(static.replace(**of_static)))
    return limited.replace(env=outer.replace(env_params=params.replace(**of_params)))


@dataclass(frozen=True, eq=False)
class _Held:
    """An environment of jax-envelope, compared by identity: those with arrays in them have no hash."""

    env: Any


@dataclass(frozen=True)
class _Part:
    """One array of an observation."""

    use: str
    """`board`, `numbers`, `mask` or `nothing`."""
    categories: tuple[int, ...] | None = None
    """Of each number along the last axis; None for a number with a size."""

    def encoded(self, leaf: Any) -> Float[Array, "..."]:
        """The array in floats; a board with its channels last."""
        array = jnp.asarray(leaf)
        if self.use == "board" and array.ndim == 2:
            array = array[..., None]
        if self.categories is None:
            return floats(array)
        array = array.reshape(array.shape or (1,))
        if max(self.categories) > _MOST_CATEGORIES:
            return floats(array) / floats(np.asarray(self.categories) - 1)
        channels = [
            floats(array[..., index, None].astype(jnp.int32) == jnp.arange(count, dtype=jnp.int32))
            for index, count in enumerate(self.categories)
        ]
        return jnp.concatenate(channels, axis=-1)


def _layers(env: Any) -> list[str]:
    """Names of the classes of a stack of wrappers, from outside."""
    names = []
    while env is not None:
        names.append(type(env).__name__)
        env = getattr(env, "env", None)
    return names


def _parts(space: Any, num_actions: int) -> tuple[_Part, ...]:
    """Use and categories of each array, in the order of the tree's leaves."""
    tree = getattr(space, "tree", space)
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda node: hasattr(node, "n") or hasattr(node, "low"))
    uses = [_use(path, leaf, num_actions) for path, leaf in leaves]
    if uses.count("board") > 1:  # none of them is the one view
        uses = ["numbers" if use == "board" else use for use in uses]
    return tuple(_Part(use, _categories(use, leaf)) for use, (_, leaf) in zip(uses, leaves, strict=True))


def _use(path: Any, leaf: Any, num_actions: int) -> str:
    names = {str(getattr(step, "key", getattr(step, "name", step))) for step in path}
    if _FOR_CRITICS in names:
        return "nothing"
    if "action_mask" in names and int(np.prod(leaf.shape)) == num_actions:
        return "mask"
    return "board" if len(leaf.shape) in (2, 3) else "numbers"


def _categories(use: str, leaf: Any) -> tuple[int, ...] | None:
    if not hasattr(leaf, "n"):
        return None
    counts = np.asarray(leaf.n)
    if use == "board" and counts.ndim == 2:
        counts = counts[..., None]
    counts = counts.reshape(-1, counts.shape[-1] if counts.ndim else 1)
    return tuple(map(int, counts.max(axis=0)))
