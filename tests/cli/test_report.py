"""Reports: drawn from metrics alone, self-contained, escaped."""

import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gradweave.api.finish import _interval
from gradweave.cli.main import main
from gradweave.config.presets import preset
from gradweave.reports.figures import RunMetrics, _ratios, _running_mean, _with_signal_to_noise, draw_figures
from gradweave.reports.in_words import in_words
from gradweave.reports.report import write_report
from gradweave.runs.run_folder import RunFolder
from gradweave.statistics.bootstrap import Estimate


def make_run(tmp_path: Path, num_rows: int = 60, preset_name: str = "quick") -> Path:
    config = preset("quick")
    run = dataclasses.replace(config.run, runs_dir=str(tmp_path))
    with RunFolder.create(dataclasses.replace(config, run=run, preset=preset_name), ["train", "<b>"]) as folder:
        for step in range(num_rows):
            row = {"step": step, "return": step / 2 if step else None, "eta/discount": 0.9 + step / 1000}
            row |= {"evaluation/return": 1.0} if step == 2 else {}
            row |= {"meta_gradient/discount": -0.1 * step, "outer_loss": 1.0, "policy_loss": float("nan")}
            folder.metrics.write(row)
    return folder.path


@pytest.mark.slow
def test_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run(tmp_path)
    assert main(["report", str(path)]) == 0
    assert capsys.readouterr().out.strip() == str(path / "report.html")
    assert {figure.name for figure in (path / "figures").iterdir()} == {
        "return.png",
        "meta_parameters.png",
        "meta_gradients.png",
        "signal_to_noise.png",
        "losses.png",
    }
    page = (path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2 * 5  # on a light ground and on a dark one
    assert "0.9 → 0.959" in page
    assert "29.50" in page
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert not re.search(r'(src|srcset|href)="(?!data:)', page)


def test_figures_are_legible_on_a_dark_page_too(tmp_path: Path) -> None:
    """Most of a picture is ground; text, the lines of seven runs and the frame have to stand out from it."""
    rows = [{"step": step, "return": float(step)} for step in range(5)]
    runs = [RunMetrics(str(index), [{**row, "return": row["return"] + index} for row in rows]) for index in range(7)]
    (drawn,) = draw_figures(runs, tmp_path)
    for picture, ground in ((drawn.path.read_bytes(), 255), (drawn.dark, 30)):
        grey = np.asarray(Image.open(io.BytesIO(picture)).convert("L"), int)
        assert abs(np.median(grey) - ground) < 10
        assert (abs(grey - np.median(grey)) > 150).mean() > 0.005  # ink: dark on light, light on dark
    colours = {colour for _, colour in Image.open(io.BytesIO(drawn.dark)).convert("RGB").getcolors(2**20) or ()}
    assert (0, 0, 0) not in colours and (255, 255, 255) in colours  # the seventh run
    assert (0, 114, 178) in colours


@pytest.mark.slow
def test_what_was_drawn_and_measured_is_shown(tmp_path: Path) -> None:
    path = make_run(tmp_path)
    Image.new("RGB", (4, 4)).save(path / "agent.gif")
    found = {"estimator": "horizon-mix", "samples": 128}
    found |= {name: {"value": 0.25, "low": 0.2, "high": 0.3125} for name in ("total", "total_scale_free")}
    (path / "measurement.json").write_text(json.dumps(found))
    page = write_report([path], path).read_text()
    assert page.count("data:image/gif;base64,") == 1
    assert "128 samples" in page
    assert "0.2 to 0.312" in page
    assert "in words" not in page
    found["verdict"] = {"heading": "Is <b> told?", "lines": {"lambda_": "0 in every sample"}}
    found["total_scale_free"] = {"value": None, "low": 0.125, "high": None}
    (path / "measurement.json").write_text(json.dumps(found))
    page = write_report([path], path).read_text()
    assert "<td>-</td><td>0.125 to no bound</td>" in page
    assert "Is &lt;b&gt; told?" in page and "<td>lambda</td><td>0 in every sample</td>" in page
    (path / "measurement.json").write_text(json.dumps({**found, "verdict": [1]}))
    assert "left out: " in write_report([path], path).read_text()


@pytest.mark.slow
def test_several_runs_go_into_one_report(tmp_path: Path) -> None:
    paths = [make_run(tmp_path), make_run(tmp_path, num_rows=3)]
    assert main(["report", *map(str, paths)]) == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert all(path.name in page for path in paths)
    assert main(["report", str(paths[0]), str(paths[1]), "--output", str(tmp_path / "mine")]) == 0
    assert (tmp_path / "mine" / "report.html").exists()


def test_an_open_interval_says_why() -> None:
    closed, open_ended = (Estimate(*map(np.asarray, ends)) for ends in ((0.5, 0.25, 0.75), (0.5, 0.0, np.inf)))
    assert _interval(closed) == "0.50 (0.25 to 0.75)"
    numbers, why = _interval(open_ended).split(": ")
    assert numbers == "0.50 (0.00 to inf)" and "few samples" in why


@pytest.mark.slow
def test_seeds_of_two_studies_are_told_apart(tmp_path: Path) -> None:
    paths = []
    for study in ("a", "b"):
        (tmp_path / study).mkdir()
        (tmp_path / study / "seeds.json").touch()
        paths.append(make_run(tmp_path, num_rows=3).rename(tmp_path / study / "seed-0"))
        Image.new("RGB", (4, 4)).save(paths[-1] / "agent.gif")
    page = write_report(paths, tmp_path).read_text()
    for study in ("a", "b"):
        assert f"<td>{study}-seed-0</td>" in page
        assert f"<summary>{study}-seed-0:" in page
        assert f"{study}-seed-0: an episode" in page


@pytest.mark.slow
def test_no_diff_is_shown(tmp_path: Path) -> None:
    path = make_run(tmp_path)
    sources = [{"commit": "one", "diff": "-secret"}, {"commit": "two", "diff": "+secret"}, None]
    entries = {"source": sources[0], "continued": [{"source": source} for source in sources[1:]]}
    (path / "provenance.json").write_text(json.dumps(entries))
    page = write_report([path], path).read_text()
    assert "one" in page and "two" in page
    assert "secret" not in page


def test_a_run_without_metrics_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(make_run(tmp_path, num_rows=0))]) == 2
    assert "first line of metrics" in capsys.readouterr().err


