"""The command line: what it resolves to, its exit codes, and that JAX waits until the configuration is good."""

import dataclasses
import json
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gradweave.api.run import Run
from gradweave.cli.main import COMMANDS, main
from gradweave.cli.short_help import COMMON
from gradweave.cli.train import parse_config
from gradweave.config.configure import configure
from gradweave.config.presets import preset
from gradweave.config.schema import Config
from gradweave.errors import CheckpointError, NonFiniteError, Stopped
from gradweave.runs.run_folder import RunFolder

PROBE = (
    "import sys\n"
    "from gradweave.cli.main import main\n"
    "try:\n    code = main(sys.argv[1:])\n"
    "except SystemExit as error:\n    code = error.code\n"
    "heavy = [name for name in ('jax', 'numpy', 'equinox', 'matplotlib', 'jumanji', 'optuna') if name in sys.modules]\n"
    "print('PROBE', code, heavy)\n"
)


def probe(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PROBE, *argv], capture_output=True, text=True, timeout=60, check=True)


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (("--help",), 0, "resume"),
        (("train", "--help"), 0, "--inner.num-envs"),
        (("train", "--inner.discount", "1.5"), 2, "inner.discount = 1.5"),
        (("train", "quikc"), 2, "did you mean 'quick'?"),
        (("train", "--environment.name", "snak"), 2, "did you mean 'snake'?"),
    ],
)
def test_no_jax_before_the_configuration_is_good(argv: tuple[str, ...], code: int, text: str) -> None:
    done = probe(*argv)
    assert f"PROBE {code} []" in done.stdout
    assert text in done.stdout + done.stderr


def test_flags_override_the_preset() -> None:
    config = parse_config(["--inner.num-envs", "8", "--seed", "3", "snake-6x6", "--meta.estimator", "trace:0.5"])
    base = preset("snake-6x6")
    assert config == dataclasses.replace(
        base,
        inner=dataclasses.replace(base.inner, num_envs=8),
        meta=dataclasses.replace(base.meta, estimator="trace:0.5"),
        run=dataclasses.replace(base.run, seed=3),
    )


@pytest.mark.parametrize("name", ["auto", "quick", "snake", "snake-6x6", "discounting-chain", "ppo", "vtrace"])
def test_a_preset_without_flags_is_itself(name: str) -> None:
    assert parse_config([name]) == preset(name)


def test_no_arguments_mean_auto() -> None:
    assert parse_config([]) == preset("auto") == configure()
    own = parse_config(["--environment.name", "jumanji:Game2048-v1"])
    assert (own.learner, own.meta) == ("ppo", preset("auto").meta)


def test_flags_override_the_file_and_the_file_the_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[inner]\nnum_envs = 8\nnum_steps = 4\n")
    config = parse_config(["snake-6x6", "--config", str(path), "--inner.num-steps", "6"])
    assert (config.preset, config.inner.num_envs, config.inner.num_steps) == ("snake-6x6", 8, 6)
    assert config.inner.optimizer == "rmsprop"
    assert parse_config(["--config", str(path)]).preset == "auto"


def test_another_environment_drops_the_options_of_the_preset() -> None:
    config = parse_config(["--environment.name", "discounting-chain"])
    assert config.environment.options == {}
    config = parse_config(["--environment.name", "other", "--environment.time-limit", "5"])
    assert config.environment.options == {"time_limit": 5}
    flags = ["--environment.options.num-rows", "6", "--environment.num-cols", "6"]  # what the preset has as well
    config = parse_config(["snake-6x6", "--environment.name", "other", *flags])
    assert config.environment.options == {"num_rows": 6, "num_cols": 6}


def test_the_value_of_a_flag_is_no_preset() -> None:
    words = ["--environment.name", "snake", "--inner.clip-range", "0.1"]
    config = parse_config(words)
    assert (config.preset, config.learner, config.environment.name) == ("auto", "ppo", "snake")
    assert parse_config(["--runs-dir", "snake", *words]).preset == "auto"
    assert parse_config(["--seed", "3", *words, "ppo"]).preset == "ppo"
    assert parse_config(["--meta.guard", "quick", "--outer.critic", "off"]).preset == "quick"
    assert parse_config(["--seed=3", "quick", "--outer.critic", "off"]).preset == "quick"
    assert parse_config(["--inner.normalize_advantages", "ppo"]).preset == "ppo"


