"""Attacks on runs, by group: each yields a row with what was done, what was expected and whether it came so."""

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from reliability import damage
from reliability.configurations import BAD
from reliability.folders import STEPS, TREES, make_run, snapshot
from reliability.processes import command, final_hash, only_run, run_to_end, start, train_command, wait_for

from gradweave.runs.checkpoints import list_checkpoints
from gradweave.runs.metrics import read_metrics

__all__ = ["GROUPS"]

Row = dict[str, Any]
_STATED: Final = (0, 2, 3, 4, 5, 6, 8)
_MORE_BYTES: Final = 100 * 2**20


def kills(folder: Path, count: int, rng: random.Random) -> Iterator[Row]:
    """Kill a training of 1,000 meta-steps at any moment, `count` times, each time going on; the end is the same."""
    expected = _undisturbed(folder, 1000)
    done = attempt = 0
    while done < count:
        attempt += 1
        runs_dir = folder / f"killed-{attempt}"
        words = train_command(runs_dir, 1000, "--finish", "none")
        while True:
            process = start(words)
            time.sleep(rng.uniform(0.5, 12.0))
            alive = process.poll() is None
            process.kill()
            process.communicate()
            if not alive and process.returncode == 0:
                break
            done += alive
            if done >= count:
                words = _onward(runs_dir, words)
                run_to_end(words)
                break
            words = _onward(runs_dir, words)
        found = final_hash(only_run(runs_dir))
        yield {"case": f"run {attempt}", "kills": done, "found": found, "expected": expected, "ok": found == expected}
        shutil.rmtree(runs_dir)


def _onward(runs_dir: Path, words: list[str]) -> list[str]:
    """The command that goes on with the run in a folder, where it has a checkpoint; otherwise from the start."""
    run = next(runs_dir.glob("*/config.toml"), None)
    if run is not None and list_checkpoints(run.parent / "checkpoints"):
        return command("resume", str(run.parent))
    shutil.rmtree(runs_dir, ignore_errors=True)
    return words


def _undisturbed(folder: Path, num_meta_steps: int) -> str:
    """The hash of the same run that nobody disturbs."""
    ended = run_to_end(train_command(folder / "undisturbed", num_meta_steps, "--finish", "none"))
    assert ended.code == 0, ended.said
    return final_hash(only_run(folder / "undisturbed"))


def writer_kills(folder: Path, count: int, rng: random.Random) -> Iterator[Row]:
    """Kill a process that only writes rows and checkpoints: what is there is whole, and not older than said."""
    for index in range(count):
        run = make_run(folder, f"run-{index}")
        process = start([os.sys.executable, "-c", damage.WRITER, str(run)])
        wait_for(process, "saved")
        time.sleep(rng.uniform(0.0, 0.3))
        process.kill()
        said, _ = process.communicate()
        saved = max((int(line.split()[1]) for line in said.splitlines() if line.startswith("saved ")), default=0)
        steps = [row["step"] for row in read_metrics(run / "metrics.jsonl")]
        newest, unreadable = damage.newest_readable(run)
        ok = newest >= saved and not unreadable and steps == sorted(set(steps)) and steps[-1] >= newest
        yield {"case": index, "said": saved, "newest": newest, "unreadable": unreadable, "ok": ok}
        shutil.rmtree(run)


def corruptions(folder: Path, count: int, rng: random.Random) -> Iterator[Row]:
    """Damage a checkpoint: every damage is found, as an error of ours."""
    yield from damage.corrupt(folder, count, rng)


def wrong_contents(folder: Path, count: int, rng: random.Random) -> Iterator[Row]:
    """Put other contents under a right hash: none is loaded as if it were the state."""
    yield from damage.counterfeit(folder, count, rng)


