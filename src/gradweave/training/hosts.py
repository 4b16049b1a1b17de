"""Many processes, one run: how they find each other, agree, and end together.

Each process runs the same program (`jax.distributed`); process 0 leads: it alone reads and writes the run's folder and
reports, so that no shared file system is needed. Its own knowledge, the configuration of a run to go on with and its
checkpoint, it hands to the others.

The number of processes is no part of a run. The same run can go on with another number of them.
"""

import contextlib
import hashlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from gradweave.errors import ConfigError, GradweaveError, HostLost, NonFiniteError, Stopped
from gradweave.machine.streams import forgiving, say

__all__ = [
    "ALONE",
    "Hosts",
    "agreed_signal",
    "check_hosts",
    "check_same",
    "end",
    "join",
    "leads",
    "share",
    "share_tree",
    "together",
]

_JOIN_SECONDS = 300  # hosts of a job do not start at the same moment
_HEARTBEAT_SECONDS = 30  # after which a silent process counts as dead, where no collective has said so before
_GOODBYE_SECONDS = 5
_CHUNK_BYTES = 2**26


@dataclass(frozen=True)
class Hosts:
    """How the processes of a run find each other."""

    coordinator: str | None = None
    """For a run of several processes: HOST:PORT of process 0, or auto to ask Slurm or another scheduler."""
    num_processes: int | None = None
    """How many processes the run has; with HOST:PORT."""
    process_id: int | None = None
    """Which of them this one is, from 0; with HOST:PORT."""

    @property
    def several(self) -> bool:
        """Whether there are other processes."""
        return self.coordinator is not None


ALONE: Final = Hosts()
"""One process."""


def check_hosts(hosts: Hosts) -> None:
    """Raise when these flags cannot be used.

    Raises:
        ConfigError: with the flag, the accepted values and a remedy.
    """
    coordinator, count, index = hosts.coordinator, hosts.num_processes, hosts.process_id
    if coordinator is None:
        for flag, value in (("--num-processes", count), ("--process-id", index)):
            if value is not None:
                raise ConfigError(flag, value, "together with --coordinator", "add --coordinator HOST:PORT, or auto")
        return
    if coordinator == "auto":
        return
    host, _, port = coordinator.rpartition(":")
    if not re.fullmatch(r"[!-~]+", host) or not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        accepted = "HOST:PORT with a port from 1 to 65535, or auto"
        name = "".join((host or coordinator).split()) or "localhost"
        raise ConfigError("--coordinator", coordinator, accepted, f"--coordinator {name}:12345")
    if count is None or count < 1:
        accepted = "the number of processes, the same for each of them"
        raise ConfigError("--num-processes", count, accepted, "--num-processes 2, say")
    if index is None or not 0 <= index < count:
        accepted = f"a number from 0 to {count - 1}, another one for each process"
        raise ConfigError("--process-id", index, accepted, f"--process-id 0 where {coordinator} is")


def join(hosts: Hosts) -> None:
    """Join the other processes of the run; to be called before JAX looks for devices.

    Raises:
        ConfigError: flags are missing, and no scheduler that JAX knows gives them.
        HostLost: the others were not there in time.
    """
    if not hosts.several:
        return
    import jax

    if jax.distributed.is_initialized():
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    say(f"waiting for the other processes of the run at {hosts.coordinator}")
    try:
        jax.distributed.initialize(
            None if hosts.coordinator == "auto" else hosts.coordinator,
            hosts.num_processes,
            hosts.process_id,
            initialization_timeout=_JOIN_SECONDS,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
        )
    except ValueError as error:
        accepted = f"auto inside a job of Slurm, Open MPI or another scheduler that JAX knows ({error})"
        remedy = "--coordinator HOST:PORT --num-processes N --process-id I"
        raise ConfigError("--coordinator", hosts.coordinator, accepted, remedy) from None
    except (RuntimeError, jax.errors.JaxRuntimeError) as error:
        raise HostLost(
            f"the other processes could not be reached at {hosts.coordinator}: {_first_line(error)}"
        ) from None


def leads() -> bool:
    """Whether this process is the one that reads, writes and reports."""
    import jax

    return bool(jax.process_index() == 0)