def test_help_of_a_preset_that_comes_after_it_shows_its_values(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_config(["--help-all", "vtrace"])
    assert "--inner.alpha" in capsys.readouterr().out


def test_every_error_says_whose_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--seed", "-1", "--outer.lambda", "2"]) == 2
    said = capsys.readouterr().err
    assert said.count("gradweave: ") == said.count("remedy: ") == 2


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["tran"], "did you mean `gradweave train`?"),
        (["train", "--inner.num-env", "3"], "--inner.num-envs"),
        (["train", "--inner.num-envs", "many"], "--inner.num-envs"),
        (["train", "--meta.mode", "mixd"], "mixed"),
        (["train", "--config", "absent.toml"], "No such file"),
        (["train", "--total-steps", "10"], "at least one window"),
        (["resume", "absent"], "gradweave train"),
        (["report", "absent"], "gradweave train"),
    ],
)
def test_what_is_wrong_ends_with_2(argv: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(argv)
    except SystemExit as error:
        code = int(error.code or 0)
    assert code == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("command", ["report", "watch", "play", "measure", "check-environment"])
def test_a_command_without_what_it_needs_shows_its_help_and_ends_with_2(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command])
    assert ended.value.code == 2
    assert f"usage: gradweave {command}" in capsys.readouterr().out


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)
    assert main([]) == 2


def test_short_help_has_what_people_use_and_long_help_everything(capsys: pytest.CaptureFixture[str]) -> None:
    shown = {}
    for word in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as ended:
            main(["train", "snake-6x6", word])
        assert ended.value.code == 0
        shown[word] = capsys.readouterr().out
    flags = {word: set(re.findall(r"--[a-z][a-z.-]*", text)) for word, text in shown.items()}
    common = {f"--{name}".replace("_", "-") for name in (*COMMON["run"], "config", "seeds")}
    sections = {section: fields for section, fields in COMMON.items() if section not in ("run", "")}
    common |= {f"--{section}.{name}".replace("_", "-") for section, names in sections.items() for name in names}
    assert common <= flags["--help"]
    assert 12 <= len(common) <= 18
    assert len(shown["--help"].splitlines()) < len(shown["--help-all"].splitlines()) / 2
    assert {"--outer.discount", "--inner.num-steps", "--coordinator"} <= flags["--help-all"] - flags["--help"]
    assert "(default: 512)" in shown["--help"], "of the preset that is named"


@pytest.mark.parametrize("command", ["train", "resume", "watch", "measure", "play", "environments"])
def test_help_fits_a_narrow_terminal(
    command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 60


def test_an_interrupted_run_says_where_it_can_go_on(
    tmp_path: Path, fake_loop: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(config: Config, folder: RunFolder, progress: Any, **_: Any) -> Any:
        if config.run.seed:
            (folder.checkpoints / "000000003200.safetensors").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["gradweave.training.loop"], "train", interrupted)
    assert main(["train", "--runs-dir", str(tmp_path / "a")]) == 130
    assert "no checkpoint in" in capsys.readouterr().err
    assert main(["train", "--seed", "1", "--runs-dir", str(tmp_path / "b")]) == 130
    path = only_run(tmp_path / "b")
    shown = capsys.readouterr().err
    assert f"{path}/checkpoints/000000003200.safetensors" in shown
    assert f"gradweave resume {path}" in shown
    assert main(["resume", str(path), "--total-steps", "9999999"]) == 130
    assert f"gradweave resume {path} --total-steps 9999999" in capsys.readouterr().err, "not in config.toml yet"


@pytest.mark.parametrize("command", ["play", "measure", "resume", "report", "watch"])
def test_a_run_that_is_not_there_is_what_is_complained_of(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "runs/nope"]) == 2
    assert "RUN = 'runs/nope'" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("gradweave ")


class Finished(Run):
    """A run of which only the end is known."""

    def __init__(self, *fields: Any) -> None:
        object.__setattr__(self, "summary", fields[-1])


