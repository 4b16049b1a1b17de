"""Does every listed environment of jax-envelope keep the contract? CI cannot try them: they need Python 3.12.

contract.csv   one row for each environment: its sizes, the ends in 100 steps of random play (two copies, episodes cut
               off after 20 steps), the breaches that `check_environment` finds, and the commit that found them
contract.json  commits, packages and settings of each suite

Needs Python 3.12 and the suite beside gradweave (docs/suites.md). Compiling takes one to three minutes for an
environment of Brax or MuJoCo Playground on a CPU, and less for the others. The file is written after every environment,
and the same command goes on from it: with other packages begin a new one, and delete a row to have it tried again. One
process for each suite, one after the other; names restrict it. XLA's optimisation is switched off here, as compiling
takes longer than playing:

    export XLA_FLAGS="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    for suite in navix craftax mujoco_playground brax; do
        python experiments/baselines/envelope_contract.py $suite --results results/baselines/envelope
    done
"""

import argparse
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from gradweave.envs import ENVIRONMENTS, check_environment, make_environment
from gradweave.measurement.sample_store import current_source
from gradweave.reports.tables import read_rows, write_rows

PACKAGES = {
    "brax": ("brax", "mujoco"),
    "craftax": ("craftax",),
    "mujoco_playground": ("playground", "mujoco", "mujoco-mjx"),
    "navix": ("navix",),
}
EPISODE_STEPS = 20
SETTINGS: dict[str, Any] = {"num_steps": 50, "num_copies": 2}

Row = dict[str, Any]


def tried(name: str) -> Row:
    """The row of one environment, without its commit; an error in making it counts as a breach."""
    begun = time.monotonic()
    try:
        environment = make_environment(name, max_episode_steps=EPISODE_STEPS)
    except Exception as error:  # of the suite, of any kind
        return {"environment": name, "breaches": f"cannot be made: {type(error).__name__}: {error}".replace("\n", " ")}
    report = check_environment(environment, **SETTINGS)
    view, scalars = report.observation or ((), 0)
    return {
        "environment": name,
        "view": " x ".join(map(str, view)),
        "scalars": scalars,
        "actions": environment.num_actions,
        "continuous": environment.continuous,
        "steps": report.num_steps,
        "terminated": report.num_terminated,
        "truncated": report.num_truncated,
        "breaches": "; ".join(found.what for found in report.findings),
        "seconds": round(time.monotonic() - begun),
    }


def describe(results: Path, suite: str) -> None:
    """Write what the rows of a suite were made with; what is there of other suites is kept."""
    file = results / "contract.json"
    about = json.loads(file.read_text()) if file.exists() else {}
    rows = [row for row in read_rows(results / "contract.csv") if row["environment"].startswith(f"envelope:{suite}/")]
    about[suite] = {
        "commits": sorted({row["commit"] for row in rows}),
        "environments": len(rows),
        "device": "CPU",
        "libraries": {library: version(library) for library in ("jax", "jax-envelope", *PACKAGES[suite])},
        "settings": {**SETTINGS, "max_episode_steps": EPISODE_STEPS, "XLA_FLAGS": os.environ.get("XLA_FLAGS", "")},
    }
    file.write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=list(PACKAGES))
    parser.add_argument("names", nargs="*", help="environments of the suite; all by default")
    parser.add_argument("--results", type=Path, required=True)
    options = parser.parse_args()
    prefix, file = f"envelope:{options.suite}/", options.results / "contract.csv"
    names = [name for name in ENVIRONMENTS if name.startswith(prefix)]
    if unknown := {f"{prefix}{name}" for name in options.names} - set(names):
        parser.error(f"{', '.join(sorted(unknown))}: see `gradweave environments`")
    options.results.mkdir(parents=True, exist_ok=True)
    commit = current_source()["commit"]
    for name in [f"{prefix}{name}" for name in options.names] or names:
        rows: list[Row] = [*read_rows(file)] if file.exists() else []
        if name not in {row["environment"] for row in rows}:
            rows.append({**tried(name), "commit": commit})
            write_rows(file, sorted(rows, key=lambda row: row["environment"]))
            print(f"{name}: {rows[-1]}", file=sys.stderr, flush=True)
            jax.clear_caches()
        describe(options.results, options.suite)


if __name__ == "__main__":
    main()
