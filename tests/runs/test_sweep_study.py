"""The trials of a sweep: which are drawn, that no two workers train one, and that none is lost with a worker."""

import dataclasses
import itertools
import math
import os
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from gradweave.config.grid import Setting
from gradweave.config.presets import preset
from gradweave.config.sweep_space import Space, Span
from gradweave.errors import ConfigError, DamagedFile
from gradweave.runs import sweep_study
from gradweave.runs.locks import lock_folder
from gradweave.runs.run_folder import RunFolder
from gradweave.runs.seeds_folder import SeedsFolder
from gradweave.runs.sweep_folder import SweepPlan, join_sweep, read_plan
from gradweave.runs.sweep_study import Claim, SweepStudy, begin_journal

GRID: Space = {"inner.discount": ("0.5", "0.9"), "inner.optimizer": ("adam", "sgd", "rmsprop")}
RANGES: Space = {
    "inner.learning-rate": Span(1e-5, 0.1, "log", whole=False),
    "inner.discount": Span(0.8, 0.999, "distance-to-1", whole=False),
}


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets go of every trial that a test claims; a disk need not have written what ends with the test."""
    opened: list[BinaryIO] = []

    def noted(path: Path) -> BinaryIO:
        opened.append(lock_folder(path))
        return opened[-1]

    monkeypatch.setattr("gradweave.runs.sweep_study.lock_folder", noted)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    yield
    for lock in opened:
        lock.close()


def plan_in(tmp_path: Path, space: Space = GRID, trials: int = 6, seed: int = 0, **changes: Any) -> SweepPlan:
    config = preset("quick")
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, seed=seed, runs_dir=str(tmp_path)))
    plan = SweepPlan(config, space, "grid", trials, 1, "none")
    return dataclasses.replace(plan, **changes)


def study_in(tmp_path: Path, *args: Any, **changes: Any) -> SweepStudy:
    """Of a new sweep."""
    plan = plan_in(tmp_path, *args, **changes)
    return SweepStudy(join_sweep(plan, None, begin_journal), plan)


def claimed(study: SweepStudy) -> Claim:
    claim = study.claim()
    assert claim is not None
    return claim


def search(study: SweepStudy, score: Callable[[Setting], float]) -> list[Setting]:
    """The settings that one worker tries, one after another."""
    while (claim := study.claim()) is not None:
        study.tell(claim, "finished", score(claim.setting))
        claim.close()
    return [record.setting for record in study.records()]


def hidden(setting: Setting) -> float:
    """Best at a learning rate of 1e-3 and a discount of 0.98."""
    rate = math.log10(float(setting["inner.learning-rate"])) + 3
    distance = math.log10(1 - float(setting["inner.discount"])) - math.log10(0.02)
    return -(rate**2) - distance**2


def test_a_grid_has_every_combination_once_whoever_takes_it(tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    path = join_sweep(plan, "mine", begin_journal)
    workers = itertools.cycle([SweepStudy(path, plan), SweepStudy(path, plan)])
    claims = []
    while (claim := next(workers).claim()) is not None:
        claims.append(claim)
    settings = [tuple(claim.setting[field] for field in GRID) for claim in claims]
    assert sorted(settings) == sorted(itertools.product(*GRID.values()))
    assert [claim.number for claim in claims] == list(range(6))


@pytest.mark.parametrize("sampling", ["random", "tpe"])
def test_draws_follow_the_seed(tmp_path: Path, sampling: str) -> None:
    first, again, other = (
        search(study_in(tmp_path, RANGES, 14, seed, sampling=sampling), hidden) for seed in (0, 0, 1)
    )
    assert first == again
    assert len({tuple(setting.values()) for setting in first + other}) == 28


def test_random_draws_are_the_same_however_many_workers_make_them(tmp_path: Path) -> None:
    alone = search(study_in(tmp_path, RANGES, 8, sampling="random"), hidden)
    plan = plan_in(tmp_path, RANGES, 8, sampling="random")
    path = join_sweep(plan, None, begin_journal)
    claims = [claimed(SweepStudy(path, plan)) for _ in range(8)]
    assert [claim.setting for claim in claims] == alone


def test_random_draws_are_spread_over_their_scale(tmp_path: Path) -> None:
    space = {**RANGES, "inner.num-steps": Span(4.0, 32.0, "log", whole=True)}
    found = search(study_in(tmp_path, space, 40, sampling="random"), lambda setting: 0.0)
    rates = sorted(float(setting["inner.learning-rate"]) for setting in found)
    distances = sorted(1 - float(setting["inner.discount"]) for setting in found)
    assert rates[0] >= 1e-5 and rates[-1] <= 0.1
    assert distances[0] >= 0.001 - 1e-9 and distances[-1] <= 0.2 + 1e-9
    # the middle of a sample lies by the middle of its range; three standard errors are 0.7 and 0.4 decades
    assert math.log10(statistics.median(rates)) == pytest.approx(-3, abs=1.0)
    assert math.log10(statistics.median(distances)) == pytest.approx(math.log10(0.2 * 0.001) / 2, abs=0.6)
    assert {int(setting["inner.num-steps"]) for setting in found} <= set(range(4, 33))


def test_tpe_draws_where_it_has_found_something(tmp_path: Path) -> None:
    scores = {}
    for sampling in ("random", "tpe"):
        found = search(study_in(tmp_path, RANGES, 24, sampling=sampling), hidden)
        scores[sampling] = list(map(hidden, found))
    assert scores["tpe"][:10] == scores["random"][:10]  # the first ten are drawn at random
    assert max(scores["tpe"]) > statistics.median(scores["random"])
    assert statistics.median(scores["tpe"][10:]) > 0.3 * statistics.median(scores["random"][10:])  # both are negative


def test_no_setting_is_tried_twice_and_a_space_may_be_exhausted(tmp_path: Path) -> None:
    study = study_in(tmp_path, {"inner.num-steps": Span(4.0, 6.0, "even", whole=True)}, 5, sampling="random")
    found = search(study, lambda setting: 1.0)
    assert sorted(setting["inner.num-steps"] for setting in found) == ["4", "5", "6"]
    assert study.ended


@pytest.mark.parametrize("sampling", ["tpe", "random"])
def test_all_of_a_few_choices_are_tried_where_a_sampler_asks_for_known_ones_on(tmp_path: Path, sampling: str) -> None:
    values = tuple(f"0.{digit}" for digit in range(1, 7))
    space = {"inner.discount": values, "inner.lambda": values[:3]}
    found = search(study_in(tmp_path, space, 18, sampling=sampling), lambda setting: float(setting["inner.discount"]))
    assert len({tuple(setting.items()) for setting in found}) == 18
    assert found != search(study_in(tmp_path, space, 18, 1, sampling=sampling), lambda setting: 0.0)


def test_a_setting_that_a_killed_worker_has_only_put_on_the_list_is_tried(tmp_path: Path) -> None:
    study = study_in(tmp_path, {"inner.discount": ("0.1", "0.2")}, 2, sampling="tpe")
    waiting = study._untried(0)
    study._study.enqueue_trial(waiting)
    assert not study.ended
    assert search(study, lambda setting: 0.0)[0] == waiting
    assert len(study.records()) == 2 and study.ended


def test_a_line_that_a_killed_worker_has_not_ended_is_cut_off(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    first = claimed(study)
    study.tell(first, "finished", 1.0)
    journal = study.path / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole.splitlines()[-1][:20])
    again = SweepStudy(study.path, study.plan)
    assert [record.outcome for record in again.records()] == ["finished"]
    assert journal.read_bytes() != whole  # who only looks changes nothing
    second = claimed(again)
    assert second.name != first.name
    assert journal.read_bytes().startswith(whole)
    assert [record.name for record in SweepStudy(study.path, study.plan).records()] == [first.name, second.name]


def test_a_trial_of_a_worker_that_is_gone_is_gone_on_with(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    lost, kept = claimed(study), claimed(study)
    lost.note_diverged(0)
    other = SweepStudy(study.path, study.plan)
    assert claimed(other).number == 2  # both belong to the first
    lost.close()  # as the system does when a process is killed
    found = claimed(other)
    assert (found.number, found.setting, found.diverged) == (lost.number, lost.setting, [0])
    assert kept.number not in {found.number, 2}


def test_a_trial_that_ends_while_another_worker_asks_is_not_claimed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_in(tmp_path)
    first, lock = claimed(study), sweep_study.lock_folder

    def ends_before(folder: Path) -> BinaryIO:
        if folder == first.folder and not first.lock.closed:
            study.tell(first, "finished", 1.0)
            first.close()
        return lock(folder)

    monkeypatch.setattr(sweep_study, "lock_folder", ends_before)
    assert claimed(SweepStudy(study.path, study.plan)).number == 1
    assert first.lock.closed


def test_while_the_runs_of_a_lost_worker_write_their_last_checkpoints_the_trial_waits(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    lost = claimed(study)
    config = dataclasses.replace(study.plan.base.run, runs_dir=str(study.path))
    base = dataclasses.replace(study.plan.base, run=config)
    SeedsFolder.create(base, 1, (), lost.name, lost.lock)
    lost.close()
    with RunFolder.open(lost.folder / "seed-0"):
        assert claimed(study).number == 1
    assert claimed(study).number == lost.number


@pytest.mark.parametrize("sampling", ["grid", "random", "tpe"])
def test_a_worker_that_is_killed_while_it_draws_loses_nothing(
    tmp_path: Path, sampling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    space: Space = GRID if sampling == "grid" else RANGES
    whole = search(study_in(tmp_path, space, 6, sampling=sampling), lambda setting: 1.0)
    study = study_in(tmp_path, space, 6, sampling=sampling)
    suggest, drawn = SweepStudy._suggest, []

    def killed(self: SweepStudy, trial: Any, field: str) -> str:
        if drawn:
            raise KeyboardInterrupt
        drawn.append(field)
        return suggest(self, trial, field)

    with monkeypatch.context() as patch:
        patch.setattr(SweepStudy, "_suggest", killed)
        with pytest.raises(KeyboardInterrupt):
            study.claim()
    assert study.records() == []
    assert not study.ended
    found = search(SweepStudy(study.path, study.plan), lambda setting: 1.0)
    first = next(iter(space))
    assert [setting[first] for setting in found] == [setting[first] for setting in whole]
    assert found[1:] == whole[1:]
    assert sampling != "grid" or found == whole


def test_what_went_wrong_is_remembered(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    for outcome in ("finished", "pruned", "diverged", "unscored", "refused"):
        claim = claimed(study)
        if outcome == "diverged":
            claim.note_diverged(0)
        study.tell(claim, outcome, 1.5 if outcome == "finished" else None)  # type: ignore[arg-type]
    records = SweepStudy(study.path, study.plan).records()
    assert [record.outcome for record in records] == ["finished", "pruned", "diverged", "unscored", "refused"]
    assert [record.diverged for record in records] == [(), (), (0,), (), ()]
    assert not study.ended
    search(study, lambda setting: 0.0)
    assert study.ended


@pytest.mark.parametrize(("pruning", "expected"), [("none", []), ("median", [4]), ("halving", [1, 2, 3, 4])])
def test_what_is_worse_than_the_others_is_given_up(tmp_path: Path, pruning: str, expected: list[int]) -> None:
    """Trials reach 10, 9, 8, 7 and 1 after every stretch; the median waits for four that are finished."""
    study = study_in(tmp_path, pruning=pruning)
    given_up = []
    for level in (10.0, 9.0, 8.0, 7.0, 1.0):
        claim = claimed(study)
        assert claim.reports == 0
        if any(claim.report(stretch, level) for stretch in range(1, 4)):
            given_up.append(claim.number)
            study.tell(claim, "pruned")
        else:
            assert claim.reports == 3
            study.tell(claim, "finished", level)
        claim.close()
    assert given_up == expected


def test_a_worker_joins_only_the_sweep_that_it_means(tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    path = join_sweep(plan, "mine", begin_journal)
    assert read_plan(path) == plan
    assert join_sweep(plan, "mine", lambda new: pytest.fail("there is one already")) == path
    with pytest.raises(ConfigError, match="differs in space, trials"):
        join_sweep(plan_in(tmp_path, RANGES, 7), "mine", begin_journal)
    with pytest.raises(ConfigError, match="differs in run"):
        join_sweep(plan_in(tmp_path, seed=1), "mine", begin_journal)
    (tmp_path / "run").mkdir()
    with pytest.raises(ConfigError, match="the name of a sweep"):
        join_sweep(plan, "run", begin_journal)


def test_of_workers_that_start_at_once_one_makes_the_folder(tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    first: list[Path] = []

    def late(new: Path) -> None:
        first.append(join_sweep(plan, "mine", begin_journal))
        claimed(SweepStudy(first[0], plan))
        begin_journal(new)

    path = join_sweep(plan, "mine", late)
    assert first == [path]
    assert [record.number for record in SweepStudy(path, plan).records()] == [0]
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    "content", [None, "", "x\n", "[]\n", '{"op_code": 0}\n', '{"op_code": 77, "worker_id": "a"}\n']
)
def test_a_damaged_journal_is_named(tmp_path: Path, content: str | None) -> None:
    study = study_in(tmp_path)
    journal = study.path / "journal.jsonl"
    journal.unlink()
    if content is not None:
        journal.write_text(content)
    with pytest.raises(DamagedFile, match=r"journal\.jsonl"):
        SweepStudy(study.path, study.plan).records()


def test_a_journal_that_is_too_large_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_in(tmp_path)
    os.truncate(study.path / "journal.jsonl", 2**40)  # a hole, which takes no space
    monkeypatch.setattr(sweep_study, "_storage", lambda file: pytest.fail("Optuna reads a file without a bound"))
    with pytest.raises(DamagedFile, match=r"journal\.jsonl.* at most [\d,]+ are read"):
        SweepStudy(study.path, study.plan)


def test_a_journal_of_other_settings_is_named(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    claimed(study)
    other = dataclasses.replace(study.plan, space={**GRID, "inner.discount": ("0.1", "0.2")})
    with pytest.raises(DamagedFile, match="another inner"):
        SweepStudy(study.path, other).records()


def test_the_folder_of_a_setting_is_a_real_one(tmp_path: Path) -> None:
    study = study_in(tmp_path, {"inner.discount": ("0.5",)}, 1)
    (study.path / "discount0.5").symlink_to(tmp_path)
    with pytest.raises(DamagedFile, match="symbolic link"):
        study.claim()
