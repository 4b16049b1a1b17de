"""`gradweave train --seeds N`: runs as if started one by one, stopped and continued together, summed up truly."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradweave.cli import seeds
from gradweave.cli.main import main
from gradweave.config.presets import preset
from gradweave.errors import DamagedFile
from gradweave.reports.seed_summary import format_summary, summarize_seeds
from gradweave.runs.metrics import read_metrics
from gradweave.runs.run_folder import RunFolder
from gradweave.statistics.few_seeds import interquartile_mean, stratified_interval

SMALL = ["discounting-chain", "--inner.num-envs", "4", "--inner.num-steps", "5", "--meta.num-inner-steps", "2"]
SMALL += ["--network.policy-layers", "8", "--network.value-layers", "8", "--total-steps", "240", "--chunk-size", "3"]
SMALL += ["--evaluation-episodes", "2", "--max-episode-steps", "110", "--measure-samples", "2"]


def only_folder(tmp_path: Path) -> Path:
    (path,) = tmp_path.iterdir()
    return path


def made_up(tmp_path: Path, numbers: dict[int, tuple[float | None, float, float]]) -> dict[int, Path]:
    """Runs with these final returns (sampled, greedy) and discounts."""
    config = preset("quick")
    paths = {}
    for seed, (sampled, greedy, discount) in numbers.items():
        run = dataclasses.replace(config.run, runs_dir=str(tmp_path), seed=seed)
        meta = dataclasses.replace(config.meta, learned=("discount",))
        with RunFolder.create(dataclasses.replace(config, run=run, meta=meta), name=f"seed-{seed}") as folder:
            folder.metrics.write({"step": 10, "evaluation/return": -1.0, "eta/discount": 0.5})
            last = {"evaluation/return": sampled, "evaluation/greedy_return": greedy, "eta/discount": discount}
            folder.metrics.write({"step": 20, "return": 0.0, **last, "eta/lambda_": 1.0})
        paths[seed] = folder.path
    return paths


@pytest.mark.slow
def test_the_summary_is_of_the_last_rows(tmp_path: Path) -> None:
    returns = [3.0, 1.0, 2.0, 40.0, 2.5]
    paths = made_up(tmp_path, {seed: (value, 2 * value, 0.9 + seed / 100) for seed, value in enumerate(returns)})
    summary = summarize_seeds(paths)
    assert summary["seeds"] == [0, 1, 2, 3, 4]
    assert summary["environment_steps"] == [20] * 5
    assert summary["return"]["values"] == returns
    assert summary["return"]["interquartile_mean"] == 2.5  # of 2, 2.5 and 3
    assert summary["greedy_return"]["interquartile_mean"] == 5.0
    direct = stratified_interval(interquartile_mean, returns)
    assert (summary["return"]["low"], summary["return"]["high"]) == (direct.low, direct.high)
    np.testing.assert_allclose(summary["eta/discount"]["values"], [0.9, 0.91, 0.92, 0.93, 0.94])
    assert "eta/lambda_" not in summary  # not learned
    lines = format_summary(summary).splitlines()
    assert lines[0].split() == ["seed", "steps", "return", "greedy", "return", "discount"]
    assert lines[6].split() == ["IQM", "2.50", "5.00", "0.92"]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize("happen", [Path.unlink, lambda path: path.write_text("")])
def test_a_finished_seed_without_metrics_is_named(tmp_path: Path, happen: Callable[[Path], object]) -> None:
    paths = made_up(tmp_path, {0: (1.0, 2.0, 0.9), 1: (1.5, 2.0, 0.9)})
    happen(paths[1] / "metrics.jsonl")
    with pytest.raises(DamagedFile, match=r"seed-1/metrics\.jsonl has no row.*put it back.*take seed 1 out"):
        summarize_seeds(paths)


@pytest.mark.slow
def test_one_seed_has_no_interval_and_a_missing_value_no_mean(tmp_path: Path) -> None:
    summary = summarize_seeds(made_up(tmp_path / "one", {3: (1.5, 2.0, 0.9)}))
    assert summary["return"] == {"values": [1.5], "interquartile_mean": 1.5, "low": None, "high": None}
    summary = summarize_seeds(made_up(tmp_path / "two", {0: (None, 2.0, 0.9), 1: (1.0, 3.0, 0.9)}))
    assert summary["return"]["values"] == [None, 1.0]
    assert summary["return"]["interquartile_mean"] is None
    assert summary["greedy_return"]["interquartile_mean"] == 2.5
    json.dumps(summary, allow_nan=False)
    assert "-" in format_summary(summary)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--seeds", "0"], "--seeds = 0"),
        (["--seeds", "2", "--coordinator", "auto"], "--coordinator = 'auto'"),
        (["--seeds", "2", "--seed", str(2**32 - 1)], "lower --seed"),
    ],
)
def test_what_cannot_be_is_refused_before_jax(argv: list[str], text: str) -> None:
    program = (
        "import sys; from gradweave.cli.main import main; code = main(sys.argv[1:]); print(code, 'jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, "train", *argv], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]
    assert text in done.stderr


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets a few lines of Python, which know `run` (a folder) and `seed`, stand in for the training of each seed."""

    def use(program: str) -> None:
        head = "import json, pathlib, sys, time; run = pathlib.Path(sys.argv[1]); seed = int(run.name[5:])\n"
        head += "row = {'step': 10**7, 'evaluation/return': 1.0 * seed, 'evaluation/greedy_return': 2.0 * seed}\n"
        head += "def done():\n (run / 'metrics.jsonl').write_text(json.dumps(row | {'eta/discount': 0.5}) + '\\n')\n"
        head += " (run / 'checkpoints' / '000010000000.safetensors').touch()\n (run / 'report.html').touch()\n"
        monkeypatch.setattr(seeds, "command", lambda path, cores: [sys.executable, "-c", head + program, str(path)])

    return use


