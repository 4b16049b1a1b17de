"""Checkpoint files: named arrays in one safetensors file that no crash leaves half-written and no flipped bit enters.

The file is a safetensors file whose metadata is one JSON object: format version, step, the caller's metadata, one entry
a leaf (path, dtype, implementation of a typed PRNG key) and the SHA-256 of the whole file, taken with the digest's own
64 digits set to 0. Header, metadata and padding are thus covered too: a change of any bit is found, unlike with a
checksum of the payload alone. Files are written under a temporary name, fsynced and renamed.
`gradweave.training.checkpoints` makes pytrees of the arrays.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import ml_dtypes
import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from gradweave.errors import CheckpointError
from gradweave.runs.files import write_atomically

__all__ = [
    "SavedArray",
    "SavedState",
    "checkpoint_path",
    "latest",
    "list_checkpoints",
    "prune",
    "read",
    "set_newer_aside",
    "write",
]

FORMAT_VERSION = 1
_BLANK = "0" * 64
_SUFFIX = ".safetensors"
_DTYPES: Final[Mapping[str, npt.DTypeLike]] = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
    "F64": np.float64,
}
"""The dtypes that can be saved, by what safetensors calls them."""
_NAMES: Final = tuple(np.dtype(dtype).name for dtype in _DTYPES.values())


class SavedArray(NamedTuple):
    """One array of a checkpoint.

    Attributes:
        data: its numbers, in any order of bytes and axes; those of its keys where it is an array of typed PRNG keys.
        dtype: the name of the dtype that the state has, which does not tell the order of bytes.
        key_impl: the implementation of typed PRNG keys, None for numbers.
    """

    data: npt.NDArray[Any]
    dtype: str
    key_impl: str | None = None


class SavedState(NamedTuple):
    """What a checkpoint file holds."""

    arrays: dict[str, SavedArray]
    """By path in the state, in order."""
    step: int
    """Environment steps done."""
    metadata: dict[str, Any]


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of this step lies in `folder`."""
    return folder / f"{step:012d}{_SUFFIX}"


def list_checkpoints(folder: Path) -> list[Path]:
    """Every finished checkpoint in `folder`, oldest first, unverified."""
    return sorted(path for path in folder.glob(f"*{_SUFFIX}") if path.stem.isdecimal())


def write(path: Path, arrays: Mapping[str, SavedArray], step: int, metadata: Mapping[str, Any] | None = None) -> None:
    """Write arrays to `path`: either the whole file appears under that name, or nothing does.

    Args:
        path: the file to write; one that exists is replaced.
        arrays: by path in the state.
        step: environment steps done.
        metadata: anything JSON can hold.

    Raises:
        ValueError: an array has a dtype that safetensors does not have.
        OSError: the disk is full or not writable; what was there before is intact.
    """
    for name, array in arrays.items():
        if array.data.dtype.name not in _NAMES:
            raise ValueError(f"leaf {name} is {array.data.dtype}; only {', '.join(_NAMES)} can be saved: convert it")
    leaves = [{"path": name, "dtype": array.dtype, "key_impl": array.key_impl} for name, array in arrays.items()]
    header = {"sha256": _BLANK, "format": FORMAT_VERSION, "step": step, "leaves": leaves, "metadata": metadata or {}}
    blank = _serialize({name: array.data for name, array in arrays.items()}, {"gradweave": json.dumps(header)})
    digest = hashlib.sha256(blank).hexdigest()
    write_atomically(path, blank.replace(_BLANK.encode(), digest.encode(), 1))


def read(path: Path) -> SavedState:
    """The verified content of a file.

    Raises:
        CheckpointError: the file is missing or damaged, or of another format version.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}") from None
    try:
        size = int.from_bytes(content[:8], "little")
        header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["gradweave"])
        digest = header["sha256"]
        blank = content.replace(digest.encode("ascii"), _BLANK.encode(), 1)
        if len(digest) != len(_BLANK) or hashlib.sha256(blank).hexdigest() != digest:
            raise CheckpointError(f"{path.name} is damaged: its SHA-256 does not match")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path.name} is damaged: its header cannot be read ({type(error).__name__})") from None
    # From here on the file is what `save` wrote, by this or by another version.
    if header["format"] != FORMAT_VERSION:
        raise CheckpointError(
            f"{path.name} has format {header['format']}; this version of gradweave reads format {FORMAT_VERSION}"
        )
    data = _deserialize(content)
    arrays = {
        leaf["path"]: SavedArray(data[leaf["path"]], leaf["dtype"], leaf["key_impl"]) for leaf in header["leaves"]
    }
    return SavedState(arrays, header["step"], header["metadata"])


def latest(folder: Path, warn: Callable[[str], None] = warnings.warn) -> Path:
    """The newest checkpoint in `folder` that verifies; calls `warn` for each newer one that does not.

    Raises:
        CheckpointError: there is none.
    """
    paths = list_checkpoints(folder)
    for path in reversed(paths):
        try:
            read(path)
        except CheckpointError as error:
            warn(f"{error}; falling back to the checkpoint before it")
        else:
            return path
    reason = f"none of the {len(paths)} checkpoints can be used" if paths else "there is no checkpoint"
    raise CheckpointError(f"{reason} in {folder}; start the run again with `gradweave train`")


def set_newer_aside(path: Path) -> None:
    """Rename the checkpoints beside `path` that are newer to NAME.damaged, so that nobody goes on from them."""
    for newer in list_checkpoints(path.parent):
        if newer.stem > path.stem:
            newer.rename(f"{newer}.damaged")


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, and what interrupted writes left behind."""
    for path in [*list_checkpoints(folder)[:-keep], *folder.glob(f".*{_SUFFIX}.tmp")]:
        path.unlink(missing_ok=True)


def _serialize(arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """The safetensors file that holds `arrays`; the same arrays give the same bytes."""
    # The library copies memory as it lies, so the order of axes has to be C's; bytes have to be little-endian.
    dense = {
        name: np.array(array, array.dtype.newbyteorder("<"), order="C", copy=None) for name, array in arrays.items()
    }
    return bytes(safetensors.numpy.save(dense, dict(metadata)))


def _deserialize(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays in a safetensors file that has been verified."""
    return {  # not safetensors.numpy.load, which has no bfloat16
        name: np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in safetensors.deserialize(content)
    }
