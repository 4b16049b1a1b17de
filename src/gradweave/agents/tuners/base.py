"""Tuners: rules that move one meta-parameter between windows, by statistics of the window.

A meta-gradient sees a few updates ahead and asks for a derivative. A tuner asks for neither: it reads the
policy's movement, entropy or returns. Its meta-parameter is `Fixed` in the spec, so that nothing is
differentiated by it; both kinds work in one run.
"""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from gradweave.agents.agent import Agent
from gradweave.agents.state import CollectedWindow, leaf_name, named_leaves
from gradweave.rl import EpisodeTotals

__all__ = ["AbstractTuner", "Seen", "check_tuners", "divergence_seen", "seen_by", "start_tuners", "tune"]


class Seen(NamedTuple):
    """Statistics of a window that tuners read.

    Attributes:
        inner: auxiliary scalars of the inner updates, leading axis L.
        episodes: totals over the episodes that ended within the window.
        divergence: mean KL(policy before the window ‖ policy after it) on the newest batch, in nats; None if no tuner
            reads it.
        num_windows: windows of the run before this one; None where nobody counts.
    """

    inner: Mapping[str, Array]
    episodes: EpisodeTotals
    divergence: Float[Array, ""] | None
    num_windows: Int[Array, ""] | None = None


class AbstractTuner(eqx.Module):
    """Moves one meta-parameter. Its state is a pytree of arrays, which is part of the training state."""

    reads_divergence: ClassVar[bool] = False
    """Whether it reads `Seen.divergence`, which costs two evaluations of the network on one batch."""

    def start(self, value: Float[Array, ""]) -> tuple[Float[Array, ""], PyTree]:
        """(the meta-parameter's first value, the tuner's first state); by default the value itself, and None.

        Args:
            value: as it was configured.
        """
        return value, None

    @abc.abstractmethod
    def move(self, value: Float[Array, ""], state: PyTree, seen: Seen) -> tuple[Float[Array, ""], PyTree]:
        """(the value of the next window, the tuner's state after this one).

        Args:
            value: that the window used, in its natural range.
            state: the tuner's, before the window.
            seen: of the window.
        """


def divergence_seen(tuner: AbstractTuner, seen: Seen) -> Float[Array, ""]:
    """How far the window moved the policy, for a tuner that reads it.

    Raises:
        ValueError: a loop of one's own did not give it.
    """
    if seen.divergence is None:
        raise ValueError(
            f"{type(tuner).__name__} reads Seen.divergence, which is None: give the mean KL(policy before the window ‖ "
            "policy after it) on the newest batch, in nats."
        )
    return seen.divergence


def check_tuners(tuners: Mapping[str, AbstractTuner], fixed: PyTree, diverges: bool) -> None:
    """Raise unless every tuner has a meta-parameter of its own.

    Args:
        tuners: by the names of their meta-parameters.
        fixed: the meta-parameters that the meta-gradient does not learn, None in the place of every other.
        diverges: whether the agent says how far two policies are apart.

    Raises:
        ValueError: a name that is no single number among these, or a divergence that the agent does not give.
    """
    names = named_leaves(fixed)
    for name, tuner in tuners.items():
        if name not in names or jnp.ndim(names[name]) != 0:
            accepted = ", ".join(name for name, leaf in names.items() if jnp.ndim(leaf) == 0) or "none of this agent's"
            raise ValueError(
                f"the tuner of {name!r} has no meta-parameter: it moves a single number whose bijector is Fixed, one "
                f"of {accepted}."
            )
        if tuner.reads_divergence and not diverges:
            raise ValueError(
                f"the tuner of {name!r} reads how far a window moved the policy: give Agent.divergence, "
                "(state before, state after, batch) -> mean KL."
            )


def start_tuners(tuners: Mapping[str, AbstractTuner], fixed: PyTree) -> tuple[PyTree, dict[str, Any] | None]:
    """(the fixed meta-parameters where the tuners begin, the tuners' states); None for no tuners."""
    return _each(tuners, fixed, lambda name, value: tuners[name].start(value))


def tune(
    tuners: Mapping[str, AbstractTuner], fixed: PyTree, states: Mapping[str, Any] | None, seen: Seen
) -> tuple[PyTree, dict[str, Any] | None]:
    """(the fixed meta-parameters after a window, the tuners' states after it)."""
    return _each(tuners, fixed, lambda name, value: tuners[name].move(value, (states or {})[name], seen))


def seen_by(
    tuners: Mapping[str, AbstractTuner],
    agent: Agent,
    learner: Any,
    window: CollectedWindow,
    num_windows: Int[Array, ""],
) -> Seen:
    """Statistics of a window for an agent's tuners, given the learner's state and the number of windows before it."""
    divergence = None
    if any(tuner.reads_divergence for tuner in tuners.values()):
        assert agent.divergence is not None  # check_tuners
        divergence = agent.divergence(learner, window.recording.final_state, window.batch)
    return Seen(window.aux, jax.tree.map(jnp.sum, window.episodes), divergence, num_windows)


def _each(tuners: Mapping[str, AbstractTuner], fixed: PyTree, act: Any) -> tuple[PyTree, dict[str, Any] | None]:
    states: dict[str, Any] = {}

    def one(path: Any, value: Array) -> Array:
        name = leaf_name(path)
        if name not in tuners:
            return value
        moved, states[name] = act(name, value)
        return jnp.asarray(moved, value.dtype)

    if not tuners:
        return fixed, None
    return jax.tree_util.tree_map_with_path(one, fixed), states
