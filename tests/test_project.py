"""The project's own promises: what its files hold, how large they are, that what is public exists and is documented."""

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
import typing
from pathlib import Path

import pytest

import gradweave

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PACKAGES = ("gradweave", "gradweave.core", "gradweave.envs", "gradweave.rl", "gradweave.agents")

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 80
MAX_FILE_BYTES = 2 * 1024**2

# Tests of what several files do together; all others lie where the file that they test lies.
ACROSS_FILES = {
    "agents/actor_critic/test_critic_apart.py",
    "agents/actor_critic/test_estimators_with_memory.py",
    "agents/test_device_axis.py",
    "agents/test_memory.py",
    "agents/test_meta_parameters.py",
    "agents/test_options.py",
    "agents/test_probes_solved.py",
    "agents/test_sampling_correction.py",
    "agents/vtrace/test_auxiliary_heads.py",
    "api/test_api.py",
    "cli/test_seed_shares.py",
    "config/test_bad_configurations.py",
    "core/test_wrong_kinds.py",
    "core/estimators/test_long_runs.py",
    "core/estimators/test_means_and_variances.py",
    "core/estimators/test_table.py",
    "core/test_unusual_jax.py",
    "experiments/test_experiments.py",
    "experiments/test_study_rows.py",
    "reports/test_intervals.py",
    "runs/test_hostile_folders.py",
    "runs/test_odd_values.py",
    "runs/test_reader_fuzz.py",
    "training/test_lost_files.py",
}

FORBIDDEN_TEXT = {
    "the path of one machine": re.compile(r"(?<![\w.~$}/-])/(?:work|tmp|root|home|Users)/\w"),
    "where packages are fetched from": re.compile(
        r"https?://\S*(?:/simple\b|/packages/)|pypi\.(?:org|python)|pythonhosted|--(?:extra-)?index-url[ =]\S", re.I
    ),
}
FORBIDDEN_IN_SOURCE = re.compile(r"\bpickle\b|\beval\(|NotImplementedError|\bTODO\b|\bFIXME\b|\bXXX\b")

DESCRIBED = re.compile(r"(?:Bring|Compile|Delete|Do|Import|Join|Make|Raise|Read|Save|Train|Wait|Write)e?s\b")
"""How the docstring of a function does not begin, which says what to do ("Write the rows"); nouns may begin one."""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tracked_files() -> list[Path]:
    """What git tracks; in an unpacked archive without git, what lies in the project's own folders."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode == 0:
        return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]
    folders = (ROOT / name for name in ("src", "tests", "docs", "constraints", "examples", "experiments", "benchmarks"))
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


def texts() -> list[tuple[str, str]]:
    """Name and content of each tracked text file but this one, which has to name what it forbids."""
    found = []
    for path in tracked_files():
        content = path.read_bytes()
        if b"\0" not in content and path != Path(__file__):
            found.append((relative(path), content.decode("utf-8", errors="replace")))
    return found


@pytest.mark.parametrize("what", FORBIDDEN_TEXT)
def test_files_do_not_tell(what):
    files = texts()
    assert len(files) > 20
    found = [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match.group()}"
        for name, text in files
        for match in FORBIDDEN_TEXT[what].finditer(text)
    ]
    assert not found


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("the path of one machine", "see " + "/ho" + "me/someone/x"),
        ("where packages are fetched from", "--extra-index-url " + "ht" + "tps://mirror.example/simple"),
    ],
)
def test_what_is_forbidden_would_be_found(what, text):
    assert FORBIDDEN_TEXT[what].search(text)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_source_file_keeps_the_house_rules(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "begins with a docstring"
    assert text.count("\n") <= MAX_FILE_LINES
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {node.name: node.end_lineno - node.lineno + 1 for node in functions}
    assert {name: lines for name, lines in long.items() if lines > MAX_FUNCTION_LINES} == {}
    assert [node.name for node in functions if DESCRIBED.match(ast.get_docstring(node) or "")] == []
    assert not FORBIDDEN_IN_SOURCE.findall(text)
    # jaxtyping reads annotations when a function is defined
    assert not re.search(r"^from __future__ import annotations", text, re.M)


def test_files_and_functions_outside_the_package_are_no_longer_either():
    long = []
    for path in tracked_files():
        if path.suffix == ".py":
            text = path.read_text(encoding="utf-8")
            long += [relative(path)] if text.count("\n") > MAX_FILE_LINES else []
            functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
            lines = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
            long += [f"{relative(path)}: {name}" for name, count in lines.items() if count > MAX_FUNCTION_LINES]
    assert long == []


def test_nothing_large_and_no_packages_of_others_are_kept():
    kept = [path for path in tracked_files() if path.suffix in (".whl", ".gz", ".zip")]
    assert [relative(path) for path in kept] == []
    assert [relative(path) for path in tracked_files() if path.stat().st_size > MAX_FILE_BYTES] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_exist_and_are_documented(package):
    module = importlib.import_module(package)
    names = [name for name in module.__all__ if not name.startswith("__")]
    assert names
    assert len(set(names)) == len(names)
    things = {name: getattr(module, name) for name in names}
    # Constants and aliases of types cannot carry a docstring that can be asked for; functions and classes have to.
    documentable = {name: thing for name, thing in things.items() if callable(thing) and not typing.get_origin(thing)}
    undocumented = [name for name, thing in documentable.items() if not own_docstring(thing)]
    assert undocumented == []


def own_docstring(thing: object) -> str | None:
    """A docstring that someone wrote: not the one NamedTuple makes up, nor the one inherited from `object`."""
    documentation = vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__
    if documentation and re.match(rf"{getattr(thing, '__name__', '')}\(.*\)$", documentation):
        return None
    return documentation


def test_made_up_docstrings_do_not_count():
    class Undocumented(typing.NamedTuple):
        field: int

    assert own_docstring(Undocumented) is None


def test_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        gradweave.no_such_name  # noqa: B018


def test_versions_agree():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert importlib.metadata.version("gradweave") == declared
    assert gradweave.__version__ == declared
    assert f"version: {declared}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_importing_the_package_and_a_command_does_not_import_jax():
    program = "import sys, gradweave, gradweave.cli.sweep; sys.exit(bool({'jax', 'optuna'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_rooms_without_jax_and_commands_are_imported_without_it():
    """The import contract reads imports at the top of files and in functions; this sees what they lead to."""
    rooms = ("files", "errors", "config", "runs", "machine", "cli", "api")
    names = [".".join(path.relative_to(ROOT / "src").with_suffix("").parts) for path in SOURCES]
    names = [name.removesuffix(".__init__") for name in names if name.split(".")[1] in rooms]
    assert len(names) > 60
    program = f"import sys, {', '.join(names)}; sys.exit(bool({{'jax', 'equinox', 'gymnax'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("package", ["core", "envs"])
def test_lowest_layers_import_nothing_else_of_ours(package):
    """The import contract checks layers; this also keeps them from reaching around it through the package's root."""
    found = []
    paths = [path for path in SOURCES if relative(path).startswith(f"src/gradweave/{package}/")]
    assert paths
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or "."] if isinstance(node, ast.ImportFrom) else []
            ours = [name for name in names if name.split(".")[0] in ("gradweave", "")]
            found += [f"{relative(path)}: {name}" for name in ours if not name.startswith(f"gradweave.{package}")]
    assert found == []


