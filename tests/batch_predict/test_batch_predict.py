"""``hubel predict --ray`` on a Ray of this machine: the rows of plain ``predict``, no block computed twice."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as parquet
import pytest
import torch

from drawn_shapes import write_shapes
from hubel.batch_predict.job import CollectionJob
from hubel.batch_predict.ray_cluster import ActorPool, plan_actors, ray_running
from hubel.batch_predict.shards import Block, Shards, names_of, write_listing
from hubel.cli.main import main
from hubel.data.sources import expand
from hubel.errors import DataError, UsageError
from hubel.models import create_model, describe, save_model

BLOCK = 7


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25 images and one empty file among the first: four blocks of seven, the last with five."""
    folder = write_shapes(tmp_path_factory.mktemp("images"), {"cross": 13, "disc": 12})
    (folder / "cross" / "0-torn.png").touch()
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with random weights: its predictions differ from image to image."""
    torch.manual_seed(3)
    network = create_model("simple_cnn", num_classes=3)
    folder = tmp_path_factory.mktemp("runs") / "small"
    save_model(folder / "best", network.eval(), describe(network))
    return folder


@pytest.fixture(scope="module")
def local_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One Ray for all; its workers have the tests' own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUBEL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        with ray_running() as ray:
            yield ray


def job(images: Path, out: Path, model: Path, kind: str = "jsonl", **more: Any) -> CollectionJob:
    return CollectionJob([str(images)], out, {"model": str(model), "precision": "fp32", "top": 2}, kind, BLOCK, **more)


def plain_rows(images: Path, model: Path) -> list[dict[str, Any]]:
    """In a process of its own: to this one's standard output Ray writes as well."""
    options = ["--model", str(model), "--precision", "fp32", "--top", "2", "--json"]
    command = [sys.executable, "-m", "hubel", "predict", str(images), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr  # for the torn image
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_same_rows(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    """Equal, but for the rounding that another size of a batch may bring: a digit of the six that are written."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        scores = [[each.pop("score") for each in row.get("classes", [])] for row in (one, other)]
        assert scores[0] == pytest.approx(scores[1], abs=2e-6)
        assert one == other


def without_nulls(value: Any) -> Any:
    """What JSON leaves out is null in Parquet, also within lists."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def test_rows_are_those_of_plain_predict_though_a_worker_is_killed(
    local_ray: Any, images: Path, model: Path, tmp_path: Path
) -> None:
    expected = plain_rows(images, model)
    killed: list[int] = []

    def kill(message: str, hint: str) -> None:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # workers come and go
                if "BlockPredictor" in " ".join(process.cmdline()):
                    process.kill()
                    killed.append(process.pid)

    out = tmp_path / "rows"
    result = job(images, out, model, report=kill).run()
    assert (result.blocks, result.computed, result.rows, result.errors) == (4, 4, 26, 1)
    assert killed
    lines = [line for part in sorted(out.glob("part-*.jsonl")) for line in part.read_text().splitlines()]
    assert_same_rows([json.loads(line) for line in lines], expected)
    assert not list(out.glob(".part-*"))

    # Again, there is nothing to do, and another job is refused before anything starts.
    assert job(images, out, model).run().computed == 0
    with pytest.raises(DataError, match="--top was 2, is 5"):
        CollectionJob([str(images)], out, {"model": str(model), "precision": "fp32"}, "jsonl", BLOCK).run()
    with pytest.raises(DataError, match="number of sources was 26, is 12"):
        job(images / "disc", out, model).run()


def test_interrupted_it_goes_on_with_what_is_missing(local_ray: Any, images: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows"

    def interrupt(message: str, hint: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job(images, out, model, "parquet", report=interrupt).run()
    (out / "part-000000.parquet").unlink()
    (out / ".part-000003.parquet.left").touch()  # by a worker that was killed while it wrote
    there = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    result = job(images, out, model, "parquet").run()
    assert result.computed == 4 - len(there) >= 1
    assert {name: (out / name).stat().st_mtime_ns for name in there} == there
    tables = [parquet.read_table(part).to_pylist() for part in sorted(out.glob("part-*.parquet"))]
    assert [len(table) for table in tables] == [7, 7, 7, 5]
    rows = without_nulls([row for table in tables for row in table])
    assert_same_rows(rows, plain_rows(images, model))
    assert sorted(path.name for path in out.glob(".part*")) == []


def is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def test_the_local_ray_listens_to_nobody_else_and_reports_to_nobody(local_ray: Any) -> None:
    from ray._common.usage.usage_lib import usage_stats_enabled

    assert not usage_stats_enabled()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    listening = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # workers come and go
            found = [each for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN]
            listening += [(process.name(), connection.laddr) for connection in found]
    assert listening  # else this looks at the wrong processes
    assert [each for each in listening if not is_loopback(each[1].ip)] == []


def test_a_listing_names_what_predict_would_open(tmp_path: Path) -> None:
    folder = write_shapes(tmp_path / "in", {"cross": 3})
    odd = [folder / "line\nbreak.png", Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")), folder / "[1].png"]
    for path in odd:
        path.touch()
    (tmp_path / "more.txt").write_text(f"# more\nin/cross/1.png\n\n{folder}/*/2.png\r\nnot-there.jpg\n")
    (tmp_path / "empty").mkdir()
    sources = [str(folder), str(tmp_path / "more.txt"), str(tmp_path / "empty"), f"{tmp_path}/no*.png"]
    listing = write_listing(tmp_path / "sources.jsonl", sources, 4)
    names = [name for block in listing.blocks for name in names_of(tmp_path / "sources.jsonl", block)]
    given = [str(folder), f"{folder}/cross/1.png", f"{folder}/*/2.png", "not-there.jpg", *sources[2:]]
    assert names == [image.source for image in expand(given)] == [image.source for image in expand(names)]
    assert [block.names for block in listing.blocks] == [4, 4, 3] and listing.names == 11
    reversed_listing = write_listing(tmp_path / "other.jsonl", list(reversed(sources)), 4)
    assert listing.digest != reversed_listing.digest
    with pytest.raises(UsageError, match="webcam"):
        write_listing(tmp_path / "other.jsonl", ["7"], 4)
    with pytest.raises(DataError, match="nowhere.txt cannot be read"):
        write_listing(tmp_path / "other.jsonl", ["nowhere.txt"], 4)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_shard_is_counted_as_it_was_written(kind: str, tmp_path: Path) -> None:
    rows = [{"source": "a.jpg", "width": 4}, {"source": "b.jpg", "error": "b.jpg is empty."}, {"source": "c.jpg"}]
    shards = Shards(tmp_path, kind)
    assert not shards.is_there(5)
    assert shards.write(5, iter(rows)) == shards.count(5)
    assert (shards.count(5).rows, shards.count(5).errors) == (3, 1)

    def broken() -> Iterator[dict[str, Any]]:
        yield rows[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shards.write(6, broken())
    assert not shards.is_there(6) and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_shard_has_the_results_of_every_task(kind: str, tmp_path: Path) -> None:
    best = {"index": 1, "name": "disc"}
    rows: list[dict[str, Any]] = [
        {"source": "a.jpg", "task": "classify", "classes": [{**best, "score": 0.75}]},
        {"source": "b.jpg", "task": "segment", "classes": [{**best, "share": 0.5}]},
        {"source": "c.jpg", "task": "detect", "objects": [{**best, "score": 0.25, "box": [1.0, 2.0, 3.5, 4.0]}]},
    ]
    shards = Shards(tmp_path, kind)
    shards.write(0, iter(rows))
    path = shards.path(0)
    written = parquet.read_table(path).to_pylist() if kind == "parquet" else map(json.loads, path.open())
    assert without_nulls(list(written)) == rows


class Machines:
    """Stands for a cluster."""

    def __init__(self, *resources: dict[str, float]) -> None:
        self._resources = resources

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": each} for each in self._resources] + [{"Alive": False, "Resources": {}}]


def test_a_crew_fills_the_processors_and_takes_the_gpus() -> None:
    assert plan_actors(Machines({"CPU": 2.0}), True, None, 100) == ActorPool(1, 2, False)
    assert plan_actors(Machines({"CPU": 64.0}, {"CPU": 16.0}), True, None, 100) == ActorPool(10, 8, False)
    assert plan_actors(Machines({"CPU": 64.0}), True, 4, 100) == ActorPool(16, 4, False)
    assert plan_actors(Machines({"CPU": 64.0}), True, None, 3) == ActorPool(3, 8, False)
    gpus = Machines({"CPU": 64.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 2.0}, {"CPU": 4.0})
    assert plan_actors(gpus, True, None, 100) == ActorPool(6, 4, True)
    assert plan_actors(gpus, False, None, 100) == ActorPool(19, 4, False)


def test_options_that_do_not_go_together(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for wrong in (
        ["--ray"],
        ["--out", "x"],
        ["--ray", "--out", "x", "--strict"],
        ["--ray", "--out", "x", "--save", "y"],
    ):
        with pytest.raises(SystemExit) as end:
            main(["predict", "a.jpg", *wrong])
        assert end.value.code == 2, wrong
        assert "--ray" in capfd.readouterr().err


def test_without_ray_it_says_what_to_install(tmp_path: Path) -> None:
    program = "import sys; sys.modules['ray'] = None; from hubel.cli.main import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", program, "predict", "a.jpg", "--ray", "--out", str(tmp_path / "rows")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert "pip install 'hubel[ray]'" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "rows").exists()


def test_a_damaged_or_foreign_folder_is_refused(images: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(DataError, match="thesis.txt"):
        job(images, tmp_path / "mine", model).run()
    assert [path.name for path in (tmp_path / "mine").glob("[!.]*")] == ["thesis.txt"]
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "job.json").write_text('{"format_version": 1, "hub')
    with pytest.raises(DataError, match="job.json is damaged"):
        job(images, tmp_path / "torn", model).run()


def test_names_of_reads_its_block_alone(tmp_path: Path) -> None:
    (tmp_path / "names").write_bytes(b'"a"\n"b"\n"c"\n')
    assert names_of(tmp_path / "names", Block(1, 4, 1)) == ["b"]
