"""Conducting a comparison: rival after rival, stretch after stretch, each of which can be gone on from."""

import dataclasses
import itertools
import random
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from gradweave.comparison.plan_checks import config_of
from gradweave.comparison.population import Population, Stretch
from gradweave.comparison.rivals import (
    RIVALS,
    SWEEP_SEED,
    SWEEP_SEEDS,
    Rival,
    best_member,
    exchange,
    first_settings,
    member_scores,
)
from gradweave.comparison.saved import read_progress
from gradweave.config.schema import Config
from gradweave.errors import Stopped, command_line
from gradweave.machine.signals import noted_signals
from gradweave.runs.comparison_folder import ComparisonPlan
from gradweave.training.checkpoints import load, save

__all__ = ["Row", "conduct"]

Row = dict[str, Any]
Setting = Mapping[str, float]

_STRETCHES: Final = 10
_RIVALS: Final = {rival.name: rival for rival in RIVALS}


class _Part(NamedTuple):
    """A part of a comparison, trained together: `groups` seeds with as many members each as there are settings.

    Attributes:
        name: of its file and of its rows.
        rival: the one trained.
        config: of every member.
        seeds: one for each group.
        settings: of the members of each group.
        budget: environment steps of each group.
    """

    name: str
    rival: Rival
    config: Config
    seeds: Sequence[int]
    settings: Sequence[Sequence[Setting]]
    budget: int

    @property
    def members(self) -> list[tuple[int, int]]:
        """(group, place in it) of each member."""
        return [(group, place) for group, own in enumerate(self.settings) for place in range(len(own))]


def conduct(plan: ComparisonPlan, path: Path, tell: Callable[[str], None]) -> list[Row]:
    """Train every rival, or go on with it.

    Args:
        plan: of the comparison; `check_plan` has found it good.
        path: the comparison's folder, locked by the caller.
        tell: shows progress, line by line.

    Returns:
        A row for each member and stretch: rival, seed, member, stretch, environment_steps, training_return,
        evaluation_return, finite, eta/NAME.

    Raises:
        Stopped: SIGTERM or SIGHUP arrived; progress is saved.
        KeyboardInterrupt: SIGINT arrived, likewise.
        ConfigError: the folder's files are of another plan.
        DamagedFile: a file's hash is right, but its rows or settings are none.
    """
    rows: list[Row] = []
    for name in plan.rivals:
        rival = _RIVALS[name]
        config = config_of(rival, plan.config)
        if rival.searches and not rival.shares:
            found = _train(_searched(rival, config, plan), plan, path, tell)
            rows += found
            chosen = _best_setting(found, rival, plan)
            part = _Part(name, rival, config, plan.seeds, [[chosen]] * len(plan.seeds), config.run.total_steps)
        else:
            settings = [first_settings(rival, plan.ranges, plan.trials, seed) for seed in plan.seeds]
            part = _Part(name, rival, config, plan.seeds, settings, config.run.total_steps)
        rows += _train(part, plan, path, tell)
    return rows


def _searched(rival: Rival, config: Config, plan: ComparisonPlan) -> _Part:
    """The trials of a sweep, on seeds of their own."""
    seeds = [SWEEP_SEED + offset for offset in range(SWEEP_SEEDS)]
    settings = first_settings(rival, plan.ranges, plan.trials, SWEEP_SEED)
    return _Part(
        f"{rival.name}-search", rival, config, seeds, [settings] * len(seeds), plan.trials * config.run.total_steps
    )


def _best_setting(rows: Sequence[Row], rival: Rival, plan: ComparisonPlan) -> Setting:
    """The setting with the highest last training return, mean over the sweep's seeds."""
    of_seeds = [member_scores([row for row in rows if row["seed"] == seed]) for seed in {row["seed"] for row in rows}]
    settings = first_settings(rival, plan.ranges, plan.trials, SWEEP_SEED)
    return settings[best_member([sum(scores) for scores in zip(*of_seeds, strict=True)])]


