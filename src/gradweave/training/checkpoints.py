"""Checkpoints: a pytree of arrays in one safetensors file that no crash leaves half-written and no flipped bit enters.

The file is a valid safetensors file. It is written here because the layout is three lines (8 bytes of length, a JSON
header, the arrays one after another) and the library's low-level functions change between versions. Its metadata is one
JSON object: format version, step, the caller's metadata, one entry a leaf (path, dtype, implementation of a typed PRNG
key) and the SHA-256 of the whole file, taken with the digest's own 64 digits set to 0. Header, metadata and padding are
thus covered too: a change of any bit is found, unlike with a checksum of the payload alone. Files are written under a
temporary name, fsynced and renamed.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import PyTree

from gradweave.training.errors import CheckpointError
from gradweave.training.files import write_atomically

__all__ = ["Checkpoint", "checkpoint_path", "latest", "list_checkpoints", "load", "prune", "save", "set_newer_aside"]

FORMAT_VERSION = 1
_BLANK = "0" * 64
_SUFFIX = ".safetensors"
_TAGS = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
}
"""What safetensors calls each dtype."""


class Checkpoint(NamedTuple):
    """What a checkpoint file holds."""

    tree: PyTree
    step: int
    metadata: dict[str, Any]


class _Header(NamedTuple):
    step: int
    metadata: dict[str, Any]
    leaves: list[dict[str, Any]]
    arrays: dict[str, npt.NDArray[Any]]


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of this step lies in `folder`."""
    return folder / f"{step:012d}{_SUFFIX}"


def list_checkpoints(folder: Path) -> list[Path]:
    """Every finished checkpoint in `folder`, oldest first, unverified."""
    return sorted(path for path in folder.glob(f"*{_SUFFIX}") if path.stem.isdecimal())


def save(path: Path, tree: PyTree, step: int, metadata: Mapping[str, Any] | None = None) -> None:
    """Write `tree` to `path`: either the whole file appears under that name, or nothing does.

    Args:
        path: the file to write; one that exists is replaced.
        tree: a pytree whose leaves are JAX or NumPy arrays, typed PRNG keys included.
        step: environment steps done.
        metadata: anything JSON can hold.

    Raises:
        ValueError: a leaf is no array, or two leaves have the same path.
        OSError: the disk is full or not writable; what was there before is intact.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    leaves = []
    for name, leaf in _named_leaves(tree):
        if name in arrays:
            raise ValueError(f"two leaves have the path {name!r}; paths must differ: rename one of the nodes")
        arrays[name], key_impl = _to_numpy(name, leaf)
        leaves.append({"path": name, "dtype": str(leaf.dtype), "key_impl": key_impl})
    header = {"sha256": _BLANK, "format": FORMAT_VERSION, "step": step, "leaves": leaves, "metadata": metadata or {}}
    blank = _serialize(arrays, {"gradweave": json.dumps(header)})
    digest = hashlib.sha256(blank).hexdigest()
    write_atomically(path, blank.replace(_BLANK.encode(), digest.encode(), 1))


def load(path: Path, like: PyTree) -> Checkpoint:
    """Read a checkpoint into the structure of `like`.

    Args:
        path: a file written by `save`.
        like: a pytree of the structure, shapes and dtypes to expect; arrays or `jax.ShapeDtypeStruct`s. Leaves that are
            NumPy arrays come back as such, all others as JAX arrays on the default device.

    Raises:
        CheckpointError: the file is missing or damaged, or holds something else than `like` describes.
    """
    header = _read(path)
    expected = _named_leaves(like)
    saved = [leaf["path"] for leaf in header.leaves]
    names = [name for name, _ in expected]
    if saved != names:
        missing, surplus = sorted(set(names) - set(saved)), sorted(set(saved) - set(names))
        raise CheckpointError(
            f"{path.name} has another structure: {len(saved)} arrays where {len(names)} are expected; "
            f"missing {missing[:3]}, not expected {surplus[:3]}. It was written with another configuration or version."
        )
    leaves = []
    for (name, target), saved_leaf in zip(expected, header.leaves, strict=True):
        leaves.append(_restore(path, name, target, saved_leaf, header.arrays[name]))
    tree = jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(like), leaves)
    return Checkpoint(tree, header.step, header.metadata)


def latest(folder: Path, warn: Callable[[str], None] = warnings.warn) -> Path:
    """The newest checkpoint in `folder` that verifies; calls `warn` for each newer one that does not.

    Raises:
        CheckpointError: there is none.
    """
    paths = list_checkpoints(folder)
    for path in reversed(paths):
        try:
            _read(path)
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


def _named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path) or "tree", leaf) for path, leaf in leaves]


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _to_numpy(name: str, leaf: Any) -> tuple[npt.NDArray[Any], str | None]:
    if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
        raise ValueError(f"leaf {name} is a {type(leaf).__name__}; only arrays can be saved: wrap it in jnp.asarray")
    if isinstance(leaf, jax.Array) and _is_key(leaf):
        return np.asarray(jax.random.key_data(leaf)), str(jax.random.key_impl(leaf))
    if leaf.dtype.name not in _TAGS:
        raise ValueError(f"leaf {name} is {leaf.dtype}; only {', '.join(_TAGS)} can be saved: convert it")
    return np.asarray(leaf), None


def _restore(path: Path, name: str, target: Any, leaf: dict[str, Any], data: npt.NDArray[Any]) -> Any:
    key_impl = leaf["key_impl"]
    shape = data.shape if key_impl is None else data.shape[: len(data.shape) - 1]
    if leaf["dtype"] != str(target.dtype) or shape != tuple(target.shape):
        raise CheckpointError(
            f"{path.name}: {name} is {leaf['dtype']}{list(shape)} where {target.dtype}{list(target.shape)} is "
            "expected; it was written with another configuration or precision"
        )
    if key_impl is not None:
        return jax.random.wrap_key_data(jnp.array(data), impl=key_impl)
    if isinstance(target, np.ndarray | np.generic):
        return data.copy()
    return jnp.array(data)  # a copy: the state will be donated, the file's buffer must not be


def _read(path: Path) -> _Header:
    """The verified content of a file."""
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
    return _Header(header["step"], header["metadata"], header["leaves"], _deserialize(content))


def _serialize(arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """The safetensors file that holds `arrays`; the same arrays give the same bytes."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    chunks, end = [], 0
    for name, array in arrays.items():
        chunks.append(array.tobytes())  # every platform JAX runs on is little-endian, as the format asks
        begin, end = end, end + len(chunks[-1])
        shape = [int(size) for size in array.shape]
        header[name] = {"dtype": _TAGS[array.dtype.name], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)  # so that the arrays begin at a multiple of 8 bytes
    return b"".join([len(text).to_bytes(8, "little"), text, *chunks])


def _deserialize(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays in a safetensors file that has been verified."""
    names = {tag: name for name, tag in _TAGS.items()}
    start = 8 + int.from_bytes(content[:8], "little")
    arrays = {}
    for name, entry in json.loads(content[8:start]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            dtype = jnp.dtype(names[entry["dtype"]])
            arrays[name] = np.frombuffer(content[start + begin : start + end], dtype).reshape(entry["shape"])
    return arrays
