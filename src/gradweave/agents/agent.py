"""The agent contract: self-tuning's requirements of a learner that acts.

An `Agent` joins a learner (two functions over meta-parameters and batches, `gradweave.MetaProblem`) to its policy and
its batches. `SelfTuning` collects rollouts, drives the learner with them, differentiates, and knows no
algorithm. A new learner is a function that returns an `Agent`: see `gradweave.agents.actor_critic`.

A rollout may drive any number of updates: `problem.update` gets all of it, and may pass over it in epochs and
minibatches (PPO). One call is one inner update to the meta-gradient. A `GradientLearner` takes one gradient step per
rollout, a `MinibatchLearner` several, and both are served by every mode; any other `MetaProblem` by reverse and forward
mode.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
from jaxtyping import Array, PyTree

from gradweave.core import GradientLearner, LearnerState, MetaProblemLike, MinibatchLearner
from gradweave.rl import Acted, Trajectory

__all__ = ["Agent", "Annotation", "SamplingTerms"]

Act = Callable[..., Acted]
"""`(params, observations, memory, conditioning, *, key, greedy=False, uniform=False) -> Acted`; see `Agent.act`."""


def trajectory_alone(trajectory: Trajectory, conditioning: Array | None, *, key: Any) -> Trajectory:
    """Learn from the trajectory as it is; `Agent.batch` by default."""
    del conditioning, key
    return trajectory


class Annotation(NamedTuple):
    """Functions that add inputs of the outer loss to the batches of a collected window.

    Attributes:
        annotate: `(batches, learner's state before the window, statistics) -> batches`; leading axis windows' batches.
        initial: `() -> statistics` before the first window; they are part of the training state.
        observe: `(statistics, outer aux) -> statistics` after a window.
    """

    annotate: Callable[[PyTree, PyTree, PyTree], PyTree]
    initial: Callable[[], PyTree]
    observe: Callable[[PyTree, Any], PyTree]


class SamplingTerms(NamedTuple):
    """An agent's functions for the sampling correction (`gradweave.SamplingCorrection`).

    Attributes:
        log_likelihood: `(state, batch) -> scalar`, the log-probability of all actions of a batch. Of a
            `GradientLearner` with a `forward` the state holds the network's outputs in the place of the parameters.
        mean_reward: `(batch) -> scalar`, the mean reward per step.
    """

    log_likelihood: Callable[[PyTree, PyTree], Array]
    mean_reward: Callable[[PyTree], Array]


class Agent(eqx.Module):
    """A learner that acts. Hand it to `SelfTuning`.

    Attributes:
        problem: the learner. Its state has a field `params`, the policy's parameters; the aux of its functions are
            dicts of scalars, for logging.
        act: `(params, observations, memory, conditioning, *, key, greedy=False, uniform=False) -> Acted` for a batch of
            observations. `greedy` takes the most probable action, `uniform` ignores the network (the random agent to
            compare with; what it records is not to be learned from); both may be traced booleans.
        batch: `(trajectory, conditioning, *, key) -> batch`, the input of one rollout's updates and the outer loss. It
            is data: no derivative flows through it. By default the trajectory.
        init: `(params) -> learner's state`; None for `problem.init`, which a `GradientLearner` and a
            `MinibatchLearner` have.
        memory: of one environment at the beginning of an episode, a pytree of arrays; None for an agent without.
        annotation: None if the outer loss reads the batches alone.
        sampling: None if no sampling correction is wanted.
        divergence: `(learner's state before, after, batch) -> scalar`, the mean KL(policy before ‖ policy after) in
            nats; None if no tuner reads it.
        reward_discount: of the returns whose running size rewards are divided by before they are learned from
            (`gradweave.rl.RewardScale`), unless the meta-parameters have a fixed one called "discount", which is taken
            as it begins; None: rewards are learned from as they are.
        normalize_observations: whether the network sees observations normalised by their running mean and standard
            deviation (`gradweave.rl.ObservationStatistics`); batches then hold normalised ones.
        layout: `(same, envs_first, time_first) -> tree of specs shaped like a batch`, or a prefix: how a batch is split
            over devices. None: the agent trains on one device.
    """

    problem: MetaProblemLike
    act: Act
    batch: Callable[..., PyTree] = trajectory_alone
    init: Callable[[PyTree], Any] | None = None
    memory: PyTree = None
    annotation: Annotation | None = None
    sampling: SamplingTerms | None = None
    divergence: Callable[[Any, Any, PyTree], Array] | None = None
    reward_discount: float | None = None
    normalize_observations: bool = False
    layout: Callable[[Any, Any, Any], PyTree] | None = None

    def __check_init__(self) -> None:
        if self.init is None and not isinstance(self.problem, GradientLearner | MinibatchLearner):
            raise ValueError(
                f"Agent(init=None) begins with problem.init, which a {type(self.problem).__name__} does not have: give "
                "init=lambda params: ..., which returns the learner's first state."
            )

    def start(self, params: PyTree) -> Any:
        """The learner's state before the first update."""
        if self.init is not None:
            return self.init(params)
        assert isinstance(self.problem, GradientLearner | MinibatchLearner)
        state: LearnerState = self.problem.init(params)
        return state
