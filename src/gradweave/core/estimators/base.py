"""The contract of an estimator: *what* meta-gradient is estimated, whatever the mode that differentiates it."""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
from jaxtyping import PyTree

from gradweave.core.modes.base import AbstractMode, Differentiated, KernelWeights
from gradweave.core.problem import MetaProblemLike, Window


class Differentiand(NamedTuple):
    """What an estimator differentiates: a problem, its learned meta-parameters and one recorded window.

    Attributes:
        problem: the learner.
        to_eta: maps `learned` to the natural meta-parameters, `Fixed` ones filled in.
        learned: raw meta-parameters, None in the place of every `Fixed` leaf.
        window: x_0, the batches and, perhaps, a recording of the updates.
    """

    problem: MetaProblemLike
    to_eta: Callable[[PyTree], PyTree]
    learned: PyTree
    window: Window


class AbstractEstimator(eqx.Module):
    """A meta-gradient estimator.

    An estimator written outside this package subclasses this (or returns a weighting, see `AbstractLinearEstimator`)
    and is used like the bundled ones.
    """

    @abc.abstractmethod
    def init(self, raw: PyTree, spec: PyTree, state: PyTree) -> PyTree:
        """The estimator's memory before the first window, arrays only; None for an estimator without one.

        Args:
            raw: unconstrained meta-parameters.
            spec: their bijectors.
            state: x_0, the learner's state before the first window.
        """

    @abc.abstractmethod
    def check(self, num_inner_steps: int) -> None:
        """Raises ValueError when the estimator does not fit a window of this length."""

    @abc.abstractmethod
    def estimate(self, differentiand: Differentiand, mode: AbstractMode, state: PyTree) -> tuple[Differentiated, Any]:
        """(the estimate, the estimator's new memory)."""


class AbstractLinearEstimator(AbstractEstimator):
    """An estimator that is a weighting of the one kernel in `modes.base`: subclasses say which weights."""

    def init(self, raw: PyTree, spec: PyTree, state: PyTree) -> None:
        """No memory."""

    @abc.abstractmethod
    def kernel_weights(self, num_inner_steps: int) -> KernelWeights:
        """The weights for a window of L inner steps."""

    def estimate(self, differentiand: Differentiand, mode: AbstractMode, state: PyTree) -> tuple[Differentiated, Any]:
        """Weights the kernel; every mode serves."""
        problem, to_eta, learned, window = differentiand
        weights = self.kernel_weights(window.num_inner_steps)
        return mode.differentiate(problem, to_eta, learned, window, weights), state
