"""Shows that two commits train alike to the bit: `python tests/golden/compare.py OLD [NEW]`.

For changes that only move code. Each commit is checked out into a temporary folder and trains 20 meta-steps of small
configurations through the command line, so that no module's name matters; the rows of metrics and every array of the
last checkpoint are compared. NEW is by default the working tree. Bits depend on the processor and on the versions of
JAX and XLA, so both are trained here and no reference is kept; the tests do not run this.
"""

import argparse
import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[2]
_SNAKE = """--environment.num-rows 4 --environment.num-cols 4 --environment.time-limit 20 --network.channels 4 4
    --network.policy-layers 8 --network.value-layers 8 --inner.num-envs 8 --inner.num-steps 4"""
_COMMON = """--chunk-size 5 --log-every 1 --evaluate-every 0 --evaluation-episodes 2 --max-episode-steps 20
    --measure-samples 2 --checkpoint-every 0"""
CONFIGURATIONS = {
    "mixed": f"quick --meta.num-inner-steps 3 --meta.estimator horizon-mix --meta.mode mixed {_SNAKE}",
    "forward": f"""quick --meta.num-inner-steps 2 --meta.learned discount --meta.mode forward --meta.estimator trace
        --outer.critic off --network.condition-on-eta {_SNAKE}""",
    "bootstrapped": f"""quick --meta.num-inner-steps 3 --meta.estimator bootstrapped --outer.critic on
        --network.outer-torso own --inner.optimizer rmsprop --inner.max-grad-norm 1 {_SNAKE}""",
}
META_STEPS = 20


def train(source: Path, flags: list[str], runs: Path) -> dict[str, str]:
    """Hashes of the metrics and of each array of the last checkpoint, by name.

    Args:
        source: a checkout.
        flags: what follows `gradweave train`.
        runs: an empty folder.
    """
    given = dict(itertools.pairwise(flags))
    length = int(given["--meta.num-inner-steps"])
    steps = META_STEPS * length * int(given["--inner.num-envs"]) * int(given["--inner.num-steps"])
    command = [sys.executable, "-m", "gradweave", "train", *flags, *_COMMON.split(), "--total-steps", str(steps)]
    command += ["--runs-dir", str(runs)]
    environment = {**os.environ, "PYTHONPATH": str(source / "src"), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} in {source} ended with {done.returncode}:\n{done.stderr}")
    (folder,) = runs.iterdir()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["meta_step"] == META_STEPS
    text = json.dumps([{name: row[name] for name in sorted(row) if name != "steps_per_second"} for row in rows])
    hashes = {"metrics": hashlib.sha256(text.encode()).hexdigest()}
    with safe_open(max((folder / "checkpoints").glob("*.safetensors")), "numpy") as arrays:
        for name in arrays.keys():  # noqa: SIM118, it is no mapping
            hashes[name] = hashlib.sha256(arrays.get_tensor(name).tobytes()).hexdigest()
    return hashes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", help="a commit")
    parser.add_argument("new", nargs="?", help="another; by default the working tree")
    arguments = parser.parse_args()
    different = 0
    with tempfile.TemporaryDirectory() as temporary:
        sources = []
        for which, commit in (("old", arguments.old), ("new", arguments.new)):
            place = ROOT if commit is None else Path(temporary) / which
            if commit is not None:
                archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
                place.mkdir()
                subprocess.run(["tar", "-x"], cwd=place, input=archive, check=True)
            sources.append(place)
        for name, flags in CONFIGURATIONS.items():
            places = [Path(temporary) / f"{name}-{which}" for which in ("old", "new")]
            old, new = (train(source, flags.split(), place) for source, place in zip(sources, places, strict=True))
            # Names and order do not count: fields of the state may have been given other names.
            same = old.pop("metrics") == new.pop("metrics") and sorted(old.values()) == sorted(new.values())
            different += not same
            print(f"{name}: {len(old)} arrays and {META_STEPS} rows {'equal to the bit' if same else 'DIFFER'}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
