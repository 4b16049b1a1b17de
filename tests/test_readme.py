"""What the README shows is what there is."""

import re
from pathlib import Path

from gradweave.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_learner_shown_is_the_example() -> None:
    (shown,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert shown.strip() in (ROOT / "examples" / "own_update.py").read_text(encoding="utf-8")
    assert len(shown.splitlines()) > 25


def test_every_command_is_named() -> None:
    assert all(f"`{command}" in README for command in COMMANDS)


def test_every_link_leads_somewhere() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", README) + re.findall(r'src="([^"]+)"', README)
    assert targets
    assert all((ROOT / target).exists() for target in targets)
