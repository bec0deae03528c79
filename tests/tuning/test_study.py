"""The search: what it proposes, what it stops, and that one which goes on gives the trials of an unbroken one."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import optuna_dashboard
import psutil
import pytest

from full_disk import disk_full_at
from hubel.errors import DataError, ModelError
from hubel.tuning.record import Record
from hubel.tuning.space import Choices, Range, Space
from hubel.tuning.study import Search, importances, quiet
from hubel.tuning.trials import State, Trial, best_trial

SPACE: Space = {
    "learning_rate": Range(1e-4, 1e-1, log=True),
    "epochs": Range(2, 9),
    "schedule": Choices(("cosine", "one-cycle")),
}
DEFAULT = {"learning_rate": 1e-3, "epochs": 5, "schedule": "cosine"}
FOLDS, TRIALS = 3, 10
EMPTY: list[Path] = []
FOLDS_KEY = "scores and seconds of the folds"


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    with quiet():
        yield


def score(trial: Trial, fold: int, ask: Any = None) -> tuple[float, float]:
    """Best at a rate of 1e-2; half of the settings with one-cycle cannot be trained in the second fold."""
    settings = trial.settings or DEFAULT
    if fold == 1 and settings["schedule"] == "one-cycle" and settings["epochs"] % 2:
        raise ModelError("the loss is nan in epoch 1: training diverged", "lower the rate")
    return 0.9 - 0.1 * abs(math.log10(settings["learning_rate"]) + 2) + 0.01 * fold, 1.0


@pytest.fixture(scope="module", autouse=True)
def empty(empty_study: Path) -> None:
    EMPTY.append(empty_study)


def search(path: Path, space: Space = SPACE) -> Search:
    if not path.exists():
        shutil.copyfile(EMPTY[-1], path)
    return Search(space, DEFAULT, FOLDS, 7, Record(path))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> list[Trial]:
    with quiet():
        return search(tmp_path_factory.mktemp("search") / "study.db").run(TRIALS, score)


def test_it_begins_with_the_defaults_and_finds_better(unbroken: list[Trial]) -> None:
    assert [trial.number for trial in unbroken] == list(range(TRIALS))
    assert unbroken[0].settings == DEFAULT and unbroken[0].state is State.FINISHED
    assert {trial.state for trial in unbroken} == {State.FINISHED, State.STOPPED, State.FAILED}
    best = best_trial(unbroken)
    assert best is not None and abs(math.log10(best.settings["learning_rate"]) + 2) < 0.5
    assert best.estimate.mean == pytest.approx(max(t.estimate.mean for t in unbroken if t.state is State.FINISHED))


def test_only_the_better_half_goes_on(unbroken: list[Trial]) -> None:
    """Successive halving, recomputed: after 1 and 2 folds a trial must be in the upper half of those so far."""
    for folds in (1, 2):
        reached: list[float] = []
        for trial in unbroken:
            if len(trial.scores) < folds:
                continue
            mean = sum(trial.scores[:folds]) / folds
            reached.append(mean)
            in_upper_half = mean >= sorted(reached, reverse=True)[max(0, len(reached) // 2 - 1)]
            stopped = trial.state is State.STOPPED and len(trial.scores) == folds
            assert stopped == (not in_upper_half and trial.number > 0)


def test_of_more_folds_two_are_trained_before_a_trial_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    shutil.copyfile(EMPTY[-1], path)
    trials = Search(SPACE, DEFAULT, 5, 7, Record(path)).run(6, lambda trial, fold, ask: (score(trial, 0)[0], 1.0))
    assert {len(trial.scores) for trial in trials if trial.state is State.STOPPED} == {2}


def with_early_score(trial: Trial, fold: int, ask: Any) -> tuple[float, float] | None:
    """Early, some settings are better than at the end, by their schedule."""
    final, seconds = score(trial, 0)
    early = final - (0.2 if (trial.settings or DEFAULT)["schedule"] == "one-cycle" else 0.1)
    return None if ask is not None and ask(early, seconds / 3) else (final, seconds)


def test_early_in_the_first_fold_only_the_better_half_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    trials = search(path).run(TRIALS, with_early_score)
    early = [trial.early[0] for trial in trials if trial.early is not None]
    assert len(early) == TRIALS and trials[0].state is State.FINISHED
    stopped = [trial for trial in trials if not trial.scores]
    for number, trial in enumerate(trials[1:], 1):
        better = sorted(early[: number + 1], reverse=True)[max(0, (number + 1) // 2 - 1)]
        assert (early[number] < better) == (trial in stopped)
    assert stopped and all(
        trial.state is State.STOPPED and trial.total_seconds == pytest.approx(1 / 3) for trial in stopped
    )
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{path}")
    assert [trial.intermediate_values[0] for trial in study.trials] == early


@pytest.mark.parametrize("method", ["add_early", "add_score", "end"])
def test_a_search_that_was_killed_knows_what_was_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Killed at the fifth writing of a kind, before it or after it."""
    unbroken = search(tmp_path / "unbroken.db").run(TRIALS, with_early_score)
    for after in (False, True):
        path, count = tmp_path / f"{after}.db", 0
        real = getattr(Record, method)

        def killed(record: Record, trial: Trial, real: Any = real, after: bool = after) -> None:
            nonlocal count
            count += 1
            if count == 5 and not after:
                raise Killed
            real(record, trial)
            if count == 5:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Record, method, killed)
            with pytest.raises(Killed):
                search(path).run(TRIALS, with_early_score)
        assert search(path).run(TRIALS, with_early_score) == unbroken


