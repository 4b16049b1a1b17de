"""What a run is called where it stands beside others: the folders of several seeds' runs are all called seed-0, ..."""

from pathlib import Path

from gradweave.training.run_folder import SEEDS_FILE

__all__ = ["run_name"]


def run_name(path: Path) -> str:
    """The folder's name, after that of the folder it lies in where this one is that of several seeds."""
    path = path.resolve()
    return f"{path.parent.name}-{path.name}" if (path.parent / SEEDS_FILE).is_file() else path.name
