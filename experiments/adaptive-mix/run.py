"""Runs the sweep and writes results/adaptive-mix/config.json and results.csv; several minutes on one core.

`PYTHONPATH=experiments python experiments/adaptive-mix/run.py [--results FOLDER] [--seeds N] [--windows N]`

With other numbers of seeds or windows than those of sweep.py, the files are marked as reduced, and go to
runs/reproduce/adaptive-mix-reduced unless --results is given.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import sweep

import gradweave as gw
from _study.tables import machine

CURVATURE, NOISE = jnp.array([1.0, 0.3, 0.05]), jnp.array([1.0, 0.5, 0.5])
SPEC = {"rate": gw.Interval(0.0, 1.9), "shift": gw.Unbounded()}


def update(x: Any, eta: Any, batch: Any) -> tuple[Any, None]:
    error = x - batch["optimum"] - batch["noise"] + 1.0 - eta["shift"]
    return x - eta["rate"] * CURVATURE * error, None


def outer_loss(x: Any, batch: Any) -> tuple[Any, None]:
    return 0.5 * jnp.sum(CURVATURE * (x - batch["optimum"] - batch["noise"]) ** 2), None


PROBLEM = gw.MetaProblem(update, outer_loss)


def draw(problem: sweep.Problem, window: Any, last: Any, key: Any) -> Any:
    """The batches of one window, of which the first is the last one of the window before (online cross-validation)."""
    first, second = problem.velocities
    velocity = jnp.where((window // problem.windows_per_turn) % 2 == 0, first, second)
    moved = velocity * jnp.arange(sweep.NUM_INNER_STEPS + 1.0)[:, None] * jnp.array([0.0, 0.0, 1.0])
    noise = NOISE * jax.random.normal(key, moved.shape)
    return {"optimum": last["optimum"] + moved, "noise": noise.at[0].set(last["noise"])}


def tune(estimator: gw.AbstractEstimator, problem: sweep.Problem, num_windows: int, rate: Any, key: Any) -> Any:
    """One run: (excess loss, eta, gradient, weights) after each window."""
    meta_optimizer = optax.scale_by_adam()
    raw = gw.unconstrain(jax.tree.map(jnp.float32, sweep.START), SPEC)
    x = jnp.ones(3)
    last = {"optimum": jnp.zeros(3), "noise": jnp.zeros(3)}

    def meta_step(carry: Any, inputs: Any) -> Any:
        raw, x, memory, meta_state, last = carry
        window, key = inputs
        batches = draw(problem, window, last, key)
        result = gw.meta_gradient(
            PROBLEM,
            raw,
            SPEC,
            x,
            batches,
            None,
            estimator=estimator,
            mode=gw.ForwardMode(),
            estimator_state=memory,
        )
        last = jax.tree.map(lambda leaf: leaf[-1], batches)
        excess = 0.5 * jnp.sum(CURVATURE * (result.state - last["optimum"]) ** 2)
        weights = memory.weights if isinstance(memory, gw.AdaptiveMixMemory) else jnp.zeros((2, sweep.NUM_INNER_STEPS))
        report = excess, gw.constrain(raw, SPEC), result.grad, weights
        updates, meta_state = meta_optimizer.update(result.grad, meta_state)
        raw = jax.tree.map(lambda leaf, change: leaf - rate * change, raw, updates)
        return (raw, result.state, result.estimator_state, meta_state, last), report

    carry = raw, x, estimator.init(raw, SPEC, x), meta_optimizer.init(raw), last
    return jax.lax.scan(meta_step, carry, (jnp.arange(num_windows), jax.random.split(key, num_windows)))[1]


def rows_of(problem: str, estimator: str, meta_learning_rate: float, reports: Any) -> list[dict[str, Any]]:
    """One row for each seed: means over the windows after the burn-in."""
    excess, eta, grad, weights = jax.tree.map(lambda leaf: np.asarray(leaf)[:, sweep.NUM_BURN_IN :], reports)
    rows = []
    for seed in range(len(excess)):
        row = {"problem": problem, "estimator": estimator, "meta_learning_rate": meta_learning_rate, "seed": seed}
        row["excess_loss"] = excess[seed].mean()
        for name in SPEC:
            row[name] = eta[name][seed].mean()
            row[f"{name}_gradient"] = grad[name][seed].mean()
            row[f"{name}_gradient_squared"] = (grad[name][seed] ** 2).mean()
        for index, name in enumerate(SPEC):
            for k in (1, sweep.NUM_INNER_STEPS):
                row[f"{name}_weight_{k}"] = weights[seed, :, index, k - 1].mean()
        rows.append({key: f"{value:.6g}" if isinstance(value, np.floating) else value for key, value in row.items()})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--seeds", type=int, default=sweep.NUM_SEEDS)
    parser.add_argument("--windows", type=int, default=sweep.NUM_WINDOWS)
    options = parser.parse_args()
    if options.seeds < 2 or options.windows <= sweep.NUM_BURN_IN:
        parser.error(f"--seeds must be at least 2, and --windows more than the {sweep.NUM_BURN_IN} of the burn-in")
    reduced = (options.seeds, options.windows) != (sweep.NUM_SEEDS, sweep.NUM_WINDOWS)
    results = options.results or Path("runs/reproduce/adaptive-mix-reduced" if reduced else "results/adaptive-mix")
    provenance = machine()  # of the source as it is now
    rates, keys = jnp.array(sweep.META_LEARNING_RATES), jax.random.split(jax.random.key(0), options.seeds)
    rows: list[dict[str, Any]] = []
    for problem in sweep.PROBLEMS:
        for name, estimator in sweep.estimators().items():

            def run(rate: Any, key: Any, estimator: Any = estimator, problem: Any = problem) -> Any:
                return tune(estimator, problem, options.windows, rate, key)

            # All estimators and rates see the same seeds, so that differences are paired.
            reports = jax.jit(jax.vmap(jax.vmap(run, in_axes=(None, 0)), in_axes=(0, None)))(rates, keys)
            for index, rate in enumerate(sweep.META_LEARNING_RATES):
                rows += rows_of(problem.name, name, rate, jax.tree.map(lambda leaf: leaf[index], reports))  # noqa: B023
            print(problem.name, name, flush=True)
    results.mkdir(parents=True, exist_ok=True)
    with (results / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    config = {
        "num_inner_steps": sweep.NUM_INNER_STEPS,
        "num_windows": options.windows,
        "num_burn_in": sweep.NUM_BURN_IN,
        "num_seeds": options.seeds,
        "start": sweep.START,
        "meta_learning_rates": sweep.META_LEARNING_RATES,
        "problems": [problem._asdict() for problem in sweep.PROBLEMS],
        "estimators": {name: str(estimator) for name, estimator in sweep.estimators().items()},
        **({"mark": f"reduced: {options.seeds} seeds, {options.windows} windows"} if reduced else {}),
        **provenance,
    }
    (results / "config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
