"""Does an environment keep the contract? What a rollout relies on, checked one by one, each with a remedy.

First what shows when the functions are traced: shapes, types, and that tracing twice gives the same program (an
environment that draws from NumPy, or counts in a field, gives two). Then random play in a few copies that reset
themselves: masks, ends, finite numbers, the same again from the same key, and nothing compiled twice.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from gradweave.envs.environment import AbstractEnvironment, Step
from gradweave.envs.observation import Observation
from gradweave.envs.vector import VectorEnvironment

__all__ = ["EnvironmentReport", "Finding", "check_environment"]


class Finding(NamedTuple):
    """A breach of the contract, and its remedy."""

    what: str
    remedy: str


class EnvironmentReport(NamedTuple):
    """The report of `check_environment`; `print` it.

    Attributes:
        name: of the environment's class.
        findings: breaches of the contract; empty if it is kept.
        observation: shape of the view, and the number of scalars; None if it could not be told.
        num_steps: steps of random play in all copies together; 0 if an earlier finding prevents playing.
        num_terminated: episodes of them that terminated.
        num_truncated: episodes of them that were cut off.
        num_without_choice: steps of them in which no action was allowed; of several choices, in one at least.
        common_length: steps of every episode, if several ended, all terminated, and all after equally many; else 0.
    """

    name: str
    findings: tuple[Finding, ...]
    observation: tuple[tuple[int, ...], int] | None = None
    num_steps: int = 0
    num_terminated: int = 0
    num_truncated: int = 0
    num_without_choice: int = 0
    common_length: int = 0

    @property
    def ok(self) -> bool:
        """Whether the contract is kept."""
        return not self.findings

    def __str__(self) -> str:
        head = f"{self.name} {'keeps' if self.ok else 'BREAKS'} the contract"
        if self.num_steps:
            head += (
                f"; {self.num_steps} steps of random play, {self.num_terminated} episodes terminated, "
                f"{self.num_truncated} truncated"
            )
        lines = [head, *(f"FAIL    {found.what}\n        -> {found.remedy}" for found in self.findings)]
        if self.num_steps and not self.num_terminated + self.num_truncated:
            lines.append("note    no episode ended, so that ends are unchecked\n        -> check with more steps")
        if self.num_without_choice:
            lines.append(
                f"note    no action was allowed in {self.num_without_choice} steps (of several choices, in one)\n"
                "        -> fine where all is lost, as for a trapped snake, and for one of several agents that has "
                "arrived: one is drawn, and the policy learns nothing from it"
            )
        if self.common_length:
            lines.append(
                f"note    every episode terminated after {self.common_length} steps\n        -> if that is a time "
                "limit and not an end, give truncated in its place: the return goes on beyond it"
            )
        return "\n".join(lines)


class _Played(NamedTuple):
    """Random play, (time, copies)."""

    reward: Any
    terminated: Any
    truncated: Any
    allowed: Any
    """How many actions were allowed in each choice; the last axis is choices."""
    finite: Any
    """Whether all that was seen is finite."""
    seen: Any
    """One number that depends on all that was seen, and on where."""


def check_environment(
    environment: Any,
    *,
    num_steps: int = 200,
    num_copies: int = 4,
    key: Key[Array, ""] | None = None,
) -> EnvironmentReport:
    """Check that an environment can be trained on. Compiles it once; takes seconds.

    ```python
    report = gw.check_environment(Corridor(5))
    assert report.ok, report
    ```

    Args:
        environment: an object of a class derived from `AbstractEnvironment`.
        num_steps: steps of random play of each copy; give more than an episode has.
        num_copies: how many are played side by side.
        key: for the play; by default that of seed 0.

    Raises:
        TypeError: `environment` is not derived from `AbstractEnvironment`.
    """
    if not isinstance(environment, AbstractEnvironment):
        raise TypeError(
            f"check_environment was given {environment!r}: give an object of a class derived from "
            "gradweave.envs.AbstractEnvironment"
        )
    name = type(environment).__name__
    try:
        findings = list(_traced(environment))
    except Exception as error:  # whatever the user's functions raise is what the user wants to know
        words = f"reset and step cannot be traced: {_in_a_line(error)}"
        remedy = "use jax.numpy, and jnp.where or lax.cond in place of `if` on arrays; derivatives are not needed"
        return EnvironmentReport(name, (Finding(words, remedy),))
    if findings:
        return EnvironmentReport(name, tuple(findings))
    observation = jax.eval_shape(lambda key: environment.reset(key=key), jax.random.key(0))[1]
    key = jax.random.key(0) if key is None else key
    try:
        played, findings = _play_twice(VectorEnvironment(environment, num_copies), num_steps, key)
    except Exception as error:  # of a callback of the user's, for instance
        found = Finding(f"random play fails: {_in_a_line(error)}", "call step on actions that the mask allows, and see")
        return EnvironmentReport(name, (found,))
    findings += _of_play(environment, played)
    return EnvironmentReport(
        name,
        tuple(findings),
        (tuple(observation.view.shape), observation.scalars.shape[0]),
        played.reward.size,
        int(played.terminated.sum()),
        int(played.truncated.sum()),
        0 if environment.continuous else int((played.allowed == 0).any(-1).sum()),
        _common_length(played),
    )


def _in_a_line(error: Exception) -> str:
    """The type of an error, and the first line of its message if it has one."""
    message = str(error).strip()
    return f"{type(error).__name__}: {message.splitlines()[0]}" if message else type(error).__name__


def _traced(environment: AbstractEnvironment[Any]) -> Iterator[Finding]:
    """Breaches that shapes and types show."""
    if not isinstance(environment.num_actions, int) or environment.num_actions < 1:
        yield Finding(f"num_actions is {environment.num_actions!r}", "give a whole number of at least 1")
        return
    sizes = environment.action_sizes
    if sizes is not None and (not isinstance(sizes, tuple) or min(sizes, default=0) < 1):
        yield Finding(f"action_sizes are {sizes!r}", "give a tuple of whole numbers of at least 1, one for each choice")
        return
    if sizes is not None and sum(sizes) != environment.num_actions:
        yield Finding(
            f"num_actions is {environment.num_actions}, but action_sizes are {sizes}",
            f"give their sum, {sum(sizes)}: the mask has a part for each choice",
        )
        return
    key = jax.random.key(0)
    state, observation = jax.eval_shape(lambda key: environment.reset(key=key), key)
    action = _one_action(environment)
    next_state, step = jax.eval_shape(lambda *args: environment.step(*args[:2], key=args[2]), state, action, key)
    if not isinstance(step, Step):
        yield Finding(f"step returns a {type(step).__name__} beside the state", "return gradweave.envs.Step(...)")
        return
    for where, seen in (("reset", observation), ("step", step.observation)):
        yield from _of_observation(environment, where, seen)
    yield from _of_change(observation, step.observation)
    yield from _of_numbers(step)
    yield from _of_state(state, next_state)
    yield from _of_purity("reset", lambda key: environment.reset(key=key), key)
    yield from _of_purity("step", lambda *args: environment.step(*args[:2], key=args[2]), state, action, key)


def _one_action(environment: AbstractEnvironment[Any]) -> jax.ShapeDtypeStruct:
    """Shape and type of an action."""
    if environment.continuous:
        return jax.ShapeDtypeStruct((environment.num_actions,), jnp.result_type(float))
    sizes = environment.action_sizes
    return jax.ShapeDtypeStruct(() if sizes is None else (len(sizes),), jnp.int32)


def _of_observation(environment: AbstractEnvironment[Any], where: str, seen: Any) -> Iterator[Finding]:
    if not isinstance(seen, Observation):
        yield Finding(
            f"{where} shows a {type(seen).__name__}", "return gradweave.envs.Observation(view, scalars, mask)"
        )
        return
    floats = jnp.result_type(float)
    if seen.view.ndim not in (1, 3):
        yield Finding(
            f"{where} shows a view of shape {seen.view.shape}",
            "give a vector (features,) or a board (height, width, channels)",
        )
    if seen.scalars.ndim != 1:
        yield Finding(
            f"{where} shows scalars of shape {seen.scalars.shape}", "give a vector; jnp.zeros(0) where there are none"
        )
    for part in ("view", "scalars"):
        found = getattr(seen, part).dtype
        if found != floats:
            yield Finding(
                f"{where} shows {part} of type {found}", f"convert it: x.astype(jnp.result_type(float)), {floats}"
            )
    mask, wanted = seen.action_mask, (environment.num_actions,)
    if mask.shape != wanted or mask.dtype != jnp.dtype(bool):
        yield Finding(
            f"{where} has an action mask of type {mask.dtype} and shape {mask.shape}",
            f"give booleans of shape {wanted}; jnp.ones(num_actions, bool) where all is allowed",
        )


def _of_change(first: Any, later: Any) -> Iterator[Finding]:
    """All observations have to have the same shape."""
    if not (isinstance(first, Observation) and isinstance(later, Observation)):
        return
    for part in ("view", "scalars"):
        shapes = [getattr(seen, part).shape for seen in (first, later)]
        if shapes[0] != shapes[1]:
            what = f"reset shows {part} of shape {shapes[0]}, and step of shape {shapes[1]}"
            yield Finding(what, "give the same shape always; fill with zeros where there is less to see")


def _of_numbers(step: Step) -> Iterator[Finding]:
    reward = step.reward
    if jnp.shape(reward) != () or jnp.result_type(reward) != jnp.result_type(float):
        yield Finding(
            f"the reward is of type {jnp.result_type(reward)} and shape {jnp.shape(reward)}",
            "give one float: reward.astype(jnp.result_type(float))",
        )
    for name in ("terminated", "truncated"):
        flag = getattr(step, name)
        if jnp.shape(flag) != () or jnp.result_type(flag) != jnp.dtype(bool):
            yield Finding(
                f"{name} is of type {jnp.result_type(flag)} and shape {jnp.shape(flag)}",
                "give one boolean: jnp.zeros((), bool) for never",
            )


def _of_state(state: Any, next_state: Any) -> Iterator[Finding]:
    """A scan carries the state, and nothing is compiled again, only if a step leaves its types alone."""
    remedy = "make every step return the state that reset begins with: same fields, shapes and types (x.astype(...))"
    before_it, after_it = (_without_addresses(jax.tree.structure(tree)) for tree in (state, next_state))
    if before_it != after_it:
        yield Finding(f"step turns a state {before_it} into {after_it}", remedy)
        return
    after = jax.tree.leaves(next_state)
    for (path, old), new in zip(jax.tree_util.tree_leaves_with_path(state), after, strict=True):
        if (old.shape, old.dtype, old.weak_type) != (new.shape, new.dtype, new.weak_type):
            place = jax.tree_util.keystr(path) or "the state"
            weak = " (reset begins with a Python number: use jnp.zeros((), jnp.int32) or the like)"
            hint = weak if old.weak_type != new.weak_type else ""
            yield Finding(f"step turns {place} from {_type_of(old)} into {_type_of(new)}", remedy + hint)


def _without_addresses(what: Any) -> str:
    """As a text in which equal objects look equal, such as those in MuJoCo's states."""
    return re.sub(r"0x[0-9a-f]+", "", str(what))


