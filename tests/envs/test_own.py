"""Environments of the user's by `package.module:Class`: what is made, and what is refused before it is called."""

import sys
from pathlib import Path
from typing import Any

import pytest

from gradweave.envs import Unmasked, make_environment, validate_environment
from gradweave.envs.own import class_reference


@pytest.fixture(autouse=True)
def in_the_users_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(Path.cwd()))])
    monkeypatch.delitem(sys.modules, "corridors", raising=False)


def test_a_class_is_made_with_its_options() -> None:
    environment = make_environment("corridors:Corridor", length=6, slip=1)
    assert type(environment).__module__ == "corridors"
    assert environment.length == 6
    assert type(environment.slip) is float
    assert environment == make_environment("corridors:Corridor", length=6, slip=1.0)
    assert make_environment("corridors:Sized", size=3, wide=True, name="a", cells=4).length == 3
    assert isinstance(make_environment("corridors:Corridor", action_mask=False), Unmasked)


def test_the_users_folder_comes_last() -> None:
    make_environment("corridors:Corridor")
    assert sys.path[-1] == str(Path.cwd())


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("a.b_c:D", ("a.b_c", "D")),
        ("gymnax:Pong", None),
        ("jumanij:Snake-v1", None),
        ("a b:C", None),
        (".a:C", None),
        ("snake", None),
    ],
)
def test_what_is_a_reference(name: str, reference: tuple[str, str] | None) -> None:
    assert class_reference(name) == reference


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("corridors:Corridor", {"lenght": 3}, r"'lenght' \(did you mean 'length'\?\); options are length, slip$"),
        ("corridors:Corridor", {"length": 3.5}, "length = 3.5 does not fit corridors:Corridor: give a whole number"),
        ("corridors:Corridor", {"length": True}, "length = True"),
        ("corridors:Corridor", {"slip": "much"}, "slip = 'much'.*give a number"),
        ("corridors:Sized", {"size": 3, "name": 4}, "name = 4 .*give a word or None"),
        ("corridors:Sized", {}, "needs a value for size"),
        ("corridors:Unfinished", {}, "does not implement all of the contract.*step"),
        ("corridors:NoEnvironment", {}, "AbstractEnvironment is wanted, but .* something else.*Broken, Corridor"),
        ("corridors:Corridr", {}, "Corridr is not there: environments of corridors are Broken, Corridor"),
        ("subprocess:Popen", {"args": "touch was_called"}, "AbstractEnvironment is wanted.*derive a class"),
        (
            "nothing_such.at.all:Corridor",
            {},
            "folder that has nothing_such/at/all.py.*PYTHONPATH",
        ),
        ("json.nope:Corridor", {}, "no module 'json.nope': the package json is at .*json, without nope.py"),
    ],
)
def test_what_cannot_be_made_is_named_with_a_remedy(name: str, options: dict[str, Any], message: str) -> None:
    validate_environment(name, options)  # the module is not looked at
    with pytest.raises(ValueError, match=message):
        make_environment(name, **options)


def test_a_module_that_lacks_another_says_so_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_more.py").write_text("import surely_not_installed\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
        make_environment("needs_more:Corridor")
