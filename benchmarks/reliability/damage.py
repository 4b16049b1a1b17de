"""Damage to checkpoint files: bytes that change, and other contents under a right hash."""

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from gradweave.errors import CheckpointError
from gradweave.runs.checkpoints import list_checkpoints, read
from gradweave.training.checkpoints import load, save

__all__ = ["CONTENTS", "WRITER", "corrupt", "counterfeit", "forged", "newest_readable", "state"]

WRITER: Final = (
    "import sys\nimport numpy as np\nfrom pathlib import Path\n"
    "from gradweave.runs.checkpoints import SavedArray\nfrom gradweave.runs.run_folder import RunFolder\n"
    "with RunFolder.open(Path(sys.argv[1])) as folder:\n"
    "  for step in range(20_000, 10**9, 10):\n"
    "    folder.metrics.write({'step': step})\n"
    "    if step % 50 == 0:\n"
    "      folder.save_checkpoint({'x': SavedArray(np.full(50_000, step), 'int64')}, step)\n"
    "      print('saved', step, flush=True)\n"
)
"""A program that writes rows and checkpoints until it is killed, and says which checkpoints it has written."""


def state() -> dict[str, Any]:
    """A small state with every kind of leaf."""
    return {
        "weights": jnp.linspace(0.0, 1.0, 50, dtype=jnp.float32),
        "count": jnp.array(3, jnp.int32),
        "key": jax.random.key(1),
        "half": jnp.ones(8, jnp.bfloat16),
        "done": jnp.array([True, False]),
    }


def newest_readable(run: Path) -> tuple[int, list[str]]:
    """The step of the newest checkpoint of a run, and the names of those that cannot be read."""
    newest, unreadable = -1, []
    for path in list_checkpoints(run / "checkpoints"):
        try:
            newest = max(newest, read(path).step)
        except CheckpointError:
            unreadable.append(path.name)
    return newest, unreadable


