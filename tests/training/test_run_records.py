"""Records of what runs measured and decided are read back, and damaged ones are not believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hubel.errors import DataError
from hubel.training.autotune import ExecutionPlan
from hubel.training.data_module import Workers
from hubel.training.run_records import decided_once, measured_once


def test_measurements_are_kept_and_damaged_ones_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path))
    made: list[int] = []

    def measure() -> Workers:
        made.append(len(made))
        return Workers(len(made), "measured")

    assert measured_once("key", Workers, measure) == measured_once("key", Workers, measure) == Workers(1, "measured")
    (path,) = tmp_path.rglob("measurements.json")
    for damaged in ("", "[1]", '{"key": 3}', '{"key": {"count": "x", "reason": []}}', "[" * 100_000):
        path.write_text(damaged)
        assert measured_once("key", Workers, measure).count == len(made)
    assert len(made) == 6


def test_decisions_are_made_once_and_damaged_records_are_named(tmp_path: Path) -> None:
    plan, other = ExecutionPlan("float32", False, "measured"), ExecutionPlan("bfloat16", True, "measured again")
    assert decided_once(tmp_path, "execution", ExecutionPlan, lambda: plan) == plan
    assert decided_once(tmp_path, "execution", ExecutionPlan, lambda: other) == plan
    assert decided_once(tmp_path, "workers", Workers, lambda: Workers(2, "")) == Workers(2, "")
    assert set(json.loads((tmp_path / "decisions.json").read_text())) == {"execution", "workers"}
    for damaged in ("", "[1]", '{"execution": {"precision": "float64", "channels_last": true, "reason": ""}}'):
        (tmp_path / "decisions.json").write_text(damaged)
        with pytest.raises(DataError, match=r"decisions\.json is damaged"):
            decided_once(tmp_path, "execution", ExecutionPlan, lambda: plan)


def test_rows_beside_the_one_needed_may_be_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path))
    deep = "[" * 900 + "]" * 900  # read without limit, but too deep to be written again
    for folder in (tmp_path, tmp_path / "weights"):
        folder.mkdir(exist_ok=True)
    (tmp_path / "weights" / "measurements.json").write_text(
        f'{{"deep": {deep}, "sound": {{"count": 3, "reason": ""}}}}'
    )
    assert measured_once("new", Workers, lambda: Workers(2, "")) == Workers(2, "")
    assert measured_once("sound", Workers, lambda: Workers(0, "")) == Workers(3, "")
    (tmp_path / "decisions.json").write_text(f'{{"deep": {deep}, "execution": null}}')
    with pytest.raises(DataError, match=r"decisions\.json is damaged: 'deep' is not a record"):
        decided_once(tmp_path, "workers", Workers, lambda: Workers(2, ""))
    (tmp_path / "decisions.json").write_text('{"workers": null}')
    assert decided_once(tmp_path, "workers", Workers, lambda: Workers(2, "")) == Workers(2, "")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"count": "x", "reason": ""}, "count: it is not a whole number"),
        ({"count": 1}, "reason: it is missing"),
        ({"count": 1, "reason": "", "speed": 3}, "speed: it is unknown"),
    ],
)
def test_what_is_wrong_with_a_record_is_told_without_the_words_of_a_library(
    row: object, said: str, tmp_path: Path
) -> None:
    (tmp_path / "decisions.json").write_text(json.dumps({"workers": row}))
    with pytest.raises(DataError) as caught:
        decided_once(tmp_path, "workers", Workers, lambda: Workers(1, ""))
    assert caught.value.message.endswith(f"decisions.json is damaged: {said}")
