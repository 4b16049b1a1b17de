"""Stand-in for a run's folder in processes that do not lead: nothing is read, nothing is written."""

from collections.abc import Mapping
from typing import Any

from gradweave.config.schema import Config

__all__ = ["NoFolder"]


class _NoMetrics:
    """Forgets every row."""

    def write(self, row: Mapping[str, Any]) -> None:
        """Do nothing."""

    def truncate_after(self, step: int) -> None:
        """Do nothing."""


class NoFolder:
    """Takes the calls of a `RunFolder` and writes nothing; process 0 does."""

    path = None

    def __init__(self, config: Config) -> None:
        """Have a configuration, which is all that a folder is asked for."""
        self.config = config
        self.metrics = _NoMetrics()

    def trouble(self) -> None:
        """Nothing is written, so that there is none."""

    def save_config(self) -> None:
        """Do nothing."""

    def add_provenance(self, entries: Mapping[str, Any]) -> None:
        """Do nothing."""

    def __enter__(self) -> "NoFolder":
        return self

    def __exit__(self, *error: object) -> None:
        """Do nothing."""