def trees(folder: Path, count: int, rng: random.Random) -> Iterator[Row]:
    """Read and go on with hostile folders: nothing outside changes, nothing hangs, no memory is taken."""
    usual = max(run_to_end(command("report", str(make_run(folder, "usual")))).peak_bytes, 1)
    names = list(TREES) if count >= len(TREES) else rng.sample(list(TREES), count)
    for index, name in enumerate(names):
        outside = folder / f"outside-{index}"
        (outside / "folder").mkdir(parents=True)
        (outside / "precious.txt").write_text("not yours")
        (outside / "folder" / f"{STEPS[0]:012}.safetensors").write_text("somebody else's")
        run = make_run(folder, f"tree-{index}")
        TREES[name](run, outside)
        before, codes, peak, slowest = snapshot(outside), [], 0, 0.0
        for words in (("watch", str(run)), ("report", str(run)), ("resume", str(run)), ("play", str(run))):
            ended = run_to_end(command(*words), 60.0)
            codes.append(ended.code if "Traceback" not in ended.said else "traceback")
            if words[0] in ("watch", "report"):  # the others import JAX
                peak = max(peak, ended.peak_bytes)
            slowest = max(slowest, ended.seconds)
        ok = all(code in _STATED for code in codes) and snapshot(outside) == before and peak - usual < _MORE_BYTES
        shown = " ".join(map(str, codes))
        yield {"case": name, "codes": shown, "more_mb": (peak - usual) // 2**20, "seconds": round(slowest, 1), "ok": ok}
        shutil.rmtree(run, ignore_errors=True)


_STAGES: Final = {
    "start": ("run folder:", 0.0, 1.0),
    "compile": ("compiling", 0.0, 1.0),
    "chunk": ("steps     return", 0.2, 1.0),
    "evaluation": ("steps     return", 1.0, 3.0),
    "drawing": ("drawing an episode", 0.0, 0.5),
}


def signals(folder: Path, count: int, rng: random.Random) -> Iterator[Row]:
    """Stop a training at five stages: it ends with the right code, says how to go on, and goes on to the same end."""
    for stage, (text, least, most) in _STAGES.items():
        for index in range(count):
            runs_dir = folder / f"{stage}-{index}"
            number = rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
            steps = 50 if stage == "drawing" else 20_000
            process = start(train_command(runs_dir, steps, "--measure-samples", "2"))
            read = wait_for(process, text)
            time.sleep(rng.uniform(least, most))
            process.send_signal(number)
            begun = time.monotonic()
            try:
                more, _ = process.communicate(timeout=60)
            except Exception:
                process.kill()
                more = process.communicate()[0] + " (killed)"
            said, seconds = read + more, time.monotonic() - begun
            expected = 130 if number == signal.SIGINT else 143
            helps = "gradweave resume" in said or "gradweave train" in said
            late = process.returncode == 0 and stage == "drawing"
            ok = late or (process.returncode == expected and helps and "Traceback" not in said and seconds < 30)
            name = signal.Signals(number).name
            yield {"case": f"{stage} {name}", "code": process.returncode, "seconds": round(seconds, 1), "ok": ok}
            shutil.rmtree(runs_dir, ignore_errors=True)


_TRACKERS: Final = {
    "raises in init": "def init(**_): raise RuntimeError('no')\ndef log(n, step): pass\ndef finish(): pass\n",
    "raises in log": "def init(**_): pass\ndef log(n, step): raise RuntimeError('no')\ndef finish(): pass\n",
    "raises in finish": "def init(**_): pass\ndef log(n, step): pass\ndef finish(): raise RuntimeError('no')\n",
    "exits": "def init(**_): pass\ndef log(n, step): raise SystemExit(0)\ndef finish(): pass\n",
    "exits when imported": "raise SystemExit(0)\n",
    "hangs": "import time\ndef init(**_): time.sleep(60)\ndef log(n, step): pass\ndef finish(): pass\n",
}


def trackers(folder: Path, count: int, rng: random.Random) -> Iterator[Row]:
    """Train with trackers that fail: the same end as without."""
    expected = _undisturbed(folder, 300)
    for name in list(_TRACKERS)[:count]:
        place = folder / name.replace(" ", "-")
        place.mkdir()
        (place / "wandb.py").write_text(_TRACKERS[name])
        words = train_command(place / "runs", 300, "--finish", "none", "--track", "wandb")
        ended = run_to_end(words, 200.0, PYTHONPATH=str(place))
        found = final_hash(only_run(place / "runs")) if ended.code == 0 else ended.said[-200:]
        yield {"case": name, "code": ended.code, "found": found, "expected": expected, "ok": found == expected}


def configurations(folder: Path, count: int, rng: random.Random) -> Iterator[Row]:
    """Refuse bad configurations: exit code 2, under a second of this processor, a remedy, without JAX."""
    probe = (
        "import sys, time\nfrom gradweave.cli.main import main\n"
        "try:\n  code = main(sys.argv[1:])\nexcept SystemExit as error:\n  code = error.code\n"
        "print('PROBE', code, time.process_time(), 'jax' in sys.modules)"
    )
    names = list(BAD) if count >= len(BAD) else rng.sample(list(BAD), count)
    for name in names:
        place = Path(tempfile.mkdtemp(dir=folder))
        (place / "mine.toml").write_text(BAD[name].text or "")
        argv = [str(place / "mine.toml") if word == "FILE" else word for word in BAD[name].argv]
        ended = run_to_end([os.sys.executable, "-c", probe, *argv])
        last = next((line for line in ended.said.splitlines() if line.startswith("PROBE")), "PROBE none 0 True")
        _, code, seconds, jax = last.split()
        ok = code == "2" and float(seconds) < 1.0 and jax == "False" and "remedy" in ended.said
        yield {"case": name, "code": code, "seconds": round(float(seconds), 2), "jax": jax, "ok": ok}


def two_processes(folder: Path, count: int, rng: random.Random) -> Iterator[Row]:
    """Go on with one run by two processes at once: exactly one has it, the other ends with code 6."""
    for index in range(count):
        runs_dir = folder / f"two-{index}"
        run_to_end(train_command(runs_dir, 20, "--finish", "none"))
        words = command("resume", str(only_run(runs_dir)), "--total-steps", "8000")
        both = [start(words) for _ in range(2)]
        for process in both:
            process.communicate()
        codes = sorted(process.returncode for process in both)
        yield {"case": index, "codes": " ".join(map(str, codes)), "ok": codes == [0, 6]}
        shutil.rmtree(runs_dir)


def full_disks(folder: Path, count: int, rng: random.Random) -> Iterator[Row]:
    """Train on a file system of a megabyte, and go on where there is room: the same end. Needs the right to mount."""
    expected = _undisturbed(folder, 3000)
    for index in range(count):
        place, room = folder / f"full-{index}", folder / f"room-{index}"
        place.mkdir()
        if os.system(f"mount -t tmpfs -o size=1m tmpfs {place} 2>/dev/null"):
            yield {"case": index, "code": "not run: nothing can be mounted here", "ok": None}
            return
        try:
            ended = run_to_end(train_command(place / "runs", 3000, "--finish", "none"))
            shutil.copytree(only_run(place / "runs"), room / "run")
        finally:
            os.system(f"umount {place}")
        again = run_to_end(command("resume", str(room / "run")))
        found = final_hash(room / "run") if again.code == 0 else again.said[-200:]
        ok = ended.code == 8 and "Traceback" not in ended.said and found == expected
        yield {"case": index, "code": ended.code, "found": found, "expected": expected, "ok": ok}


GROUPS: Final[dict[str, tuple[Callable[[Path, int, random.Random], Iterator[Row]], int, int]]] = {
    "corruptions": (corruptions, 1000, 30),
    "wrong-contents": (wrong_contents, 100, 20),
    "configurations": (configurations, 1000, 6),
    "trees": (trees, 1000, 3),
    "writer-kills": (writer_kills, 200, 3),
    "trackers": (trackers, 6, 2),
    "two-processes": (two_processes, 20, 1),
    "full-disks": (full_disks, 3, 1),
    "kills": (kills, 100, 1),
    "signals": (signals, 20, 1),
}
"""What is done, how often at full size and how often at the small one; of signals at each of five stages."""
