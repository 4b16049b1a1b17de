"""`gradweave compare [PRESET]`: self-tuning beside its rivals, all at the same number of environment steps.

Rivals learn in one process, several copies of an agent at a time in one compiled program. Members' results are in
comparison.csv, each rival's result for a user in summary.csv and, in words, in comparison.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from gradweave.cli.seeds import check_seeds
from gradweave.cli.train import TrainFlags, parse_all
from gradweave.comparison.plan_checks import check_plan
from gradweave.config.auto import is_auto
from gradweave.config.learners import LEARNERS
from gradweave.config.schema import Config
from gradweave.config.search import parse_search
from gradweave.config.validation import validate
from gradweave.errors import ConfigError
from gradweave.machine.streams import say
from gradweave.runs.comparison_folder import ComparisonPlan, create_comparison, read_comparison
from gradweave.runs.locks import lock_folder
from gradweave.runs.provenance import ProvenanceFile
from gradweave.training.hosts import ALONE, Hosts
from gradweave.training.launch import check_own_classes, start_jax

__all__ = ["resume_comparison", "run"]

_NAMES = ("gradweave compare", "Compare self-tuning with plain learning and searches, at equal environment steps.")
_ALL = ("plain", "random", "sweep", "pbt", "pbt-copy", "meta", "auto")
_SEARCH = ("learning_rate=1e-5:0.1", "entropy_cost=1e-4:0.5", "discount=0.8:0.999")


@dataclass(frozen=True)
class _Flags(TrainFlags):
    """The flags of `gradweave compare`."""

    rivals: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]")] = _ALL
    """Rivals: plain, random (search), sweep (its best at full length), pbt, pbt-copy, meta (as the preset or the flags
    tune) and auto."""
    search: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=LOW:HIGH [NAME=LOW:HIGH ...]")] = _SEARCH
    """Ranges of searches and populations, each on a logarithmic scale (a discount: that of its distance to 1)."""
    trials: int = 8
    """Trials of a search, and members of a population, that share the budget."""
    seeds: Annotated[int | None, tyro.conf.arg(metavar="N")] = 5
    """Seeds that are reported, from --seed on."""
    at_once: int = 8
    """Members computed side by side; more are faster where networks are small, and take more memory."""
    hosts: tyro.conf.Suppress[Hosts] = ALONE


def run(argv: Sequence[str]) -> int:
    """Compare; returns the exit code."""
    config, flags = parse_all(argv, _Flags, *_NAMES)
    validate(config)
    num_seeds = 1 if flags.seeds is None else flags.seeds
    check_seeds(config, num_seeds, ALONE)
    plan = ComparisonPlan(
        config=config,
        rivals=_rivals(flags.rivals, config),
        ranges=parse_search(flags.search, config.hyperparameters),
        trials=flags.trials,
        seeds=tuple(range(config.run.seed, config.run.seed + num_seeds)),
        at_once=flags.at_once,
    )
    check_plan(plan)
    check_own_classes(config)  # before there is a folder
    path = create_comparison(plan, ["compare", *argv])
    return _go_on(plan, path)


def _rivals(names: tuple[str, ...], config: Config) -> tuple[str, ...]:
    """Those that were asked for; all, where none was, but `meta` where auto is all that the configuration tunes, and
    `auto` where the learner has none.
    """
    if names != _ALL:
        return names
    left_out = {"meta"} if is_auto(config) else set()
    if not LEARNERS[config.learner].auto:
        left_out.add("auto")
    return tuple(name for name in names if name not in left_out)


def resume_comparison(path: Path, changes: Mapping[str, Any]) -> int:
    """Go on with a comparison; returns the exit code.

    Args:
        path: of the comparison.
        changes: the flags of `gradweave resume`; all must be None.

    Raises:
        ConfigError: a change was asked for, after which the rivals could not be compared.
    """
    for name, value in changes.items():
        if value is not None:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(flag, value, "a comparison goes on as it was planned", f"leave {flag} out")
    plan = read_comparison(path)
    validate(plan.config)
    check_plan(plan)
    return _go_on(plan, path, resumed=True)


def _go_on(plan: ComparisonPlan, path: Path, *, resumed: bool = False) -> int:
    def tell(text: str) -> None:
        say(text)

    with lock_folder(path):
        tell(f"comparison: {path}")
        if resumed:  # perhaps by another version
            trained = any(path.glob("*.safetensors"))
            ProvenanceFile(path / "provenance.json", plan.config, None, continues=trained).add({})
        start_jax(1)
        from gradweave.comparison.conduct import conduct
        from gradweave.comparison.outcome import write_outcome

        print(write_outcome(plan, conduct(plan, path, tell), path))
        print(f"table: {path / 'summary.csv'}\nfigure: {path / 'comparison.png'}")
    return 0
