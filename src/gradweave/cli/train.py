"""`gradweave train [PRESET]`: resolve and check the configuration, make the run's folder, hand over to the loop.

What counts, from weak to strong: the preset, the file given with --config, the flags. JAX is imported after all three
have been found to be good.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from gradweave.api.training import train_config
from gradweave.cli.flags import parse_flags
from gradweave.cli.seeds import check_seeds, train_seeds
from gradweave.config.learners.actor_critic import InnerConfig, NetworkConfig, OuterConfig
from gradweave.config.presets import PRESETS, preset
from gradweave.config.schema import Config, EnvironmentConfig, MetaConfig, RunConfig
from gradweave.config.toml_file import read_config
from gradweave.config.validation import validate
from gradweave.runs.trackers import check_tracker
from gradweave.training.hosts import ALONE, Hosts, check_hosts

__all__ = ["TrainFlags", "parse_all", "parse_config", "run"]

_NAMES = ("gradweave train", "Train an agent that tunes its own hyper-parameters while it learns.")
FlagsT = TypeVar("FlagsT", bound="TrainFlags")


@dataclass(frozen=True)
class TrainFlags:
    """The flags of `gradweave train`."""

    environment: EnvironmentConfig
    network: NetworkConfig
    inner: InnerConfig
    meta: MetaConfig
    outer: OuterConfig
    run: Annotated[RunConfig, tyro.conf.arg(name="")]
    preset: Annotated[
        tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[PRESET]", help_behavior_hint="(default: quick)")
    ] = None
    """quick, snake, snake-6x6 or discounting-chain."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """A TOML file to read before the flags; what it leaves out comes from the preset."""
    hosts: Annotated[Hosts, tyro.conf.arg(name="")] = ALONE
    seeds: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """Train N seeds, from --seed on, each in a folder of its own, and summarise them."""


def run(argv: Sequence[str]) -> int:
    """Train; returns the exit code."""
    config, flags = parse_all(argv, TrainFlags, *_NAMES)
    hosts = flags.hosts
    check_hosts(hosts)
    if flags.seeds is not None:
        check_seeds(config, flags.seeds, hosts)
        validate(config)
        check_tracker(config.run.track)
        return train_seeds(config, flags.seeds, ["train", *argv])
    trained = train_config(config, ["train", *argv], hosts)
    if trained is not None:  # only process 0 has something to say
        print(trained.summary)
    return 0


def parse_config(argv: Sequence[str]) -> Config:
    """The configuration that a command line asks for, not yet validated.

    Raises:
        ConfigError: an unknown preset, or a file that cannot be read.
        SystemExit: the command line is wrong (2) or asks for help (0).
    """
    return parse_all(argv, TrainFlags, *_NAMES)[0]


def parse_all(
    argv: Sequence[str],
    kind: type[FlagsT],
    prog: str,
    description: str,
    start: Callable[[Config], Config] = lambda config: config,
) -> tuple[Config, FlagsT]:
    """The configuration that a command line asks for, and the flags that are no part of it.

    Args:
        argv: what follows the command's name.
        kind: the flags of the command.
        prog: how the command is called.
        description: of the command.
        start: what becomes of a preset, or of a file, before flags change it.

    Raises:
        ConfigError: as `parse_config`.
        SystemExit: likewise.
    """

    def parse(base: Config) -> FlagsT:
        fields = dataclasses.fields(base)
        default = kind(**{field.name: getattr(base, field.name) for field in fields if field.name != "preset"})
        return parse_flags(kind, prog, description, argv, default)

    first = next((word for word in argv if word in PRESETS), "quick")  # --help shows this one's values
    flags = parse(start(preset(first)))
    if flags.config is None:
        base = preset(flags.preset or "quick")
    else:
        base = read_config(flags.config, flags.preset, follow=True)
    base = start(base)
    name = parse(base).environment.name
    if name != base.environment.name:  # the preset's options, such as the board's size, belong to its environment
        base = dataclasses.replace(base, environment=EnvironmentConfig(name=name))
    return _to_config(parse(base), base.preset), flags


def _to_config(flags: TrainFlags, preset_name: str) -> Config:
    sections = {
        field.name: getattr(flags, field.name) for field in dataclasses.fields(Config) if field.name != "preset"
    }
    return Config(**sections, preset=preset_name)
