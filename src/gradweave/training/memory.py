"""How much memory training will take, said before it starts, and the remedy when that is too much.

The forecast is the compiler's own account of the compiled chunk: arguments, outputs, temporaries and code, less the
part that outputs share with arguments. Not counted is the memory of an evaluation that runs beside training: a copy of
the parameters and its own environments, and a copy of the state where a checkpoint waits for it. Logging takes
next to nothing.

The need of a smaller setting is worked out from the same account. The learner's states and gradients that a window
records do not grow with the batch, and their sizes are known; all else (batches, activations) grows with
the environments and steps. Where a batch is worked on in parts, the activations are those of one part, and only what is
kept of whole batches grows. tests/training/test_memory.py compares these predictions with compiled programs.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from gradweave.agents import SelfTuning, SelfTuningState
from gradweave.core.minibatches import count_steps
from gradweave.errors import OutOfMemory
from gradweave.machine.host_memory import HostMemory, host_memory

__all__ = ["Forecast", "Sizes", "explaining", "forecast_memory", "num_bytes"]

_STEP_BYTES = 256  # noise, values, targets and the like of one environment's step, beside its experience
_BATCHES = 4  # at hand beside those of the window: the newest, the one being collected, both in parts
_NEAR = 0.8  # of free memory; allocators and other programs need some, too


class Sizes(NamedTuple):
    """Bytes of the parts of an agent that a forecast is taken apart by, on one device.

    Attributes:
        learner: parameters and inner optimiser.
        gradient: an inner gradient.
        batch: one rollout's experience.
        num_steps: steps of all environments in it; a count, not bytes.
        num_inner_steps: L.
        keeps_batches: batches of every update that are kept for the meta-gradient: none, its own, or also that of the
            outer loss.
        records_states: whether the learner's states and gradients are kept for every update (mixed mode).
        keeps_activations: whether the activations of all updates are (reverse mode that recomputes nothing).
        in_parts: whether a batch is worked on in parts of a given size.
        num_tangents: tangents of the learner's state that are carried along (forward mode).
        num_gradient_steps: gradient steps of an update, M.
    """

    learner: int
    gradient: int
    batch: int
    num_steps: int
    num_inner_steps: int
    keeps_batches: int
    records_states: bool
    keeps_activations: bool
    in_parts: bool
    num_tangents: int
    num_gradient_steps: int = 1

    @staticmethod
    def of(agent: SelfTuning, state: SelfTuningState) -> "Sizes":
        """The sizes of an agent's state, or of its shapes."""
        kept = agent.mode.footprint()
        return Sizes(
            learner=num_bytes(state.learner),
            gradient=num_bytes(state.learner.params),
            batch=num_bytes(state.batch) // agent.environment.axis.size,
            num_steps=agent.steps_per_rollout // agent.environment.axis.size,
            num_inner_steps=agent.num_inner_steps,
            keeps_batches=(2 if agent.collects_outer else 1) if agent.learns and not agent.tracks_tangents else 0,
            records_states=agent.learns and kept.states,
            keeps_activations=agent.learns and kept.activations,
            in_parts=getattr(agent.problem, "microbatches", None) is not None,
            num_tangents=sum(leaf.size for leaf in jax.tree.leaves(state.learned)) if kept.tangents else 0,
            num_gradient_steps=count_steps(agent.problem, state.batch),
        )

    @property
    def recorded(self) -> int:
        """Bytes that a window records of the learner."""
        steps = self.num_inner_steps * self.num_gradient_steps
        return steps * (self.learner + self.gradient) if self.records_states else 0

    def growing(self, total: int) -> int:
        """Bytes of `total` that grow with environments and steps."""
        states = 2 * (1 + self.num_tangents) * self.learner  # before and after an update
        growing = max(0, total - self.recorded - states)
        if not self.in_parts or self.keeps_activations:
            return growing
        batches = _BATCHES + self.num_inner_steps * self.keeps_batches
        return min(growing, batches * self.batch + _STEP_BYTES * self.num_steps)


