"""Checkpoints: exact round trips, every flipped bit found, nothing half-written, fallback to the one before."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load as library_load

from gradweave.errors import CheckpointError
from gradweave.runs.checkpoints import (
    SavedArray,
    checkpoint_path,
    describe,
    list_checkpoints,
    newest_good,
    prune,
    read,
    set_newer_aside,
    write,
)
from gradweave.training.checkpoints import load, save


class State(NamedTuple):
    weights: dict[str, jax.Array]
    count: jax.Array
    done: jax.Array
    keys: jax.Array
    empty: jax.Array
    nothing: None = None


def make_state(seed: int = 0) -> State:
    key = jax.random.key(seed, impl="rbg")
    weight_key, half_key = jax.random.split(key)
    return State(
        weights={
            "double": jax.random.normal(weight_key, (3, 2), jnp.float64).at[0, 0].set(jnp.nan),
            "half": jax.random.normal(half_key, (5,), jnp.bfloat16),
            "single": jnp.array([jnp.inf, -0.0], jnp.float32),
        },
        count=jnp.array(2**40 + seed, jnp.int64),
        done=jnp.array([True, False, True]),
        keys=jax.random.split(jax.random.key(7), 4),
        empty=jnp.zeros((0, 3)),
    )


def test_long_metadata_are_read_again_or_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, arrays = tmp_path / f"{1:012d}.safetensors", {"x": SavedArray(np.array(1), "int64")}
    write(path, arrays, 1, {"rows": "x" * 2**24})
    assert len(describe(path).metadata["rows"]) == 2**24
    monkeypatch.setattr("gradweave.runs.checkpoints._MOST_HEADER", 2**10)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="header would have"):
        write(path, arrays, 1, {"rows": "x" * 2**10})
    assert path.read_bytes() == before


def bits(leaf: Any) -> bytes:
    data = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    return np.asarray(data).tobytes()


def assert_identical(first: Any, second: Any) -> None:
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert bits(one) == bits(other)


@pytest.mark.slow
def test_round_trip_is_bit_exact_and_keeps_metadata(tmp_path: Path) -> None:
    state = make_state()
    save(tmp_path / "a.safetensors", state, 123, {"chunk": 7, "note": "γ"})
    like = jax.eval_shape(lambda: state)
    restored = load(tmp_path / "a.safetensors", like)
    assert_identical(restored.tree, state)
    assert restored.step == 123
    assert restored.metadata == {"chunk": 7, "note": "γ"}


def test_restored_keys_draw_the_same_numbers(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", make_state(), 0)
    restored = load(tmp_path / "a.safetensors", make_state()).tree
    expected = jax.random.uniform(jax.random.split(jax.random.key(7), 4)[2])
    assert float(jax.random.uniform(restored.keys[2])) == float(expected)


def test_numpy_leaves_stay_numpy(tmp_path: Path) -> None:
    tree = {"host": np.arange(3, dtype=np.int64), "device": jnp.arange(3)}
    save(tmp_path / "a.safetensors", tree, 0)
    restored = load(tmp_path / "a.safetensors", tree).tree
    assert isinstance(restored["host"], np.ndarray)
    assert isinstance(restored["device"], jax.Array)
    restored["host"][0] = 5  # a writable copy, not a view of the file


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", make_state(), 1)
    save(tmp_path / "b.safetensors", make_state(), 1)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_the_file_is_valid_for_the_safetensors_library(tmp_path: Path) -> None:
    tree = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.array([1, 2, 3], jnp.int8), "c": jnp.array(True)}
    save(tmp_path / "a.safetensors", tree, 0)
    tensors = library_load((tmp_path / "a.safetensors").read_bytes())
    assert sorted(tensors) == ["['a']", "['b']", "['c']"]
    for name, leaf in tree.items():
        np.testing.assert_array_equal(tensors[f"['{name}']"], leaf)


@pytest.mark.slow
def test_every_single_bit_flip_is_found(tmp_path: Path) -> None:
    state = {"weights": jnp.linspace(0.0, 1.0, 7), "key": jax.random.key(1), "count": jnp.array(3)}
    path = tmp_path / "a.safetensors"
    save(path, state, 5, {"x": 1})
    content = path.read_bytes()
    undetected = []
    for position in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[position] ^= 1 << bit
            path.write_bytes(bytes(damaged))
            try:
                load(path, state)
            except CheckpointError:
                continue
            undetected.append((position, bit))
    assert len(content) > 500
    assert undetected == []
    path.write_bytes(content)
    assert_identical(load(path, state).tree, state)


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.3, 0.999])
def test_truncated_and_extended_files_are_found(tmp_path: Path, fraction: float) -> None:
    path = tmp_path / "a.safetensors"
    state = make_state()
    save(path, state, 5)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    with pytest.raises(CheckpointError, match="damaged"):
        load(path, state)
    path.write_bytes(content + b"\0")
    with pytest.raises(CheckpointError, match="damaged"):
        load(path, state)


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"a": jnp.zeros(3), "b": jnp.zeros(1)}, r"missing \[\"\['b'\]\"\]"),
        ({"a": jnp.zeros(4)}, r"float64\[3\] where float64\[4\]"),
        ({"a": jnp.zeros(3, jnp.float32)}, r"float64\[3\] where float32\[3\]"),
        ({"a": jax.random.split(jax.random.key(0), 3)}, r"where key<fry>\[3\]"),
    ],
)
def test_another_structure_shape_or_dtype_is_refused(tmp_path: Path, like: Any, message: str) -> None:
    save(tmp_path / "a.safetensors", {"a": jnp.arange(3.0)}, 5)
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "a.safetensors", like)


def test_another_key_implementation_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", jax.random.key(0, impl="rbg"), 5)
    with pytest.raises(CheckpointError, match="key<rbg>"):
        load(tmp_path / "a.safetensors", jax.random.key(0))


def test_leaves_that_are_no_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"wrap it in jnp\.asarray"):
        save(tmp_path / "a.safetensors", {"a": 3.0}, 5)
    with pytest.raises(ValueError, match="complex128"):
        save(tmp_path / "a.safetensors", {"a": jnp.zeros(2, jnp.complex128)}, 5)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    save(path, make_state(), 1)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save(path, make_state(1), 2)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]


def test_latest_falls_back_with_a_warning(tmp_path: Path) -> None:
    for step in (1, 2, 30):
        save(checkpoint_path(tmp_path, step), {"a": jnp.array(step)}, step)
    assert newest_good(tmp_path, read)[0] == checkpoint_path(tmp_path, 30)
    for step in (2, 30):
        path = checkpoint_path(tmp_path, step)
        path.write_bytes(path.read_bytes()[:-1])
    warnings: list[str] = []
    assert newest_good(tmp_path, read, warnings.append)[0] == checkpoint_path(tmp_path, 1)
    assert [checkpoint_path(tmp_path, step).name in text for step, text in zip((30, 2), warnings, strict=True)] == [
        True,
        True,
    ]
    checkpoint_path(tmp_path, 1).unlink()
    with pytest.raises(CheckpointError, match="none of the 2") as raised:
        newest_good(tmp_path, read, warnings.append)
    assert raised.value.exit_code == 3


def test_latest_without_any_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        newest_good(tmp_path, read)


def test_prune_keeps_the_newest_and_cleans_up(tmp_path: Path) -> None:
    for step in (5, 100, 20):
        save(checkpoint_path(tmp_path, step), {"a": jnp.array(step)}, step)
    (tmp_path / ".000000000007.safetensors.tmp").write_text("half a file")
    prune(tmp_path, 2)
    assert list_checkpoints(tmp_path) == [checkpoint_path(tmp_path, 20), checkpoint_path(tmp_path, 100)]
    assert len(list(tmp_path.iterdir())) == 2


def test_newer_ones_are_set_aside_and_no_longer_listed(tmp_path: Path) -> None:
    for step in (1, 2, 30):
        save(checkpoint_path(tmp_path, step), {"a": jnp.array(step)}, step)
    set_newer_aside(checkpoint_path(tmp_path, 2))
    assert list_checkpoints(tmp_path) == [checkpoint_path(tmp_path, 1), checkpoint_path(tmp_path, 2)]
    assert (tmp_path / "000000000030.safetensors.damaged").is_file()


def test_another_format_version_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradweave.runs.checkpoints.FORMAT_VERSION", 9)
    save(tmp_path / "a.safetensors", {"a": jnp.zeros(2)}, 1)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 9"):
        load(tmp_path / "a.safetensors", {"a": jnp.zeros(2)})


def test_header_is_json_anyone_can_read(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", {"a": jnp.zeros(2)}, 17)
    content = (tmp_path / "a.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["gradweave"])
    assert (header["step"], header["format"], len(header["sha256"])) == (17, 1, 64)


BASE = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
LAYOUTS = {
    "fortran": np.asfortranarray(BASE),
    "transposed": BASE.T,
    "strided": BASE[::2, ::-1],
    "broadcast": np.broadcast_to(np.float32(3), (4, 2)),
    "big endian": BASE.astype(">f4"),
    "big endian, transposed": BASE.astype(">f4").T,
    "big endian integers": np.arange(5).astype(">i8"),
    "big endian scalar": np.array(2.5, ">f8")[()],
    "no elements": np.zeros((0, 3), ">f2"),
}


@pytest.mark.parametrize("array", LAYOUTS.values(), ids=LAYOUTS)
def test_values_survive_whatever_the_order_of_bytes_and_axes(tmp_path: Path, array: Any) -> None:
    path = tmp_path / "a.safetensors"
    save(path, {"x": array}, 0)
    restored = load(path, {"x": array}).tree["x"]
    native = np.asarray(array).astype(array.dtype.newbyteorder("="))
    np.testing.assert_array_equal(restored, native, strict=True)
    np.testing.assert_array_equal(library_load(path.read_bytes())["['x']"], native)
    assert_identical(load(path, {"x": native}).tree["x"], native)  # the order of bytes is no part of a dtype here


@pytest.mark.parametrize(
    "dtype", ["bool", "bfloat16", "float16", "float64", *(f"{s}int{n}" for s in ("", "u") for n in (8, 16, 32, 64))]
)
def test_every_dtype_survives(tmp_path: Path, dtype: str) -> None:
    state = {"x": jnp.asarray([0, 1, 3], jnp.dtype(dtype))}
    save(tmp_path / "a.safetensors", state, 0)
    assert_identical(load(tmp_path / "a.safetensors", state).tree, state)


@pytest.mark.parametrize(
    ("leaf", "word"),
    [
        (np.zeros(2, [("a", "f4")]), "can be saved"),
        (np.array(["text"]), "can be saved"),
        (np.array([None]), "can be saved"),
        (np.ma.masked_array(BASE, BASE > 0), "mask"),
    ],
)
def test_arrays_that_are_no_numbers_are_refused(tmp_path: Path, leaf: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        save(tmp_path / "a.safetensors", {"a": leaf}, 5)
    assert list(tmp_path.iterdir()) == []
