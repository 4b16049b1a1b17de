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
from typing import Any, BinaryIO, Final, NamedTuple, TypeVar

import ml_dtypes
import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from gradweave.errors import CheckpointError, DamagedFile
from gradweave.files import open_regular, write_atomically

__all__ = [
    "Description",
    "SavedArray",
    "SavedLeaf",
    "SavedState",
    "checkpoint_path",
    "describe",
    "list_checkpoints",
    "newest_good",
    "prune",
    "read",
    "set_newer_aside",
    "write",
]

UsedT = TypeVar("UsedT")

FORMAT_VERSION = 1
_MOST_HEADER: Final = 100_000_000  # the most that safetensors itself reads; a comparison's rows are in it
_PIECE: Final = 2**20
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
"""The dtypes that can be saved, by their names in safetensors."""
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


class SavedLeaf(NamedTuple):
    """The same without the numbers; `shape` is that of the numbers that are stored."""

    shape: tuple[int, ...]
    dtype: str
    key_impl: str | None = None


class SavedState(NamedTuple):
    """Content of a checkpoint file."""

    arrays: dict[str, SavedArray]
    """By path in the state, in order."""
    step: int
    """Environment steps done."""
    metadata: dict[str, Any]


def checkpoint_path(folder: Path, step: int) -> Path:
    """The path of this step's checkpoint in `folder`."""
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
        CheckpointError: the metadata are too long to be read again; the earlier file is intact.
        OSError: the disk is full or not writable; the earlier file is intact.
    """
    for name, array in arrays.items():
        if array.data.dtype.name not in _NAMES:
            raise ValueError(f"leaf {name} is {array.data.dtype}; only {', '.join(_NAMES)} can be saved: convert it")
    leaves = [{"path": name, "dtype": array.dtype, "key_impl": array.key_impl} for name, array in arrays.items()]
    header = {"sha256": _BLANK, "format": FORMAT_VERSION, "step": step, "leaves": leaves, "metadata": metadata or {}}
    blank = _serialize({name: array.data for name, array in arrays.items()}, {"gradweave": json.dumps(header)})
    size = int.from_bytes(blank[:8], "little")
    if size > _MOST_HEADER:
        raise CheckpointError(
            f"{path} cannot be written: its header would have {size:,} bytes, where {_MOST_HEADER:,} are read; fewer "
            "members, seeds or trials have a shorter one"
        )
    digest = hashlib.sha256(blank).hexdigest()
    write_atomically(path, blank.replace(_BLANK.encode(), digest.encode(), 1))


class Description(NamedTuple):
    """Content of a verified file, without the numbers."""

    leaves: dict[str, SavedLeaf]
    """By path in the state, in order."""
    step: int
    """Environment steps done."""
    metadata: dict[str, Any]


def describe(path: Path) -> Description:
    """Verify a file, whose hash must be right and whose content `write`'s, in little memory, whatever its size.

    Raises:
        CheckpointError: the file is missing, no regular file, damaged or of another format version; or its content is
            not that of a checkpoint of this name.
    """
    try:
        with open_regular(path) as file:
            text, header = _read_header(path, file)
            _check_hash(path, file, text, header)
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}") from None
    except DamagedFile as error:
        raise CheckpointError(f"{path.name} cannot be read: {error}") from None
    # From here on the file is as it was written, by this version, another one or another program.
    if header.get("format") != FORMAT_VERSION or isinstance(header["format"], bool):
        raise CheckpointError(
            f"{path.name} has format {header.get('format')!r}; this version of gradweave reads format {FORMAT_VERSION}"
        )
    try:
        found = _described(json.loads(text), header)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{path.name} is no checkpoint: its header says {error!s:.100}") from None
    if path.stem.isdecimal() and int(path.stem) != found.step:
        raise CheckpointError(f"{path.name} is the checkpoint of step {found.step} under another name")
    return found


def read(path: Path) -> SavedState:
    """The verified content of a file. See `describe`.

    Raises:
        CheckpointError: as `describe`.
    """
    found = describe(path)
    try:
        with open_regular(path) as file:
            data = _deserialize(file.read())
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path.name} is no checkpoint: {error!s:.100}") from None
    arrays = {name: SavedArray(data[name], leaf.dtype, leaf.key_impl) for name, leaf in found.leaves.items()}
    return SavedState(arrays, found.step, found.metadata)


def newest_good(
    folder: Path, use: Callable[[Path], UsedT], warn: Callable[[str], None] = warnings.warn
) -> tuple[Path, UsedT]:
    """The newest checkpoint in `folder` that serves, and the result of `use`; `warn` is told of each that does not.

    Args:
        folder: of the checkpoints.
        use: reads one; raises CheckpointError where it does not serve.
        warn: told why.

    Raises:
        CheckpointError: there is none.
    """
    paths = list_checkpoints(folder)
    reasons: list[str] = []
    for path in reversed(paths):
        try:
            return path, use(path)
        except CheckpointError as error:
            reasons.append(str(error))
            warn(f"{error}; falling back to the checkpoint before it")
    if not paths:
        raise CheckpointError(f"there is no checkpoint in {folder}; start the run again with `gradweave train`")
    raise CheckpointError(
        f"none of the {len(paths)} checkpoints in {folder} can be used ({reasons[0]}); start the run again with "
        "`gradweave train`"
    )


def set_newer_aside(path: Path) -> None:
    """Rename the checkpoints beside `path` that are newer to NAME.damaged, so that nobody goes on from them."""
    for newer in list_checkpoints(path.parent):
        if newer.stem > path.stem:
            newer.rename(f"{newer}.damaged")


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, and the remains of interrupted writes."""
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