def _train(part: _Part, plan: ComparisonPlan, path: Path, tell: Callable[[str], None]) -> list[Row]:
    """The rows of a part, after it has been trained to its end."""
    file = path / f"{part.name}.safetensors"
    lengths = _stretches(part)
    stretches, members = len(lengths), part.members
    settings: list[Setting] = list(itertools.chain.from_iterable(part.settings))
    seeds = [(part.seeds[group], place) for group, place in members]
    done = read_progress(file, plan, part.name, seeds, stretches=stretches, settings=settings)
    if done is not None and done.stretches == stretches:
        return done.rows
    population = Population(_of_length(part.config, lengths), plan.at_once)
    rows: list[Row] = []
    begun = 0
    if done is None:
        state = population.begin([_seed(seed, place) for seed, place in seeds], settings)
    else:
        state = load(file, population.shapes(len(members))).tree
        rows, settings, begun = done
    with noted_signals() as received:
        for stretch in range(begun, stretches):
            state, found = population.advance(state, lengths[stretch])
            rows += _rows(part, stretch, found)
            source, settings = _exchanged(part, plan, settings, found, stretch, last=stretch + 1 == stretches)
            if part.rival.copies:
                state = population.with_settings(population.copied(state, source), settings)
            metadata = {"plan": plan.identity, "rows": rows, "settings": settings, "stretches": stretch + 1}
            save(file, state, int(found.environment_steps.sum()), metadata)
            tell(_described(part, stretch, stretches, found))
            if received:
                _stop(received[0], path)
    return rows


def _stretches(part: _Part) -> list[list[int]]:
    """Windows of each member in each stretch, at most ten of these.

    A group takes all windows that its budget has beside first rollouts, so that a search has as many steps as one run,
    up to one window; where they cannot be divided evenly, its first members have one more.
    """
    config = part.config
    size = len(part.settings[0])
    windows = (part.budget - size * config.inner.num_envs * config.inner.num_steps) // config.window_steps
    each, more = divmod(windows, size)
    stretches = min(_STRETCHES, each)
    totals = [each + (place < more) for _, place in part.members]
    return [
        [total * (stretch + 1) // stretches - total * stretch // stretches for total in totals]
        for stretch in range(stretches)
    ]


def _of_length(config: Config, lengths: Sequence[Sequence[int]]) -> Config:
    """The configuration with as many windows as its members have, so that tuners and the guard know the end."""
    windows = min(sum(of_member) for of_member in zip(*lengths, strict=True))
    return dataclasses.replace(
        config, run=dataclasses.replace(config.run, total_steps=windows * config.window_steps, chunk_size=1)
    )


def _seed(seed: int, place: int) -> int:
    """The first member of a group is the run of the seed itself."""
    return (seed + 1_000_003 * place) % 2**32


def _exchanged(
    part: _Part, plan: ComparisonPlan, settings: Sequence[Setting], found: Stretch, stretch: int, *, last: bool
) -> tuple[list[int], list[Setting]]:
    """(whom each member copies, everybody's settings) after a stretch, group by group; nobody moves after the last."""
    if last or not part.rival.copies:
        return list(range(len(settings))), list(settings)
    source: list[int] = []
    after: list[Setting] = []
    for group, seed in enumerate(part.seeds):
        size, begin = len(part.settings[group]), len(source)
        rng = random.Random(f"exchange {seed} {stretch}")
        here = slice(begin, begin + size)
        scores = [float(score) for score in np.where(found.finite, found.training_return, -np.inf)[here]]
        moved = exchange(part.rival, settings[begin : begin + size], scores, plan.ranges, rng)
        source += [begin + place for place in moved.source]
        after += moved.settings
    return source, after


def _rows(part: _Part, stretch: int, found: Stretch) -> list[Row]:
    return [
        {
            "rival": part.name,
            "seed": part.seeds[group],
            "member": place,
            "stretch": stretch,
            "environment_steps": int(found.environment_steps[index]),
            "training_return": _number(found.training_return[index]),
            "evaluation_return": _number(found.evaluation_return[index]),
            "finite": bool(found.finite[index]),
            **{f"eta/{name}": _number(values[index]) for name, values in found.eta.items()},
        }
        for index, (group, place) in enumerate(part.members)
    ]


def _number(value: Any) -> float | None:
    """A number as JSON has it."""
    number = float(value)
    return number if abs(number) < float("inf") else None


def _described(part: _Part, stretch: int, stretches: int, found: Stretch) -> str:
    steps, best = int(found.environment_steps.sum()), float(found.evaluation_return.max())
    return f"{part.name}: {stretch + 1} of {stretches}, {steps:,} environment steps, best member's return {best:.2f}"


def _stop(number: int, path: Path) -> None:
    text = f"stopped by {signal.Signals(number).name} after a checkpoint; `{command_line('resume', path)}` goes on"
    raise KeyboardInterrupt(text) if number == signal.SIGINT else Stopped(text)
