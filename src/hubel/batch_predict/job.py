"""``hubel predict --ray``: predicts the sources in blocks, one shard per block, and only the missing shards."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

import hubel
from hubel.batch_predict.ray_cluster import plan_actors, predict_blocks, ray_running, require_ray
from hubel.batch_predict.records import FINISHED, LISTING, MANIFEST, read_finished, read_manifest
from hubel.batch_predict.shards import Block, Listing, Shards, write_listing
from hubel.console import count_of
from hubel.errors import DataError
from hubel.fileio import write_json
from hubel.inference.engines.selection import BACKENDS
from hubel.inference.predictor import Predictor
from hubel.models.metadata import find_model
from hubel.timing import per_second

_EVERY = 10.0  # seconds between two lines of progress


@dataclass(frozen=True)
class CollectionResult:
    """A finished job: its shards, ``blocks``, of which this run has ``computed`` some, in so many seconds.

    All have ``rows`` of images and frames, of which ``errors`` could not be read.
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


@dataclass
class CollectionJob:
    """A collection to predict, or the rest that an earlier run of the same job has left.

    Attributes:
        sources: files, folders, patterns, videos; text files (``.txt``) name one source per line.
        folder: for the shards; created if it does not exist.
        predictor: arguments of :class:`~hubel.inference.predictor.Predictor`; the others have its defaults.
        kind: ``"jsonl"`` or ``"parquet"``.
        block: names per shard.
        report: prints the message and the hint of a source that could not be read.
    """

    sources: Sequence[str]
    folder: Path
    predictor: dict[str, Any]
    kind: str = "jsonl"
    block: int = 1000
    log: Callable[[str], None] = lambda line: None
    report: Callable[[str, str], None] = lambda message, hint: None

    def run(self) -> CollectionResult:
        """Compute the missing shards. Finished ones are kept when it ends early, also by Ctrl-C.

        Raises:
            MissingExtraError: Ray Data is not installed.
            DataError: the folder contains another job or cannot be written, another process works on it, there is
                nothing to predict, or Ray failed.
            ModelError, UsageError, WeightsError: the model or an argument is invalid.
        """
        require_ray()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock", timeout=0):
                return self._run()
        except Timeout:
            message = f"another process works on the job in {self.folder}"
            raise DataError(message, "wait for it, or choose another --out") from None
        except OSError as error:
            message = f"{self.folder} cannot be written: {error.strerror or error}"
            raise DataError(message, "choose another folder with --out") from error

    def _run(self) -> CollectionResult:
        started = time.perf_counter()
        listing, chosen = self._begin()
        blocks, shards = listing.blocks, Shards(self.folder, self.kind)
        shards.clear_away()
        missing = [each for each in blocks if not shards.is_there(each.number)]
        work = f"{count_of(listing.names, 'source')} in {count_of(len(blocks), 'block')}"
        self.log(f"{work}, {len(blocks) - len(missing)} of them done")
        if missing:
            try:
                with ray_running() as ray:
                    self._compute(ray, chosen, missing)
            except KeyboardInterrupt:
                self.log("interrupted: finished shards are kept, and the same command continues with the rest")
                raise
        shards.clear_away()
        recorded = read_finished(self.folder / FINISHED)
        totals = [recorded.get(each.number) or shards.count(each.number) for each in blocks]
        rows, errors = sum(each.rows for each in totals), sum(each.errors for each in totals)
        seconds = time.perf_counter() - started
        return CollectionResult(self.folder, len(blocks), len(missing), rows, errors, seconds)

    def _begin(self) -> tuple[Listing, dict[str, str]]:
        """Find the sources, and this job in the folder; a new job chooses engine and precision for all blocks."""
        model = self.predictor["model"]
        found = find_model(model) or find_model(Path(model))
        fresh = self.folder / f".{LISTING}.new"
        try:
            listing = write_listing(fresh, self.sources, self.block)
            settings = {
                "hubel": hubel.__version__,
                "model": str(model),
                "digest": found.digest if found is not None else "",
                **{key: self.predictor.get(key, "auto") for key in ("engine", "precision", "device")},
                "top": self.predictor.get("top", 5),
                "tta": self.predictor.get("tta", False),
                "format": self.kind,
                "block": self.block,
                "names": listing.names,
                "sources": listing.digest,
            }
            chosen = read_manifest(self.folder, settings)
            if chosen is None:
                engine = Predictor(**self.predictor).engine_for(listing.names)
                chosen = {"engine": engine.name, "precision": engine.precision.name}
                fresh.replace(self.folder / LISTING)
                write_json(self.folder / MANIFEST, {"format_version": 1, **settings, "chosen": chosen})
        finally:
            fresh.unlink(missing_ok=True)
        return listing, chosen

    def _compute(self, ray: Any, chosen: dict[str, str], blocks: Sequence[Block]) -> None:
        engine = self.predictor.get("engine", "auto")
        has_gpu_kernels = engine == "auto" or "cuda" in BACKENDS[engine].precisions
        may_use_gpu = has_gpu_kernels and self.predictor.get("device") != "cpu"
        pool = plan_actors(ray, may_use_gpu, self.predictor.get("threads"), len(blocks))
        arguments = {**self.predictor, "threads": pool.threads}
        arguments |= {"device": "cuda"} if pool.gpu else {**chosen, "device": "cpu"}
        self.log(f"actors: {pool.actors}, threads per actor: {pool.threads}, device: {arguments['device']}")
        folder = self.folder.absolute()
        work = (Path.cwd(), folder / LISTING, Shards(folder, self.kind), arguments)
        rows, started = 0, time.perf_counter()
        logged = started
        with (folder / FINISHED).open("a", encoding="utf-8") as finished:
            for done, outcome in enumerate(predict_blocks(ray, pool, blocks, *work), start=1):
                if "error" in outcome:
                    raise DataError(outcome["error"], outcome["hint"])
                for message, hint in outcome.pop("failures"):
                    self.report(message, hint)
                finished.write(json.dumps(outcome) + "\n")
                finished.flush()
                rows += outcome["rows"]
                now = time.perf_counter()
                if now - logged > _EVERY or done == len(blocks):
                    logged = now
                    self.log(
                        f"{done}/{len(blocks)} blocks, {rows} images, {per_second(rows, now - started):.1f} per second"
                    )
