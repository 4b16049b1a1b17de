"""The studies' own scripts: what they refuse, what they mark, and where they write."""

import csv
import importlib.util
import json
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import gradweave as gw
from gradweave.analysis.study import Flags, Job
from gradweave.training.config import Config
from gradweave.training.errors import ConfigError

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(name="script")
def make_script(monkeypatch):
    """(study, file) -> the module, beside the modules of its own study only."""
    before = set(sys.modules)

    def load(study, file):
        monkeypatch.syspath_prepend(EXPERIMENTS / study)
        spec = importlib.util.spec_from_file_location(f"{study}-{file}", EXPERIMENTS / study / f"{file}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in {path.stem for path in EXPERIMENTS.glob("*/*.py")} - before:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("flags", "flag"),
    [
        (Flags(size="tiny", stage="tables"), "--stage = 'tables'"),
        (Flags(size="tiny", stage="runs"), "--stage = 'runs'"),
        (Flags(size="tiny", seeds=(1,)), "--seeds = (1,)"),
        (Flags(size="tiny", arms=("a",)), "--arms = ('a',)"),
        (Flags(size="tiny", runs=Path("x")), "--runs = "),
        (Flags(size="long"), "--size = 'long'"),
    ],
)
def test_noisy_quadratic_refuses_what_has_no_meaning(script, monkeypatch, tmp_path, flags, flag):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as raised:
        script("noisy-quadratic", "run").main(flags)
    assert str(raised.value).startswith(flag)


def run_adaptive_mix(script, monkeypatch, arguments):
    """A sweep of one problem and one estimator."""
    run = script("adaptive-mix", "run")
    monkeypatch.setattr(run.sweep, "PROBLEMS", run.sweep.PROBLEMS[:1])
    monkeypatch.setattr(run.sweep, "NUM_BURN_IN", 1)
    monkeypatch.setattr(run.sweep, "META_LEARNING_RATES", (0.0, 0.01))
    monkeypatch.setattr(run.sweep, "estimators", lambda: {"unrolled": gw.Unrolled()})
    monkeypatch.setattr(run, "tune", lambda *_: tuned())
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    run.main()


def tuned():
    """What a run of three windows might have reported."""
    grad = {"rate": jnp.arange(3.0), "shift": -jnp.arange(3.0)}
    return jnp.ones(3), grad, grad, jnp.zeros((3, 2, 10))


@pytest.mark.parametrize("flag", ["--seeds", "--windows"])
def test_a_reduced_adaptive_mix_is_marked_and_stays_apart(script, monkeypatch, tmp_path, flag):
    monkeypatch.chdir(tmp_path)
    run_adaptive_mix(script, monkeypatch, [flag, "2"])
    assert not (tmp_path / "results").exists()
    folder = tmp_path / "runs" / "reproduce" / "adaptive-mix-reduced"
    config = json.loads((folder / "config.json").read_text())
    assert config["mark"].startswith("reduced")
    assert {"commit", "modified", "versions"} <= set(config)
    plot = script("adaptive-mix", "plot")
    figures = []
    monkeypatch.setattr(plot.plt.Figure, "savefig", lambda figure, path, **_: figures.append((figure, path)))
    monkeypatch.setattr(sys, "argv", ["plot.py", "--results", str(folder)])
    plot.main()
    ((figure, path),) = figures
    assert path == folder / "figure.png"
    assert config["mark"] in figure.get_suptitle()


def test_the_whole_adaptive_mix_is_not_marked(script, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("asked git at the end"))
    run = script("adaptive-mix", "run")
    monkeypatch.setattr(run, "machine", lambda: {"commit": "c", "modified": False})
    monkeypatch.setattr(run.sweep, "NUM_SEEDS", 2)
    monkeypatch.setattr(run.sweep, "NUM_WINDOWS", 2)
    run_adaptive_mix(lambda *_: run, monkeypatch, [])
    folder = tmp_path / "results" / "adaptive-mix"
    config = json.loads((folder / "config.json").read_text())
    assert "mark" not in config
    assert (config["commit"], config["modified"]) == ("c", False)
    with (folder / "results.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * 2


def test_adaptive_mix_needs_windows_after_the_burn_in(script, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run_adaptive_mix(script, monkeypatch, ["--windows", "1"])
    assert "--windows" in capsys.readouterr().err


def test_variance_snake_names_the_code_that_drew_each_sample(script, tmp_path):
    run = script("variance-snake", "run")
    size = run.SIZES["tiny"]
    (tmp_path / "checkpoints").mkdir()
    samples = np.zeros((size.num_samples, size.horizons, size.horizons, 2))
    sources = [{"commit": commit, "modified": False} for commit in ("a", "b")]
    for step in size.moments:
        (tmp_path / "checkpoints" / f"{step:012d}.safetensors").touch()
        for count, source in ((1, sources[0]), (size.num_samples, sources[1])):
            store = run.store_of(tmp_path, step, size, source)
            store.known()
            store.keep(samples[:count], now=True)
    found = list(run.measured([(Job("agent", 0, Config()), tmp_path)], size))
    assert [place["moment"] for place, _, _ in found] == list(size.moments)
    assert all(own == sources for _, _, own in found)