def _read_header(path: Path, file: BinaryIO) -> tuple[bytes, dict[str, Any]]:
    """The header of safetensors as it is, and ours in it."""
    size = int.from_bytes(file.read(8), "little")
    if size > _MOST_HEADER:
        raise CheckpointError(f"{path.name} is damaged: its header would have {size:,} bytes")
    text = file.read(size)
    try:
        header = json.loads(json.loads(text)["__metadata__"]["gradweave"])
        digest = header["sha256"]
        if len(digest) == len(_BLANK) and text.count(digest.encode("ascii")) == 1:
            return text, header
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path.name} is damaged: its header cannot be read ({type(error).__name__})") from None
    raise CheckpointError(f"{path.name} is damaged: its header has no SHA-256")


def _check_hash(path: Path, file: BinaryIO, text: bytes, header: Mapping[str, Any]) -> None:
    """Raise when the file's SHA-256 is not the one in its header; the file stands behind the header."""
    digest = hashlib.sha256(len(text).to_bytes(8, "little"))
    digest.update(text.replace(header["sha256"].encode("ascii"), _BLANK.encode(), 1))
    while piece := file.read(_PIECE):
        digest.update(piece)
    if digest.hexdigest() != header["sha256"]:
        raise CheckpointError(f"{path.name} is damaged: its SHA-256 does not match")


def _described(entries: Mapping[str, Any], header: Mapping[str, Any]) -> Description:
    """The description in two headers; raises ValueError and the like where they cannot be `write`'s."""
    step, metadata = header["step"], header["metadata"]
    if not isinstance(step, int) or isinstance(step, bool) or step < 0 or not isinstance(metadata, dict):
        raise ValueError(f"step = {step!r} and metadata of type {type(metadata).__name__}")
    leaves: dict[str, SavedLeaf] = {}
    for leaf in header["leaves"]:
        name, dtype, key_impl, entry = leaf["path"], leaf["dtype"], leaf["key_impl"], entries[leaf["path"]]
        stored = np.dtype(_DTYPES[entry["dtype"]]).name
        if name in leaves or not isinstance(dtype, str) or not isinstance(key_impl, str | None):
            raise ValueError(f"leaf {name!r} twice, or of no dtype")
        if stored != ("uint32" if key_impl is not None else dtype):
            raise ValueError(f"leaf {name!r} is {dtype} and stored as {stored}")
        leaves[name] = SavedLeaf(tuple(int(size) for size in entry["shape"]), dtype, key_impl)
    if set(leaves) != set(entries) - {"__metadata__"}:
        raise ValueError("arrays that belong to no leaf")
    return Description(leaves, step, metadata)
