"""State, collected window and metrics of a self-tuning agent."""

from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from gradweave.agents.running import RunningMean
from gradweave.core import HorizonRecording, Recording
from gradweave.rl import EpisodeTotals, RolloutState

__all__ = [
    "CollectedWindow",
    "MetaStepMetrics",
    "SelfTuningState",
    "Updated",
    "carried_on",
    "chosen",
    "entry_name",
    "leaf_name",
    "learning_part",
    "named_leaves",
    "named_numbers",
    "part_of_the_way",
]

Tree = TypeVar("Tree", bound=PyTree)


class SelfTuningState(NamedTuple):
    """Everything that changes: arrays only, so that it can be checkpointed and scanned.

    Attributes:
        learner: parameters and inner optimiser.
        learned: unconstrained meta-parameters that are learned, None in the place of every other; with a schedule
            `Contextual`, its weights.
        fixed: the others, None in the place of every learned one; with a schedule also the statistics that it reads.
        meta_optimizer_state: of the meta-optimiser.
        estimator_state: the estimator's memory, or None.
        rollout: the running episodes.
        batch: the newest rollout's, not yet used for an update.
        key: for all randomness to come.
        num_meta_steps: windows finished so far.
        statistics: of earlier windows, for the agent's annotation, or None.
        usual_reward: running mean of the reward per step, or None where no sampling correction needs it.
        tuner_states: of the tuners, by the names of their meta-parameters; None without tuners.
        guard: `GuardMemory`; None without a guard.
    """

    learner: Any
    learned: PyTree
    fixed: PyTree
    meta_optimizer_state: PyTree
    estimator_state: PyTree
    rollout: RolloutState
    batch: PyTree
    key: Key[Array, ""]
    num_meta_steps: Int[Array, ""]
    statistics: PyTree = None
    usual_reward: RunningMean | None = None
    tuner_states: PyTree = None
    guard: PyTree = None

    @property
    def raw(self) -> PyTree:
        """All unconstrained meta-parameters."""
        return eqx.combine(self.learned, self.fixed)


def learning_part(state: SelfTuningState) -> SelfTuningState:
    """The state without the parts that environments decide, None in their place.

    The rest must be finite: parameters, meta-parameters, the states of both optimisers and of the estimator,
    running statistics. An infinite second moment freezes its parameter for good while every parameter is still finite.
    """
    nothing: Any = None
    return state._replace(rollout=nothing, batch=nothing, key=nothing)


def carried_on(state: SelfTuningState) -> SelfTuningState:
    """The same with the running statistics of rewards and observations, by which all later ones are divided.

    An infinite scale makes every reward 0: nothing is learned any more, and every parameter looks well.
    """
    rollout, nothing = state.rollout, None
    if isinstance(rollout, RolloutState):
        kept = {"reward_scale": rollout.reward_scale, "observation_statistics": rollout.observation_statistics}
        nothing = RolloutState(**dict.fromkeys(RolloutState._fields) | kept)
    return learning_part(state)._replace(rollout=nothing)


class MetaStepMetrics(NamedTuple):
    """Metrics of one meta-step. Inner quantities are means over the window.

    Attributes:
        episodes: totals over the episodes that ended within the window.
        eta: the natural meta-parameters that the window used, a schedule's output included.
        raw: the same, unconstrained.
        grad: the meta-gradient with respect to `raw`; 0 where nothing is learned.
        outer_loss: the differentiated loss; 0 for plain learning.
        inner: auxiliary scalars of the inner updates, and "gradient_norm" of a `GradientLearner`.
        outer: auxiliary scalars of the outer loss, empty for plain learning.
        finite: whether the meta-gradient, all that is reported of the losses and all that learning carries on (see
            `carried_on`) are finite.
        restored: whether the guard went back to an earlier state after the window; None without a guard.
        kept: the share of the meta-optimiser's move that the trust region left; None without one.
    """

    episodes: EpisodeTotals
    eta: PyTree
    raw: PyTree
    grad: PyTree
    outer_loss: Float[Array, ""]
    inner: dict[str, Array]
    outer: dict[str, Array]
    finite: Bool[Array, ""]
    restored: Bool[Array, ""] | None = None
    kept: Float[Array, ""] | None = None


class CollectedWindow(NamedTuple):
    """Results of L inner updates and of the rollouts between them.

    Attributes:
        recording: the learner's states, inner gradients (of a `MinibatchLearner` its `GradientSteps`; None of learners
            that are not declared in parts) and end.
        batches: batch k drives update k. Leading axis L + 1 without `outer_batches`: from k = 1 on, the outer loss is
            evaluated at x_k on the same batch; else L.
        rollout: the state of the environments afterwards.
        batch: the newest rollout, for the next window's first update.
        aux: auxiliary scalars of the updates, and "gradient_norm" of a `GradientLearner`; leading axis L.
        episodes: totals of each rollout, leading axis L.
        horizons: every horizon's gradient, if tangents were carried along.
        outer_batches: leading axis L: entry k - 1 was collected by x_k for the outer loss alone; None if no such
            rollouts are made.
    """

    recording: Recording
    batches: PyTree
    rollout: RolloutState
    batch: PyTree
    aux: dict[str, Array]
    episodes: EpisodeTotals
    horizons: HorizonRecording | None = None
    outer_batches: PyTree = None


class Updated(NamedTuple):
    """One inner update: the state and the tangents after it, (inner gradient, aux), and the outer loss before."""

    state: Any
    tangents: PyTree
    made: tuple[PyTree, dict[str, Array]]
    evaluated: PyTree


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """The leaves of nested meta-parameters by name, such as "discount" and "learning_rate/torso"."""
    return {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def named_numbers(tree: PyTree) -> dict[str, Any]:
    """The same number by number: of an array an entry each, such as "rates[0]" and "weights[1, 2]"."""
    return {
        entry_name(name, place): leaf[place] if place else leaf
        for name, leaf in named_leaves(tree).items()
        for place in np.ndindex(np.shape(leaf))
    }


def entry_name(name: str, place: tuple[int, ...]) -> str:
    """The name of one entry of a leaf; of a leaf that is a number its own."""
    return f"{name}[{', '.join(map(str, place))}]" if place else name


def leaf_name(path: Any) -> str:
    """The name of the leaf at a path of `jax.tree_util`."""
    return "/".join(str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))) for key in path)


def chosen(condition: Bool[Array, ""], one: Tree, other: Tree) -> Tree:
    """One tree of arrays, or another of the same structure."""
    taken: Tree = jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)
    return taken


def part_of_the_way(share: Float[Array, ""], before: Tree, after: Tree) -> Tree:
    """Trees between two; a share of 1 is the second, to the bit."""

    def between(old: Array, new: Array) -> Array:
        return jnp.where(share == 1, new, old + share.astype(new.dtype) * (new - old))

    moved: Tree = jax.tree.map(between, before, after)
    return moved
