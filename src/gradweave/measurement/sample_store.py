"""Samples of an unfinished measurement on the disk, so that the same command goes on where it was stopped."""

import io
import json
import os
import time
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gradweave.errors import ConfigError
from gradweave.files import read_bytes, write_atomically
from gradweave.runs.provenance import is_modified, source_state

__all__ = ["SampleStore", "current_source"]

_UNREADABLE: Final = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, RecursionError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)
_MOST: Final = 2**32  # bytes of a file that are read
_UNKNOWN = {"commit": None, "modified": None}


def current_source() -> dict[str, Any]:
    """Commit of the code at hand and whether it is modified; None for both outside of a checkout.

    To be asked at the start of a command, as the checkout may change while samples are drawn.
    """
    found = source_state()
    return dict(_UNKNOWN) if found is None else {"commit": found["commit"], "modified": is_modified(found)}


def _check_unpacked(content: bytes) -> None:
    """Raise where an archive would take more memory than its file: `keep` compresses nothing."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > len(content):
            raise ValueError("compressed")


class SampleStore:
    """One file of samples with their origin.

    Sample i depends on the settings and on i alone, so that a measurement of more samples goes on with one of fewer. It
    also depends on the code: its version is kept beside them, and different code is not refused.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        *,
        source: Mapping[str, Any] | None = None,
        seconds_between: float = 10.0,
    ) -> None:
        """A store at `path`; nothing is read or written yet.

        Args:
            path: of the file; its folder is made when something is kept.
            settings: all that decides the samples, their number apart; anything JSON can hold.
            source: of the samples that are kept, as from `current_source`.
            seconds_between: how long to wait between two writings at least.
        """
        self._settings = json.loads(json.dumps(dict(settings)))
        self._source = dict(_UNKNOWN if source is None else source)
        self._seconds_between = seconds_between
        self._kept_at = time.monotonic()
        self.path = path
        """Path of the file, which need not exist yet."""
        self.num_kept = 0
        """How many samples were last read or written."""
        self.sources: list[dict[str, Any]] = []
        """Sources of the samples that were last read or written, in order."""

    def known(self) -> npt.NDArray[np.float64] | None:
        """The samples that an earlier, interrupted call left; None when there are none.

        Raises:
            ConfigError: they were drawn with other settings, or the file is none of this class.
        """
        kept = self._read()
        if kept is None:
            self.num_kept = 0
            return None
        settings, samples, sources = kept
        changed = [name for name in {**settings, **self._settings} if settings.get(name) != self._settings.get(name)]
        if changed:
            name = changed[0]
            raise self._refusal(f"{name} = {self._settings.get(name)}", f"{name} = {settings.get(name)}")
        self.sources, self.num_kept = sources, len(samples)
        return samples

    def kept_settings(self) -> dict[str, Any] | None:
        """Settings of the samples on the disk, this store's or others; None when there are none.

        Raises:
            ConfigError: the file is none of this class.
        """
        kept = self._read()
        return None if kept is None else kept[0]

    def keep(self, samples: npt.NDArray[np.float64], *, now: bool = False) -> None:
        """Write all samples so far, unless the last writing was a moment ago and `now` is false.

        Fewer than this store has read or written are not written: the file begins with them.
        """
        if len(samples) < self.num_kept or (not now and time.monotonic() - self._kept_at < self._seconds_between):
            return
        if len(samples) > self.num_kept and self._source not in self.sources:
            self.sources = [*self.sources, self._source]
        content = io.BytesIO()
        settings, sources = (np.array(json.dumps(text)) for text in (self._settings, self.sources))
        np.savez(content, samples=samples, settings=settings, sources=sources)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, content.getvalue())
        self._kept_at, self.num_kept = time.monotonic(), len(samples)

    def remove(self) -> None:
        """Delete the file, and remains of killed processes: the measurement is finished."""
        for path in (self.path, *self.path.parent.glob(f".*.{self.path.name}.tmp")):
            path.unlink(missing_ok=True)
        self.num_kept = 0

    def _read(self) -> tuple[dict[str, Any], npt.NDArray[np.float64], list[dict[str, Any]]] | None:
        """(settings, samples, sources) on the disk."""
        if not os.path.lexists(self.path):
            return None
        try:
            content = read_bytes(self.path, _MOST)
            _check_unpacked(content)
            with np.load(io.BytesIO(content), allow_pickle=False) as saved:
                settings = json.loads(str(saved["settings"]))
                samples = np.asarray(saved["samples"], np.float64)
                sources = json.loads(str(saved["sources"])) if "sources" in saved else [dict(_UNKNOWN)]
            if not isinstance(settings, dict) or not isinstance(sources, list) or not samples.ndim:
                raise ValueError("other things than a store keeps")
        except _UNREADABLE as error:
            reason = str(error).partition(";")[0]  # the remedy is this error's own
            raise self._refusal(f"unreadable ({reason:.200})", "a file of samples") from None
        return settings, samples, sources

    def _refusal(self, given: str, accepted: str) -> ConfigError:
        remedy = f"repeat the command it was begun with, choose another folder, or delete {self.path} to begin again"
        return ConfigError("an unfinished measurement", given, accepted, remedy)
