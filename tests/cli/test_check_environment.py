"""`gradweave check-environment`: exit codes, options, and the words for what cannot be checked."""

import re
from pathlib import Path

import pytest

from gradweave.cli.main import main
from gradweave.errors import ConfigError


@pytest.fixture(autouse=True)
def in_the_users_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1] / "envs")


def test_a_good_one_and_a_bad_one(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["check-environment", "corridors:Corridor", "--num-steps", "20", "--environment.options.length", "3"]
    assert main(argv) == 0
    assert "Corridor keeps the contract; 80 steps" in capsys.readouterr().out
    assert main(["check-environment", "corridors:Broken", "--environment.options.how", "reward's type"]) == 1
    assert "FAIL    the reward is of type int32" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["tetris"], "did you mean 'jumanji:Tetris-v0'"),
        (["CartPole-v1"], "did you mean 'gymnax:CartPole-v1'"),
        (
            ["corridors:Corridor", "--environment.options.lenght", "3"],
            r"^gradweave: environment.options.lenght = 3 (.|\n)*mean .*length\?",
        ),
        (["snake", "--num-steps", "0"], "--num-steps = 0"),
    ],
)
def test_what_cannot_be_checked_is_said(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-environment", *argv]) == ConfigError.exit_code
    error = capsys.readouterr().err
    assert "remedy" in error
    assert re.search(message, error)


def test_training_on_what_cannot_be_made_is_refused_before_there_is_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["train", "--runs-dir", str(tmp_path), "--environment.name", "corridors:Corridor"]
    assert main([*argv, "--environment.options.slip", "much"]) == ConfigError.exit_code
    said = capsys.readouterr().err
    assert "environment.options.slip = 'much'" in said and "accepted: a number\n" in said
    assert not list(tmp_path.iterdir())
