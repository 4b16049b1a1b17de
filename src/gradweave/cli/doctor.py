"""`gradweave doctor`: checks that everything a run needs works on this machine, down to one small meta-gradient."""

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradweave.cli.flags import parse_flags
from gradweave.files import write_atomically

__all__ = ["CHECKS", "run"]


@dataclass(frozen=True)
class _Flags:
    """The flags of `gradweave doctor`."""

    runs_dir: Path = Path("runs")
    """The folder runs are to be written to."""


class _Problem(Exception):
    """A failed check, with its remedy."""


def run(argv: Sequence[str]) -> int:
    """Make every check and print the finding; returns 1 when one failed."""
    flags = parse_flags(
        _Flags,
        "gradweave doctor",
        "Check that everything a run needs works on this machine.",
        argv,
    )
    num_failed = 0
    for name, check in CHECKS.items():
        start = time.monotonic()
        try:
            found, passed = check(flags.runs_dir), True
        except Exception as error:  # any failure here is a finding for the user
            found, passed = f"{type(error).__name__}: {error}" if not isinstance(error, _Problem) else str(error), False
            num_failed += 1
        seconds = time.monotonic() - start
        print(f"{'ok  ' if passed else 'FAIL'}  {name:<18}{found}  ({seconds:.1f} s)", flush=True)
    print("everything works" if not num_failed else f"{num_failed} of {len(CHECKS)} checks failed")
    return 1 if num_failed else 0


def _python(runs_dir: Path) -> str:
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def _packages(runs_dir: Path) -> str:
    names = ("jax", "jaxlib", "equinox", "optax", "jumanji", "matplotlib", "numpy")
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise _Problem(f"missing: {', '.join(missing)}; install gradweave again")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def _devices(runs_dir: Path) -> str:
    import jax

    from gradweave.machine.runtime import usable_cores

    kinds = [device.device_kind for device in jax.devices()]
    most = usable_cores() if jax.default_backend() == "cpu" else len(kinds)
    return f"{jax.default_backend()}: {len(kinds)} x {kinds[0]}, at most --devices {most}"


def _memory(runs_dir: Path) -> str:
    from gradweave.machine.host_memory import host_memory

    memory = host_memory()
    found = f"{memory.available / 2**30:.1f} GiB free of {memory.limit / 2**30:.1f} ({memory.what})"
    if memory.available < 2**30:
        raise _Problem(f"only {found}: close something, or ask for more")
    return found


def _compilation_cache(runs_dir: Path) -> str:
    from gradweave.training.runtime import enable_compilation_cache

    folder = enable_compilation_cache()
    if folder is None:
        raise _Problem("no private cache folder, runs compile each time: set XDG_CACHE_HOME to a folder of your own")
    return str(folder)


def _disk(runs_dir: Path) -> str:
    existing = next(path for path in (runs_dir.absolute(), *runs_dir.absolute().parents) if path.is_dir())
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=existing) as folder:
        path = Path(folder) / "file"
        write_atomically(path, "x" * 2**20)
        if path.read_text(encoding="utf-8") != "x" * 2**20:
            raise _Problem(f"a file written in {existing} reads back differently")
    free = shutil.disk_usage(existing).free / 2**30
    if free < 0.5:
        raise _Problem(f"only {free:.1f} GiB are free in {existing}: make room or choose another --runs-dir")
    return f"can write in {existing}, {free:.0f} GiB free"


def _figures(runs_dir: Path) -> str:
    from gradweave.reports.figures import RunMetrics, draw_figures

    with tempfile.TemporaryDirectory() as folder:
        rows = [{"step": step, "return": float(step)} for step in range(3)]
        size = draw_figures([RunMetrics("doctor", rows)], Path(folder))[0].path.stat().st_size
    return f"a figure of {size / 1024:.0f} KiB was drawn"


