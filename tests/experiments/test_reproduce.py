"""`make reproduce`: what it lists and refuses, and every study in its tiny version, figures from the CSV alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from _study.reproduce import find_studies, run
from gradweave.errors import ConfigError

ROOT = Path(__file__).parents[2]
STUDIES = (
    "arrows",
    "discounting-chain",
    "noisy-quadratic",
    "returns-snake",
    "snake-6x6",
    "snake-6x6-outer-critic",
    "two-colors",
    "variance-snake",
)

TOY = {
    "sweep.py": 'ABOUT = "a toy"\nCOST = {"tiny": "nothing", "full": "an hour"}\nVALUE = 3\n',
    "run.py": "import sys\nfrom sweep import VALUE\nprint('ran', VALUE, sys.argv[1:])\n",
    "plot.py": "import sys\nprint('drew', sys.argv[1:])\n",
}


def toy(folder: Path) -> Path:
    for name in ("toy", "other"):
        (folder / name).mkdir(parents=True)
    for name, text in TOY.items():
        (folder / "toy" / name).write_text(text)
    (folder / "other" / "sweep.py").write_text("NOTHING = 1\n")
    return folder


def test_the_studies_are_listed_with_their_costs(capsys):
    assert run([]) == 0
    shown = capsys.readouterr().out
    assert tuple(find_studies()) == STUDIES
    for name, study in find_studies().items():
        assert f"{name}: {study.about}" in shown
        assert {"tiny", "quick", "full"} <= set(study.cost)
        assert all((study.folder / file).is_file() for file in ("run.py", "plot.py"))


def test_a_study_runs_and_is_drawn(tmp_path, capsys):
    place = toy(tmp_path)
    before = list(sys.path), list(sys.argv)
    assert run(["toy", "--size", "tiny", "--results", "r", "--seeds", "1", "2"], place) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ran 3 ['--size', 'tiny', '--results', 'r', '--seeds', '1', '2']",
        "drew ['--size', 'tiny', '--results', 'r']",
    ]
    assert run(["toy", "--stage", "runs"], place) == 0
    assert capsys.readouterr().out.splitlines() == ["ran 3 ['--size', 'full', '--stage', 'runs']"]
    assert (sys.path, sys.argv) == before
    assert "sweep" not in sys.modules
    assert run([], place) == 0
    assert "other" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("toi",), "did you mean 'toy'"),
        (("toy", "--quick"), "tiny, full"),
        (("toy", "--quick", "--size", "tiny"), "one size"),
        (("toy", "--size"), "a value after it"),
    ],
)
def test_what_is_refused(tmp_path, arguments, text):
    with pytest.raises(ConfigError, match=text):
        run(arguments, toy(tmp_path))


def test_help_names_every_flag(capsys):
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in ("--quick", "--size", "--runs", "--results", "--arms", "--seeds", "--stage"))


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_every_study_in_its_tiny_version(name, tmp_path):
    """From the command line to the figures, and the figures once more from the CSV files alone."""
    # Half of the time is compilation, and of the other half the programs leave nothing to optimise.
    environment = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": str(ROOT / "experiments")}
    command = [sys.executable, "-m", "_study.reproduce", name, "--size", "tiny"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = tmp_path / "runs" / "reproduce" / f"{name}-tiny" / "results"
    figures = sorted(path.name for path in results.glob("*.png"))
    tables = sorted(results.glob("*.csv"))
    assert figures and tables
    assert (results / "provenance.json").exists()
    for table in tables:
        head, first, *_ = table.read_text().splitlines()
        assert head.startswith("size,") and first.startswith("tiny,"), table.name
    alone = tmp_path / "alone"
    alone.mkdir()
    for table in tables:
        shutil.copy(table, alone)
    script = str(ROOT / "experiments" / name / "plot.py")
    drawing = [sys.executable, script, "--results", str(alone)]
    subprocess.run(drawing, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert sorted(path.name for path in alone.glob("*.png")) == figures