def _type_of(leaf: Any) -> str:
    return f"{'weak ' if leaf.weak_type else ''}{leaf.dtype}{list(leaf.shape)}"


def _of_purity(name: str, function: Callable[..., Any], *args: Any) -> Iterator[Finding]:
    """Traced twice, a pure function is the same program with the same constants."""
    first, second = (jax.make_jaxpr(lambda *args: function(*args))(*args) for _ in range(2))
    text, again = (_without_addresses(traced.jaxpr) for traced in (first, second))
    if text != again or not _equal(first.consts, second.consts):
        yield Finding(
            f"{name} is another function each time it is traced",
            "draw from the key alone (jax.random), keep nothing outside the state, and read no clock",
        )


def _equal(one: Any, other: Any) -> bool:
    """Whether two pytrees of arrays have the same numbers, NaN and random keys included."""
    pairs = [[_bare(leaf) for leaf in jax.tree.leaves(tree)] for tree in (one, other)]
    return len(pairs[0]) == len(pairs[1]) and all(
        np.array_equal(a, b, equal_nan=True) for a, b in zip(*pairs, strict=True)
    )


def _bare(leaf: Any) -> Any:
    """An array of NumPy's."""
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def _play_twice(
    environments: VectorEnvironment[Any], num_steps: int, key: Key[Array, ""]
) -> tuple[_Played, list[Finding]]:
    """Random play, with findings of a second play from the same key and of going on from there."""
    num_traces = 0

    @jax.jit
    def play(begun: Any, key: Key[Array, ""]) -> tuple[Any, _Played]:
        nonlocal num_traces
        num_traces += 1
        return jax.lax.scan(
            lambda carry, key: _random_step(environments, carry, key), begun, jax.random.split(key, num_steps)
        )

    reset_key, first_key, second_key = jax.random.split(key, 3)
    reset = jax.jit(lambda key: environments.reset(key=key))
    begun, begun_again = reset(reset_key), reset(jax.random.clone(reset_key))
    went_on, played = play(begun, first_key)
    again = play(begun, jax.random.clone(first_key))[1]
    play(went_on, second_key)
    findings = []
    if not (_equal(begun, begun_again) and _equal(played, again)):
        findings.append(
            Finding("the same key gives another episode the second time", "draw from the key alone (jax.random)")
        )
    if num_traces > 1:
        findings.append(
            Finding(f"step was compiled {num_traces} times", "keep the types of the state as reset begins with them")
        )
    return jax.tree.map(np.asarray, played), findings


