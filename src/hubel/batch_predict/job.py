"""``hubel predict --ray``: predicts the sources in blocks, one shard per block, and only the missing shards."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

import hubel
from hubel.batch_predict.ray_cluster import ActorPool, Assignment, BlockPredictor, plan_actors, ray_running, require_ray
from hubel.batch_predict.shards import Block, Listing, Shards, Written, write_listing
from hubel.errors import DataError
from hubel.fileio import write_json
from hubel.inference.engines.registry import BACKENDS
from hubel.inference.predictor import Predictor
from hubel.models.metadata import find_model

MANIFEST = "job.json"


@dataclass(frozen=True)
class Manifest:
    """Everything that decides the contents of the shards.

    Attributes:
        hubel: the version.
        model: its name, as in the rows.
        digest: of its weights, classes and preprocessing.
        engine: as requested, like ``precision`` and ``device``.
        precision: as requested.
        device: as requested.
        top: classes per row.
        format: of the shards.
        block: names per shard.
        names: number of images and videos.
        sources: digest of their names.
    """

    hubel: str
    model: str
    digest: str
    engine: str
    precision: str
    device: str
    top: int
    format: str
    block: int
    names: int
    sources: str


_LABELS = {
    "hubel": "hubel's version",
    "digest": "the model's weights",
    "block": "--block",
    "format": "--format",
    "top": "--top",
    "engine": "--engine",
    "precision": "--precision",
    "device": "--device",
    "model": "--model",
    "names": "the number of sources",
    "sources": "the names of the sources",
}


@dataclass(frozen=True)
class RuntimeChoice:
    """Engine and precision, chosen at the start of the job and kept until its end."""

    engine: str
    precision: str


def write_manifest(folder: Path, manifest: Manifest, chosen: RuntimeChoice) -> None:
    """Write ``job.json``."""
    write_json(folder / MANIFEST, {"format_version": 1, **asdict(manifest), "chosen": asdict(chosen)})


def read_manifest(folder: Path, manifest: Manifest) -> RuntimeChoice | None:
    """The choice of the job in the folder; ``None`` if there is no job.

    Raises:
        DataError: it is another job than ``manifest``, its file is damaged, or the folder contains other files.
    """
    path = folder / MANIFEST
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
        chosen = RuntimeChoice(**recorded["chosen"])
    except FileNotFoundError:
        others = [file.name for file in folder.iterdir() if not file.name.startswith(".")]
        if others:
            raise DataError(
                f"{folder} is not empty and has no {MANIFEST}: it has {others[0]}", "choose another --out"
            ) from None
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: {error}", "delete the folder, or choose another --out") from error
    here = asdict(manifest)
    differences = [_difference(key, recorded.get(key), here[key]) for key in here if recorded.get(key) != here[key]]
    if differences:
        raise DataError(
            f"{folder} holds a job with other settings: {'; '.join(differences)}",
            "repeat the command as it was to continue with that job, or choose another --out",
        )
    return chosen


def _difference(key: str, there: Any, here: Any) -> str:
    name = _LABELS[key]
    return f"{name} differ" if key in ("digest", "sources") else f"{name} was {there}, is {here}"


LISTING, FINISHED = "sources.jsonl", "finished.jsonl"
_EVERY = 10.0  # seconds between two lines of progress


@dataclass(frozen=True)
class CollectionResult:
    """A finished job.

    Attributes:
        folder: of the shards.
        blocks: shards in it.
        computed: those that this run has computed.
        rows: images and frames in all shards.
        errors: rows of images that could not be read.
        seconds: of this run.
    """

    folder: Path
    blocks: int
    computed: int
    rows: int
    errors: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {**asdict(self), "folder": str(self.folder), "seconds": round(self.seconds, 3)}

    def headline(self) -> str:
        """The figures in one line."""
        unread = f", {self.errors} of them could not be read" if self.errors else ""
        return f"{self.folder}: {self.rows} rows in {self.blocks} shards{unread}; {self.computed} computed now"


class CollectionJob:
    """A collection to predict, or the rest that an earlier run of the same job has left.

    Args:
        sources: files, folders, patterns, videos; text files (``.txt``) name one source per line.
        folder: for the shards; created if it does not exist.
        predictor: arguments of :class:`~hubel.inference.predictor.Predictor`; the others have its defaults.
        kind: of the shards, ``"jsonl"`` or ``"parquet"``.
        block: names per shard.
        log: prints a line.
        report: prints the message and the hint of a source that could not be read.
    """

    def __init__(
        self,
        sources: Sequence[str],
        folder: Path,
        predictor: dict[str, Any],
        kind: str = "jsonl",
        block: int = 1000,
        log: Callable[[str], None] = lambda line: None,
        report: Callable[[str, str], None] = lambda message, hint: None,
    ) -> None:
        self._sources, self._folder, self._predictor = sources, folder, predictor
        self._shards, self._kind, self._block = Shards(folder, kind), kind, block
        self._log, self._report = log, report

    def run(self) -> CollectionResult:
        """Compute the missing shards.

        Raises:
            MissingExtraError: Ray Data is not installed.
            DataError: the folder contains another job or cannot be written, another process works on it, there is
                nothing to predict, or Ray failed.
            KeyboardInterrupt: on Ctrl-C; finished shards are kept.
            ModelError, UsageError, WeightsError: the model or an argument is invalid.
        """
        require_ray()
        folder = self._folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock", timeout=0):
                return self._run()
        except Timeout:
            raise DataError(
                f"another process works on the job in {folder}", "wait for it, or choose another --out"
            ) from None
        except OSError as error:
            raise DataError(
                f"{folder} cannot be written: {error.strerror or error}", "choose another folder with --out"
            ) from error

    def _run(self) -> CollectionResult:
        started = time.perf_counter()
        listing, chosen = self._begin()
        blocks, shards = listing.blocks, self._shards
        shards.clear_away()
        missing = [each for each in blocks if not shards.is_there(each.number)]
        self._log(f"{listing.names} sources in {len(blocks)} blocks, {len(blocks) - len(missing)} of them done")
        if missing:
            try:
                with ray_running() as ray:
                    self._compute(ray, chosen, missing)
            except KeyboardInterrupt:
                self._log("interrupted: finished shards are kept, and the same command continues with the rest")
                raise
        shards.clear_away()
        totals = self._totals(listing)
        rows, errors = sum(each.rows for each in totals), sum(each.errors for each in totals)
        seconds = time.perf_counter() - started
        return CollectionResult(self._folder, len(blocks), len(missing), rows, errors, seconds)

    def _begin(self) -> tuple[Listing, RuntimeChoice]:
        """Find the sources, and this job in the folder; a new job chooses engine and precision for all blocks."""
        model = self._predictor["model"]
        found = find_model(model) or find_model(Path(model))
        fresh = self._folder / f".{LISTING}.new"
        try:
            listing = write_listing(fresh, self._sources, self._block)
            manifest = Manifest(
                hubel=hubel.__version__,
                model=str(model),
                digest=found.digest if found is not None else "",
                **{key: self._predictor.get(key, "auto") for key in ("engine", "precision", "device")},
                top=self._predictor.get("top", 5),
                format=self._kind,
                block=self._block,
                names=listing.names,
                sources=listing.digest,
            )
            chosen = read_manifest(self._folder, manifest)
            if chosen is None:
                engine = Predictor(**self._predictor).engine_for(listing.names)
                chosen = RuntimeChoice(engine.name, engine.precision.name)
                fresh.replace(self._folder / LISTING)
                write_manifest(self._folder, manifest, chosen)
        finally:
            fresh.unlink(missing_ok=True)
        return listing, chosen

    def _compute(self, ray: Any, chosen: RuntimeChoice, blocks: Sequence[Block]) -> None:
        pool = plan_actors(ray, self._may_use_gpu(), self._predictor.get("threads"), len(blocks))
        arguments = {**self._predictor, "threads": pool.threads}
        arguments |= {"device": "cuda"} if pool.gpu else {**asdict(chosen), "device": "cpu"}
        self._log(f"actors: {pool.actors}, threads of each: {pool.threads}, device: {arguments['device']}")
        folder = self._folder.absolute()
        assignment = Assignment(str(Path.cwd()), str(folder / LISTING), str(folder), self._kind, arguments)
        rows, started = 0, time.perf_counter()
        logged = started
        with (folder / FINISHED).open("a", encoding="utf-8") as finished:
            for done, outcome in enumerate(_outcomes(ray, assignment, pool, blocks), start=1):
                if "error" in outcome:
                    raise DataError(outcome["error"], outcome["hint"])
                for message, hint in outcome.pop("failures"):
                    self._report(message, hint)
                finished.write(json.dumps(outcome) + "\n")
                finished.flush()
                rows += outcome["rows"]
                now = time.perf_counter()
                if now - logged > _EVERY or done == len(blocks):
                    logged = now
                    self._log(f"{done}/{len(blocks)} blocks, {rows} images, {rows / (now - started):.1f} per second")

    def _may_use_gpu(self) -> bool:
        engine = self._predictor.get("engine", "auto")
        return self._predictor.get("device") != "cpu" and (engine == "auto" or "cuda" in BACKENDS[engine].precisions)

    def _totals(self, listing: Listing) -> list[Written]:
        """Rows of each shard: as recorded when it was computed, else counted."""
        recorded: dict[int, Written] = {}
        with contextlib.suppress(FileNotFoundError, ValueError):  # the last line of a killed run is incomplete
            for line in (self._folder / FINISHED).read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                recorded[row["block"]] = Written(row["rows"], row["errors"])
        return [recorded.get(each.number) or self._shards.count(each.number) for each in listing.blocks]


def _outcomes(ray: Any, assignment: Assignment, pool: ActorPool, blocks: Sequence[Block]) -> Iterator[dict[str, Any]]:
    """The blocks as a Ray Data pipeline, one task per block, in the order in which they finish."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    pipeline = ray.data.from_items([asdict(block) for block in blocks], override_num_blocks=len(blocks)).map(
        BlockPredictor,
        fn_constructor_args=(assignment,),
        compute=ray.data.ActorPoolStrategy(size=pool.actors),
        num_cpus=pool.threads,
        num_gpus=1 if pool.gpu else None,
    )
    try:
        for row in pipeline.iter_rows():
            yield json.loads(row["outcome"])
    except ray.exceptions.RayError as error:
        raise DataError(
            f"Ray failed: {str(error).strip().splitlines()[-1]}",
            "finished shards are kept: the same command continues with the rest",
        ) from error
