"""Trains the agents, measures meta-gradients and true effects at every moment, and writes the results.

gradients.csv  minus the mean meta-gradient of the raw value of each meta-parameter, by horizon, with 95 % intervals
effects.csv    derivative of the mean return by the same raw value, by updates, with 95 % intervals: by central
               differences, and by evolution strategies
pooled.csv     both, as means over the agents; intervals are of these agents, not of agents at large
agreement.csv  over the agents: share of signs of the gradient that are those of the effect, for each pair of horizons,
               where both intervals leave out 0

Positive means: a higher value makes the return higher, or is asked for. Everything is of one agent at one moment; the
pairs of runs share their randomness.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from scipy.stats import t as student
from sweep import EVOLUTION_SIGMA, LEARNED, SHIFT, SIZES, Size, base

from _study.jobs import Flags, Job, chosen, collect, folders, jobs, train
from _study.tables import configurations, provenance, write_study
from gradweave.agents import SelfTuning, SelfTuningState
from gradweave.config.schema import Config
from gradweave.errors import ConfigError
from gradweave.measurement.sampling import measure_agent
from gradweave.reports.tables import read_rows, write_rows
from gradweave.training.build import build_agent, init_state
from gradweave.training.evaluation import evaluate
from gradweave.training.loading import LoadedAgent, read_agent

Row = dict[str, Any]
BURN_IN = 16
"""Rollouts before each sample of the meta-gradient: 512 steps, as long as an episode can be."""


def moments(path: Path, size: Size) -> list[int]:
    """Steps of the checkpoints to stand still at."""
    steps = sorted(int(file.stem) for file in (path / "checkpoints").glob("*.safetensors"))
    found = [min((step for step in steps if step >= moment), default=None) for moment in size.moments]
    if None in found:
        raise ConfigError("--runs", path, f"a run with checkpoints after steps {size.moments}", "train it again")
    return [step for step in found if step is not None]


def interval(values: np.ndarray) -> Row:
    """Mean over independent values with Student's 95 % interval."""
    mean, error = float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)
    width = float(student.ppf(0.975, len(values) - 1)) * error
    return {"value": mean, "low": mean - width, "high": mean + width, "num": len(values)}


def gradient_rows(loaded: LoadedAgent, size: Size, seed: int) -> Iterator[Row]:
    samples = measure_agent(
        loaded.agent,
        loaded.state,
        key=jax.random.key(20_000 + seed),
        num_samples=size.num_samples,
        burn_in_rollouts=BURN_IN,
        horizons=size.horizons,
    )
    for horizon in range(size.horizons):
        for index, name in enumerate(samples.names):
            yield {"meta_parameter": name, "updates": horizon + 1, **interval(-samples.horizons[:, horizon, index])}


def returns_after(config: Config, loaded: LoadedAgent, shifts: np.ndarray, keys: Any, updates: Sequence[int]) -> Any:
    """(members, updates): mean return after so many more updates, each member with its shift of the raw values.

    Args:
        config: of the agent.
        loaded: where it stands still.
        shifts: (members, meta-parameters), of the raw values.
        keys: of each member; equal keys, equal randomness, also in evaluation.
        updates: ascending.
    """
    plain = build_agent(config.untuned())
    start = plain_state(plain, config, loaded)

    def member(shift: Any, key: Any) -> Any:
        learned = loaded.state.learned
        moved = learned._replace(**{name: getattr(learned, name) + shift[i] for i, name in enumerate(LEARNED)})
        values = loaded.agent.eta(loaded.state._replace(learned=moved).raw)
        learning, playing = jax.random.split(key)
        state, found, done = start._replace(fixed=values, key=learning), [], 0
        for target in updates:
            state = jax.lax.scan(lambda s, _: (plain.step(s)[0], None), state, length=target - done)[0]
            done = target
            played = evaluate(
                plain,
                state.learner.params,
                state.raw,
                key=jax.random.fold_in(playing, target),
                greedy=False,
                num_episodes=config.run.evaluation_episodes,
                max_steps=config.run.max_episode_steps,
                normalization=plain.normalization(state.rollout),
            )
            found.append(played.returns.mean())
        return jnp.stack(found)

    return np.asarray(
        jax.jit(jax.vmap(member))(jnp.asarray(shifts, loaded.state.learned.discount.dtype), keys), np.float64
    )


