"""``hubel predict --ray``: the sources in blocks, a shard a block, and only the shards that are not there yet."""

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
from hubel.inference.predictor import Predictor
from hubel.models.metadata import find_model

MANIFEST = "job.json"


@dataclass(frozen=True)
class Manifest:
    """All that decides what is in which shard.

    Attributes:
        hubel: the version.
        model: as it was named; rows have it.
        digest: of its weights, classes and preprocessing.
        engine: as it was asked for, like ``precision`` and ``device``.
        precision: see there.
        device: see there.
        top: classes in a row.
        format: of the shards.
        block: names in one.
        names: pictures and videos in all.
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


_AS_PEOPLE_SAY = {
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
    """What was decided when the job began, and stays: with which engine, in which number format."""

    engine: str
    precision: str


def write_manifest(folder: Path, manifest: Manifest, chosen: RuntimeChoice) -> None:
    """Write ``job.json``."""
    write_json(folder / MANIFEST, {"format_version": 1, **asdict(manifest), "chosen": asdict(chosen)})


def read_manifest(folder: Path, manifest: Manifest) -> RuntimeChoice | None:
    """What the job in the folder has decided; ``None`` where there is no job.

    Raises:
        DataError: it is another job than ``manifest``, its file is damaged, or the folder has other files in it.
    """
    path = folder / MANIFEST
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
        chosen = RuntimeChoice(**recorded["chosen"])
    except FileNotFoundError:
        strangers = [file.name for file in folder.iterdir() if not file.name.startswith(".")]
        if strangers:
            raise DataError(
                f"{folder} is not empty and has no {MANIFEST}: it has {strangers[0]}", "choose another --out"
            ) from None
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: {error}", "delete the folder, or choose another --out") from error
    here = asdict(manifest)
    differences = [_difference(key, recorded.get(key), here[key]) for key in here if recorded.get(key) != here[key]]
    if differences:
        raise DataError(
            f"{folder} holds a job with other settings: {'; '.join(differences)}",
            "repeat the command as it was to go on with that job, or choose another --out",
        )
    return chosen


def _difference(key: str, there: Any, here: Any) -> str:
    name = _AS_PEOPLE_SAY[key]
    return f"{name} differ" if key in ("digest", "sources") else f"{name} was {there}, is {here}"


LISTING, FINISHED = "sources.jsonl", "finished.jsonl"
_EVERY = 10.0  # seconds between two lines of progress


@dataclass(frozen=True)
class CollectionResult:
    """A finished job.

    Attributes:
        folder: of the shards.
        blocks: shards in it.
        computed: how many of them this run has computed.
        rows: pictures and frames in all shards.
        errors: rows that say that something could not be read.
        seconds: of this run.
    """

    folder: Path
    blocks: int
    computed: int
    rows: int
    errors: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The document that ``--json`` prints."""
        return {**asdict(self), "folder": str(self.folder), "seconds": round(self.seconds, 3)}

    def headline(self) -> str:
        """The figures as a person reads them."""
        unread = f", {self.errors} of them could not be read" if self.errors else ""
        return f"{self.folder}: {self.rows} rows in {self.blocks} shards{unread}; {self.computed} computed now"