def test_each_pin_has_a_hash():
    for name in ("runtime", "dev"):
        text = (ROOT / "constraints" / f"{name}.txt").read_text(encoding="utf-8").replace("\\\n", " ")
        requirements = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        assert len(requirements) > 30
        assert [line for line in requirements if "==" not in line or "--hash=sha256:" not in line] == []


def test_run_time_pins_are_among_the_developers_pins():
    pins = {
        name: set(
            re.findall(r"^[a-z0-9-]+==\S+", (ROOT / "constraints" / f"{name}.txt").read_text(encoding="utf-8"), re.M)
        )
        for name in ("runtime", "dev")
    }
    assert pins["runtime"] - pins["dev"] == set()


def test_documented_estimators_and_modes_exist():
    text = (ROOT / "docs" / "estimators.md").read_text(encoding="utf-8")
    names = set(re.findall(r"^\| `(\w+)\(", text, re.M))
    assert {"Unrolled", "ReverseMode"} <= names
    assert names - set(gradweave.__all__) == set()


def test_the_package_offers_all_of_core() -> None:
    """The lazy list is written by hand, because making it would import JAX."""
    from gradweave import core

    assert set(core.__all__) - set(gradweave.__all__) <= {"MetaProblemLike"}


PUBLIC_MODULES = set(
    re.findall(r"^::: (\S+)", "\n".join(p.read_text() for p in (ROOT / "docs" / "api").glob("*.md")), re.M)
)


def imported_by_experiments() -> list[tuple[str, str, str]]:
    """(file, module, name) of what experiments import from the package."""
    found = []
    for path in sorted((ROOT / "experiments").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gradweave."):
                found += [(relative(path), node.module or "", alias.name) for alias in node.names]
    return found


def test_experiments_use_documented_modules_and_public_names():
    imported = imported_by_experiments()
    assert len(imported) > 100
    private = [entry for entry in imported if entry[2] not in getattr(importlib.import_module(entry[1]), "__all__", ())]
    undocumented = sorted({module for _, module, _ in imported} - PUBLIC_MODULES)
    assert private == []
    assert undocumented == []


def test_remedies_name_packages_and_not_an_index_that_lacks_this_one():
    """What a message says to install is a dependency; the package itself may lie in no index."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    known = {*project["dependencies"], *(requirement for extra in extras for requirement in extra)}
    named = [match for path in SOURCES for match in re.findall(r"pip install \\?['\"]([^'\"{]+)", path.read_text())]
    assert named
    assert set(named) <= known


def test_tests_lie_where_the_files_that_they_test_lie():
    """tests/ROOM/test_NAME.py is of src/gradweave/ROOM/NAME.py, or the package ROOM/NAME; in experiments, a study."""
    unmatched = set()
    for path in sorted((ROOT / "tests").glob("*/**/test_*.py")):
        place = path.relative_to(ROOT / "tests")
        name = path.stem.removeprefix("test_")
        base = ROOT / "src/gradweave" / place.parent
        files = [base / f"{name}.py", base / name]
        if place.parts[0] == "experiments":
            files = [ROOT / f"experiments/_study/{name}.py", ROOT / "experiments" / name.replace("_", "-")]
        if not any(file.exists() for file in files):
            unmatched.add(place.as_posix())
    assert unmatched == ACROSS_FILES, "name a test after its file, or list it in ACROSS_FILES if it is of several"


@pytest.mark.parametrize("place", ["experiments", "results"])
def test_the_page_of_studies_lists_every_study_with_its_cost(place: str) -> None:
    """A study that is added goes into a table of docs/studies.md: what it asks, and what it costs."""
    page = (ROOT / "docs/studies.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[?([\w-]+)\b.*\| *([^|]*) \|$", page, flags=re.MULTILINE)
    costs = {name for name, cost in rows if cost}
    sizes = ("-long", "-unmasked", "-unmasked-large")  # of a study that has a row
    folders = {path.name for path in (ROOT / place).iterdir() if path.is_dir() and not path.name.startswith(("_", "."))}
    assert {name for name in folders if not name.endswith(sizes)} <= costs
