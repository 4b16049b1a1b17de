"""report.html: the results of one or more runs, in one file that needs nothing else.

Figures are embedded; every text that comes from a run's files is escaped.
"""

import base64
import html
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gradweave.config.toml_file import read_config
from gradweave.errors import ConfigError, DamagedFile
from gradweave.files import read_bytes, read_json, read_text, write_atomically
from gradweave.reports.figures import Drawn, RunMetrics, draw_figures
from gradweave.reports.in_words import in_words
from gradweave.runs.metrics import read_metrics
from gradweave.runs.provenance import is_modified, read_provenance
from gradweave.runs.run_folder import EVALUATION_FILE, run_name

__all__ = ["write_report"]

_MOST_MEASUREMENT: Final = 2**26  # every estimator and horizon of long windows
_MOST_PICTURE: Final = 2**25
_STYLE = """
:root { color-scheme: light dark; --text: #1a1a1a; --page: #fff; --line: #ddd; --code: #f6f6f6; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e6e6; --page: #16181c; --line: #3a3f47; --code: #22262c; }
}
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: var(--text); background: var(--page); overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 9rem; }
img { max-width: 100%; height: auto; display: block; margin: 1rem 0; }
pre { background: var(--code); padding: 1rem; overflow-x: auto; font-size: 13px; }
@media (max-width: 30rem) { body { margin: 1rem auto; } h1 { font-size: 1.3rem; } th, td { padding: .2rem .5rem; } }
"""

_CAPTIONS = {
    "return.png": "Return; dashed: random play, and runs that learn no meta-parameter (plain)",
    "meta_parameters.png": "Meta-parameters",
    "meta_gradients.png": "Meta-gradients (of the unconstrained meta-parameters)",
    "signal_to_noise.png": "Signal-to-noise of one meta-gradient, over a moving window, with 95 % intervals",
    "losses.png": "Losses",
}


def write_report(paths: Sequence[Path], output: Path) -> Path:
    """Draw the figures of the runs in `paths` and write report.html.

    Args:
        paths: folders of runs.
        output: the folder to write report.html and figures/ to; made if needed.

    Returns:
        the path of report.html.

    Raises:
        ConfigError: a run has no metrics yet.
        DamagedFile: they are damaged. Other damaged files of a run are left out, and the page says so.
    """
    runs = [_read_run(path) for path in paths]
    figures = draw_figures(runs, output / "figures")
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    parts = [f"<h1>{html.escape(title)}</h1>", *(f"<p>{html.escape(in_words(run))}</p>" for run in runs)]
    parts.append(_summary(runs))
    for figure in figures:
        caption = _CAPTIONS[figure.path.name]
        parts.append(f"<h2>{caption}</h2>{_in_both_schemes(figure, caption)}")
    for path in paths:
        parts += [
            _random_return(path)[1],
            _measurement(path, "measurement.json", _measured),
            _measurement(path, "measure/summary.json", _verdict),
        ]
        parts += [_animation(path), _details(path)]
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )
    write_atomically(output / "report.html", page)
    return output / "report.html"


def _read_run(path: Path) -> RunMetrics:
    rows = list(read_metrics(path / "metrics.jsonl"))
    if not rows:
        raise ConfigError("RUN", str(path), "a run that has logged something", "wait for its first line of metrics")
    plain = not read_config(path / "config.toml").meta.learned
    return RunMetrics(run_name(path), rows, plain=plain, random=_random_return(path)[0])


def _random_return(path: Path) -> tuple[float | None, str]:
    """The mean return of random allowed actions, which the end of training leaves behind; and what is wrong with it."""
    source = path / EVALUATION_FILE
    if not os.path.lexists(source):
        return None, ""
    try:
        value = read_json(source).get("random_return")
    except (DamagedFile, OSError) as error:
        return None, _left_out(error)
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        what = f"has {json.dumps(value)[:40]} as `random_return`, a number or null"
        return None, _left_out(DamagedFile(source, what, "correct it, or remove it"))
    return None if value is None else float(value), ""


def _summary(runs: Sequence[RunMetrics]) -> str:
    """A table: one line a run, with where it ended."""
    etas = sorted({name for run in runs for name in run.rows[-1] if name.startswith("eta/")})
    headings = ["run", "environment steps", "return", "evaluation", *(name.removeprefix("eta/") for name in etas)]
    lines = [_table_row("th", headings)]
    for run in runs:
        last = run.rows[-1]
        returns = [_last(run, name) for name in ("return", "evaluation/return")]
        cells = [run.name, f"{last['step']:,}", *returns, *(_change(run, name) for name in etas)]
        lines.append(_table_row("td", cells))
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def _table_row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _last(run: RunMetrics, name: str) -> str:
    values = run.series(name)[1]
    return f"{values[-1]:.2f}" if values else "-"


