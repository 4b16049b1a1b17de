"""Memory that this process may use: that of the machine, of its container and under its limit on address space."""

import os
import resource
from pathlib import Path
from typing import NamedTuple

__all__ = ["HostMemory", "host_memory"]

_CGROUP = Path("/sys/fs/cgroup")


class HostMemory(NamedTuple):
    """Memory, in bytes.

    Attributes:
        limit: more than this can never be had.
        available: free now.
        what: whose memory it is, in words.
    """

    limit: int
    available: int
    what: str


def host_memory() -> HostMemory:
    """The tightest of three: the machine's memory, the container's, and the process's limit on address space."""
    found = [memory for memory in (_machine(), _container(), _process()) if memory is not None]
    tightest = min(found, key=lambda memory: memory.limit)
    return tightest._replace(available=min(memory.available for memory in found))


def _machine() -> HostMemory:
    page = os.sysconf("SC_PAGE_SIZE")
    total = page * os.sysconf("SC_PHYS_PAGES")
    available = total
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():  # not on macOS
        fields = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
        available = int(fields["MemAvailable"].split()[0]) * 1024
    return HostMemory(total, available, "RAM")


def _container() -> HostMemory | None:
    limit = _number(_CGROUP / "memory.max") or _number(_CGROUP / "memory" / "memory.limit_in_bytes")
    used = _number(_CGROUP / "memory.current") or _number(_CGROUP / "memory" / "memory.usage_in_bytes")
    if limit is None or used is None:
        return None
    return HostMemory(limit, max(0, limit - used), "RAM of this container")


def _process() -> HostMemory | None:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    statm = Path("/proc/self/statm")
    if limit == resource.RLIM_INFINITY or not statm.exists():
        return None
    mapped = int(statm.read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    # Memory mapped already is code and reserved space, which nothing gives back: the rest is all there is.
    left = max(0, limit - mapped)
    return HostMemory(left, left, "the rest of the limit on address space, see `ulimit -v`")


def _number(path: Path) -> int | None:
    """The number in a file of the kernel's; None where there is no such file, or no limit."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