def _random_step(environments: VectorEnvironment[Any], carry: Any, key: Key[Array, ""]) -> tuple[Any, _Played]:
    """Any allowed action in every copy."""
    state, observation = carry
    action_key, step_key = jax.random.split(key)
    mask, sizes = observation.action_mask, environments.environment.action_sizes
    splits: Any = [] if sizes is None else np.cumsum(sizes)[:-1]
    if environments.environment.continuous:
        actions = jax.random.uniform(action_key, mask.shape, jnp.result_type(float), -1.0, 1.0)
    else:
        noise = jnp.where(mask, jax.random.uniform(action_key, mask.shape), -1.0)
        chosen = [jnp.argmax(part, axis=-1).astype(jnp.int32) for part in jnp.split(noise, splits, axis=-1)]
        actions = chosen[0] if sizes is None else jnp.stack(chosen, axis=-1)
    state, step = environments.step(state, actions, key=step_key)
    both = (step.observation, step.final_observation)
    numbers = [part.reshape(environments.num_envs, -1) for seen in both for part in (seen.view, seen.scalars)]
    row = jnp.concatenate(numbers, axis=1)
    weights = jnp.cos(jnp.arange(row.shape[1], dtype=row.dtype))
    allowed = jnp.stack([part.sum(axis=-1) for part in jnp.split(mask, splits, axis=-1)], axis=-1)
    finite, seen = jnp.isfinite(row).all(axis=1), row @ weights
    return (state, step.observation), _Played(step.reward, step.terminated, step.truncated, allowed, finite, seen)


