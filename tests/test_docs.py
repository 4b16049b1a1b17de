"""The code on the pages that teach runs as it stands there."""

import dataclasses
import doctest
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import gradweave as gw
from gradweave.config.learners import LEARNERS
from gradweave.config.presets import PRESETS, preset
from gradweave.config.schema import MetaConfig, RunConfig
from gradweave.runs.metrics import read_metrics

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def blocks(page: str, language: str) -> list[str]:
    """The code of a page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize(
    ("page", "says"),
    [
        pytest.param("own-loop.md", "can be trusted", marks=pytest.mark.slow),
        pytest.param("own-environment.md", "Corridor keeps the contract", marks=pytest.mark.slow),
        pytest.param("add-a-learner.md", "at the beginning", marks=pytest.mark.slow),
        pytest.param("python.md", "16 samples of windows of 5 updates", marks=pytest.mark.slow),
        pytest.param("tuners.md", "0.0005, best 10", marks=pytest.mark.slow),
    ],
)
def test_the_code_of_a_page_runs_from_top_to_bottom(page: str, says: str, tmp_path: Path) -> None:
    code = blocks(page, "python")
    assert len(code) >= 3
    script = tmp_path / "page.py"
    script.write_text("\n".join(code), encoding="utf-8")
    # As a reader runs it: without what the tests set.
    command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert says in done.stdout


def test_the_learner_on_the_page_is_that_of_the_example() -> None:
    """The same code up to the agent. Only the example trains without tuning, too."""
    script = (ROOT / "examples/own_learner.py").read_text(encoding="utf-8")
    shared = blocks("add-a-learner.md", "python")[:3]
    assert "def loss(" in shared[0] and "gw.GradientLearner(" in shared[1] and "gw.SelfTuning(" in shared[2]
    assert [block for block in shared if block not in script] == []


@pytest.mark.slow
def test_the_session_on_the_page_of_names_runs_as_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    session = doctest.DocTestParser().get_doctest("\n".join(blocks("names.md", "pycon")), {}, "names.md", None, 0)
    runner = doctest.DocTestRunner(verbose=False)
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.debug_key_reuse(False):
        runner.run(session)
    failed, attempted = runner.summarize(verbose=False)
    assert attempted > 80
    assert failed == 0, capsys.readouterr().out


@pytest.mark.slow
def test_the_class_on_the_page_of_tuners_is_a_flag(tmp_path: Path) -> None:
    (tmp_path / "plateau.py").write_text(blocks("tuners.md", "python")[0], encoding="utf-8")
    (shown,) = re.findall(r"^gradweave (train .*plateau:Plateau):20$", (DOCS / "tuners.md").read_text("utf-8"), re.M)
    small = "--inner.num-envs 8 --total-steps 10000 --runs-dir runs --finish none"
    done = subprocess.run(
        [sys.executable, "-m", "gradweave", *f"{shown}:2".split(), *small.split()],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "JAX_ENABLE_X64": "0"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (run,) = (tmp_path / "runs").iterdir()
    rates = [row["eta/learning_rate"] for row in read_metrics(run / "metrics.jsonl")]
    assert rates[-1] < rates[0]
    assert rates[-1] == pytest.approx(rates[0] / 2 ** round(math.log2(rates[0] / rates[-1])))


def test_every_public_name_has_an_example_that_runs() -> None:
    """In the sessions and on the pages above, in a docstring (tests/core/test_contract.py), or among the examples."""
    lines = [*blocks("names.md", "pycon"), *blocks("python.md", "python"), *blocks("own-loop.md", "python")]
    lines += [path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("*.py")]
    for module in (ROOT / "src/gradweave/core").rglob("*.py"):
        lines += re.findall(r"^ *(?:>>>|\.\.\.) (.*)$", module.read_text(encoding="utf-8"), flags=re.MULTILINE)
    used = set(re.findall(r"\bgw\.(\w+)", "\n".join(lines)))
    assert [name for name in gw.__all__ if name not in used] == []


def test_no_link_is_dead() -> None:
    """Between pages, to files of the repository and to headings; `make docs` knows only the pages."""
    root = DOCS.parent
    pages = [*DOCS.rglob("*.md"), *(root / "results").rglob("*.md"), *root.glob("*.md")]
    dead, count = [], 0
    for page in pages:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\((?!\w+://|mailto:)([^)\s]+)\)", text):
            count += 1
            path, _, heading = target.partition("#")
            other = page if not path else (page.parent / path)
            if not other.exists() or (heading and heading not in headings(other)):
                dead.append(f"{page.relative_to(root)}: {target}")
    assert count > 50
    assert dead == []


def headings(page: Path) -> set[str]:
    """Anchors as the documentation makes them of a page's headings."""
    lines = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", line).strip().lower() for line in lines)
    return {re.sub(r"[-\s]+", "-", line) for line in plain}


FIELDS = sorted(
    {("meta", field.name) for field in dataclasses.fields(MetaConfig)}
    | {("run", field.name) for field in dataclasses.fields(RunConfig)}
    | {
        (section, field.name)
        for learner in LEARNERS.values()
        for section in ("network", "inner", "outer")
        for field in dataclasses.fields(getattr(learner, section))
    }
)


def chosen_by_a_preset(section: str, name: str) -> bool:
    parts = [getattr(preset(choice), section) for choice in PRESETS]
    return any(getattr(part, name) != getattr(type(part)(), name) for part in parts if hasattr(part, name))


def test_each_field_of_a_configuration_is_used_by_a_preset_or_a_study_or_shown_on_a_page() -> None:
    """What is not is no feature: it goes, or a page shows what it is for."""
    pages = "\n".join(path.read_text() for path in [ROOT / "README.md", *DOCS.glob("*.md")])
    studies = "\n".join(path.read_text() for path in (ROOT / "experiments").rglob("*.py"))

    def shown(section: str, name: str) -> bool:
        flag = name.strip("_").replace("_", "-")
        place = "" if section == "run" else rf"{section}\."
        on_a_page = rf"--{place}(no-)?{flag}(?![\w-])|{section}\.{name}\b|`{flag}`"
        in_a_study = rf"{section}\.{name}\b|\b{name}=|[\"']{name}[\"']:|--{place}{flag}(?![\w-])"
        return bool(re.search(on_a_page, pages) or re.search(in_a_study, studies))

    assert not shown("inner", "no_such_field")
    unused = [".".join(field) for field in FIELDS if not chosen_by_a_preset(*field) and not shown(*field)]
    assert unused == []
