"""Tuners of the user's by `package.module:Class`: what is made, what is refused, and that a resumed run is the same."""

import shutil
import sys
from pathlib import Path

import pytest

import gradweave as gw
from gradweave.config.learners import LEARNERS
from gradweave.config.tuners import parse_tuner
from gradweave.errors import ConfigError
from gradweave.runs.metrics import read_metrics
from gradweave.training.tuners import configured_tuners

HYPERPARAMETERS = LEARNERS["actor-critic"].hyperparameters


@pytest.fixture(autouse=True)
def in_the_users_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(Path.cwd()))])
    monkeypatch.delitem(sys.modules, "own_tuners", raising=False)


def configured(*tuners: str, **run: object) -> gw.Config:
    return gw.configure(
        "discounting-chain",
        inner={"num_envs": 4, "num_steps": 5},
        meta={"learned": ("discount",), "tuners": tuners, "num_inner_steps": 2},
        run={"chunk_size": 2, "finish": "none", "checkpoint_every": 80, **run},
    )


@pytest.mark.parametrize(
    ("rule", "constructor", "argument"),
    [
        ("games.rules:Waver", "games.rules:Waver", None),
        ("rules:Waver:0.5", "rules:Waver", 0.5),
        ("rules:Choice:1e-3,2e-3", "rules:Choice", (1e-3, 2e-3)),
    ],
)
def test_a_name_is_understood(rule, constructor, argument) -> None:
    name, spec = parse_tuner(f"learning_rate={rule}", HYPERPARAMETERS)
    assert (name, spec.row.constructor, spec.argument, spec.row.own) == ("learning_rate", constructor, argument, True)


@pytest.mark.parametrize("rule", ["rules:Waver:x", "rules:Waver:", "rules:Waver:1,nan"])
def test_numbers_that_are_none_are_refused_with_a_rule_that_is_taken(rule) -> None:
    with pytest.raises(ConfigError, match="one number, or several") as caught:
        parse_tuner(f"learning_rate={rule}", HYPERPARAMETERS)
    assert parse_tuner(caught.value.remedy.split()[1], HYPERPARAMETERS)[1].argument == 20


def test_a_class_of_ones_own_is_offered() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_tuner("learning_rate=plateau", HYPERPARAMETERS)
    assert "package.module:Class" in caught.value.accepted


