"""What holds when runs are killed, damaged, stopped and attacked: `python benchmarks/reliability/run.py --size full`.

Writes results/reliability/<group>.csv, a row for each attack, and summary.csv: how many of each group held. The groups
and their counts are in `attacks.GROUPS`; the README beside the results says what has to hold.
"""

import argparse
import csv
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from reliability.attacks import GROUPS

from gradweave.measurement.sample_store import current_source


def main() -> int:
    """Attack; the exit code is 1 where something did not hold."""
    root = Path(__file__).parents[2]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=("full", "small"), default="small")
    parser.add_argument("--groups", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument("--count", type=int, default=None, help="how often, instead of the size's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=root / "results" / "reliability")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    failed = 0
    for group in options.groups:
        failed += attack(group, options)
    return 1 if failed else 0


def attack(group: str, options: argparse.Namespace) -> int:
    """Carry out one group's attacks; returns how many did not hold."""
    run, full, small = GROUPS[group]
    count = options.count or (full if options.size == "full" else small)
    folder = Path(tempfile.mkdtemp(prefix="reliability-"))
    begun, rows = time.monotonic(), []
    try:
        for row in run(folder, count, random.Random(options.seed)):
            rows.append(row)
            write(options.results / f"{group}.csv", rows)
            if row["ok"] is not True:
                print(f"{group}: {row}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    asked = sum(row["ok"] is not None for row in rows)
    held = sum(row["ok"] is True for row in rows)
    source = current_source()
    summarize(
        options.results / "summary.csv",
        {
            "group": group,
            "attacks": asked,
            "held": held,
            "count": count,
            "seconds": round(time.monotonic() - begun),
            "seed": options.seed,
            "commit": (source["commit"] or "")[:12],
            "modified": source["modified"],
        },
    )
    print(f"{group}: {held} of {asked} held", flush=True)
    return asked - held


def write(path: Path, rows: list[dict[str, object]]) -> None:
    """Write rows of any columns."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def summarize(path: Path, row: dict[str, object]) -> None:
    """Replace a group's row of the summary."""
    known = []
    if path.exists():
        with path.open(newline="") as file:
            known = [dict(old) for old in csv.DictReader(file) if old["group"] != row["group"]]
    order = list(GROUPS)
    write(path, sorted([*known, row], key=lambda one: order.index(str(one["group"]))))


if __name__ == "__main__":
    sys.exit(main())
