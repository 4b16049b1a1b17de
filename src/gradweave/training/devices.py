"""One learner on many devices: its environments split over a mesh with one axis, everything else the same on all.

Nothing here knows how a device computes. `jax.shard_map` runs the agent's own functions on every device, and the agent
(`gradweave.envs.DeviceAxis`) finishes its means over environments by collectives. A run on one device has no mesh and
compiles the very programs it would without this file.

`run.devices` counts the devices of each process, so that one configuration serves any number of processes.
"""

import os
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from gradweave.agents import SelfTuning, SelfTuningState
from gradweave.config.schema import Config, NumDevices
from gradweave.config.validation import indivisible
from gradweave.envs import DeviceAxis, VectorEnvironment
from gradweave.errors import ConfigError
from gradweave.machine.runtime import usable_cores
from gradweave.training.build import configured_environment

__all__ = ["DEFAULT_DEVICE", "Devices", "find_devices"]

_AXIS = "envs"

Tree = TypeVar("Tree", bound=PyTree)

Layout: TypeAlias = Callable[[Any, Any, Any], PyTree]
"""As `Agent.layout`."""


def _unsplit(same: Any, envs_first: Any, time_first: Any) -> Any:
    """The same on all devices."""
    return same


class Devices(NamedTuple):
    """Devices of a run. Without a mesh: on JAX's default device.

    Attributes:
        mesh: one axis, the devices of all processes in the order of their processes.
        layout: how a batch of the agent is split (`Agent.layout`).
    """

    mesh: Mesh | None = None
    layout: Layout = _unsplit

    def of_agent(self, agent: SelfTuning) -> "Devices":
        """The same devices, with the layout of an agent's batches.

        Raises:
            ValueError: there are several devices, and the agent does not say how its batches are split.
        """
        layout = agent.agent.layout
        if layout is None and self.mesh is not None:
            raise ValueError("this agent has no layout of its batches over devices (Agent.layout); use one device.")
        return self._replace(layout=layout or _unsplit)

    def checked(self, config: Config) -> "Devices":
        """The same devices, found to serve for a configuration.

        Inside `jax.shard_map` a loop must begin with values that are typed as differing between devices if they will.
        Some suites begin loops with constants; nothing is wrong with them on one device.

        Raises:
            ConfigError: the environments cannot be split evenly, or their own code cannot be traced for several
                devices.
        """
        problem = indivisible(config, self.total)
        if problem is not None:
            raise problem
        if self.mesh is not None:
            self._check_splittable(config)
        return self

    @property
    def total(self) -> int:
        """Devices of all processes together."""
        return 1 if self.mesh is None else self.mesh.size

    @property
    def num_local(self) -> int:
        """Devices of this process."""
        return 1 if self.mesh is None else len(self.mesh.local_devices)

    @property
    def axis(self) -> DeviceAxis:
        """The agent's device axis."""
        return DeviceAxis() if self.mesh is None else DeviceAxis(_AXIS, self.mesh.size)

    def start(self, init: Callable[[Any], SelfTuningState], key: Any) -> SelfTuningState:
        """The state `init(key)`, made where it is to be."""
        mapped = self.mapped(init, (PartitionSpec(),), _state_specs(self.layout))
        started: SelfTuningState = jax.jit(mapped)(key)
        return started

    def shapes(self, init: Callable[[Any], SelfTuningState]) -> SelfTuningState:
        """The shapes of the state that `start` returns, and how they are split; nothing is computed."""
        mapped = self.mapped(init, (PartitionSpec(),), _state_specs(self.layout))
        like: SelfTuningState = jax.eval_shape(mapped, jax.random.key(0))
        if self.mesh is None:
            return like

        shaped: SelfTuningState = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            like,
            self._layout(like),
        )
        return shaped

    def stepping(self, step: Callable[[SelfTuningState], Any]) -> Callable[[SelfTuningState], Any]:
        """`step(state) -> (state, metrics)`, for all devices."""
        return self.mapped(step, (_state_specs(self.layout),), (_state_specs(self.layout), PartitionSpec()))

    def place(self, state: SelfTuningState) -> SelfTuningState:
        """A whole state, the same in every process, laid out as the programs expect it."""
        if self.mesh is None:
            return state
        placed: SelfTuningState = jax.jit(lambda state: state, out_shardings=self._layout(state))(state)
        return placed

    def gather(self, state: Tree) -> Tree:
        """The whole state, or part of it, on one device of each process. A collective: all processes have to call
        it.
        """
        if self.mesh is None:
            return state
        whole = jax.jit(lambda state: state, out_shardings=self._sharding(PartitionSpec()))(state)
        gathered: Tree = self.local(whole)
        return gathered

    def local(self, tree: PyTree) -> PyTree:
        """Values that are the same on all devices, as this process's first device has them; nothing is copied."""
        return tree if self.mesh is None else jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)

    def mapped(self, function: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
        """`function`, for all devices."""
        if self.mesh is None:
            return function
        mapped: Callable[..., Any] = jax.shard_map(function, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs)
        return mapped

    def _check_splittable(self, config: Config) -> None:
        """Raise where the environment cannot be traced for these devices."""
        name = config.environment.name
        environments: VectorEnvironment[Any] = VectorEnvironment(configured_environment(config), self.total, self.axis)

        def begin_and_step(key: Any) -> Any:
            reset_key, step_key = jax.random.split(key)
            state, _ = environments.reset(key=reset_key)
            actions = self.axis.varying(_some_actions(environments))
            return environments.step(state, actions, key=step_key)

        everywhere = PartitionSpec(_AXIS)
        try:
            jax.eval_shape(self.mapped(begin_and_step, (PartitionSpec(),), everywhere), jax.random.key(0))
        except (TypeError, ValueError) as error:
            if "manual ax" not in str(error):  # JAX's words for values that vary over axes
                raise
            accepted = f"environments that JAX can split over devices; the loops of {name} cannot be"
            raise ConfigError("environment.name", name, accepted, "--devices 1, in one process") from None

    def _layout(self, state: PyTree) -> PyTree:
        """The sharding of every leaf of a state."""

        def split(spec: PartitionSpec, part: PyTree) -> PyTree:
            # XLA leaves arrays without elements undivided.
            return jax.tree.map(lambda leaf: self._sharding(spec if leaf.size else PartitionSpec()), part)

        return jax.tree.map(
            split, _state_specs(self.layout), state, is_leaf=lambda node: isinstance(node, PartitionSpec)
        )

    def _sharding(self, spec: PartitionSpec) -> NamedSharding:
        assert self.mesh is not None
        return NamedSharding(self.mesh, spec)


DEFAULT_DEVICE: Final = Devices()
"""No mesh."""


def find_devices(wanted: NumDevices) -> Devices:
    """Find `wanted` devices of each process; a CPU that JAX has not looked at yet is divided into as many.

    Raises:
        ConfigError: there are fewer.
    """
    _offer_cpu_devices(wanted)
    found = jax.local_device_count()
    usable = min(found, usable_cores()) if jax.default_backend() == "cpu" else found
    if wanted != "all" and wanted > usable:
        raise ConfigError(
            "run.devices",
            wanted,
            f"at most {usable} here: {found} x {jax.local_devices()[0].device_kind}, {usable_cores()} usable cores",
            f"--devices {usable}, or all",
        )
    count = usable if wanted == "all" else int(wanted)
    if count * jax.process_count() == 1:
        return DEFAULT_DEVICE
    return Devices(Mesh(_first_of_each_process(count), (_AXIS,)))


def _offer_cpu_devices(wanted: NumDevices) -> None:
    """Have JAX divide the CPU into as many devices as are wanted, but not into more than there are cores.

    With more devices than cores the collectives of a program wait for threads that cannot run: hundreds of times
    slower. Has an effect only before JAX has looked for devices, and none on accelerators.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return  # the user has said how many; JAX refuses to be told twice
    count = usable_cores() if wanted == "all" else min(int(wanted), usable_cores())
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # JAX has its devices already
        return


def _some_actions(environments: VectorEnvironment[Any]) -> Any:
    """One action for each of a device's environments."""
    single = environments.environment
    if single.continuous:
        return jnp.zeros((environments.num_own, single.num_actions))
    if single.action_sizes is not None:
        return jnp.zeros((environments.num_own, len(single.action_sizes)), jnp.int32)
    return jnp.zeros(environments.num_own, jnp.int32)


def _first_of_each_process(count: int) -> Any:
    by_process: dict[int, list[Any]] = {}
    for device in jax.devices():
        by_process.setdefault(device.process_index, []).append(device)
    return np.array([device for index in sorted(by_process) for device in by_process[index][:count]])


def _state_specs(layout: Layout) -> SelfTuningState:
    """The split of each part of the state; `PartitionSpec()` is the same on all devices."""
    same: Any = PartitionSpec()
    envs_first: Any = PartitionSpec(_AXIS)
    time_first: Any = PartitionSpec(None, _AXIS)
    parts = dict.fromkeys(SelfTuningState._fields, same)
    return SelfTuningState(**{**parts, "rollout": envs_first, "batch": layout(same, envs_first, time_first)})