class Forecast(NamedTuple):
    """Memory of the compiled program, in bytes, on each device of this process.

    Attributes:
        arguments: the training state.
        outputs: the next one, and metrics.
        temporaries: everything in between.
        code: the program itself.
        aliased: outputs that take the place of arguments.
        num_devices: devices of this process that share `memory`.
        memory: of the device and the host.
        sizes: of the agent's parts.
    """

    arguments: int
    outputs: int
    temporaries: int
    code: int
    aliased: int
    num_devices: int
    memory: HostMemory
    sizes: Sizes

    @property
    def total(self) -> int:
        """All of it."""
        per_device = self.arguments + self.outputs + self.temporaries - self.aliased
        return per_device * self.num_devices + self.code

    def halved(self, field: str) -> int:
        """About the `total` with half of `num_envs`, `num_steps` or `num_inner_steps`."""
        sizes = self.sizes
        updates = sizes.num_inner_steps
        growing = sizes.growing(self.total // self.num_devices)
        if field == "num_inner_steps":
            saved = updates - max(1, updates // 2)
            each = growing // updates if sizes.keeps_activations else sizes.batch * sizes.keeps_batches
            return max(0, self.total - self.num_devices * saved * (each + sizes.recorded // updates))
        return self.total - self.num_devices * growing // 2

    def describe(self) -> str:
        """One line."""
        memory = self.memory
        return (
            f"memory forecast: {_size(self.total)} (state {_size(self.arguments)}, temporaries "
            f"{_size(self.temporaries)}{f', on each of {self.num_devices} devices' if self.num_devices > 1 else ''}) "
            f"of {_size(memory.available)} free and {_size(memory.limit)} in all ({memory.what})"
        )

    def advice(self) -> str:
        """Settings whose halving would save memory, and the memory needed then; the greatest saving first."""
        flags = {"num_envs": "--inner.num-envs", "num_steps": "--inner.num-steps"}
        if self.sizes.num_inner_steps > 1:
            flags["num_inner_steps"] = "--meta.num-inner-steps"
        needs = sorted((self.halved(field), flag) for field, flag in flags.items())
        worth = [(need, flag) for need, flag in needs if need < 0.95 * self.total]
        return "; ".join(f"half of {flag} would need about {_size(need)}" for need, flag in worth or needs[:1])

    @property
    def fits(self) -> bool:
        """Whether it can work at all."""
        return self.total <= self.memory.limit

    @property
    def near(self) -> bool:
        """Whether it takes most of the free memory."""
        return self.total > _NEAR * self.memory.available

    def for_provenance(self) -> dict[str, Any]:
        """For provenance.json."""
        parts = ("arguments", "outputs", "temporaries", "code", "aliased", "num_devices")
        memory = {"available": self.memory.available, "limit": self.memory.limit, "of": self.memory.what}
        return {"total": self.total, **{part: getattr(self, part) for part in parts}, "memory": memory}


def forecast_memory(compiled: Any, agent: SelfTuning, state: PyTree, num_devices: int = 1) -> Forecast | None:
    """The forecast of a compiled chunk; None where the compiler gives no account.

    Args:
        compiled: the result of `jax.jit(...).lower(...).compile()`.
        agent: whose chunk it is.
        state: its state, or the shapes of it.
        num_devices: devices of this process that it runs on.
    """
    account = compiled.memory_analysis()
    if account is None:
        return None
    device = jax.local_devices()[0]
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:  # an accelerator with memory of its own: each device is alike
        limit = int(stats["bytes_limit"])
        memory, sharing = HostMemory(limit, limit - int(stats.get("bytes_in_use", 0)), device.device_kind), 1
    else:
        memory, sharing = host_memory(), num_devices
    return Forecast(
        arguments=account.argument_size_in_bytes,
        outputs=account.output_size_in_bytes,
        temporaries=account.temp_size_in_bytes,
        code=account.generated_code_size_in_bytes,
        aliased=account.alias_size_in_bytes,
        num_devices=sharing,
        memory=memory,
        sizes=Sizes.of(agent, state),
    )


class Known:
    """A run's forecast of memory, once it has been made."""

    def __init__(self) -> None:
        self.forecast: Forecast | None = None

    def check(self) -> None:
        """Raise when training cannot fit, which is better than being killed by the system half-way.

        Raises:
            OutOfMemory: the forecast exceeds the memory that is available.
        """
        if self.forecast is not None and not self.forecast.fits:
            raise self.error(f"only {_size(self.forecast.memory.limit)} can be had ({self.forecast.memory.what})")

    def error(self, reason: str) -> OutOfMemory:
        """The error with the forecast, where there is one."""
        if self.forecast is None:
            return OutOfMemory(f"{reason}; lower --inner.num-envs, --inner.num-steps or --meta.num-inner-steps")
        return OutOfMemory(f"{reason}; {self.forecast.advice()}", self.forecast.total)


@contextlib.contextmanager
def explaining() -> Iterator[Known]:
    """Turn JAX's error when memory runs out into an `OutOfMemory` with the forecast and remedies."""
    known = Known()
    try:
        yield known
    except OutOfMemory:
        raise
    except MemoryError as error:
        raise known.error("the system gave no more memory") from error
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise known.error("the device gave no more memory") from error


def num_bytes(tree: PyTree) -> int:
    """Bytes of all arrays, or shapes, of a tree."""
    return sum(_leaf_bytes(leaf) for leaf in jax.tree.leaves(tree))


def _leaf_bytes(leaf: Any) -> int:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return int(leaf.size) * 8
    return int(leaf.size) * int(leaf.dtype.itemsize)


def _size(count: int) -> str:
    if count < 2**30:
        return f"{count / 2**20:.1f} MiB" if count < 100 * 2**20 else f"{count / 2**20:.0f} MiB"
    return f"{count / 2**30:.1f} GiB"
