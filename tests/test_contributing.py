"""What CONTRIBUTING.md shows of adding something is true: its diffs apply, and what they add can be trained."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_TRIAL = """
import jax
import numpy as np

from gradweave.cli.train import parse_config
from gradweave.config.validation import validate
from gradweave.training.build import build_agent, init_state

SMALL = ["--inner.num-envs", "4", "--meta.num-inner-steps", "2", "--network.policy-layers", "4"]
NEW = ["--learner", "reinforce", "--meta.estimator", "late-horizons", "--meta.learned", "discount", "learning_rate"]
for flags in (
    ["quick", *NEW, *SMALL[:4], "--environment.name", "waiting", "--environment.options.patience", "3"],
    ["quick", *SMALL, "--network.value-layers", "4", "--environment.name", "waiting", "--meta.learned", "policy_cost"],
):
    config = parse_config(flags)
    validate(config)
    agent = build_agent(config)
    state = init_state(agent, config, key=jax.random.key(0))
    state, metrics = jax.jit(lambda state: jax.lax.scan(lambda carry, _: agent.step(carry), state, length=3))(state)
    assert metrics.finite.all(), flags
    for name in config.meta.learned:
        assert len(np.unique(getattr(metrics.eta, name))) == 3, name
    print("trained", config.learner, *config.learned_names)
"""


def diffs() -> list[str]:
    """The diffs of CONTRIBUTING.md."""
    return re.findall(r"^```diff\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.slow
def test_what_the_diffs_add_can_be_trained(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    assert len(diffs()) == 4
    for diff in diffs():
        subprocess.run(["git", "apply", "--unidiff-zero", "-"], input=diff, text=True, cwd=tmp_path, check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src"), "JAX_ENABLE_X64": "0"}
    done = subprocess.run(
        [sys.executable, "-c", _TRIAL], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["trained reinforce discount learning_rate", "trained actor-critic policy_cost"]