def share(produce: Callable[[], bytes]) -> bytes:
    """Bytes that process 0 makes, for every process. All have to call it.

    Raises:
        GradweaveError: `produce` failed in process 0; the others end with the same exit code.
    """
    import jax
    import numpy as np
    from jax.experimental.multihost_utils import broadcast_one_to_all

    if jax.process_count() == 1:
        return produce()
    failure, made = None, b""
    if leads():
        try:
            made = produce()
        except GradweaveError as error:
            failure = error
    chunks = -(-len(made) // _CHUNK_BYTES)
    header = [0 if failure is None else failure.exit_code, chunks, len(made) - (chunks - 1) * _CHUNK_BYTES]
    code, chunks, last = (int(number) for number in broadcast_one_to_all(np.array(header, np.int32)))
    if code:
        _leave()
        raise _failed_elsewhere(code) if failure is None else failure
    received = []
    for index in range(chunks):
        size = _CHUNK_BYTES if index < chunks - 1 else last
        mine = np.frombuffer(made, np.uint8, size, index * _CHUNK_BYTES) if leads() else np.zeros(size, np.uint8)
        received.append(np.asarray(broadcast_one_to_all(mine), np.uint8).tobytes())
    return b"".join(received)


def share_tree(produce: Callable[[], Any], like: Any) -> Any:
    """A pytree of arrays that process 0 makes, for every process, to the bit. All have to call it.

    Args:
        produce: makes it, in process 0 only.
        like: its structure, shapes and dtypes; typed keys are of JAX's default kind.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    if jax.process_count() == 1:
        return produce()

    def numbers(tree: Any) -> list[Any]:
        return [jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in jax.tree.leaves(tree)]

    packed = share(lambda: b"".join(np.asarray(leaf).tobytes() for leaf in numbers(produce())))
    leaves, start = [], 0
    for shape, target in zip(jax.eval_shape(numbers, like), jax.tree.leaves(like), strict=True):
        flat = np.frombuffer(packed, shape.dtype, shape.size, start)
        start += flat.nbytes
        leaf = jnp.array(flat.reshape(shape.shape))
        leaves.append(jax.random.wrap_key_data(leaf) if _is_key(target) else leaf)
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def check_same(text: str) -> None:
    """Raise in every process, unless all have the same text.

    Raises:
        ConfigError: the processes were not started alike.
    """
    import numpy as np

    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    if (_gathered(digest) != digest).any():
        _leave()
        accepted = "the same command for every process, but for --process-id"
        raise ConfigError("command line", " ".join(sys.argv[1:]), accepted, "start all processes alike")


def agreed_signal(received: list[int]) -> int | None:
    """The signal that any process has received, the same answer in all of them, None for none."""
    import jax
    import numpy as np

    if jax.process_count() == 1:
        return received[0] if received else None
    return int(_gathered(np.array(max(received, default=0), np.int32)).max()) or None


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Run a block in step with all other processes. When it ends for all alike, they part and go on each by itself.

    Raises:
        HostLost: another process is gone.
    """
    try:
        yield
    except (Stopped, NonFiniteError, KeyboardInterrupt):  # found, or agreed upon, by all
        _leave()
        raise
    except GradweaveError:
        raise
    except (ValueError, RuntimeError) as error:  # JAX's errors are among these
        gone = _lost(error)
        if gone is None:
            raise
        raise gone from error
    _leave()


def _leave() -> None:
    """Wait for the others to be done as well, so that none takes another's end for a failure."""
    import jax

    with contextlib.suppress(jax.errors.JaxRuntimeError):  # they are gone; nothing is left to be done together
        jax.distributed.shutdown()


def _lost(error: Exception) -> HostLost | None:
    """The error to raise when a collective fails; None if `error` is about something else."""
    import jax

    words = ("gloo", "nccl", "connection", "coordination", "heartbeat", "deadline_exceeded", "unavailable:")
    if jax.process_count() == 1 or not any(word in str(error).lower() for word in words):
        return None
    return HostLost(
        "another process of this run has ended or cannot be reached, and this one cannot go on without it "
        f"({_first_line(error)}). Its output says why. The newest checkpoint is in the run's folder: `gradweave "
        "resume` goes on from there, with as many processes as you like."
    )


def end(code: int) -> int:
    """The exit code; but where others are still joined the process ends here, and waits for them only a moment: they
    may have failed alike, or not know of it, or be gone.
    """
    jax: Any = sys.modules.get("jax")
    if jax is None or not jax.distributed.is_initialized():
        return code
    if code != HostLost.exit_code:
        goodbye = threading.Thread(target=_leave, daemon=True)
        goodbye.start()
        goodbye.join(_GOODBYE_SECONDS)
    _end_now(code)


def _end_now(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        forgiving(stream).flush()
    os._exit(code)


def _is_key(leaf: Any) -> bool:
    import jax

    return bool(jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _gathered(mine: Any) -> Any:
    """The array of every process, leading axis processes."""
    from jax.experimental.multihost_utils import process_allgather

    return process_allgather(mine)


def _failed_elsewhere(code: int) -> GradweaveError:
    error = GradweaveError("process 0 could not go on; its output says why")
    error.exit_code = code
    return error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