def plain_state(plain: SelfTuning, config: Config, loaded: LoadedAgent) -> SelfTuningState:
    """The state of an agent, as that of one that learns plainly: all but the outer critic."""
    fresh = init_state(plain, config.untuned(), key=jax.random.key(0))
    known = {str(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(loaded.state.learner)}
    learner = jax.tree_util.tree_map_with_path(lambda path, leaf: known[str(path)], fresh.learner)
    return fresh._replace(learner=learner, rollout=loaded.state.rollout, batch=loaded.state.batch)


def effect_rows(loaded: LoadedAgent, size: Size, seed: int) -> Iterator[Row]:
    """Central differences of each meta-parameter, then evolution strategies, which move all of them at once."""
    eye = np.eye(len(LEARNED))
    keys = jax.random.split(jax.random.key(30_000 + seed), size.num_pairs)
    signed = SHIFT * np.stack([eye, -eye], 1)  # meta-parameter, sign, shift
    shifts = np.broadcast_to(signed, (size.num_pairs, *signed.shape)).reshape(-1, len(LEARNED))
    found = returns_after(loaded.config, loaded, shifts, jnp.repeat(keys, 2 * len(LEARNED)), size.updates)
    pairs = found.reshape(size.num_pairs, len(LEARNED), 2, len(size.updates))
    slopes = (pairs[:, :, 0] - pairs[:, :, 1]) / (2 * SHIFT)
    rows = [("differences", slopes)]

    count = size.num_evolution_pairs
    keys = jax.random.split(jax.random.key(40_000 + seed), count)
    noise = np.random.default_rng(50_000 + seed).standard_normal((count, len(LEARNED)))
    shifts = EVOLUTION_SIGMA * np.stack([noise, -noise], 1).reshape(-1, len(LEARNED))
    pairs = returns_after(loaded.config, loaded, shifts, jnp.repeat(keys, 2), size.updates).reshape(count, 2, -1)
    lift = (pairs[:, 0] - pairs[:, 1]) / (2 * EVOLUTION_SIGMA)
    rows.append(("evolution", noise[:, :, None] * lift[:, None]))
    for way, values in rows:
        for index, name in enumerate(LEARNED):
            for place, done in enumerate(size.updates):
                yield {"meta_parameter": name, "way": way, "updates": done, **interval(values[:, index, place])}


def pooled_rows(gradients: Sequence[Row], effects: Sequence[Row]) -> Iterator[Row]:
    """Means over the agents, whose errors are independent; a normal 95 % interval."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in (*gradients, *effects):
        key = (row["step"], row["meta_parameter"], row.get("way", "gradient"), row["updates"])
        groups.setdefault(key, []).append(row)
    for (step, name, way, updates), rows in groups.items():
        errors = [(row["high"] - row["low"]) / 2 / student.ppf(0.975, row["num"] - 1) for row in rows]
        mean, width = np.mean([row["value"] for row in rows]), 1.96 * np.linalg.norm(errors) / len(rows)
        known = {"step": step, "meta_parameter": name, "way": way, "updates": updates, "agents": len(rows)}
        yield {**known, "value": float(mean), "low": float(mean - width), "high": float(mean + width)}


def agreement_rows(gradients: Sequence[Row], effects: Sequence[Row]) -> Iterator[Row]:
    """Of each horizon of the gradient and each number of updates: how many signs are told from 0, and agree."""
    told = [row for row in gradients if row["low"] * row["high"] > 0]
    true = {
        (row["seed"], row["step"], row["meta_parameter"], row["updates"]): row["value"]
        for row in effects
        if row["way"] == "differences" and row["low"] * row["high"] > 0
    }
    later = sorted({row["updates"] for row in effects})
    for step in sorted({row["step"] for row in gradients}):
        for name in LEARNED:
            for horizon in sorted({row["updates"] for row in gradients}):
                own = [
                    row for row in told if (row["step"], row["meta_parameter"], row["updates"]) == (step, name, horizon)
                ]
                for updates in later:
                    pairs = [
                        (row["value"], true[key]) for row in own if (key := (row["seed"], step, name, updates)) in true
                    ]
                    known = {"step": step, "meta_parameter": name, "horizon": horizon, "updates": updates}
                    agreeing = sum(one * other > 0 for one, other in pairs)
                    yield {**known, "told": len(pairs), "agreeing": agreeing}


def cached(path: Path, step: int, name: str, make: Callable[[], Iterator[Row]] | None) -> list[Row]:
    """Rows as they were made, kept beside the run so that a study goes on where it was stopped; none without `make`."""
    file = path / "arrows" / f"{step:012d}-{name}.csv"
    if not file.exists():
        if make is None:
            return []
        file.parent.mkdir(exist_ok=True)
        write_rows(file, list(make()))
    numbers = ("updates", "value", "low", "high", "num")
    rows = read_rows(file)
    return [{**row, **{key: float(row[key]) for key in numbers}, "updates": int(row["updates"])} for row in rows]


def measure(job: Job, path: Path, size: Size, only_known: bool) -> tuple[list[Row], list[Row]]:
    """(gradients, effects) of one agent; `only_known`: those that have been measured."""
    gradients: list[Row] = []
    effects: list[Row] = []
    for step in moments(path, size):
        loaded = read_agent(path, step)
        place = {"seed": job.seed, "step": step}
        for rows, name, make in ((gradients, "gradients", gradient_rows), (effects, "effects", effect_rows)):
            begun = time.monotonic()
            wanted = None if only_known else partial(make, loaded, size, job.seed)
            rows += [{**place, **row} for row in cached(path, step, name, wanted)]
            print(f"{job.name}: {name} at {step:,}, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return gradients, effects


def main(flags: Flags) -> None:
    size = SIZES[flags.size]
    runs, results = folders("arrows", flags)
    planned = jobs(base(flags.size), {"plain": {}}, size.seeds, size.moments[-1], runs)
    train(flags, planned)
    wanted = chosen(flags, planned) if flags.stage == "runs" else planned
    collected = collect(wanted)
    measured = [measure(job, path, size, flags.stage == "tables") for job, path in collected.finished]
    if flags.stage == "runs":
        return
    gradients = [row for own, _ in measured for row in own]
    effects = [row for _, own in measured for row in own]
    made = {"pooled": pooled_rows, "agreement": agreement_rows}
    tables = {"effects": effects, "gradients": gradients}
    tables |= {name: list(make(gradients, effects)) for name, make in made.items()}
    about = {"configurations": configurations(planned), "shift": SHIFT, "evolution_sigma": EVOLUTION_SIGMA}
    write_study(results, flags.size, tables, {**about, **size._asdict(), **provenance(collected)})


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__))
