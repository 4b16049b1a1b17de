"""`gradweave train [PRESET]`: resolve and check the configuration, make the run's folder, hand over to the loop.

Precedence, from weak to strong: the preset, the file given with --config, the flags. JAX is imported after all three
have been found to be good.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from gradweave.api.training import train_config
from gradweave.cli.environment_flags import merged, take_environment_options
from gradweave.cli.flags import parse_flags, wrapped
from gradweave.cli.seeds import check_seeds, train_seeds
from gradweave.cli.short_help import HELP_ALL, with_common_flags
from gradweave.config.auto import lost_auto, with_meta_preset
from gradweave.config.learners import LEARNERS
from gradweave.config.learners.sections import InnerSection, NetworkSection, OuterSection
from gradweave.config.presets import DEFAULT_PRESET, PRESETS, preset
from gradweave.config.schema import DEFAULT_LEARNER, Config, EnvironmentConfig, MetaConfig, RunConfig
from gradweave.config.toml_file import read_config
from gradweave.config.validation import validate
from gradweave.machine.streams import say
from gradweave.runs.trackers import check_tracker
from gradweave.training.hosts import ALONE, Hosts, check_hosts

__all__ = ["TrainFlags", "parse_all", "parse_config", "run"]

_NAMES = ("gradweave train", "Train an agent that tunes its own hyper-parameters while it learns.")
FlagsT = TypeVar("FlagsT", bound="TrainFlags")


@dataclass(frozen=True)
class TrainFlags:
    """The flags of `gradweave train`."""

    environment: EnvironmentConfig
    network: NetworkSection
    inner: InnerSection
    meta: MetaConfig
    outer: OuterSection
    run: Annotated[RunConfig, tyro.conf.arg(name="")]
    learner: str = DEFAULT_LEARNER
    """The learner; its options are those under network, inner and outer."""
    preset: Annotated[
        tyro.conf.Positional[str | None],
        tyro.conf.arg(metavar="[PRESET]", help_behavior_hint=f"(default: {DEFAULT_PRESET})"),
    ] = None
    """auto, quick, snake, snake-6x6, discounting-chain, ppo or vtrace."""
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
    if note := lost_auto(config, _given(argv, "--meta.preset")):
        say(note)
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
        argv: the words after the command's name.
        kind: the flags of the command.
        prog: name of the command.
        description: of the command.
        start: changes a preset, or a file, before flags do.

    Raises:
        ConfigError: as `parse_config`.
        SystemExit: likewise.
    """
    argv, options = take_environment_options(argv)
    learner, meta_preset = _given(argv, "--learner"), _given(argv, "--meta.preset")

    def begin(base: Config) -> Config:
        chosen = base.learner if learner is None else learner
        new = start(base.with_learner(chosen))
        return with_meta_preset(new, meta_preset, new_learner=chosen != base.learner)

    def parse(base: Config) -> FlagsT:
        fields = dataclasses.fields(base)
        default = kind(**{field.name: getattr(base, field.name) for field in fields if field.name != "preset"})
        if kind is TrainFlags and {"-h", "--help"} & set(argv):
            common = with_common_flags(default)
            more = f"{description} Of all its flags these are used most; {HELP_ALL} lists the others."
            # This ends the process.
            tyro.cli(type(common), prog=prog, description=wrapped(more), args=["--help"], default=common)
        words = ["--help" if word == HELP_ALL else word for word in argv]
        return parse_flags(kind, prog, description, words, default)

    def read(name: str | None) -> Config:
        if file is None:
            return begin(preset(name or DEFAULT_PRESET))
        return begin(read_config(Path(file), name, follow=True, learner=learner, meta_preset=meta_preset))

    file = _given(argv, "--config")
    guess = _named_preset(argv)
    flags = parse(base := read(guess))  # --help shows the values of this one
    if flags.preset != guess:
        flags = parse(base := read(flags.preset))
    name = flags.environment.name
    if name != base.environment.name:  # the preset's options, such as the board's size, belong to its environment
        base = dataclasses.replace(base, environment=EnvironmentConfig(name=name))
    environment = EnvironmentConfig(name, merged(base.environment.options, options))
    return _to_config(parse(dataclasses.replace(base, environment=environment)), base.preset), flags


def _named_preset(argv: Sequence[str]) -> str | None:
    """The first word that names a preset and is not the value of a flag."""
    switches = _switches()
    for before, word in zip(["", *argv], argv, strict=False):
        alone = "=" in before or not before.startswith("--") or before.replace("_", "-") in switches
        if word in PRESETS and alone:
            return word
    return None


def _switches() -> frozenset[str]:
    """Flags that take no value."""
    kinds = {"run": RunConfig, "meta": MetaConfig}
    fields = [(name, field) for name, kind in kinds.items() for field in dataclasses.fields(kind)]
    for row in LEARNERS.values():
        fields += [
            (name, field)
            for name, kind in (("inner", row.inner), ("network", row.network), ("outer", row.outer))
            for field in dataclasses.fields(kind)
        ]
    names = [(section, field.name) for section, field in fields if field.type in (bool, "bool")]
    spelt = [("" if section == "run" else f"{section}.", name.replace("_", "-")) for section, name in names]
    return frozenset({"--help", HELP_ALL} | {f"--{section}{no}{name}" for section, name in spelt for no in ("", "no-")})


def _given(argv: Sequence[str], flag: str) -> str | None:
    """The text given to a flag, before anything is parsed: it decides which flags there are."""
    for word, following in itertools.zip_longest(argv, argv[1:]):
        name, equals, text = word.partition("=")
        if name == flag:
            return text if equals else following
    return None


def _to_config(flags: TrainFlags, preset_name: str) -> Config:
    sections = {
        field.name: getattr(flags, field.name) for field in dataclasses.fields(Config) if field.name != "preset"
    }
    return Config(**sections, preset=preset_name)
