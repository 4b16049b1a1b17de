"""The contract of an estimator: *which* meta-gradient is estimated, in any mode that differentiates it."""

import abc
from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array, Key, PyTree

from gradweave.core.modes.base import AbstractMode, Differentiand, Differentiated, KernelWeights
from gradweave.core.modes.reverse import ReverseMode


class AbstractEstimator(eqx.Module):
    """A meta-gradient estimator.

    An estimator written outside this package subclasses this (or returns a weighting, see `AbstractLinearEstimator`)
    and is used like the bundled ones.

    Attributes:
        supported_modes: the modes that can serve; the first one is the default. `AbstractMode` stands for all of them,
            an empty tuple says that nothing is differentiated.
    """

    supported_modes: ClassVar[tuple[type[AbstractMode], ...]] = (AbstractMode,)

    @abc.abstractmethod
    def init(self, raw: PyTree, spec: PyTree, state: PyTree, *, key: Key[Array, ""] | None = None) -> PyTree:
        """The estimator's memory before the first window, arrays only; None for an estimator without one.

        Args:
            raw: unconstrained meta-parameters.
            spec: their bijectors.
            state: x_0, the learner's state before the first window.
            key: for an estimator that draws random numbers; without it they are the same in every run.
        """

    @abc.abstractmethod
    def check(self, num_inner_steps: int) -> None:
        """Raise a ValueError when the estimator does not fit a window of this length."""

    @abc.abstractmethod
    def estimate(self, differentiand: Differentiand, mode: AbstractMode, memory: PyTree) -> tuple[Differentiated, Any]:
        """(the estimate, the estimator's new memory)."""

    def reads_horizons(self, num_inner_steps: int) -> bool:
        """Whether the estimate needs nothing but the horizon gradients of the problem it is given, so that, in
        `ForwardMode`, a `HorizonRecording` replaces its replay.
        """
        return False


class AbstractLinearEstimator(AbstractEstimator):
    """An estimator that is a weighting of the one kernel in `modes.base`: subclasses say which weights."""

    def init(self, raw: PyTree, spec: PyTree, state: PyTree, *, key: Key[Array, ""] | None = None) -> None:
        """No memory."""

    @abc.abstractmethod
    def kernel_weights(self, num_inner_steps: int) -> KernelWeights:
        """The weights for a window of L inner steps."""

    def reads_horizons(self, num_inner_steps: int) -> bool:
        """Whether every step counts fully."""
        return self.kernel_weights(num_inner_steps).steps is None

    def estimate(self, differentiand: Differentiand, mode: AbstractMode, memory: PyTree) -> tuple[Differentiated, Any]:
        """Weights the kernel; every mode serves."""
        weights = self.kernel_weights(differentiand.window.num_inner_steps)
        return mode.differentiate(differentiand, weights), memory


def chosen_mode(estimator: AbstractEstimator, mode: AbstractMode | None) -> AbstractMode:
    """The mode itself if the estimator can be differentiated by it, the estimator's default for None, or a
    TypeError that names the modes that serve.
    """
    chosen: list[tuple[str, Any, type, str]] = [
        ("estimator", estimator, AbstractEstimator, "HorizonMix(gw.uniform_weights(5))"),
        ("mode", mode, AbstractMode, "ForwardMode()"),
    ]
    for name, value, kind, example in chosen:
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"{name}={value!r} was given; it has to be an object, such as gw.{example}, or left out.")
    supported = estimator.supported_modes
    if mode is None:
        return ReverseMode() if not supported or AbstractMode in supported else supported[0]()
    if isinstance(mode, supported):
        return mode
    name, given = type(estimator).__name__, type(mode).__name__
    if not supported:
        raise TypeError(f"{name} differentiates nothing, so that no mode applies to it: leave out mode={given}(...).")
    usable = " or ".join(f"{kind.__name__}()" for kind in supported)
    raise TypeError(f"{name} cannot be differentiated by {given}; give it mode={usable}, or no mode.")


def checked_memory(estimator: AbstractEstimator, memory: PyTree) -> PyTree:
    """The memory, or a ValueError that says where to get one."""
    if memory is None:
        name = type(estimator).__name__
        raise ValueError(
            f"{name} carries a memory from window to window, but estimator_state is None; pass "
            "estimator_state=estimator.init(raw, spec, state) with the first window, and the estimator_state of the "
            "last MetaGradient with every later one."
        )
    return memory
