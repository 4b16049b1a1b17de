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
