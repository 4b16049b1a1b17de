"""The attacks of benchmarks/reliability, each a few times: what has to hold at full size holds at the small one."""

import random
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from reliability.attacks import GROUPS


@pytest.mark.slow
@pytest.mark.parametrize("group", ["writer-kills", "configurations", "trees", "two-processes", "kills", "signals"])
def test_what_has_to_hold_holds(group: str, tmp_path: Path) -> None:
    attack, _, small = GROUPS[group]
    rows = list(attack(tmp_path, small, random.Random(0)))
    assert rows and [row for row in rows if row["ok"] is not True] == []