def _common_length(played: _Played) -> int:
    """See `EnvironmentReport.common_length`."""
    ends = [np.flatnonzero(column) for column in played.terminated.T]
    lengths = np.concatenate([np.diff(places, prepend=-1) for places in ends])
    several = len(lengths) > 1 and not played.truncated.any() and lengths[0] > 1
    return int(lengths[0]) if several and (lengths == lengths[0]).all() else 0


def _of_play(environment: AbstractEnvironment[Any], played: _Played) -> Iterator[Finding]:
    """Breaches that random play shows; each with its first step."""

    def first(broken: Any) -> str:
        return f"at step {int(np.argwhere(broken)[0][0])} of random play"

    if (bad := ~np.isfinite(played.reward)).any():
        value = played.reward[bad][0]
        yield Finding(f"the reward is {value} {first(bad)}", "keep divisions, logarithms and roots away from zero")
    if (bad := ~played.finite).any():
        what = f"an observation is not finite {first(bad)}"
        yield Finding(what, "keep divisions, logarithms and roots away from zero")
    ended = played.terminated | played.truncated
    if not environment.continuous and (bad := (played.allowed == 0).all(-1) & ~ended).any():
        yield Finding(
            f"no action is allowed {first(bad)}, and the episode goes on",
            "allow one in every state, or let the episode end with the next step",
        )
    if (bad := played.terminated & played.truncated).any():
        yield Finding(
            f"an episode is both terminated and truncated {first(bad)}",
            "a real end counts: truncated=out_of_time & ~terminated",
        )
    if not environment.can_truncate and (bad := played.truncated).any():
        yield Finding(
            f"an episode is truncated {first(bad)}, though can_truncate is False",
            "set can_truncate to True, or terminate",
        )
