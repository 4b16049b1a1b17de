"""The code on the pages that teach runs as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ("own-loop.md", "can be trusted"),
        pytest.param("own-environment.md", "Corridor keeps the contract", marks=pytest.mark.slow),
        pytest.param("python.md", "16 samples of windows of 5 updates", marks=pytest.mark.slow),
    ],
)
def test_the_code_of_a_page_runs_from_top_to_bottom(page: str, says: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) >= 3
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    # As a reader runs it: without what the tests set.
    command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert says in done.stdout


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