class CollectionJob:
    """A collection to predict, or what an earlier run of the same job has left of it.

    Args:
        sources: files, folders, patterns, videos; text files (``.txt``) name one source a line.
        folder: for the shards; made if it is not there.
        predictor: arguments of :class:`~hubel.inference.predictor.Predictor`; all that are not given are its defaults.
        kind: of the shards, ``"jsonl"`` or ``"parquet"``.
        block: names in a shard.
        say: shows a line to the person.
        report: shows the fault and the remedy of a source that could not be read.
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
        self._say, self._report = log, report

    def run(self) -> CollectionResult:
        """Compute the shards that are not there.

        Raises:
            MissingExtraError: Ray Data is not installed.
            DataError: the folder has another job in it or cannot be written, another process works on it, there is
                nothing to predict, or Ray broke off.
            KeyboardInterrupt: on Ctrl-C; finished shards are kept.
            ModelError, UsageError, WeightsError: the model or an argument is not right.
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
                f"{folder} cannot be written: {error.strerror or error}", "choose another place with --out"
            ) from error

    def _run(self) -> CollectionResult:
        started = time.perf_counter()
        listing, chosen = self._begin()
        blocks, shards = listing.blocks, self._shards
        shards.clear_away()
        missing = [each for each in blocks if not shards.is_there(each.number)]
        self._say(f"{listing.names} sources in {len(blocks)} blocks, {len(blocks) - len(missing)} of them done")
        if missing:
            try:
                with ray_running() as ray:
                    self._compute(ray, chosen, missing)
            except KeyboardInterrupt:
                self._say("interrupted: what is done is kept, and the same command goes on with the rest")
                raise
        shards.clear_away()
        totals = self._totals(listing)
        rows, errors = sum(each.rows for each in totals), sum(each.errors for each in totals)
        seconds = time.perf_counter() - started
        return CollectionResult(self._folder, len(blocks), len(missing), rows, errors, seconds)

    def _begin(self) -> tuple[Listing, RuntimeChoice]:
        """Find the sources, and whether the folder has this job in it; a new one decides what its blocks keep to."""
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
        crew = plan_actors(ray, self._may_use_gpu(), self._predictor.get("threads"), len(blocks))
        arguments = {**self._predictor, "threads": crew.threads}
        arguments |= {"device": "cuda"} if crew.gpu else {**asdict(chosen), "device": "cpu"}
        self._say(f"actors: {crew.actors}, threads of each: {crew.threads}, device: {arguments['device']}")
        folder = self._folder.absolute()
        assignment = Assignment(str(Path.cwd()), str(folder / LISTING), str(folder), self._kind, arguments)
        rows, started = 0, time.perf_counter()
        said = started
        with (folder / FINISHED).open("a", encoding="utf-8") as finished:
            for done, outcome in enumerate(_outcomes(ray, assignment, crew, blocks), start=1):
                if "fault" in outcome:
                    raise DataError(outcome["fault"], outcome["remedy"])
                for message, hint in outcome.pop("faults"):
                    self._report(message, hint)
                finished.write(json.dumps(outcome) + "\n")
                finished.flush()
                rows += outcome["rows"]
                now = time.perf_counter()
                if now - said > _EVERY or done == len(blocks):
                    said = now
                    self._say(f"{done}/{len(blocks)} blocks, {rows} pictures, {rows / (now - started):.1f} a second")

    def _may_use_gpu(self) -> bool:
        return self._predictor.get("device") != "cpu" and self._predictor.get("engine") in (None, "auto", "torch")

    def _totals(self, listing: Listing) -> list[Written]:
        """What is in each shard: as noted when it was computed, else counted."""
        noted: dict[int, Written] = {}
        with contextlib.suppress(FileNotFoundError, ValueError):  # the last line of a run that was killed is torn
            for line in (self._folder / FINISHED).read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                noted[row["block"]] = Written(row["rows"], row["errors"])
        return [noted.get(each.number) or self._shards.count(each.number) for each in listing.blocks]


def _outcomes(ray: Any, assignment: Assignment, crew: ActorPool, blocks: Sequence[Block]) -> Iterator[dict[str, Any]]:
    """The blocks as a Ray Data pipeline: a task a block, in whatever order they are done."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    pipeline = ray.data.from_items([asdict(block) for block in blocks], override_num_blocks=len(blocks)).map(
        BlockPredictor,
        fn_constructor_args=(assignment,),
        compute=ray.data.ActorPoolStrategy(size=crew.actors),
        num_cpus=crew.threads,
        num_gpus=1 if crew.gpu else None,
    )
    try:
        for row in pipeline.iter_rows():
            yield json.loads(row["outcome"])
    except ray.exceptions.RayError as error:
        raise DataError(
            f"Ray broke off: {str(error).strip().splitlines()[-1]}",
            "what is done is kept: the same command goes on with the rest",
        ) from error
