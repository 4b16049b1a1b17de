"""`gradweave environments`: every name with its sizes, every refusal with its reason."""

from types import SimpleNamespace

import pytest

from gradweave.cli.main import main
from gradweave.envs import suites
from gradweave.envs.catalogue import CATALOGUE, UNTRIED
from gradweave.envs.suites import REFUSED_SUITES


def test_everything_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["environments"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines if line}
    assert {*UNTRIED, *REFUSED_SUITES} <= set(rows)
    assert {name for name in CATALOGUE if not name.startswith("envelope:")} <= set(rows)
    words = " ".join(rows["jumanji:Game2048-v1"].split())
    assert words == "jumanji:Game2048-v1 board 4 x 4 x 1 4 discrete board_size"
    assert any("gymnax:CartPole-v1 499 by PPO in 100,000 steps (5 seeds)" in " ".join(line.split()) for line in lines)
    assert "4 continuous" in rows["jumanji:SearchAndRescue-v0"]
    assert "fetches its levels: not tried by CI" in rows["jumanji:Sokoban-v0"]
    assert max(map(len, lines)) < 160
    cart_pole = lines.index(rows["gymnax:CartPole-v1"])
    words = " ".join(lines[cart_pole : cart_pole + 3]).split()
    assert {"max_steps_in_episode", "gravity", "x_threshold"} <= set(words), "options go on in the lines below"


@pytest.mark.parametrize(
    ("version", "installed", "reason"),
    [
        (
            (3, 11, 4),
            (),
            'needs Python 3.12 or newer, and this is 3.11: with such a Python, pip install "jax-envelope>=',
        ),
        ((3, 12, 1), ("envelope",), "needs brax, which is not installed: pip install"),
        ((3, 12, 1), (), "needs jax-envelope and brax, which are not installed: pip install"),
        ((3, 12, 1), ("envelope", "brax"), None),
    ],
)
def test_what_is_not_installed_is_one_line_and_its_names(
    version: tuple[int, ...],
    installed: tuple[str, ...],
    reason: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(suites, "sys", SimpleNamespace(version_info=version))
    monkeypatch.setattr(suites, "find_spec", lambda name: name if name in ("gymnax", "jumanji", *installed) else None)
    assert main(["environments"]) == 0
    lines = capsys.readouterr().out.splitlines()
    brax = [line for line in lines if line.startswith("envelope:brax/")]
    assert max(map(len, lines)) < 160
    why = [
        index for index, line in enumerate(lines) if line.startswith("    CI does not try these: it has Python 3.11")
    ]
    above = [[line.split("/")[0] for line in lines[:index] if line.startswith("envelope:")][-1] for index in why]
    assert sorted(above) == sorted(name for name in suites.SUITES if name.startswith("envelope:")), "one line a suite"
    assert all(
        lines[index].endswith("All were tried by hand: results/baselines/envelope/contract.csv in the repository")
        for index in why
    )
    if reason is None:
        words = [" ".join(line.split()) for line in brax]
        assert any(
            row.startswith("envelope:brax/ant vector 27 8 continuous max_episode_steps backend") for row in words
        )
        assert len(brax) == 12
    else:
        assert len(brax) == 1 and brax[0].startswith(f"envelope:brax/... (12) {reason}")
        names = lines[lines.index(brax[0]) + 1].split()
        assert len(names) == 12 and {f"envelope:brax/{name}" for name in names} <= set(CATALOGUE)


def test_it_takes_no_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["environments", "--all"])
    assert "remedy" in capsys.readouterr().err