class Killed(BaseException):
    pass


@pytest.mark.parametrize("killed_after", [6, 12])
def test_a_search_that_was_killed_gives_the_trials_of_an_unbroken_one(
    unbroken: list[Trial], tmp_path: Path, killed_after: int
) -> None:
    trained: list[tuple[int, int]] = []

    def until_killed(trial: Trial, fold: int, ask: Any) -> tuple[float, float]:
        if len(trained) == killed_after:
            raise Killed
        scored = score(trial, fold)
        trained.append((trial.number, fold))
        return scored

    with pytest.raises(Killed):
        search(tmp_path / "study.db").run(TRIALS, until_killed)
    killed_after = -1
    assert search(tmp_path / "study.db").run(TRIALS, until_killed) == unbroken
    assert len(trained) == len(set(trained)) == sum(len(trial.scores) for trial in unbroken), "no fold trained twice"
    assert search(tmp_path / "study.db").run(3, until_killed) == unbroken, "what is recorded stays"


def test_optuna_reads_the_record(unbroken: list[Trial], tmp_path: Path) -> None:
    path = tmp_path / "50% sure?.db"
    search(path).run(TRIALS, score)
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/50%25 sure%3F.db")
    assert [trial.params for trial in study.trials] == [trial.settings for trial in unbroken]
    best = best_trial(unbroken)
    assert best is not None and study.best_value == best.estimate.mean and study.best_trial.number == best.number
    assert study.trials[0].intermediate_values.keys() == {1, 2, 3}