def _environment(runs_dir: Path) -> str:
    import jax

    from gradweave.envs.registry import make_environment

    environment = make_environment("snake", num_rows=6, num_cols=6)
    reset_key, step_key = jax.random.split(jax.random.key(0))
    state, observation = environment.reset(key=reset_key)
    _, step = environment.step(state, jax.numpy.argmax(observation.action_mask), key=step_key)
    if not bool(jax.numpy.isfinite(step.reward)):
        raise _Problem(f"Snake's first reward is {step.reward}; install jumanji again")
    return "Snake was reset and stepped"


def _meta_gradient(runs_dir: Path) -> str:
    """d/d(raw) of (1 - eta)^6 / 2, the outer loss after three steps of gradient descent on x^2 / 2 from x = 1."""
    import jax
    import jax.numpy as jnp

    from gradweave.core import MetaProblem, Positive, constrain, finite_difference, meta_gradient, unconstrain, unroll

    problem = MetaProblem(
        update=lambda x, eta, target: (x - eta * (x - target), None),
        outer_loss=lambda x, target: (0.5 * (x - target) ** 2, None),
    )
    spec = Positive()
    with jax.enable_x64(True):
        targets, start = jnp.zeros(3), jnp.ones(())
        raw = unconstrain(jnp.asarray(0.1), spec)

        def outer(raw: jax.Array) -> jax.Array:
            end, _ = unroll(problem, constrain(raw, spec), start, targets)
            return problem.outer_loss(end, targets[-1])[0]

        exact = float(meta_gradient(problem, raw, spec, start, targets, targets).grad)
        measured = float(finite_difference(outer, raw, jnp.ones(())))
    error = abs(exact - measured) / abs(measured)
    if not error < 1e-6:
        raise _Problem(
            f"the meta-gradient is {exact}, finite differences say {measured}: report this with your versions"
        )
    return f"agrees with finite differences to {error:.0e}"


def _check_learner(runs_dir: Path) -> str:
    """A small network with a dead ReLU unit, trained by Adam and a clipped norm: a hard case for meta-gradients."""
    import jax
    import jax.numpy as jnp
    import optax

    from gradweave.core import GradientLearner, Positive, check_learner, differentiable, unconstrain

    def network(params: dict[str, jax.Array], batch: jax.Array) -> jax.Array:
        # The second unit never fires, so that its gradient is exactly zero.
        return jax.nn.relu(batch[:, :2] @ params["w"] + jnp.array([0.5, -100.0])) @ params["v"]

    def loss(outputs: jax.Array, targets: None, eta: dict[str, jax.Array], batch: jax.Array) -> tuple[jax.Array, None]:
        return jnp.mean((outputs - batch[:, 2]) ** 2) + eta["decay"] * jnp.mean(outputs**2), None

    learner = GradientLearner(
        targets=lambda outputs, eta, batch: None,
        loss=loss,
        optimizer=differentiable(optax.chain(optax.clip_by_global_norm(0.5), optax.scale_by_adam())),
        learning_rate=lambda eta: eta["rate"],
        outer_loss=lambda state, batch: (jnp.mean((state.params - batch[:, 2]) ** 2), None),
        forward=network,
    )
    spec = {"rate": Positive(), "decay": Positive()}
    raw = unconstrain({"rate": 0.05, "decay": 0.1}, spec)
    state = learner.init({"w": jnp.array([[1.0, 0.3], [0.4, -0.2]]), "v": jnp.array([0.7, 0.3])})
    report = check_learner(learner, raw, spec, state, jax.random.normal(jax.random.key(0), (3, 8, 3)))
    if not report.ok:
        raise _Problem(f"the demonstration learner fails its check; report this with your versions:\n{report}")
    verdicts = ", ".join(f"{leaf.name} {leaf.verdict}" for leaf in report.leaves)
    return f"{verdicts}; {sum(mode.applies for mode in report.modes)} of {len(report.modes)} modes apply"


CHECKS: dict[str, Callable[[Path], str]] = {
    "python": _python,
    "packages": _packages,
    "disk": _disk,
    "devices": _devices,
    "memory": _memory,
    "compilation cache": _compilation_cache,
    "environment": _environment,
    "meta-gradient": _meta_gradient,
    "learner": _check_learner,
    "figures": _figures,
}
"""Every check: given the folder for runs, it returns its finding or raises."""