@pytest.mark.slow
def test_a_seed_that_fails_takes_no_other_with_it(
    tmp_path: Path, stand_in: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    fails = "print('gradweave: inner_loss is not finite'); print('  lower it'); sys.exit(4)"
    stand_in(f"if seed == 1:\n {fails}\ndone()")
    assert main(["train", "--seeds", "3", "--runs-dir", str(tmp_path)]) == 4
    folder = only_folder(tmp_path)
    said = capsys.readouterr()
    assert "inner_loss is not finite\n    lower it" in said.err
    assert f"seed 1 (4); `gradweave resume {folder}` tries again" in said.err
    assert "seed 1 is missing" in said.out
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["seeds"], summary["unfinished"], summary["return"]["values"]) == ([0, 2], [1], [0.0, 2.0])
    # What is finished is left alone; a second failure does not repeat the first one's words.
    stand_in("assert seed == 1; print('Traceback'); sys.exit(5)")
    assert main(["resume", str(folder)]) == 5
    assert "not finite" not in capsys.readouterr().err
    stand_in("assert seed == 1; done()")
    assert main(["resume", str(folder)]) == 0
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["unfinished"], summary["return"]["values"]) == ([], [0.0, 1.0, 2.0])
    # All are unfinished when the run is to be longer.
    stand_in("done()")
    capsys.readouterr()
    assert main(["resume", str(folder), "--total-steps", "20000000"]) == 0
    assert capsys.readouterr().err.count("started") == 3