def corrupt(folder: Path, count: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """Change a checkpoint at random places and read it."""
    path = folder / f"{50:012}.safetensors"
    save(path, state(), 50)
    content = path.read_bytes()
    ways: dict[str, Callable[[], bytes]] = {
        "a bit": lambda: _changed(content, rng, lambda old: old ^ (1 << rng.randrange(8))),
        "a byte": lambda: _changed(content, rng, lambda old: (old + rng.randrange(1, 256)) % 256),
        "cut off": lambda: content[: rng.randrange(len(content))],
        "longer": lambda: content + rng.randbytes(rng.randrange(1, 100)),
        "a block of zeros": lambda: _block(content, rng, b"\0" * 64),
        "a block of noise": lambda: _block(content, rng, rng.randbytes(64)),
        "shifted": lambda: content[1:] + content[:1],
        "noise": lambda: rng.randbytes(len(content)),
    }
    for index in range(count):
        way = list(ways)[index % len(ways)]
        damaged = ways[way]()
        if damaged == content:
            continue
        path.write_bytes(damaged)
        outcome = _outcome(path)
        yield {"case": way, "outcome": outcome, "ok": outcome == "refused"}


def _changed(content: bytes, rng: random.Random, change: Callable[[int], int]) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + bytes([change(content[place])]) + content[place + 1 :]


def _block(content: bytes, rng: random.Random, block: bytes) -> bytes:
    place = rng.randrange(len(content) - len(block))
    return content[:place] + block + content[place + len(block) :]


def _outcome(path: Path) -> str:
    try:
        load(path, state())
    except CheckpointError:
        return "refused"
    except BaseException as error:
        return f"traceback: {type(error).__name__}: {error!s:.80}"
    return "loaded"


def forged(content: bytes, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> bytes:
    """A checkpoint file with another header and the hash that belongs to it.

    Args:
        content: of a file.
        change: changes the header of safetensors and the one in it.
    """
    size = int.from_bytes(content[:8], "little")
    outer = json.loads(content[8 : 8 + size])
    inner = json.loads(outer["__metadata__"]["gradweave"])
    change(outer, inner)
    blank = "0" * 64
    if isinstance(inner, dict) and "sha256" in inner:
        inner["sha256"] = blank
    outer["__metadata__"] = {"gradweave": json.dumps(inner)}
    text = json.dumps(outer).encode()
    text += b" " * (-len(text) % 8)
    whole = len(text).to_bytes(8, "little") + text + content[8 + size :]
    return whole.replace(blank.encode(), hashlib.sha256(whole).hexdigest().encode(), 1)


def _leaf(name: str, **changes: Any) -> Callable[[dict[str, Any], dict[str, Any]], object]:
    def change(outer: dict[str, Any], inner: dict[str, Any]) -> None:
        next(leaf for leaf in inner["leaves"] if name in leaf["path"]).update(changes)

    return change


def _entry(name: str, **changes: Any) -> Callable[[dict[str, Any], dict[str, Any]], object]:
    def change(outer: dict[str, Any], inner: dict[str, Any]) -> None:
        next(entry for key, entry in outer.items() if name in key).update(changes)

    return change


def _inner(**changes: Any) -> Callable[[dict[str, Any], dict[str, Any]], object]:
    return lambda outer, inner: inner.update(changes)


_ODD: Final[Mapping[str, Any]] = {
    "null": None,
    "true": True,
    "text": "x",
    "a number": 3.5,
    "a list": [1],
    "an object": {"a": 1},
    "huge": 10**400,
    "negative": -1,
}

CONTENTS: Final[dict[str, Callable[[dict[str, Any], dict[str, Any]], object]]] = {
    **{f"step: {name}": _inner(step=value) for name, value in _ODD.items()},
    **{f"format: {name}": _inner(format=value) for name, value in _ODD.items()},
    **{f"leaves: {name}": _inner(leaves=value) for name, value in _ODD.items()},
    **{f"metadata: {name}": _inner(metadata=value) for name, value in _ODD.items() if name != "an object"},
    **{f"a leaf's path: {name}": _leaf("weights", path=value) for name, value in _ODD.items()},
    **{f"a leaf's dtype: {name}": _leaf("weights", dtype=value) for name, value in _ODD.items()},
    **{f"a leaf's key: {name}": _leaf("weights", key_impl=value) for name, value in _ODD.items() if name != "null"},
    **{f"the key's kind: {name}": _leaf("key", key_impl=value) for name, value in _ODD.items()},
    **{f"a shape: {name}": _entry("weights", shape=value) for name, value in _ODD.items()},
    **{f"a dtype: {name}": _entry("weights", dtype=value) for name, value in _ODD.items()},
    **{f"offsets: {name}": _entry("weights", data_offsets=value) for name, value in _ODD.items()},
    "another kind of key": _leaf("key", key_impl="rbg"),
    "no key any more": _leaf("key", key_impl=None, dtype="uint32"),
    "integers for floats": _entry("weights", dtype="I32"),
    "integers that are called floats": lambda outer, inner: (
        _entry("weights", dtype="I32")(outer, inner),
        _leaf("weights", dtype="int32")(outer, inner),
    ),
    "another half": _entry("half", dtype="F16"),
    "other dimensions": _entry("weights", shape=[5, 10]),
    "a leaf twice": lambda outer, inner: inner["leaves"].append(inner["leaves"][0]),
    "a leaf less": lambda outer, inner: inner["leaves"].pop(),
    "leaves in another order": lambda outer, inner: inner["leaves"].reverse(),
    "an array more": lambda outer, inner: outer.update({"y": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}),
    "another step": _inner(step=51),
    "no step": lambda outer, inner: inner.pop("step"),
    "no metadata": lambda outer, inner: inner.pop("metadata"),
    "no leaves": lambda outer, inner: inner.pop("leaves"),
}
"""What may be wrong in a file whose hash is right."""


def counterfeit(folder: Path, count: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """Read checkpoints of other contents with a right hash."""
    path = folder / f"{50:012}.safetensors"
    save(path, state(), 50)
    content = path.read_bytes()
    assert _unchanged(path, content)
    names = list(CONTENTS) if count >= len(CONTENTS) else rng.sample(list(CONTENTS), count)
    for name in names:
        path.write_bytes(forged(content, CONTENTS[name]))
        outcome = _outcome(path)
        yield {"case": name, "outcome": outcome, "ok": outcome == "refused"}


def _unchanged(path: Path, content: bytes) -> bool:
    """Whether a header that is written anew, and not changed, is read as before."""
    path.write_bytes(forged(content, lambda outer, inner: None))
    return bool(np.array_equal(load(path, state()).tree["weights"], state()["weights"]))
