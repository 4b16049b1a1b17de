"""Several copies of one agent, each with settings and a seed of its own, in one compiled program."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Int, Key, PyTree

from gradweave.agents import SelfTuningState
from gradweave.agents.state import leaf_name
from gradweave.comparison.counting import CountingEnvironment
from gradweave.config.schema import Config
from gradweave.core.bijectors import split_learned
from gradweave.rl import EpisodeTotals
from gradweave.training.build import build_agent, init_state
from gradweave.training.evaluation import evaluate

__all__ = ["Population", "Stretch"]


class Stretch(NamedTuple):
    """Results of a stretch of learning; every field has one entry for each member.

    Attributes:
        environment_steps: since the beginning, counted by the environments.
        training_return: mean over the episodes that ended in the stretch; NaN where none did, and where not `finite`:
            such a member is not chosen or copied.
        evaluation_return: mean over episodes of their own after it, actions sampled.
        finite: whether all that learning carries on stayed finite.
        eta: each hyper-parameter as the next window uses it, by name.
    """

    environment_steps: npt.NDArray[np.int64]
    training_return: npt.NDArray[np.float64]
    evaluation_return: npt.NDArray[np.float64]
    finite: npt.NDArray[np.bool_]
    eta: dict[str, npt.NDArray[np.float64]]


class Population:
    """A configured agent, many times.

    Members differ in the fixed hyper-parameters, which are numbers in the state, so that one program serves
    every setting.
    """

    def __init__(self, config: Config, at_once: int) -> None:
        """Build the agent.

        Args:
            config: checked by `validate`.
            at_once: members computed side by side at most, at least 1; the others wait. The results do not
                depend on it beyond rounding. Groups are of equal size.
        """
        # Members stop after any window, so that tuners are not to count on whole chunks.
        agent = build_agent(dataclasses.replace(config, run=dataclasses.replace(config.run, chunk_size=1)))
        self._config = config
        self._agent = dataclasses.replace(agent, environment=CountingEnvironment.of(agent.environment))
        self._at_once = at_once
        self._first = jax.jit(self._init)
        self._advance = jax.jit(self._advanced, donate_argnums=0)
        self._evaluate = jax.jit(self._evaluated)

    @property
    def window_steps(self) -> int:
        """Environment steps of one meta-step."""
        return self._agent.environment_steps(1) - self._agent.environment_steps(0)

    @property
    def first_steps(self) -> int:
        """Environment steps before the first meta-step."""
        return self._agent.environment_steps(0)

    def begin(self, seeds: Sequence[int], settings: Sequence[Mapping[str, float]]) -> SelfTuningState:
        """Fresh members, a leading axis over them.

        Args:
            seeds: of each member, as a run's.
            settings: of each member, hyper-parameters by name; those left out are the configuration's. Tuners begin
                from them, as they do from configured ones.
        """
        keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
        return self._first(keys, _by_name(settings))

    def shapes(self, num_members: int) -> SelfTuningState:
        """Shapes and types of the state that `begin` returns."""
        keys = jax.eval_shape(lambda seeds: jax.vmap(jax.random.key)(seeds), jnp.zeros(num_members, jnp.uint32))
        shapes: SelfTuningState = jax.eval_shape(lambda keys: self._init(keys, {}), keys)
        return shapes

    def with_settings(self, members: SelfTuningState, settings: Sequence[Mapping[str, float]]) -> SelfTuningState:
        """The members with other hyper-parameters, by name; those left out stay."""
        return members._replace(fixed=_with_given(members.fixed, _by_name(settings)))

    def advance(self, members: SelfTuningState, num_meta_steps: int | Sequence[int]) -> tuple[SelfTuningState, Stretch]:
        """Let every member learn for a number of windows, its own or the same for all, then play."""
        counts = jnp.broadcast_to(jnp.asarray(num_meta_steps, jnp.int32), members.num_meta_steps.shape)
        members, totals, finite = self._advance(members, counts)
        returns, eta = self._evaluate(members)
        episodes = np.asarray(totals.num_episodes, np.float64)
        known = (episodes > 0) & np.asarray(finite)
        mean = np.where(known, np.asarray(totals.sum_returns, np.float64) / np.maximum(episodes, 1), np.nan)
        return members, Stretch(
            environment_steps=np.asarray(members.rollout.env_state.num_steps, np.int64),
            training_return=mean,
            evaluation_return=np.asarray(returns, np.float64),
            finite=np.asarray(finite),
            eta={name: np.asarray(value, np.float64) for name, value in eta.items()},
        )

    def copied(self, members: SelfTuningState, source: Sequence[int]) -> SelfTuningState:
        """Each member as a copy of another one, or itself; its own randomness and its count of steps stay.

        Args:
            members: a population.
            source: the index of the member to copy, for each.
        """
        places = jnp.asarray(source)
        taken: SelfTuningState = jax.tree.map(lambda leaf: leaf[places], members)
        counted = taken.rollout.env_state._replace(num_steps=members.rollout.env_state.num_steps)
        return taken._replace(key=members.key, rollout=taken.rollout._replace(env_state=counted))

    def _init(self, keys: Key[Array, " members"], given: Mapping[str, Any]) -> SelfTuningState:
        def one(member: tuple[Any, Mapping[str, Array]]) -> SelfTuningState:
            key, own = member
            learned, fixed = split_learned(self._agent.initial_raw, self._agent.spec)
            raw = eqx.combine(learned, _with_given(fixed, own))
            return init_state(eqx.tree_at(lambda agent: agent.initial_raw, self._agent, raw), self._config, key=key)

        return self._over_members(one, (keys, given))

    def _advanced(
        self, members: SelfTuningState, counts: Int[Array, " members"]
    ) -> tuple[SelfTuningState, EpisodeTotals, Array]:
        def window(_: Any, carry: Any) -> Any:
            state, totals, finite = carry
            state, metrics = self._agent.step(state)
            return state, jax.tree.map(jnp.add, totals, metrics.episodes), finite & metrics.finite

        def one(member: tuple[SelfTuningState, Array]) -> Any:
            state, count = member
            shapes = jax.eval_shape(lambda state: self._agent.step(state)[1].episodes, state)
            nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
            return jax.lax.fori_loop(0, count, window, (state, nothing, jnp.ones((), bool)))

        return self._over_members(one, (members, counts))

    def _evaluated(self, members: SelfTuningState) -> tuple[Array, dict[str, Array]]:
        run = self._config.run

        def one(state: SelfTuningState) -> tuple[Array, dict[str, Array]]:
            played = evaluate(
                self._agent,
                state.learner.params,
                state.raw,
                key=jax.random.fold_in(state.key, 0x5EED),
                greedy=False,
                num_episodes=run.evaluation_episodes,
                max_steps=run.max_episode_steps,
                normalization=self._agent.normalization(state.rollout),
            )
            eta = {
                leaf_name(path): leaf
                for path, leaf in jax.tree_util.tree_leaves_with_path(self._agent.eta(state.raw))
                if jnp.ndim(leaf) == 0
            }
            return played.returns.mean(), eta

        return self._over_members(one, members)

    def _over_members(self, function: Any, members: PyTree) -> Any:
        """A function of each member, side by side in groups of equal size."""
        count = jax.tree.leaves(members)[0].shape[0]
        width = max(size for size in range(1, min(count, self._at_once) + 1) if count % size == 0)
        if width == count:
            return jax.vmap(function)(members)
        grouped = jax.tree.map(lambda leaf: leaf.reshape(count // width, width, *leaf.shape[1:]), members)
        found = jax.lax.map(jax.vmap(function), grouped)
        return jax.tree.map(lambda leaf: leaf.reshape(count, *leaf.shape[2:]), found)


def _by_name(settings: Sequence[Mapping[str, float]]) -> dict[str, npt.NDArray[np.float64]]:
    """Each hyper-parameter that any member has, by name; NaN for members that have none."""
    names = dict.fromkeys(name for setting in settings for name in setting)
    return {name: np.asarray([setting.get(name, np.nan) for setting in settings]) for name in names}


def _with_given(fixed: PyTree, given: Mapping[str, Any]) -> PyTree:
    """Fixed hyper-parameters where those that are given, and not NaN, have the given values."""

    def changed(path: Any, leaf: Array) -> Array:
        value = jnp.asarray(given.get(leaf_name(path), jnp.nan), leaf.dtype)
        return jnp.where(jnp.isnan(value), leaf, value)

    return jax.tree_util.tree_map_with_path(changed, fixed) if given else fixed
