"""Measures what multi-step meta-gradients cost, as ratios, and writes results/benchmarks/.

    python benchmarks/run.py                 # everything, an hour or more on one core
    python benchmarks/run.py --groups peers  # one table

Everything that is compared takes turns in this one process. A row's ratio is the median over rounds of (its time) /
(the group's base's time), per inner update, with quartiles. Groups: `windows` (modes by length of the window), `length`
(mixed mode's lengths against each other), `memory` (mixed mode's against counting), `parameters` (modes by number of
meta-parameters), `board` (Snake 12x12), `ppo` (through epochs and minibatches), `peers`, `peers_2048`, `seeds`,
`floor`, `startup`.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jumanji_trainer import jumanji_rows
from peers import torchopt_toy, weave_toy
from timing import Program, alternate, spread
from variants import MODES, agent_for, forward_passes, meta_step, naive_meta_step, seeds_in_one_program
from workers import SeedsInProcesses

from gradweave.agents import bundled_apply
from gradweave.config.presets import preset
from gradweave.machine.runtime import usable_cores
from gradweave.reports.tables import write_rows
from gradweave.runs.provenance import collect_provenance
from gradweave.training.build import init_state
from gradweave.training.memory import Sizes
from gradweave.training.runtime import describe_devices, enable_compilation_cache

SMALL: Final = {
    "environment.options.num_rows": 6,
    "environment.options.num_cols": 6,
    "inner.num_envs": 256,
    "inner.num_steps": 5,
}
"""Snake 6x6, 256 environments x 5 steps, with the network of the presets."""
WINDOWS, PARAMETERS = (1, 2, 5, 10, 20, 50), (1, 2, 4, 8)
Row = dict[str, Any]


SMALLEST: Final[Mapping[str, Any]] = {
    **SMALL,
    "environment.options.time_limit": 20,
    "network.channels": (2, 2),
    "network.strides": (2, 1),
    "network.policy_layers": (4,),
    "network.value_layers": (4,),
    "inner.num_envs": 4,
    "inner.num_steps": 2,
    "inner.microbatches": 1,
}
"""What --smallest changes: enough to see that everything runs."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    groups: tuple[str, ...] = (
        "windows",
        "length",
        "memory",
        "parameters",
        "board",
        "ppo",
        "peers",
        "peers_2048",
        "seeds",
        "floor",
        "startup",
    )
    lengths: tuple[int, ...] = WINDOWS
    """Inner steps of the windows of the groups `windows`, `length` (from 5 on) and `memory`."""
    rounds: int = 11
    results: Path = Path("results/benchmarks")
    smallest: bool = False
    """Tiny sizes, which show that everything runs and nothing else."""


def ratios(programs: dict[str, Program], base: str, rounds: int) -> Iterator[Row]:
    """One row for each program: its ratio to the base, and its temporary memory."""
    seconds = alternate(programs, rounds)
    unit = {name: seconds[name] / program.calls_per_unit for name, program in programs.items()}
    for name, program in programs.items():
        ratio = spread(unit[name] / unit[base])
        yield {
            "program": name,
            "base": base,
            "ratio": ratio.median,
            "low": ratio.low,
            "high": ratio.high,
            "temporary_megabytes": program.peak_bytes / 1e6,
            "rounds": rounds,
        }


def windows(options: Options) -> list[Row]:
    """Modes by the length of the window, four meta-parameters; one window length is timed after another."""
    rows = []
    sizes = _shrunk(SMALL, options)
    plain = meta_step(sizes, 0, 10)
    for length in (1, 2) if options.smallest else options.lengths:
        programs = {"plain": plain, **{mode: meta_step(sizes, 4, length, mode) for mode in MODES}}
        programs["jax.grad of the loop"] = naive_meta_step(sizes, 4, length)
        rows += [{"num_inner_steps": length, **row} for row in ratios(programs, "plain", options.rounds)]
    return rows


