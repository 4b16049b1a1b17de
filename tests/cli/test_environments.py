"""`gradweave environments`: every name with its sizes, every refusal with its reason."""

import pytest

from gradweave.cli.main import main
from gradweave.envs.catalogue import CATALOGUE, REFUSED


def test_everything_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["environments"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines if line}
    assert {*CATALOGUE, *REFUSED} <= set(rows)
    words = " ".join(rows["jumanji:Game2048-v1"].split())
    assert words == "jumanji:Game2048-v1 board 4 x 4 x 1 4 discrete board_size"
    assert "takes 2 continuous vectors" in rows["jumanji:SearchAndRescue-v0"]
    assert "fetches its levels" in rows["jumanji:Sokoban-v0"]
    assert max(map(len, lines)) < 140


def test_it_takes_no_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["environments", "--all"])
    assert "remedy" in capsys.readouterr().err
