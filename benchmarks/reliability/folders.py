"""A run's folder, made in milliseconds without training, and what a hostile or damaged one looks like."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from gradweave.config.presets import preset
from gradweave.config.schema import Config
from gradweave.runs.checkpoints import SavedArray, checkpoint_path
from gradweave.runs.run_folder import RunFolder

__all__ = ["DAMAGED_LINES", "SIDE_FILES", "TREES", "make_run", "snapshot"]

STEPS: Final = (4020, 8020, 12020)


def make_run(runs_dir: Path, name: str = "run") -> Path:
    """Make a run with rows, checkpoints of no real state, figures, a picture and a measurement; returns its folder."""
    base = preset("discounting-chain")
    config: Config = dataclasses.replace(base, run=dataclasses.replace(base.run, runs_dir=str(runs_dir)))
    with RunFolder.create(config, ["train"], name) as folder:
        for index, step in enumerate(STEPS):
            row = {"step": step, "meta_step": index + 1, "num_episodes": 2, "return": 1.0, "eta/discount": 0.9}
            folder.metrics.write(row)
            folder.save_checkpoint({"x": SavedArray(np.array(step), "int64")}, step)
    (folder.path / "figures" / "return.png").write_bytes(b"a picture")
    (folder.path / "agent.gif").write_bytes(b"GIF89a")
    ratio = {"value": 0.5, "low": 0.4, "high": None}
    found = {"estimator": "horizon-mix", "samples": 8, "total": ratio, "total_scale_free": ratio}
    (folder.path / "measurement.json").write_text(json.dumps(found))
    return folder.path


def snapshot(folder: Path) -> dict[str, bytes]:
    """The content of every file in a folder, by its name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _instead(name: str, put: Callable[[Path, Path], object]) -> Callable[[Path, Path], None]:
    """A tree in which something else stands in the place of a file or folder of the run."""

    def make(run: Path, outside: Path) -> None:
        path = run / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        put(path, outside)

    return make


def _link_to_file(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "precious.txt")


def _link_to_folder(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "folder")


def _pipe(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def _device(path: Path, outside: Path) -> None:
    path.symlink_to("/dev/zero")


def _huge(path: Path, outside: Path) -> None:
    """Takes no space on the disk; read as a whole it takes a terabyte."""
    with path.open("wb") as file:
        file.truncate(2**40)


def _long_line(path: Path, outside: Path) -> None:
    with path.open("wb") as file:
        file.write(b'{"step": 1, "x": "')
        file.truncate(200 * 2**20)


_CHECKPOINT: Final = f"checkpoints/{checkpoint_path(Path(), STEPS[-1]).name}"
_FILES: Final = (
    "lock",
    "config.toml",
    "metrics.jsonl",
    "provenance.json",
    "agent.gif",
    "measurement.json",
    "report.html",
    "evaluation.json",
    _CHECKPOINT,
)
_KINDS: Final = {
    "link": _link_to_file,
    "pipe": _pipe,
    "device": _device,
    "huge": _huge,
    "folder": lambda p, _: p.mkdir(),
}

TREES: Final[dict[str, Callable[[Path, Path], None]]] = {
    **{f"{file}: {kind}": _instead(file, put) for file in _FILES for kind, put in _KINDS.items()},
    **{
        f"{folder}: link": _instead(folder, _link_to_folder)
        for folder in ("checkpoints", "figures", "measure", "tensorboard", "wandb")
    },
    "figures: file": _instead("figures", lambda path, _: path.write_text("no folder")),
    "checkpoints: file": _instead("checkpoints", lambda path, _: path.write_text("no folder")),
    "metrics.jsonl: a line of 200 MB": _instead("metrics.jsonl", _long_line),
    "provenance.json: a line of 200 MB": _instead("provenance.json", _long_line),
}
"""What stands in a hostile folder: (the run's folder, a folder outside that must stay as it is) -> None."""

DAMAGED_LINES: Final[dict[str, bytes]] = {
    "no JSON": b"{",
    "nothing": b"",
    "a list": b"[1]",
    "a number": b"3",
    "null": b"null",
    "no step": b'{"return": 1.0}',
    "step null": b'{"step": null}',
    "step text": b'{"step": "5000"}',
    "step true": b'{"step": true}',
    "step fraction": b'{"step": 5000.5}',
    "step negative": b'{"step": -1}',
    "step huge": b'{"step": ' + b"9" * 400 + b"}",
    "step of 5000 digits": b'{"step": ' + b"9" * 5000 + b"}",
    "step again": b'{"step": 4020}',
    "step back": b'{"step": 10}',
    "return text": b'{"step": 5000, "return": "high"}',
    "return list": b'{"step": 5000, "return": [1]}',
    "return object": b'{"step": 5000, "return": {}}',
    "return NaN": b'{"step": 5000, "return": NaN}',
    "return infinite": b'{"step": 5000, "return": -Infinity}',
    "return of 400 digits": b'{"step": 5000, "return": ' + b"1" * 400 + b"}",
    "eta text": b'{"step": 5000, "eta/discount": "x"}',
    "eta true": b'{"step": 5000, "eta/discount": true}',
    "episodes text": b'{"step": 5000, "num_episodes": "2"}',
    "episodes fraction": b'{"step": 5000, "num_episodes": 1.5}',
    "no UTF-8": b'{"step": 5000, "note": "\xff"}',
    "zero bytes": b"\0" * 100,
    "deeply nested": b'{"step": 5000, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "two objects": b'{"step": 5000} {"step": 6000}',
    "cut off": b'{"step": 5000, "retu',
}
"""What may stand in the place of a line of metrics.jsonl."""

SIDE_FILES: Final[dict[str, bytes]] = {
    **{name: DAMAGED_LINES[name] for name in ("no JSON", "nothing", "a list", "a number", "null", "zero bytes")},
    **{name: DAMAGED_LINES[name] for name in ("no UTF-8", "deeply nested", "two objects", "return NaN", "cut off")},
    "continued text": b'{"continued": "x"}',
    "continued numbers": b'{"continued": [1]}',
    "source text": b'{"source": "x"}',
    "later source text": b'{"continued": [{"source": 3}]}',
}
"""What may stand in provenance.json that gradweave does not write."""
