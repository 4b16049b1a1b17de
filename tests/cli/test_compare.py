"""`gradweave compare`: what is refused before anything is made, and what other commands say of its folder."""

import dataclasses
import json

import pytest

from gradweave.cli.compare import _ALL, _rivals
from gradweave.cli.main import main
from gradweave.config.presets import preset
from gradweave.config.search import SearchRange
from gradweave.runs.comparison_folder import ComparisonPlan, create_comparison


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        (("--seeds", "0"), "--seeds"),
        (("--devices", "2"), "run.devices"),
        (("--rivals", "pbtt"), "--rivals"),
        (("--search", "discount=2:3"), "--search"),
        (("--trials", "1"), "--trials"),
        (("--at-once", "0"), "--at-once"),
        (("--seed", f"{2**31 - 1}", "--seeds", "2", "--rivals", "sweep"), "run.seed"),
        (("--total-steps", "2000"), "run.total_steps"),
        (("--inner.discount", "2"), "inner.discount"),
        (("--on-nonfinite", "skip"), "run.on_nonfinite"),
        (("--environment.name", "no_such.module:Thing"), "environment.name"),
        (("--meta.tuners", "learning_rate=no_such.module:Thing"), "meta.tuners"),
    ],
)
def test_what_cannot_be_compared_is_refused(flags, field, tmp_path, capsys) -> None:
    assert main(["compare", "ppo", "--runs-dir", str(tmp_path), *flags]) == 2
    said = capsys.readouterr().err
    assert field in said
    assert "remedy" in said
    assert list(tmp_path.iterdir()) == []


def test_a_learner_without_auto_is_compared_without_it(tmp_path, capsys) -> None:
    assert _rivals(_ALL, preset("vtrace")) == tuple(name for name in _ALL if name != "auto")
    asked = ["--rivals", "plain", "auto", "--runs-dir", str(tmp_path)]
    assert main(["compare", "vtrace", *asked]) == 2
    said = capsys.readouterr().err
    assert "--rivals" in said and "leave auto out" in said


def test_too_few_steps_for_one_run_are_no_matter_of_trials(tmp_path, capsys) -> None:
    few = ["--rivals", "plain", "--total-steps", "2048", "--runs-dir", str(tmp_path)]
    assert main(["compare", "ppo", *few]) == 2
    said = capsys.readouterr().err
    assert "a rollout and a window" in said
    assert "--trials" not in said
    least = said.rpartition("--total-steps ")[2].strip()
    assert f"{int(least):,}" in said


def test_its_folder_is_no_run_and_goes_on_as_it_was_planned(tmp_path, capsys) -> None:
    config = preset("ppo")
    config = type(config)(**{**vars(config), "run": type(config.run)(runs_dir=str(tmp_path))})
    ranges = {"learning_rate": SearchRange(1e-4, 1e-2)}
    path = create_comparison(ComparisonPlan(config, ("plain",), ranges, trials=4, seeds=(0,), at_once=4))
    assert main(["report", str(path)]) == 2
    assert f"gradweave resume {path}" in capsys.readouterr().err
    (path / "comparison.md").touch()
    assert main(["report", str(path)]) == 2
    assert "comparison.md" in capsys.readouterr().err
    assert main(["resume", str(path), "--total-steps", "5"]) == 2
    assert "as it was planned" in capsys.readouterr().err
    (path / "compare.json").write_text('{"rivals": 3}')
    assert main(["resume", str(path)]) == 2
    assert "compare.json" in capsys.readouterr().err


def test_a_process_that_goes_on_leaves_its_origin(tmp_path, monkeypatch) -> None:
    row = {"rival": "plain", "seed": 0, "member": 0, "stretch": 0, "environment_steps": 5, "finite": True}
    rows = [{**row, "training_return": 1.0, "evaluation_return": 2.0}]
    monkeypatch.setattr("gradweave.comparison.conduct.conduct", lambda plan, path, tell: rows)
    monkeypatch.setattr("gradweave.cli.compare.start_jax", lambda devices: None)
    config = preset("ppo")
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, runs_dir=str(tmp_path)))
    ranges = {"learning_rate": SearchRange(1e-4, 1e-2)}
    path = create_comparison(ComparisonPlan(config, ("plain",), ranges, trials=4, seeds=(0,), at_once=4), ["compare"])
    assert main(["resume", str(path)]) == 0  # nothing has been trained: it is this process that begins
    assert "continued" not in json.loads((path / "provenance.json").read_text())
    (path / "plain.safetensors").touch()
    before = json.loads((path / "provenance.json").read_text())
    assert main(["resume", str(path)]) == 0
    after = json.loads((path / "provenance.json").read_text())
    (entry,) = after.pop("continued")
    assert after == before and "started" in entry
