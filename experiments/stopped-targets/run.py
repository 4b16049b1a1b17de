"""Compares both writings of the targets with central differences, and writes results/stopped-targets/.

There: rows.csv (every meta-gradient and its finite difference), table.csv (the page's table), provenance.json.
About two minutes on two cores: `python experiments/stopped-targets/run.py --help`.
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from sweep import LENGTHS, NUM_WARM_UPS, SEEDS, STEPS, WRITINGS, configuration

import gradweave as gw
from gradweave.config.learners.actor_critic import LEARNABLE
from gradweave.runs.provenance import collect_provenance, is_modified
from gradweave.statistics.bootstrap import bootstrap_interval
from gradweave.training.build import build_agent, init_state


@dataclass(frozen=True)
class Options:
    """What to run and where to write."""

    seeds: tuple[int, ...] = SEEDS
    lengths: tuple[int, ...] = LENGTHS
    warm_ups: int = NUM_WARM_UPS
    results: Path = Path("results/stopped-targets")


def warmed_up(num_windows: int) -> Any:
    """`seed -> state` of an agent that has learned for a while."""
    config = configuration(0, "differentiated", 5)
    plain = build_agent(config)

    @jax.jit
    def learn(key: Any) -> Any:
        def window(state: Any, key: Any) -> tuple[Any, None]:
            after = plain.collect_window(state, key=key)
            learner = after.recording.final_state
            return state._replace(learner=learner, rollout=after.rollout, batch=after.batch), None

        start, run = jax.random.split(key)
        return jax.lax.scan(window, init_state(plain, config, key=start), jax.random.split(run, num_windows))[0]

    return lambda seed: learn(jax.random.key(seed))


def comparison(length: int) -> Any:
    """`state -> {"finite difference", "differentiated", "stopped"}`, each (meta-parameters,), on one window."""
    agents = {writing: build_agent(configuration(0, writing, length)) for writing in WRITINGS}
    right = agents["differentiated"]

    @jax.jit
    def compare(state: Any) -> dict[str, Any]:
        window = right.collect_window(state, key=jax.random.fold_in(state.key, length))
        driving = jax.tree.map(lambda leaf: leaf[:-1], window.batches)
        outer_inputs = jax.tree.map(lambda leaf: leaf[-1], window.batches)
        end = window.recording.final_state
        slope = jax.grad(lambda params: right.problem.outer_loss(end._replace(params=params), outer_inputs)[0])(
            end.params
        )

        # The outer loss itself is a semi-gradient; its slope at x_L is held fixed, and the learner is differentiated.
        def along_slope(raw: Any) -> Any:
            after, _ = gw.unroll(right.problem, right.eta(raw), state.learner, driving)
            return sum(map(jnp.vdot, jax.tree.leaves(slope), jax.tree.leaves(after.params)))

        zero = jax.tree.map(jnp.zeros_like, state.raw)
        ways = [zero._replace(**{name: jnp.ones(())}) for name in LEARNABLE]
        # An update jumps where a ReLU of one observation switches; such a point between the two ends of a difference
        # makes it wrong by the jump over the step. Three steps, of which the median is right unless two of them do so.
        differences = [
            jnp.stack([gw.finite_difference(along_slope, state.raw, way, step=step) for way in ways]) for step in STEPS
        ]
        exact = jnp.median(jnp.stack(differences), axis=0)
        grads = {name: jnp.stack(agent.window_gradient(state, window).grad) for name, agent in agents.items()}
        return {"finite difference": exact, **grads}

    return compare


def departure(found: dict[str, Any], writing: str) -> dict[str, float]:
    """Distance of one writing's gradient from the differences, all meta-parameters together."""
    exact, grad = np.asarray(found["finite difference"]), np.asarray(found[writing])
    norms = np.linalg.norm(exact) * np.linalg.norm(grad)
    return {
        "relative error": float(np.linalg.norm(grad - exact) / np.linalg.norm(exact)),
        "typical relative error": float(np.median(np.abs(grad / exact - 1))),
        "cosine": float(exact @ grad / norms),
        "signs that agree": float((np.sign(exact) == np.sign(grad)).mean()),
    }


def main(options: Options) -> None:
    """Run the comparison and write the files."""
    jax.config.update("jax_enable_x64", True)  # finite differences need it
    start = warmed_up(options.warm_ups)
    states = [start(seed) for seed in options.seeds]
    rows, table = [], []
    for length in options.lengths:
        compare = comparison(length)
        found = [jax.device_get(compare(state)) for state in states]
        for seed, one in zip(options.seeds, found, strict=True):
            for index, name in enumerate(LEARNABLE):
                values = {kind: f"{grads[index]:.9g}" for kind, grads in one.items()}
                rows.append({"length": length, "seed": seed, "meta-parameter": name, **values})
        for writing in WRITINGS:
            measured = [departure(one, writing) for one in found]
            for statistic in measured[0]:
                mean = bootstrap_interval(np.mean, [one[statistic] for one in measured])
                numbers = {name: f"{float(number):.3g}" for name, number in mean._asdict().items()}
                table.append({"length": length, "targets": writing, "statistic": statistic, **numbers})
    options.results.mkdir(parents=True, exist_ok=True)
    for name, lines in (("rows.csv", rows), ("table.csv", table)):
        with (options.results / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)
    about = collect_provenance(configuration(0, "differentiated", 1), ["experiments/stopped-targets/run.py"])
    source = about.pop("source") or {}
    about |= {"commit": source.get("commit"), "uncommitted_changes": is_modified(source)}
    about |= {"seeds": list(options.seeds), "warm_ups": options.warm_ups}
    (options.results / "provenance.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
