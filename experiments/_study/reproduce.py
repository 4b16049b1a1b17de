"""`make reproduce STUDY=NAME`: runs one study of experiments/ from beginning to end and says where its results lie.

A study is a folder with sweep.py, run.py and
plot.py whose sweep.py has a description, `ABOUT`, and the cost of each size, `COST`; both are read without running
anything.
"""

import ast
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gradweave.cli.main import answering
from gradweave.errors import ConfigError, nearest_name

__all__ = ["Study", "find_studies", "run"]

_HELP = """usage: make reproduce [STUDY=NAME [STUDY_ARGS='...']]

with any of --quick | --size {tiny,quick,full,long}, --runs DIR, --results DIR, --arms ARM ..., --seeds SEED ...,
--stage {all,runs,tables} among the arguments.

Run a study from beginning to end: its runs, its tables, its figures. The same command goes on with what was stopped.
Without a name, the studies are listed with what each size costs on two CPU cores.

  --quick            short for --size quick: minutes; every figure and table is marked as such
  --size SIZE        full (the default) is the study, tiny is for tests; some studies have a long one
  --runs DIR         where runs lie (runs/NAME; other sizes: runs/reproduce/NAME-SIZE/runs)
  --results DIR      where tables and figures go (results/NAME; other sizes: runs/reproduce/NAME-SIZE/results)
  --game GAME        of studies on Snake 12x12: masked (the default), unmasked as in the paper, unmasked-large
  --arms, --seeds    only these, so that runs can be spread over processes
  --stage STAGE      runs only, tables (and figures) only, or all"""
_EXPERIMENTS = Path(__file__).resolve().parents[1]


class Study(NamedTuple):
    """One study, as its sweep.py describes it."""

    folder: Path
    about: str
    cost: Mapping[str, str]
    """Cost by size."""


def run(argv: Sequence[str], experiments: Path = _EXPERIMENTS) -> int:
    """List the studies, or run one; returns the exit code.

    Args:
        argv: the study's name and its flags.
        experiments: the folder of the studies.
    """
    if any(word in ("-h", "--help") for word in argv):
        print(_HELP)
        return 0
    studies = find_studies(experiments)
    if not argv:
        print(_listing(studies))
        return 0
    name, *rest = argv
    if name not in studies:
        near = nearest_name(name, studies)
        remedy = f"did you mean {near!r}?" if near else "`make reproduce` lists them"
        raise ConfigError("STUDY", name, ", ".join(studies), remedy)
    size = _size(rest, studies[name])
    rest = ["--size", size, *rest]
    print(f"{name}, {size} ({studies[name].cost[size]})", file=sys.stderr, flush=True)
    _start(studies[name].folder / "run.py", rest)
    if _taken(list(rest), "--stage") != "runs":
        _start(studies[name].folder / "plot.py", _only(rest, ("--size", "--results", "--game")))
    return 0


def find_studies(experiments: Path = _EXPERIMENTS) -> dict[str, Study]:
    """The studies in a folder that are complete, by name."""
    complete = [path for path in sorted(experiments.glob("*/sweep.py")) if path.with_name("plot.py").is_file()]
    found = {path.parent.name: _read(path) for path in complete}
    return {name: study for name, study in found.items() if study is not None}


def _read(sweep: Path) -> Study | None:
    """Description and costs in a sweep.py; None without them."""
    constants = {}
    for statement in ast.parse(sweep.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name = statement.targets[0].id
            if name in ("ABOUT", "COST"):
                constants[name] = ast.literal_eval(statement.value)
    return Study(sweep.parent, constants["ABOUT"], constants["COST"]) if len(constants) == 2 else None


def _listing(studies: Mapping[str, Study]) -> str:
    lines = ["Studies that `make reproduce STUDY=NAME` runs; costs are for two CPU cores.", ""]
    for name, study in studies.items():
        lines.append(f"{name}: {study.about}")
        lines += [f"    {size + ':':<7}{cost}" for size, cost in study.cost.items()]
    return "\n".join(lines)


def _size(arguments: list[str], study: Study) -> str:
    """The size that the flags ask for; the flags are taken out."""
    size = _taken(arguments, "--size")
    if "--quick" in arguments:
        arguments.remove("--quick")
        if size not in (None, "quick"):
            raise ConfigError("--quick", size, "one size", "leave out --quick or --size")
        size = "quick"
    size = size or "full"
    if size not in study.cost:
        raise ConfigError("--size", size, ", ".join(study.cost), "choose one of these")
    return size


def _taken(arguments: list[str], flag: str) -> str | None:
    """The value of a flag, which is taken out of `arguments` with it; None where it is not given."""
    for index, word in enumerate(arguments):
        if word.startswith(f"{flag}="):
            return arguments.pop(index).partition("=")[2]
        if word == flag:
            if index + 1 == len(arguments):
                raise ConfigError(flag, None, "a value after it", f"{flag} VALUE")
            value = arguments[index + 1]
            del arguments[index : index + 2]
            return value
    return None


def _only(arguments: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Those of the flags that are given, with their values."""
    rest = list(arguments)
    given = {flag: _taken(rest, flag) for flag in flags}
    return [word for flag, value in given.items() if value is not None for word in (flag, value)]


def _start(script: Path, arguments: Sequence[str]) -> None:
    """Run a script as `python SCRIPT ARGUMENTS` would, but in this process, so that signals and errors arrive here."""
    folder = str(script.parent)
    siblings = [path.stem for path in script.parent.glob("*.py")]
    before = sys.argv
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, folder)
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.argv = before
        sys.path.remove(folder)
        for name in siblings:  # another study has modules of the same names
            sys.modules.pop(name, None)


if __name__ == "__main__":
    sys.exit(answering(lambda: run(sys.argv[1:])))
