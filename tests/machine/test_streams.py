"""Standard error that fails is no failure of the program: nothing is raised, and the exit code stays."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gradweave.machine.streams import say

CODE = (
    "import os, sys\n"
    "from gradweave.machine.streams import forgiving, say, standard_error\n"
    "from gradweave.runs.metrics_writer import warn_on_stderr\n"
    "from gradweave.runs.progress import Progress\n"
    "with standard_error():\n"
    "  kept = open(sys.argv[1], 'w')\n"
    "  for index in range(300):\n"
    "    say('x' * 20)\n"
    "    warn_on_stderr('said')\n"
    "    with Progress([], 10, live=index == 0) as progress:\n"
    "      progress.update({'step': 1})\n"
    "    print('said', file=sys.stderr, flush=True)\n"
    "  try:\n    os.write(2, b'by a library')\n  except OSError:\n    pass\n"
    "  sys.stderr.close()\n"
    "  say('more')\n"
    "  kept.write('done')\n"
    "sys.exit(7)\n"
)


@pytest.mark.parametrize("kind", ["full", "closed", "no reader"])
def test_nothing_depends_on_standard_error(kind: str, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    full = os.open("/dev/full", os.O_WRONLY)
    redirection = {"full": f"2>&{full}", "closed": "2>&- <&-", "no reader": f"2>&{write}"}[kind]
    command = ["bash", "-c", f'exec "$@" {redirection}', "bash", sys.executable, "-c", CODE, str(tmp_path / "kept")]
    done = subprocess.run(command, pass_fds=(write, full), timeout=60)
    os.close(write)
    os.close(full)
    assert done.returncode == 7 and (tmp_path / "kept").read_text() == "done"


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&- >&- <&-"])
def test_a_refusal_keeps_its_exit_code(redirection: str) -> None:
    command = ["bash", "-c", f'exec "$@" {redirection}', "bash", sys.executable, "-m", "gradweave", "train", "quikc"]
    assert subprocess.run(command, timeout=60).returncode == 2


def test_control_characters_reach_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[2J\tb\udcff\n\x9bc ä")
    assert capsys.readouterr().err == "a\\x1b[2J\tb\\udcff\n\\x9bc ä\n"