def length(options: Options) -> list[Row]:
    """Mixed mode at several lengths of the window against each other, four meta-parameters."""
    sizes = _shrunk(SMALL, options)
    lengths = (1, 2) if options.smallest else tuple(length for length in options.lengths if length >= 5)
    programs = {f"mixed, {length} inner steps": meta_step(sizes, 4, length) for length in lengths}
    return list(ratios(programs, next(iter(programs)), options.rounds))


def memory(options: Options) -> list[Row]:
    """Mixed mode's temporary memory over plain learning's and what a window records: L x (learner, gradient, batch)."""
    rows = []
    sizes = _shrunk(SMALL, options)
    plain = meta_step(sizes, 0, 1).peak_bytes
    for length in (1, 2) if options.smallest else options.lengths:
        agent, config = agent_for(sizes, 4, length)
        shapes = jax.eval_shape(lambda key: init_state(agent, config, key=key), jax.random.key(0))  # noqa: B023
        parts = Sizes.of(agent, shapes)
        counted = plain + length * (parts.learner + parts.gradient + parts.batch)
        found = meta_step(sizes, 4, length).peak_bytes
        megabytes = {
            "temporary_megabytes": found / 1e6,
            "plain_megabytes": plain / 1e6,
            "counted_megabytes": counted / 1e6,
        }
        rows.append({"num_inner_steps": length, "program": "mixed", **megabytes, "ratio": found / counted})
    return rows


def parameters(options: Options) -> list[Row]:
    """Modes by the number of meta-parameters, ten inner steps; a single one: the discount, or instead of it another."""
    rows = []
    sizes = _shrunk(SMALL, options)
    length = 2 if options.smallest else 10
    plain = meta_step(sizes, 0, length)
    for count in (1, 8) if options.smallest else PARAMETERS:
        programs = {"plain": plain, **{mode: meta_step(sizes, count, length, mode) for mode in MODES}}
        if count == 1:
            alone = {**sizes, "outer.critic": "off"}
            programs |= {f"{mode}, no outer critic": meta_step(alone, 1, length, mode) for mode in ("mixed", "forward")}
            for name in ("lambda_", "entropy_cost", "learning_rate"):  # these have no outer critic anyway
                instead = {**sizes, "meta.learned": (name,)}
                programs[f"forward, {name} instead"] = meta_step(instead, 1, length, "forward")
        rows += [{"meta_parameters": count, **row} for row in ratios(programs, "plain", options.rounds)]
    return rows


def board(options: Options) -> list[Row]:
    """Modes on Snake 12x12 as in the presets: 64 environments x 5 steps, five inner steps, four meta-parameters."""
    sizes = _shrunk({}, options)
    programs = {"plain": meta_step(sizes, 0, 5), **{mode: meta_step(sizes, 4, 5, mode) for mode in MODES}}
    programs["jax.grad of the loop"] = naive_meta_step(sizes, 4, 5)
    return list(ratios(programs, "plain", options.rounds))


def ppo(options: Options) -> list[Row]:
    """Modes through PPO's 4 epochs x 4 minibatches on CartPole (8 environments x 128 steps), four meta-parameters."""
    sizes: dict[str, Any] = {"preset": "ppo"}
    if options.smallest:
        sizes |= {"inner.num_envs": 4, "inner.num_steps": 4, "inner.num_epochs": 1, "inner.num_minibatches": 2}
    rows = []
    for length in (1, 2) if options.smallest else (1, 2, 5):
        programs = {"plain": meta_step(sizes, 0, length)}
        programs |= {mode: meta_step(sizes, 4, length, mode) for mode in MODES}
        rows += [{"num_inner_steps": length, **row} for row in ratios(programs, "plain", options.rounds)]
    return rows