def test_classes_are_made_with_their_numbers() -> None:
    found = configured_tuners(
        configured(
            "learning_rate=own_tuners:Waver:0.25", "entropy_cost=own_tuners:Choice:0.1,0.2", "lambda=own_tuners:Waver"
        )
    )
    assert (found["learning_rate"].share, found["lambda_"].share) == (0.25, 0.1)
    assert found["entropy_cost"].values == (0.1, 0.2)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("surely_absent:Waver", "no module 'surely_absent'.*folder that has surely_absent.py.*PYTHONPATH"),
        (
            "own_tuners:Wave",
            "gradweave.AbstractTuner is wanted, but .* is not there: tuners of own_tuners are Bare, Bo",
        ),
        ("own_tuners:NoTuner:1", "is something else"),
        ("subprocess:Popen:1", "is something else: derive a class"),
        ("own_tuners:Unfinished", "give it move"),
        ("own_tuners:Choice", "needs an argument.*values.*write NAME=own_tuners:Choice:NUMBERS"),
        ("own_tuners:Bare:2", "does not take one argument, a number or a tuple of several .*: leave the numbers out"),
        ("own_tuners:Bounded:2", "share must be at most 1"),
    ],
)
def test_what_cannot_be_made_is_named_before_there_is_a_folder(rule, message, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        gw.train(configured(f"learning_rate={rule}", total_steps=80, runs_dir=str(tmp_path)), quiet=True)
    assert caught.value.field == "meta.tuners"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_resumed_run_is_the_run_that_never_stopped(tmp_path: Path) -> None:
    config = configured("learning_rate=own_tuners:Waver:0.2", total_steps=240, runs_dir=str(tmp_path / "whole"))
    whole = gw.train(config, quiet=True)
    half = gw.train(configured(*config.meta.tuners, total_steps=160, runs_dir=str(tmp_path / "half")), quiet=True)
    assert half.path is not None and whole.path is not None and half.step < whole.step
    moved = Path(shutil.copytree(half.path, tmp_path / "moved"))
    gw.resume(moved, total_steps=240, quiet=True)
    rows = [
        [
            {name: value for name, value in row.items() if not name.startswith("evaluation/")}  # the half's end had one
            for row in read_metrics(path / "metrics.jsonl")
        ]
        for path in (whole.path, moved)
    ]
    assert rows[0] == rows[1]
    rates = [row["eta/learning_rate"] for row in rows[0]]
    assert len(set(rates)) == len(rates)
    newest = [sorted((path / "checkpoints").iterdir())[-1].name for path in (whole.path, moved)]
    assert newest[0] == newest[1]
    one, two = (gw.load_run(path) for path in (whole.path, moved))
    assert one.eta == two.eta


@pytest.mark.slow
def test_a_rate_that_is_annealed_is_so_over_the_steps_of_the_run(tmp_path: Path) -> None:
    """5 windows of 40 steps are 6 in whole chunks of two; the goal is not reached below the highest rate.

    A run that goes on for 10 windows is annealed over the second half of the ten.
    """
    config = configured("learning_rate=kl-anneal:10", total_steps=200, runs_dir=str(tmp_path))
    tuner = configured_tuners(config)["learning_rate"]
    assert isinstance(tuner, gw.KLAnneal) and (tuner.windows, tuner.goal) == (6, 10.0)
    path = gw.train(config, quiet=True).path
    assert path is not None
    assert learning_rates(path) == pytest.approx([1e-3, 1e-2, 2e-2, 2e-2, 2e-2 * 2 / 3, 2e-2 / 3])
    assert gw.load_run(path).eta["learning_rate"] == pytest.approx(1e-6)
    gw.resume(path, total_steps=400, quiet=True)
    assert learning_rates(path)[6:] == pytest.approx([1e-6, 2e-2 * 0.6, 2e-2 * 0.4, 2e-2 * 0.2])


def learning_rates(path: Path) -> list[float]:
    return [row["eta/learning_rate"] for row in read_metrics(path / "metrics.jsonl")]


@pytest.mark.slow
def test_a_run_with_a_guard_ends_with_what_it_had_learned(tmp_path: Path) -> None:
    """The game pays 1 for the action that is shown, -1 for the other; from window 30 of 60 on the entropy cost is 100.

    So the policy becomes uniform, is put back, becomes uniform again, and is put back in the last window.
    """
    config = gw.configure(
        "quick",
        environment={"name": "matched-reward", "options": {}},
        network={"policy_layers": (16,), "value_layers": (16,)},
        inner={"num_envs": 8, "num_steps": 8, "learning_rate": 0.01},
        meta={"learned": (), "tuners": ("entropy_cost=own_tuners:Spoiled:30",), "guard": True, "num_inner_steps": 2},
        run={
            "total_steps": 60 * 2 * 64,
            "chunk_size": 5,
            "evaluation_episodes": 64,
            "finish": "none",
            "runs_dir": str(tmp_path),
        },
    )
    path = gw.train(config, quiet=True).path
    assert path is not None
    rows = list(read_metrics(path / "metrics.jsonl"))
    assert len(rows) == 60
    returns = [row["return"] for row in rows]
    assert min(returns[15:30]) > 0.9
    assert max(returns[-3:]) < 0.3
    restored = [window for window, row in enumerate(rows) if row.get("restored")]
    assert len(restored) == 2 and restored[-1] == 59
    assert min(returns[restored[0] + 1 : restored[0] + 3]) > 0.9
    assert rows[-1]["evaluation/return"] > 0.9


@pytest.mark.slow
def test_edited_chunks_that_would_move_the_end_of_an_annealed_run_are_refused(tmp_path: Path) -> None:
    run = gw.train(configured("learning_rate=kl-anneal", runs_dir=str(tmp_path), total_steps=240))  # six windows
    config = run.path / "config.toml"
    edited = config.read_text().replace("chunk_size = 2", "chunk_size = 4").replace("= 240", "= 640")  # ten more
    config.write_text(edited)
    with pytest.raises(ConfigError, match="a divisor of 6, the windows so far") as caught:
        gw.resume(run.path, accept_changes=True)
    assert caught.value.remedy.endswith("set it to 2")
    config.write_text(edited.replace("chunk_size = 4", "chunk_size = 3"))
    assert gw.resume(run.path, accept_changes=True).step == 740
