"""The command `gradweave`: finds the sub-command, runs it, and turns its errors into exit codes.

0 done, 2 bad configuration or command line, or a damaged file, 3 no usable checkpoint, 4 a non-finite value, 5 out of
memory, 6 the run folder is in use, 7 another process of the run is gone, 8 a file cannot be written or read, 130
interrupted, 143 stopped by SIGTERM after a checkpoint. JAX is not imported here.
"""

import atexit
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

from gradweave.errors import ConfigError, FolderLost, GradweaveError, OutOfMemory, nearest_name
from gradweave.machine.signals import exit_code_decided, ignore_signals, leaving_at_once
from gradweave.machine.streams import say, standard_error
from gradweave.training.hosts import end

__all__ = ["COMMANDS", "answering", "main"]

COMMANDS: Final = {
    "train": "train an agent that tunes its own hyper-parameters",
    "resume": "go on with a run from its newest checkpoint",
    "watch": "show the table of a run that another process trains",
    "measure": "measure how good the meta-gradient of a trained agent is, by estimator",
    "play": "let a trained agent play an episode and write it as a GIF",
    "sweep": "train any learner, untuned, with many settings of its hyper-parameters, for comparison",
    "compare": "compare self-tuning with searches and population-based training, at equal environment steps",
    "report": "draw the figures of one or more runs and write report.html",
    "environments": "list the environments, and why some are not available",
    "check-environment": "check that an environment keeps the contract, for instance one of your own",
    "doctor": "check that everything a run needs works on this machine",
}
"""Every sub-command with its help; each is a module of this package with a function `run(argv) -> int`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command.

    Args:
        argv: the command line after `gradweave`; that of the process by default.

    Returns:
        the exit code.
    """
    with standard_error(), leaving_at_once():
        if argv is not None:
            return answering(lambda: _dispatch(list(argv)))
        atexit.register(ignore_signals)  # the first to be registered is the last to be called
        code = answering(lambda: _dispatch(sys.argv[1:]))
        exit_code_decided(code)
        return code


def answering(command: Callable[[], int]) -> int:
    """Run a command and map failures, which are reported on standard error, to exit codes."""
    try:
        return command()
    except GradweaveError as error:
        found = [error.own, *map(str, error.others)] if isinstance(error, ConfigError) else [error]
        for one in found:
            say(f"gradweave: {one}")
        return end(error.exit_code)
    except MemoryError:
        say("gradweave: this machine is out of memory; lower --inner.num-envs or close something")
        return OutOfMemory.exit_code
    except KeyboardInterrupt as error:
        say("gradweave: interrupted" + (f"; {error}" if str(error) else ""))
        return 130
    except BrokenPipeError:  # the reader of a pipe went away, as in `gradweave doctor | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        say(f"gradweave: the system refuses{place}: {error.strerror or error}")
        return end(FolderLost.exit_code)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"gradweave {version('gradweave')}")
        return 0
    command = arguments[0]
    if command not in COMMANDS:
        near = nearest_name(command, COMMANDS)
        remedy = f"did you mean `gradweave {near}`?" if near else "see `gradweave --help`"
        raise ConfigError("command", command, ", ".join(COMMANDS), remedy)
    module = importlib.import_module(f"gradweave.cli.{command.replace('-', '_')}")
    code: int = module.run(arguments[1:])
    return code


def _help() -> str:
    lines = ["usage: gradweave COMMAND [options]", "", "Agents that tune their own hyper-parameters by meta-gradients."]
    lines += ["", "commands:", *(f"  {name:<19}{text}" for name, text in COMMANDS.items())]
    lines += ["", "`gradweave COMMAND --help` explains a command; `gradweave --version` says which version this is."]
    return "\n".join(lines)