def peers(options: Options) -> list[Row]:
    """Environment steps a second over those of Jumanji's trainer; meta-gradients a second over TorchOpt's."""
    rows = _jumanji_rows("Snake 12x12", max(2, options.rounds // 2), options)
    for length in (1, 10):
        rows += _toy_rows(length, options)
    return rows


def peers_2048(options: Options) -> list[Row]:
    """Environment steps a second over those of Jumanji's trainer on 2048, with its own networks and with ours in it."""
    return _jumanji_rows("2048", options.rounds, options)


def _jumanji_rows(game: str, rounds: int, options: Options) -> list[Row]:
    changes = _shrunk({}, options)  # of ours; theirs is never shrunk
    if game == "2048":  # the options are Snake's
        changes = {name: value for name, value in changes.items() if not name.startswith("environment.")}
    try:
        return jumanji_rows(game, changes, rounds)
    except ImportError as error:
        return [{"program": "jumanji", "left_out": str(error)}]


def _toy_rows(length: int, options: Options) -> list[Row]:
    try:
        theirs, ours = torchopt_toy(length), weave_toy(length)
    except ImportError as error:
        return [{"program": "torchopt", "left_out": str(error)}]
    np.testing.assert_allclose(ours(), theirs(), rtol=1e-4, atol=1e-7)  # the same number, or nothing is compared
    seconds = alternate({"torchopt": _silent(theirs), "gradweave": _silent(ours)}, 5 * options.rounds)
    faster = spread(seconds["torchopt"] / seconds["gradweave"])
    return [
        {
            "program": f"discount toy, {length} updates",
            "base": "TorchOpt",
            "times_faster": faster.median,
            "low": faster.low,
            "high": faster.high,
            "rounds": 5 * options.rounds,
        }
    ]


def _silent(function: Callable[[], Any]) -> Callable[[], None]:
    def call() -> None:
        function()

    return call


def seeds(options: Options) -> list[Row]:
    """Several seeds over one seed, per environment step: four in one program, or one a core in a process of its own."""
    sizes = _shrunk({}, options)
    programs: dict[str, Any] = {"one seed": meta_step(sizes, 4, 5)}
    for how in ("map", "vmap"):
        programs[f"4 seeds, {how}"] = seeds_in_one_program(sizes, 4, 5, 4, how)
    with SeedsInProcesses(sizes, 4, 5, usable_cores()) as processes:
        programs["one seed a core, in processes"] = processes
        return list(ratios(programs, "one seed", options.rounds))


def floor(options: Options) -> list[Row]:
    """Acting alone over plain learning, and arithmetic achieved against a large product of matrices."""
    rows = []
    for name, sizes in (("6x6", _shrunk(SMALL, options)), ("12x12", _shrunk({}, options))):
        programs = {
            "plain": meta_step(sizes, 0, 5),
            "acting only": forward_passes(sizes, 5),
            "mixed": meta_step(sizes, 4, 5),
        }
        seconds = alternate({**programs, "matrix product": _product()}, options.rounds)
        peak = 2 * 1024**3 / seconds["matrix product"]
        acting, forward = _forward_flops(sizes)
        steps = agent_for(sizes, 0, 5)[0].steps_per_rollout
        # By counting: acting, then 3 passes for a gradient, and 8 more for its derivative in one direction and back.
        for program, passes in (("acting only", 0), ("plain", 3), ("mixed", 11)):
            unit = seconds[program] / 5
            achieved = (acting + passes * forward) * steps / unit
            ratio, share = spread(unit / (seconds["plain"] / 5)), spread(achieved / peak)
            rows.append(
                {
                    "board": name,
                    "program": program,
                    "base": "plain",
                    "ratio": ratio.median,
                    "low": ratio.low,
                    "high": ratio.high,
                    "passes_beside_acting": passes,
                    "share_of_peak": share.median,
                    "rounds": options.rounds,
                }
            )
    return rows


def startup(options: Options) -> list[Row]:
    """From the command to the first logged meta-step: the second start over the first, by the compilation cache."""
    rows = []
    for number in range(2 if options.smallest else 3):
        with tempfile.TemporaryDirectory() as folder:
            first, second = (_seconds_to_first_row(Path(folder), start) for start in ("first", "second"))
        rows.append({"repetition": number, "program": "second start", "base": "first start", "ratio": second / first})
    return rows


def _seconds_to_first_row(folder: Path, name: str) -> float:
    """Starts `gradweave train quick`, waits for the first line of its metrics, and stops it."""
    command = [sys.executable, "-m", "gradweave", "train", "quick", "--runs-dir", str(folder / name)]
    flags = ["--chunk-size", "1", "--evaluate-every", "0"]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
    start = time.perf_counter()
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen([*command, *flags], env=environment, stdout=log, stderr=log)
        try:
            while not any(path.stat().st_size for path in (folder / name).glob("*/metrics.jsonl")):
                if process.poll() is not None:
                    raise RuntimeError((folder / f"{name}.log").read_text())
                time.sleep(0.02)
            return time.perf_counter() - start
        finally:
            process.kill()
            process.wait()


def _product() -> Callable[[], None]:
    matrix = jnp.ones((1024, 1024), jnp.float32)
    product = jax.jit(lambda matrix: matrix @ matrix)
    return lambda: product(matrix).block_until_ready()  # type: ignore[no-any-return]


def _forward_flops(sizes: dict[str, Any]) -> tuple[float, float]:
    """Floating-point operations of one pass on one observation, by the compiler's count: (policy, policy and value)."""
    agent, config = agent_for(sizes, 0, 1)
    state = jax.jit(lambda key: init_state(agent, config, key=key))(jax.random.key(0))

    def outputs(params: Any, observations: Any) -> Any:
        return jax.vmap(lambda observation: bundled_apply(params, observation, None))(observations)

    def count(function: Callable[..., Any]) -> float:
        compiled = jax.jit(function).lower(state.learner.params, state.rollout.observation).compile()
        return float(compiled.cost_analysis()["flops"]) / config.inner.num_envs

    return count(lambda *args: outputs(*args).logits), count(lambda *args: outputs(*args)[:2])


def _shrunk(sizes: Mapping[str, Any], options: Options) -> dict[str, Any]:
    return {**sizes, **(SMALLEST if options.smallest else {})}


GROUPS: Final = {
    group.__name__: group
    for group in (windows, length, memory, parameters, board, ppo, peers, peers_2048, seeds, floor, startup)
}


def main(options: Options) -> None:
    """Run the groups one after another; a group's table is written as soon as it is there."""
    enable_compilation_cache()
    unknown = [group for group in options.groups if group not in GROUPS]
    if unknown:
        raise SystemExit(f"unknown groups {unknown}; there are {', '.join(GROUPS)}")
    options.results.mkdir(parents=True, exist_ok=True)
    origin = _origin()  # before the first table changes the checkout
    for group in options.groups:
        rows = GROUPS[group](options)
        columns = list(dict.fromkeys(name for row in rows for name in row))
        write_rows(options.results / f"{group}.csv", [{name: row.get(name) for name in columns} for row in rows])
        about = {"options": dataclasses.asdict(options) | {"results": None}, **origin}
        (options.results / f"{group}.json").write_text(json.dumps(about, indent=1) + "\n")
        text = f"## {group}\n\n{GROUPS[group].__doc__}\n\n{_markdown(columns, rows)}"
        (options.results / f"{group}.md").write_text(text)
        print(f"\n{text}")


def _markdown(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """The rows as a table."""
    lines = [columns, ["---"] * len(columns), *([_short(row.get(name)) for name in columns] for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _short(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _origin() -> dict[str, Any]:
    collected = collect_provenance(preset("quick"))
    kept = ("started", "source", "python", "platform", "versions", "flags")
    return {**{name: collected[name] for name in kept}, "cores": usable_cores(), **describe_devices()}


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