def test_the_first_evaluation_is_not_called_the_start() -> None:
    rows = [{"step": 5000 * count, "return": 1.0, "evaluation/return": float(count)} for count in (1, 2)]
    assert "2.00 in the last evaluation, from 1.00 in the first evaluation, at step 5,000." in in_words(
        RunMetrics("a", rows)
    )
    trained = [{"step": row["step"], "return": row["step"] / 1000} for row in rows]
    assert "10.00 in training, from 5.00 at the start." in in_words(RunMetrics("a", trained))


def test_only_figures_with_numbers_are_drawn(tmp_path: Path) -> None:
    rows = [{"step": step, "outer_loss": 1.0, "return": None} for step in range(3)]
    assert [figure.path.name for figure in draw_figures([RunMetrics("a", rows)], tmp_path)] == ["losses.png"]


def test_meta_parameters_that_never_change_are_not_drawn(tmp_path: Path) -> None:
    fixed = [{"step": step, "eta/value_cost": 0.5} for step in range(3)]
    assert draw_figures([RunMetrics("a", fixed)], tmp_path) == []
    moving = [{**row, "eta/discount": 0.9 + row["step"] / 10} for row in fixed]
    assert [figure.path.name for figure in draw_figures([RunMetrics("a", moving)], tmp_path)] == ["meta_parameters.png"]


