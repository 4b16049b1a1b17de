"""`gradweave check-environment NAME`: does an environment keep the contract that training relies on?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from gradweave.cli.environment_flags import merged, take_environment_options
from gradweave.cli.flags import parse_flags
from gradweave.config.checks import check_flags
from gradweave.envs.registry import explain_name
from gradweave.errors import ConfigError

__all__ = ["run"]


@dataclass(frozen=True)
class _Flags:
    """The flags of `gradweave check-environment`."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """Of the environment, as for --environment.name: package.module:Class for one of your own."""
    num_steps: int = 200
    """Steps of random play; more than an episode has, so that ends are checked, too."""


def run(argv: Sequence[str]) -> int:
    """Check and print the findings; returns 1 if the contract is broken."""
    words, given = take_environment_options(argv)
    about = "Check that an environment keeps the contract. Its options: --environment.options.NAME VALUE."
    flags = parse_flags(_Flags, "gradweave check-environment", about, words, needs_words=True)
    wrong = explain_name(flags.name)
    if wrong is not None:
        raise ConfigError("NAME", flags.name, *wrong)
    check_flags(flags, {"num_steps": (1, 2**31 - 1)})
    from gradweave.envs import check_environment
    from gradweave.training.build import named_environment

    report = check_environment(named_environment("NAME", flags.name, merged({}, given)), num_steps=flags.num_steps)
    print(report)
    return 0 if report.ok else 1