@pytest.mark.slow
def test_seeds_are_reported_together(
    tmp_path: Path, stand_in: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in("done()")
    assert main(["train", "--seeds", "2", "--runs-dir", str(tmp_path)]) == 0
    folder = only_folder(tmp_path)
    (folder / "report.html").unlink()
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(folder / "report.html")
    page = (folder / "report.html").read_text()
    assert "2 runs" in page
    assert "seed-0" in page
    assert "seed-1" in page
    assert main(["play", str(folder)]) == 2
    assert "seed-0" in capsys.readouterr().err
    assert main(["resume", str(folder), "--coordinator", "auto"]) == 2


def test_the_summary_is_written_without_a_report_too(
    tmp_path: Path, stand_in: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in("done(); (run / 'report.html').unlink(); (run / 'evaluation.json').write_text('{}')")
    assert main(["train", "ppo", "--seeds", "1", "--finish", "none", "--runs-dir", str(tmp_path)]) == 0
    folder = only_folder(tmp_path)
    said = capsys.readouterr().out
    assert "IQM" in said
    assert "report:" not in said
    assert f"gradweave resume {folder} --total-steps {preset('ppo').twice_as_long}" in said
    summary = (folder / "summary.json").read_bytes()
    assert json.loads(summary)["unfinished"] == []
    (folder / "summary.json").unlink()
    assert main(["report", str(folder)]) == 0
    assert (folder / "summary.json").read_bytes() == summary


def test_a_folder_in_use_is_refused(tmp_path: Path, stand_in: Callable[[str], None]) -> None:
    from gradweave.runs.seeds_folder import SeedsFolder

    stand_in("done()")
    assert main(["train", "--seeds", "1", "--runs-dir", str(tmp_path)]) == 0
    with SeedsFolder.open(only_folder(tmp_path)):
        assert main(["resume", str(only_folder(tmp_path))]) == 6


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_all(
    number: signal.Signals,
    code: int,
    tmp_path: Path,
    stand_in: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stop = "lambda n, _: (run / 'stopped').write_text(str(n)) and sys.exit(128 + n)"
    stand_in(
        f"import signal; [signal.signal(n, {stop}) for n in (2, 15)]; (run / 'checkpoints').mkdir(exist_ok=True); "
        "run.name.endswith('0') and (run / 'checkpoints' / '000000000400.safetensors').touch(); "
        "(run / 'up').touch(); time.sleep(60)"
    )

    def looked(view: Any, running: Any) -> None:
        if running and all(job.log.with_name("up").exists() for job in running):
            os.kill(os.getpid(), number)

    monkeypatch.setattr(seeds.RunsView, "looked", looked)
    assert main(["train", "--seeds", "2", "--runs-dir", str(tmp_path)]) == code
    stopped = [path.read_text() for path in only_folder(tmp_path).glob("seed-*/stopped")]
    assert stopped
    assert set(stopped) == {str(int(signal.SIGTERM))}
    assert not (only_folder(tmp_path) / "summary.json").exists()
    said = capsys.readouterr().err
    assert "failed" not in said
    first, second = (only_folder(tmp_path) / f"seed-{seed}" for seed in (0, 1))
    assert str(first / "checkpoints" / "000000000400.safetensors") in said
    assert str(second / "checkpoints") not in said and "1 of 2 runs have no checkpoint yet" in said
    assert f"gradweave resume {only_folder(tmp_path)}" in said


def command(*argv: str) -> list[str]:
    return [sys.executable, "-c", "import sys; from gradweave.cli.main import main; sys.exit(main())", *argv]


@pytest.mark.slow
def test_each_seed_is_the_run_it_would_be_alone_also_when_stopped(tmp_path: Path) -> None:
    """Nothing is a stand-in: three programs, one of them stopped by SIGTERM and continued."""
    longer = [*SMALL, "--total-steps", "120000", "--log-every", "100", "--chunk-size", "100"]
    process = subprocess.Popen(
        command("train", *longer, "--seeds", "2", "--seed", "4", "--runs-dir", str(tmp_path / "several"))
    )
    until = time.monotonic() + 240
    while not any((tmp_path / "several").glob("*/seed-*/metrics.jsonl")) or not all(
        path.stat().st_size for path in (tmp_path / "several").glob("*/seed-*/metrics.jsonl")
    ):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 143
    folder = only_folder(tmp_path / "several")
    assert subprocess.run(command("resume", str(folder)), check=False, timeout=300).returncode == 0
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["seeds"] == [4, 5]
    alone = command("train", *longer, "--seed", "5", "--runs-dir", str(tmp_path / "alone"))
    assert subprocess.run(alone, check=False, timeout=300).returncode == 0
    ours, theirs = (
        list(read_metrics(path / "metrics.jsonl")) for path in (folder / "seed-5", only_folder(tmp_path / "alone"))
    )
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert value == other[name] or value == pytest.approx(other[name], rel=1e-4, abs=1e-6), name
    assert summary["return"]["values"][1] == ours[-1]["evaluation/return"]
