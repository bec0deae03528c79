"""The records in a job's folder are checked: whoever changed them gets a sentence, not a crash or wrong totals."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet as parquet
import pytest

from hubel.batch_predict.records import read_finished, read_manifest
from hubel.batch_predict.shards import Shards, Written
from hubel.errors import DataError

CHOSEN = {"engine": "torch", "precision": "fp32"}


@pytest.mark.parametrize(
    "content",
    ["", "[]", "3", "[" * 100_000, '{"chosen": []}', json.dumps({"top": 5, "chosen": CHOSEN | {"engine": ["torch"]}})],
)
def test_a_damaged_manifest_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(content)
    with pytest.raises(DataError, match=r"job\.json is damaged"):
        read_manifest(tmp_path, {"top": 5})


def test_other_settings_are_named_shortly(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps({"top": "9" * 5000, "chosen": CHOSEN}))
    with pytest.raises(DataError, match=r"--top was 9{60}, is 5\n"):
        read_manifest(tmp_path, {"top": 5})
    (tmp_path / "job.json").write_text(json.dumps({"top": 5, "chosen": CHOSEN}))
    assert read_manifest(tmp_path, {"top": 5}) == CHOSEN


def test_lines_that_are_not_records_are_passed_over(tmp_path: Path) -> None:
    rows = [{"block": 0, "rows": 7, "errors": 1}, {"block": 1, "rows": "7", "errors": 0}, {"block": [], "rows": 7}]
    rows += [{"block": 2, "rows": 3, "errors": 4}, {"block": 3, "rows": float("inf"), "errors": 0}]
    lines = [*map(json.dumps, rows), "[" * 5000, "7", '{"block": 4, "rows": 7, "err']
    (tmp_path / "finished.jsonl").write_text("\n".join(lines))
    assert read_finished(tmp_path / "finished.jsonl") == {0: Written(7, 1)}
    assert read_finished(tmp_path / "none.jsonl") == {}


def test_objects_keep_their_masks_in_parquet(tmp_path: Path) -> None:
    """A key that the columns lack would be left out without a word."""
    scored = {"index": 0, "name": "bottle", "score": 0.98, "box": [20.1, 30.4, 81.0, 200.7]}
    objects = [{**scored, "mask": {"size": [480, 640], "counts": "PZ62l>4L3M"}}]
    Shards(tmp_path, "parquet").write(0, [{"source": "a", "objects": objects}, {"source": "b", "objects": [scored]}])
    written = parquet.read_table(tmp_path / "part-000000.parquet").to_pylist()
    assert [row["objects"] for row in written] == [objects, [{**scored, "mask": None}]]


def test_shards_are_counted_or_named(tmp_path: Path) -> None:
    path = tmp_path / "part-000000.jsonl"
    path.write_text('{"source": "error"}\n{"error": "torn"}\n')
    assert Shards(tmp_path, "jsonl").count(0) == Written(2, 1)
    parquet.write_table(pyarrow.table({"error": ["torn", None, None]}), tmp_path / "part-000000.parquet")
    assert Shards(tmp_path, "parquet").count(0) == Written(3, 1)
    for content in ('{"source"', '["error"]', "3", "[" * 100_000):
        path.write_text(content)
        with pytest.raises(DataError, match=r"part-000000\.jsonl is damaged"):
            Shards(tmp_path, "jsonl").count(0)
    (tmp_path / "part-000000.parquet").write_bytes(b"PAR1" * 9)
    with pytest.raises(DataError, match=r"part-000000\.parquet is damaged"):
        Shards(tmp_path, "parquet").count(0)
