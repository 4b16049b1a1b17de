"""The state of training to and from disk: a pytree of arrays in a checkpoint file.

`gradweave.runs.checkpoints` describes the file and its protection.
"""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from gradweave.errors import CheckpointError
from gradweave.runs.checkpoints import SavedArray, SavedLeaf, describe, newest_good, read, write
from gradweave.runs.run_folder import RunFolder

__all__ = ["Checkpoint", "load", "load_newest", "named_arrays", "save"]


class Checkpoint(NamedTuple):
    """Content of a checkpoint file."""

    tree: PyTree
    step: int
    metadata: dict[str, Any]


def save(path: Path, tree: PyTree, step: int, metadata: Mapping[str, Any] | None = None) -> None:
    """Write `tree` to `path`: either the whole file appears under that name, or nothing does.

    Args:
        path: the file to write; one that exists is replaced.
        tree: a pytree whose leaves are JAX or NumPy arrays, typed PRNG keys included.
        step: environment steps done.
        metadata: anything JSON can hold.

    Raises:
        ValueError: a leaf is no array, or two leaves have the same path.
        OSError: the disk is full or not writable; the earlier file is intact.
    """
    write(path, named_arrays(tree), step, metadata)


def named_arrays(tree: PyTree) -> dict[str, SavedArray]:
    """The leaves of a pytree by their paths, as a checkpoint file holds them.

    Raises:
        ValueError: a leaf is no array, or two leaves have the same path.
    """
    arrays: dict[str, SavedArray] = {}
    for name, leaf in _named_leaves(tree):
        if name in arrays:
            raise ValueError(f"two leaves have the path {name!r}; paths must differ: rename one of the nodes")
        arrays[name] = _to_numpy(name, leaf)
    return arrays


def load(path: Path, like: PyTree) -> Checkpoint:
    """Read a checkpoint into the structure of `like`.

    Args:
        path: a file written by `save`.
        like: a pytree of the structure, shapes and dtypes to expect; arrays or `jax.ShapeDtypeStruct`s. Leaves that are
            NumPy arrays come back as such, all others as JAX arrays on the default device.

    Raises:
        CheckpointError: the file is missing or damaged, or holds something else than `like` describes.
    """
    found, expected = describe(path).leaves, _named_leaves(like)
    names = [name for name, _ in expected]
    if list(found) != names:
        missing, surplus = sorted(set(names) - set(found)), sorted(set(found) - set(names))
        raise CheckpointError(
            f"{path.name} has another structure: {len(found)} arrays where {len(names)} are expected; "
            f"missing {missing[:3]}, not expected {surplus[:3]}. It was written with another configuration or version."
        )
    for name, target in expected:  # before any number is read: there may be more than memory holds
        _check_leaf(path, name, target, found[name])
    saved = read(path)
    leaves = [_restore(path, name, target, saved.arrays[name]) for name, target in expected]
    tree = jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(like), leaves)
    return Checkpoint(tree, saved.step, saved.metadata)


def load_newest(
    folder: RunFolder,
    like: PyTree,
    warn: Callable[[str], None] = warnings.warn,
    check: Callable[[Checkpoint], None] = lambda checkpoint: None,
) -> Checkpoint:
    """Load a run's newest checkpoint that serves, and go on from there: see `RunFolder.go_on_from`.

    Args:
        folder: of the run.
        like: as for `load`.
        warn: told of each newer one that does not.
        check: raises CheckpointError where a content is not to be gone on with.

    Raises:
        CheckpointError: there is none, or it does not fit `like`; nothing has been changed.
    """

    def use(path: Path) -> Checkpoint:
        folder.check_origin(path)
        checkpoint = load(path, like)
        check(checkpoint)
        return checkpoint

    path, checkpoint = newest_good(folder.checkpoints, use, warn)
    folder.go_on_from(path, checkpoint.step, checkpoint.metadata)
    return checkpoint


def _named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path) or "tree", leaf) for path, leaf in leaves]


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _to_numpy(name: str, leaf: Any) -> SavedArray:
    if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
        raise ValueError(f"leaf {name} is a {type(leaf).__name__}; only arrays can be saved: wrap it in jnp.asarray")
    if isinstance(leaf, np.ma.MaskedArray):
        raise ValueError(f"leaf {name} is a masked array; its mask cannot be saved: use leaf.filled() and leaf.mask")
    if isinstance(leaf, jax.Array) and _is_key(leaf):
        return SavedArray(np.asarray(jax.random.key_data(leaf)), leaf.dtype.name, str(jax.random.key_impl(leaf)))
    return SavedArray(np.asarray(leaf), leaf.dtype.name)


def _check_leaf(path: Path, name: str, target: Any, saved: SavedLeaf) -> None:
    shape = saved.shape if saved.key_impl is None else saved.shape[:-1]
    if saved.dtype != target.dtype.name or shape != tuple(target.shape):
        raise CheckpointError(
            f"{path.name}: {name} is {saved.dtype}{list(shape)} where {target.dtype.name}{list(target.shape)} is "
            "expected; it was written with another configuration or precision"
        )


def _restore(path: Path, name: str, target: Any, saved: SavedArray) -> Any:
    if _is_key(target):
        try:
            keys = jax.random.wrap_key_data(jnp.array(saved.data), impl=saved.key_impl)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{path.name}: {name} are no keys ({error!s:.100})") from None
        if keys.dtype != target.dtype or keys.shape != tuple(target.shape):
            raise CheckpointError(f"{path.name}: {name} are keys of another kind, {keys.dtype}{list(keys.shape)}")
        return keys
    if isinstance(target, np.ndarray | np.generic):
        return saved.data.copy()
    return jnp.array(saved.data)  # a copy: the state will be donated, the file's buffer must not be
