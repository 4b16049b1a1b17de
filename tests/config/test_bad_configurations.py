"""Configurations that cannot be run are refused at once: exit code 2, the field, a remedy, without JAX."""

import dataclasses
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gradweave.cli.main import main
from gradweave.config.hyperparameters import single
from gradweave.config.numbers import unusable_numbers
from gradweave.config.presets import PRESETS, preset
from gradweave.config.validation import indivisible

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from reliability.configurations import BAD, Case


def train(names: str, *argv: str) -> Case:
    return Case(("train", "discounting-chain", *argv), names)


CASES = BAD | {
    "decay that float32 rounds to 1": train(
        "inner.rmsprop_decay", "--inner.optimizer", "rmsprop", "--inner.rmsprop-decay", "0.99999999999"
    ),
    "probability 1e-60": train("meta.estimator", "--meta.estimator", "random-truncation:1e-60"),
    "segments of 5000 digits": train("meta.mode", "--meta.mode", f"reverse:{'9' * 5000}"),
    "segments of a billion": train("meta.mode", "--meta.mode", "reverse:1000000000"),
    "memory of a billion": train(
        "network.memory_size", "--network.memory", "gru", "--network.memory-size", "1000000000"
    ),
    "a choice of 1e-60": train("meta.tuners", "--meta.tuners", "learning_rate=return-choice:1e-60,1e-3"),
    "a host of two lines": train(
        "--coordinator", "--coordinator", "a\nb:1234", "--num-processes", "2", "--process-id", "0"
    ),
    "a preset of bytes": Case(("train", "\udcff\x1b[2J"), "preset"),
    "tables one in the other": Case(
        ("train", "--config", "FILE"), "cannot be used", f"[{'.'.join(['a'] * 5000)}]\nx = 1"
    ),
    "a key with an escape": Case(("train", "--config", "FILE"), "in\\x1bner", '["in\\u001bner"]\nx = 1'),
}
"""Those of the attacks on runs, and more."""


@pytest.fixture(autouse=True)
def no_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def trained(*_: Any, **__: Any) -> None:
        raise AssertionError("training would begin")

    monkeypatch.setattr("gradweave.training.launch._trained", trained)
    monkeypatch.chdir(tmp_path)


def command(case: Case, tmp_path: Path) -> list[str]:
    if case.text is not None:
        (tmp_path / "mine.toml").write_text(case.text)
    return ["mine.toml" if word == "FILE" else word for word in case.argv]


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_with_a_remedy(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = command(CASES[name], tmp_path)
    try:
        code = main(argv)
    except SystemExit as error:
        code = int(error.code or 0)
    said = capsys.readouterr()
    text = said.out + said.err
    assert code == 2
    assert CASES[name].names in text and text.replace("\n", "").isprintable() and "remedy" in text
    assert len(text) < 20_000, "what was given is not repeated at length"
    assert not list(tmp_path.glob("runs*"))


@pytest.mark.parametrize("name", ["discount that float32 rounds to 1", "a number of 400 digits in a file"])
def test_it_takes_no_jax_and_no_time(name: str, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom gradweave.cli.main import main\ncode = main(sys.argv[1:])\n"
        "print(code, 'jax' in sys.modules, 'numpy' in sys.modules)"
    )
    begun = time.process_time()
    done = subprocess.run(
        [sys.executable, "-c", code, *command(BAD[name], tmp_path)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.split() == ["2", "False", "False"], done.stderr
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.9, 0.8999999761581421), (0.99999999999, 1.0), (1e-60, 0.0), (1e39, math.inf), (-1e39, -math.inf), (0.0, 0.0)],
)
def test_what_single_precision_makes_of_a_number(value: float, expected: float) -> None:
    assert single(value) == expected


def test_whole_chunks_are_what_a_run_takes() -> None:
    config = preset("discounting-chain")
    assert config.window_steps == 3200
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, total_steps=3201, chunk_size=3))
    assert config.planned_steps == 640 + 3 * 3200
    longer = dataclasses.replace(config, run=dataclasses.replace(config.run, total_steps=config.twice_as_long))
    assert longer.planned_steps == 640 + 6 * 3200
    assert config.planned_steps < config.twice_as_long  # `resume` takes no less than what was trained


@pytest.mark.parametrize(("num_envs", "devices", "envs", "fewer"), [(64, 5, 65, 4), (6, 4, 8, 3), (7, 5, 10, 1)])
def test_the_remedy_for_devices_helps(num_envs: int, devices: int, envs: int, fewer: int) -> None:
    config = preset("discounting-chain")
    config = dataclasses.replace(config, inner=dataclasses.replace(config.inner, num_envs=num_envs))
    problem = indivisible(config, devices)
    assert problem is not None
    assert f"--inner.num-envs {envs}," in problem.remedy and f" {fewer} devices" in problem.remedy
    assert indivisible(config, fewer) is None


def test_presets_hold_no_number_that_is_refused() -> None:
    assert [problem for name in PRESETS for problem in unusable_numbers(preset(name))] == []