def test_optunas_dashboard_serves_the_record(unbroken: list[Trial], tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    search(path).run(TRIALS, score)
    page = optuna_dashboard.wsgi(optuna.storages.RDBStorage(f"sqlite:///{path}"))

    def answer(url: str) -> Any:
        request: dict[str, Any] = {}
        setup_testing_defaults(request)
        statuses: list[str] = []
        body = page({**request, "PATH_INFO": url}, lambda status, *_: statuses.append(status))
        assert statuses == ["200 OK"]
        return json.loads(b"".join(body))

    (study,) = answer("/api/studies")["study_summaries"]
    assert study["study_name"] == "hubel"
    served = answer(f"/api/studies/{study['study_id']}")["trials"]
    assert [trial["number"] for trial in served] == [trial.number for trial in unbroken]
    states = {State.FINISHED: "Complete", State.STOPPED: "Pruned", State.FAILED: "Fail"}
    assert [trial["state"] for trial in served] == [states[trial.state] for trial in unbroken]
    shown = [trial["values"][0] for trial in served if trial["state"] == "Complete"]
    assert shown == [trial.estimate.mean for trial in unbroken if trial.state is State.FINISHED]


def test_a_record_that_was_used_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with Record(path) as record:
        Search(SPACE, DEFAULT, FOLDS, 7, record).run(2, score)
        assert path in [Path(file.path) for file in psutil.Process().open_files()]
    assert path not in [Path(file.path) for file in psutil.Process().open_files()]


def test_defaults_outside_the_space_are_tried_all_the_same(tmp_path: Path) -> None:
    elsewhere: Space = {**SPACE, "epochs": Range(6, 9)}
    trials = search(tmp_path / "study.db", elsewhere).run(4, score)
    assert trials[0].settings == {} and trials[0].estimate.mean == pytest.approx(0.81)
    assert all(6 <= trial.settings["epochs"] <= 9 for trial in trials[1:])
    assert search(tmp_path / "study.db", elsewhere).run(4, score) == trials


def test_a_refused_fold_ends_the_search_and_is_trained_later(unbroken: list[Trial], tmp_path: Path) -> None:
    trials = search(tmp_path / "study.db").run(TRIALS, score, may_start=lambda trial: trial.number < 3)
    assert [trial.state for trial in trials][3:] == [State.RUNNING] and trials[:3] == unbroken[:3]
    assert search(tmp_path / "study.db").run(TRIALS, score) == unbroken


def test_what_the_defaults_cannot_do_is_an_error(tmp_path: Path) -> None:
    def diverges(trial: Trial, fold: int, ask: Any) -> tuple[float, float]:
        raise ModelError("the loss is nan", "lower the rate")

    with pytest.raises(ModelError, match="the loss is nan"):
        search(tmp_path / "study.db").run(4, diverges)


def test_on_a_full_disk_the_record_stays_whole(
    unbroken: list[Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # Optuna tries again a few times
    path = tmp_path / "study.db"
    search(path).run(2, score)
    full = pytest.raises(DataError, match="study.db cannot be written: .*(full|I/O)")
    with disk_full_at(4096), full as raised:
        search(path).run(TRIALS, score)
    assert "continue with --resume" in raised.value.hint
    assert search(path).run(TRIALS, score) == unbroken


def test_a_damaged_record_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"not a database, but long enough to be read as one" * 100)
    with pytest.raises(DataError, match="study.db is damaged: file is not a database"):
        search(tmp_path / "study.db")


@pytest.mark.parametrize("fault", ["other space", "other folds", "other tool"])
def test_the_record_of_another_search_is_a_sentence(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "study.db"
    if fault == "other tool":
        shutil.copyfile(EMPTY[-1], path)
        optuna.load_study(study_name=None, storage=f"sqlite:///{path}").ask().set_user_attr(FOLDS_KEY, 5)
    else:
        search(path).run(2, score)
    space: Space = {**SPACE, "epochs": Range(6, 9)} if fault == "other space" else SPACE
    folds = 5 if fault == "other folds" else FOLDS
    with pytest.raises(DataError, match="study.db is not the record of this search: "):
        Search(space, DEFAULT, folds, 7, Record(path)).run(4, score)


def test_the_setting_that_decides_is_the_most_important(unbroken: list[Trial], tmp_path: Path) -> None:
    trials = [
        Trial(n, {"learning_rate": 10 ** -(1 + n % 4), "epochs": 2 + n % 3, "schedule": "cosine"}, (0.1 * (n % 4),))
        for n in range(12)
    ]
    finished = [Trial(t.number, t.settings, t.scores, (1.0,), State.FINISHED) for t in trials]
    found = importances(finished, SPACE, seed=0)
    assert max(found, key=found.__getitem__) == "learning_rate" and sum(found.values()) == pytest.approx(1)
    assert importances(finished[:3], SPACE, seed=0) == {}