def test_signal_to_noise_is_mean_over_deviation_of_the_last_fifty() -> None:
    values = np.random.default_rng(0).normal(0.3, 1.0, 60)
    rows = [{"step": step, "meta_gradient/discount": value} for step, value in enumerate(values)]
    steps, ratios = _with_signal_to_noise(RunMetrics("a", rows)).series("signal_to_noise/discount")
    assert steps == list(range(49, 60))
    assert ratios[3] == pytest.approx(abs(np.mean(values[3:53])) / np.std(values[3:53], ddof=1))


def test_running_mean_is_the_mean_of_the_last_values() -> None:
    values = [1.0, 5.0, 3.0, -2.0, 4.0]
    expected = [1.0, 3.0, 4.0, 0.5, 1.0]
    assert _running_mean(values, 2) == pytest.approx(expected)


def test_the_interval_of_signal_to_noise_covers_the_truth() -> None:
    draws, truth = np.random.default_rng(1).normal(0.5, 1.0, (2000, 50)), 0.5
    ends = np.array([_ratios(row, 50) for row in draws])[..., 0]
    assert abs(((ends[:, 1] <= truth) & (truth <= ends[:, 2])).mean() - 0.95) < 0.02
    silent = np.array([_ratios(row, 50) for row in draws - 0.5])[..., 0]
    assert (silent[:, 1] == 0).mean() > 0.93, "noise alone reaches down to 0"


def test_baselines_are_told_apart_from_what_tunes_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [make_run(tmp_path), make_run(tmp_path)]
    text = (paths[1] / "config.toml").read_text()
    learned = re.search(r"learned = \[[^\]]*\]", text)
    assert learned
    (paths[1] / "config.toml").write_text(text.replace(learned.group(), "learned = []"))
    (paths[0] / "evaluation.json").write_text('{"step": 59, "random_return": 6.5}')
    drawn: list[tuple[str, str]] = []

    def note(figure: Any, file: Any, **_: Any) -> None:
        if figure.axes[0].get_ylabel() == "return per episode":
            drawn.extend((line.get_label(), line.get_linestyle()) for line in figure.axes[0].lines)
        file.write(b"x")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", note)
    page = write_report(paths, tmp_path).read_text()
    styles = {label.rpartition(", ")[2] if "," in label else label: style for label, style in drawn}
    assert (styles["training"], styles["plain"], styles["random play"]) == ("-", "--", ":")
    assert "random play gets 6.50" in page and "discount went from 0.9 to 0.959" in page
    assert "this is plain learning" in page


class Page(HTMLParser):
    """Checks nesting, and notes each table's parent."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.around: list[dict[str, str | None]] = []
        self.metas: list[dict[str, str | None]] = []
        self.attributes: list[dict[str, str | None]] = [{}]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.around.append(self.attributes[-1])
        if tag == "meta":
            self.metas.append(dict(attrs))
        if tag not in ("meta", "img", "source"):
            self.open.append(tag)
            self.attributes.append(dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.attributes.pop()


@pytest.mark.slow
def test_the_page_fits_a_telephone_and_the_dark(tmp_path: Path) -> None:
    path = make_run(tmp_path, num_rows=3)
    found = {name: {"value": 0.25, "low": 0.2, "high": 0.3} for name in ("total", "total_scale_free")}
    (path / "measurement.json").write_text(json.dumps({"estimator": "horizon-mix", "samples": 128, **found}))
    text = write_report([path], path).read_text()
    page = Page()
    page.feed(text)
    assert page.open == [], "every element is closed"
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.metas
    assert page.around == [{"class": "scroll"}] * 2
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert "prefers-color-scheme: dark" in style and ".scroll { overflow-x: auto; }" in style
    assert style.count("{") == style.count("}")
    used = set(re.findall(r"var\((--[a-z]+)\)", style))
    light, dark = (set(re.findall(r"(--[a-z]+):", block)) for block in re.findall(r":root \{([^}]*)\}", style))
    assert used == light == dark
    assert text.index("<p>") < text.index("<table>"), "words come first"