def _change(run: RunMetrics, name: str) -> str:
    values = run.series(name)[1]
    return f"{values[0]:.4g} → {values[-1]:.4g}" if values else "-"


def _in_both_schemes(figure: Drawn, caption: str) -> str:
    dark = f'<source media="(prefers-color-scheme: dark)" srcset="{_address(figure.dark, "png")}">'
    return f"<picture>{dark}{_image(figure.path, caption)}</picture>"


def _image(path: Path, caption: str) -> str:
    return f'<img alt="{html.escape(caption)}" src="{_address(read_bytes(path, _MOST_PICTURE), path.suffix[1:])}">'


def _address(picture: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"


def _animation(path: Path) -> str:
    """The agent at play, where the run has a picture of it."""
    picture = path / "agent.gif"
    if not os.path.lexists(picture):
        return ""
    caption = f"{run_name(path)}: an episode of the trained agent"
    try:
        return f"<h2>{html.escape(caption)}</h2>{_image(picture, caption)}"
    except (DamagedFile, OSError) as error:
        return _left_out(error)


def _measurement(path: Path, name: str, shown: Callable[[Path, Mapping[str, Any]], str]) -> str:
    """The text on a measurement, made at the end of training or by `gradweave measure`; empty if there is none."""
    source = path / name
    if not os.path.lexists(source):
        return ""
    try:
        return shown(path, read_json(source, _MOST_MEASUREMENT))
    except (DamagedFile, OSError) as error:
        return _left_out(error)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return _left_out(DamagedFile(source, f"is no measurement ({error!s:.80})", "measure once more"))


def _measured(path: Path, found: Mapping[str, Any]) -> str:
    """The variance ratio, and the verdict."""
    rows = [_table_row("th", ["", "ratio", "95 % interval"])]
    for name, label in (("total", "raw"), ("total_scale_free", "free of scale: variance over squared mean")):
        value, low, high = (found[name][part] for part in ("value", "low", "high"))
        end = "no bound" if high is None else f"{high:.3g}"
        interval = "cannot be told" if low is None else f"{low:.3g} to {end}"
        rows.append(_table_row("td", [label, "-" if value is None else f"{value:.3g}", interval]))
    title = (
        f"{run_name(path)}: variance of the {found['estimator']} meta-gradient over that of the unmixed one, "
        f"{found['samples']} samples"
    )
    table = f'<h2>{html.escape(title)}</h2><div class="scroll"><table>{"".join(rows)}</table></div>'
    return table + _verdict(path, found)


def _verdict(path: Path, found: Mapping[str, Any]) -> str:
    """Whether the means of the run's estimator are told from noise, in words."""
    told = found.get("verdict")
    if not told:  # older files, and estimators that the samples do not have
        return ""
    step = f", after {found['step']:,} environment steps" if "step" in found else ""
    title = f"{run_name(path)}: the meta-gradient in words{step}"
    rows = [_table_row("td", [name.rstrip("_"), line]) for name, line in told["lines"].items()]
    table = f'<div class="scroll"><table>{"".join(rows)}</table></div>'
    return f"<h2>{html.escape(title)}</h2><p>{html.escape(told['heading'])}</p>{table}"


def _details(path: Path) -> str:
    name = html.escape(run_name(path))
    config = html.escape(_text(path / "config.toml"))
    provenance = _provenance(path / "provenance.json")
    return (
        f"<details><summary>{name}: configuration and provenance</summary>"
        f"<pre>{config}</pre><pre>{html.escape(provenance)}</pre></details>"
    )


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except (DamagedFile, OSError) as error:
        return str(error)


def _left_out(error: Exception) -> str:
    """Name in the page a part that it lacks: a damaged side file is no reason for no report."""
    return f"<p>left out: {html.escape(str(error))}</p>"


def _provenance(path: Path) -> str:
    """The provenance without diffs, which can be long: only whether there was one."""
    if not os.path.lexists(path):
        return "no provenance.json"
    try:
        entries = read_provenance(path)
    except (DamagedFile, OSError) as error:
        return str(error)
    for entry in (entries, *entries.get("continued", ())):
        source = entry.get("source")
        if isinstance(source, Mapping):
            entry["source"] = {"commit": source.get("commit"), "changed": is_modified(source)}
    return json.dumps(entries, indent=2, ensure_ascii=False)
