"""Every example runs, in a process as a reader would start it and with the numbers that it claims."""

import ast
import importlib.util
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
TUTORIALS = ("five_minutes", "first_agent", "is_it_any_good", "my_own_loop", "my_own_environment", "add_an_estimator")
DQN_START = {"epsilon": 0.5, "rate": 1e-4, "target": 0.01}


def results(name: str, **arguments: bool) -> dict[str, float]:
    """What `main()` of an example returns, in float32 and with JAX's own rules, as a reader would see it."""
    specification = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.debug_key_reuse(False):
        specification.loader.exec_module(module)
        numbers: dict[str, float] = module.main(**arguments)
    return numbers


def test_every_example_is_tested() -> None:
    tested = {"own_update", "learning_rate_schedule", "flax_parameters", "new_estimator"}
    tested |= {"supervised", "data_weights", "ppo", "dqn", "own_environment", "own_learner"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested


@pytest.mark.slow
def test_own_update_leaves_its_poor_start() -> None:
    numbers = results("own_update")
    assert numbers["step_size"] > 0.01
    assert numbers["decay"] < 0.05


@pytest.mark.slow
def test_a_learned_schedule_beats_every_constant() -> None:
    numbers = results("learning_rate_schedule")
    constants = [value for name, value in numbers.items() if name.startswith("constant")]
    assert len(constants) == 6
    assert numbers["tuned"] < 0.5 * numbers["constant 0.1"]  # where it began
    assert numbers["tuned"] < 0.9 * min(constants)
    assert numbers["last rate"] < numbers["first rate"]


@pytest.mark.slow
def test_flax_parameters_are_learned_and_their_rates_tuned() -> None:
    numbers = results("flax_parameters")
    assert numbers["reward before"] < 0.7
    assert numbers["reward after"] > 0.95
    assert numbers["torso rate"] > 0.01 and numbers["heads rate"] > 0.01


@pytest.mark.slow
def test_a_new_estimator_works_in_every_mode() -> None:
    numbers = results("new_estimator")
    differences = [value for name, value in numbers.items() if name.endswith("between modes")]
    assert len(differences) == 3
    assert max(differences) < 1e-4
    robust, fragile = (numbers[f"{kind} of horizons: signal-to-noise"] for kind in ("median", "mean"))
    assert robust > 1.5 * fragile > 0


@pytest.mark.slow
def test_rates_of_layers_beat_plain_learning_with_four_times_the_updates() -> None:
    numbers = results("supervised", quick=True)
    assert numbers["tuned"] > numbers["plain, four times the updates"] - 0.05  # 30 windows; all of them are in results/
    assert all(numbers[f"rate of the {layer} layer"] > 0.01 for layer in ("first", "second", "last"))


@pytest.mark.slow
def test_wrong_labels_are_found() -> None:
    numbers = results("data_weights", quick=True)
    assert numbers["wrong labels found (chance 0.5)"] > 0.6
    assert numbers["mean weight of wrong labels"] < 0.48 < numbers["mean weight of right labels"]


@pytest.mark.slow
def test_a_ppo_of_ones_own_is_checked_and_tunes_itself() -> None:
    numbers = results("ppo", quick=True)  # the example itself asserts that the check finds nothing wrong
    assert all(np.isfinite(value) for value in numbers.values())
    assert numbers["rate at the end"] > 1.1 * 5e-5
    assert 5 < numbers["return, plain"] < 500


@pytest.mark.slow
def test_an_environment_of_ones_own_is_checked_and_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))  # as for a script of this folder
    numbers = results("own_environment", quick=True)
    assert numbers["return at the beginning"] < 0.7
    assert numbers["return at the end"] > 0.9


@pytest.mark.slow
def test_a_learner_of_ones_own_is_checked_and_leaves_its_poor_start() -> None:
    numbers = results("own_learner", quick=True)  # the example itself asserts that the check finds nothing wrong
    assert 10 < numbers["return at the beginning, tuned"] < 40  # of a policy that is nearly uniform
    assert numbers["return at the end, tuned"] > 100
    assert numbers["learning_rate at the end, tuned"] > 10 * 3e-4
    assert 0.9 < numbers["discount at the end, tuned"] < 1


@pytest.mark.slow
def test_a_dqn_of_ones_own_is_checked_and_moves_all_three() -> None:
    numbers = results("dqn", quick=True)  # the example itself asserts that the check finds nothing wrong
    assert 5 < numbers["return, tuned"] <= 500
    assert all(abs(numbers[f"{name} at the end"] / start - 1) > 1e-3 for name, start in DQN_START.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_keeps_what_it_claims(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.debug_key_reuse(False):
        runpy.run_path(str(EXAMPLES / "tutorials" / f"{name}.py"))


def test_notebooks_and_their_page_are_those_of_the_scripts() -> None:
    made = runpy.run_path(str(EXAMPLES / "tutorials" / "make_notebooks.py"))
    assert made["PATH"] == TUTORIALS
    assert {path.stem for path in (EXAMPLES / "tutorials").glob("*.py")} == {*TUTORIALS, "make_notebooks"}
    for path, text in made["written"]().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run `make notebooks`"
        if path.suffix == ".ipynb":
            content = json.loads(text)
            code = ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]
            assert len(code) >= 4 and content["nbformat"] == 4
            ast.parse("\n".join(code[1:]))  # after the cell that installs


@pytest.mark.slow
def test_an_example_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "own_update.py"],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr
    assert "loss on fresh data" in done.stdout