@pytest.fixture
def fake_loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Stands in for the loop: notes its calls, writes a row and raises what is appended as an exception."""
    calls: list[Any] = []

    def train(config: Config, folder: RunFolder, progress: Any, *, resume: bool, devices: Any) -> Any:
        errors = [call for call in calls if isinstance(call, Exception)]
        calls.append((config, resume))
        if not resume:
            folder.metrics.write({"step": 10, "return": 1.0, "eta/discount": 0.9})
        if errors:
            raise errors[0]
        folder.save_config()
        return types.SimpleNamespace(agent=None, state=None, environment_steps=10)

    monkeypatch.setitem(sys.modules, "gradweave.training.loop", types.SimpleNamespace(train=train))
    monkeypatch.setattr("gradweave.training.runtime.enable_compilation_cache", lambda: None)
    monkeypatch.setattr("gradweave.api.training.finish", lambda folder, summary, say: "finished")
    monkeypatch.setattr("gradweave.api.training.Run", Finished)
    yield calls


def only_run(tmp_path: Path) -> Path:
    (path,) = tmp_path.iterdir()
    return path


def test_train_hands_over_to_the_loop(tmp_path: Path, fake_loop: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--seed", "5", "--runs-dir", str(tmp_path)]) == 0
    ((config, resume),) = fake_loop
    assert (config.run.seed, resume) == (5, False)
    provenance = json.loads((only_run(tmp_path) / "provenance.json").read_text())
    assert provenance["argv"] == ["gradweave", "train", "--seed", "5", "--runs-dir", str(tmp_path)]
    assert provenance["backend"] == "cpu"
    assert "finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NonFiniteError("inner_loss", 12), 4),
        (MemoryError(), 5),
        (Stopped("stopped"), 143),
        (CheckpointError("none"), 3),
    ],
)
def test_failures_of_the_loop_become_exit_codes(
    error: Exception, code: int, tmp_path: Path, fake_loop: list[Any]
) -> None:
    fake_loop.append(error)
    assert main(["train", "--runs-dir", str(tmp_path)]) == code


def test_device_memory_that_runs_out_is_5(
    tmp_path: Path, fake_loop: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from jax.errors import JaxRuntimeError

    fake_loop.append(JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 byte"))
    assert main(["train", "--runs-dir", str(tmp_path)]) == 5
    assert "--inner.num-envs" in capsys.readouterr().err


def test_resume(tmp_path: Path, fake_loop: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--runs-dir", str(tmp_path)]) == 0
    path = only_run(tmp_path)
    assert main(["resume", str(path)]) == 3
    assert "there is no checkpoint" in capsys.readouterr().err
    (path / "checkpoints" / "000000003200.safetensors").write_text("not read by the stand-in")
    assert main(["resume", str(path), "--total-steps", "9999999"]) == 0
    config, resume = fake_loop[-1]
    assert (config.run.total_steps, resume) == (9999999, True)
    with RunFolder.open(path) as folder:
        assert folder.config.run.total_steps == 9999999
        assert main(["resume", str(path)]) == 6


SMALL = ["--inner.num-envs", "4", "--inner.num-steps", "5", "--meta.num-inner-steps", "2", "--total-steps", "240"]
SMALL += ["--chunk-size", "3", "--evaluation-episodes", "2", "--max-episode-steps", "110", "--measure-samples", "8"]


@pytest.mark.slow
def test_train_from_start_to_finish(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is a stand-in: every file is there, every number of the summary comes from one of them."""
    assert main(["train", "discounting-chain", *SMALL, "--runs-dir", str(tmp_path)]) == 0
    path = only_run(tmp_path)
    out = capsys.readouterr().out
    assert "with random allowed actions" in out
    found = json.loads((path / "measurement.json").read_text())
    assert found["samples"] == 8
    assert found["meta_parameters"] == ["discount", "lambda_"]
    assert f"{found['total']['value']:.2f} ({found['total']['low']:.2f} to {found['total']['high']:.2f})" in out
    assert 0 < found["total"]["low"] <= found["total"]["value"] <= found["total"]["high"]
    with Image.open(path / "agent.gif") as picture:
        assert picture.n_frames > 1
    page = (path / "report.html").read_text()
    assert "8 samples" in page and "the meta-gradient in words" in page
    assert all(line in out for line in found["verdict"]["lines"].values())
    first, step = sorted(int(checkpoint.stem) for checkpoint in (path / "checkpoints").iterdir())
    assert first == 20, "before the first meta-step"
    assert f"{step:,} environment steps" in out
    assert f"gradweave resume {path} --total-steps" in out
    # What is said to go on does go on.
    assert main(["resume", str(path), "--total-steps", "360"]) == 0
    assert "after 380 environment steps" in capsys.readouterr().out


@pytest.mark.slow
def test_plain_learning_measures_nothing(tmp_path: Path) -> None:
    assert main(["train", "discounting-chain", *SMALL, "--meta.learned", "--runs-dir", str(tmp_path)]) == 0
    assert (only_run(tmp_path) / "report.html").exists()
    assert not (only_run(tmp_path) / "measurement.json").exists()


@pytest.mark.slow
def test_a_sampling_correction_is_not_measured_without_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["discounting-chain", *SMALL, "--meta.sampling-correction", "0.5", "--runs-dir", str(tmp_path)]
    assert main(["train", *arguments]) == 0
    assert "sampling correction" in capsys.readouterr().err
    assert not (only_run(tmp_path) / "measurement.json").exists()
    assert main(["measure", str(only_run(tmp_path))]) == 2
    assert "a run without one" in capsys.readouterr().err


@pytest.mark.slow
def test_doctor_passes_here(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["doctor", "--runs-dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "FAIL" not in out
    assert "agrees with finite differences" in out


def test_doctor_fails_when_a_check_does(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gradweave.cli import doctor

    def broken(runs_dir: Path) -> str:
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr(doctor, "CHECKS", {"disk": broken})
    assert main(["doctor", "--runs-dir", str(tmp_path)]) == 1
    assert "FAIL  disk" in capsys.readouterr().out


@pytest.mark.parametrize("command", [("train", "discounting-chain", "--help-all"), ("compare", "--help")])
def test_help_says_lambda_and_names_no_files_of_the_checkout(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(list(command))
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "discount lambda" in shown and "the page Tuners" in shown
    assert "lambda_" not in shown and "docs/" not in shown


def test_an_end_before_the_steps_that_were_taken_is_refused_with_one_that_is_not(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["resume", str(own), "--total-steps", "1"]) == 2
    assert "12 or more, the steps that have been taken" in capsys.readouterr().err
