"""One file per block, JSON Lines or Parquet, written atomically."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hubel.bounded import load_json
from hubel.data.source_lists import list_file, listed_sources, why_unreadable
from hubel.data.sources import file_names
from hubel.errors import DataError
from hubel.fileio import atomic_write, json_line

_CHUNK = 1000
_LIST_SUFFIX = ".txt"


@dataclass(frozen=True)
class Written:
    """Rows of a shard, and how many of them are of images that could not be read."""

    rows: int
    errors: int


@dataclass(frozen=True)
class Shards:
    """The shards of a job, in a folder; their kind is ``"jsonl"`` or ``"parquet"``."""

    folder: Path
    kind: str

    def path(self, block: int) -> Path:
        """The file of a block."""
        return self.folder / f"part-{block:06d}.{self.kind}"

    def is_there(self, block: int) -> bool:
        """True if a block is done."""
        return self.path(block).is_file()

    def write(self, block: int, rows: Iterable[dict[str, Any]]) -> Written:
        """Write a block's rows atomically, with few of them in memory at a time.

        Raises:
            DataError: the folder cannot be written, or the disk is full.
        """
        count = errors = 0
        remaining = iter(rows)
        with atomic_write(self.path(block)) as temporary, self._writer(temporary) as write:
            while chunk := list(islice(remaining, _CHUNK)):
                write(chunk)
                count += len(chunk)
                errors += sum("error" in row for row in chunk)
        return Written(count, errors)

    def count(self, block: int) -> Written:
        """Count the rows in a block's file; raises :class:`DataError` if it is damaged."""
        path = self.path(block)
        try:
            if self.kind == "parquet":
                import pyarrow.parquet as parquet

                with parquet.ParquetFile(path) as file:
                    parts = [part.column("error") for part in file.iter_batches(columns=["error"])]
                rows = sum(map(len, parts))
                return Written(rows, rows - sum(part.null_count for part in parts))
            with path.open(encoding="utf-8") as lines:
                failed = [load_json(line).get("error") is not None for line in lines]
            return Written(len(failed), sum(failed))
        except (OSError, ValueError, LookupError, AttributeError, NotImplementedError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"{path} is damaged: {reason:.200}", "delete it, and the same command computes it again"
            ) from error

    def clear_away(self) -> None:
        """Remove incomplete files of killed writers; call it while nobody writes."""
        for path in self.folder.glob(".part-*"):
            path.unlink(missing_ok=True)

    @contextmanager
    def _writer(self, path: Path) -> Iterator[Any]:
        if self.kind == "parquet":
            import pyarrow
            import pyarrow.parquet as parquet

            schema = _schema()
            with parquet.ParquetWriter(path, schema) as file:
                yield lambda rows: file.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
        else:
            with path.open("w", encoding="utf-8") as file:
                yield lambda rows: file.writelines(f"{json_line(row)}\n" for row in rows)


def _schema() -> Any:
    """Columns of a Parquet shard; null where a row has no such key."""
    import pyarrow

    text, whole, real = pyarrow.string(), pyarrow.int64(), pyarrow.float64()
    image = {"source": text, "frame": whole, "time": real, "width": whole, "height": whole}
    scored = {"index": whole, "name": text, "score": real}
    mask = pyarrow.struct({"size": pyarrow.list_(whole), "counts": text})
    lists = {"classes": {**scored, "share": real}, "objects": {**scored, "box": pyarrow.list_(real), "mask": mask}}
    columns = {name: pyarrow.list_(pyarrow.struct(fields)) for name, fields in lists.items()}
    return pyarrow.schema({**image, "model": text, "task": text, **columns, "error": text})


@dataclass(frozen=True)
class Block:
    """Consecutive names: the block's number from 0, the byte at which its first line begins, and how many there are."""

    number: int
    start: int
    names: int


@dataclass(frozen=True)
class Listing:
    """A collection: the number of its images and videos, the SHA-256 of their names in order, and its blocks."""

    names: int
    digest: str
    blocks: tuple[Block, ...]


def _named_in_lists(sources: Iterable[str]) -> Iterator[str]:
    """The sources, with each list replaced by those that it names; a list that cannot be read ends all."""
    for source in sources:
        file = list_file(source)
        if file is None and not source.lower().endswith(_LIST_SUFFIX):
            yield source
            continue
        try:
            yield from (name for _, name in listed_sources(file or Path(source)))
        except (OSError, UnicodeError) as error:
            message = f"{source} cannot be read: {why_unreadable(error)}"
            raise DataError(message, "pass a text file with one path per line") from error


def write_listing(path: Path, sources: Iterable[str], block: int) -> Listing:
    """Write the names of a collection, ``block`` of them per block.

    Each line is a JSON string, so that names may contain newlines and undecodable bytes. Sources are files, folders,
    patterns, and text files that name them.

    Raises:
        DataError: there are no sources, a text file of them cannot be read, or ``path`` cannot be written.
        UsageError: a source is a webcam.
    """
    digest, count, end = hashlib.sha256(), 0, 0
    starts: list[int] = []
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        for name in file_names(_named_in_lists(sources)):
            line = json.dumps(name).encode() + b"\n"
            if count % block == 0:
                starts.append(end)
            count += 1
            end += file.write(line)
            digest.update(line)
    if not count:
        raise DataError(f"{', '.join(sources)}: there is nothing to predict", "pass files, folders, or a list of them")
    sizes = [min(block, count - number * block) for number in range(len(starts))]
    blocks = (Block(number, start, size) for number, (start, size) in enumerate(zip(starts, sizes, strict=True)))
    return Listing(count, digest.hexdigest(), tuple(blocks))


def names_of(path: Path, block: Block) -> list[str]:
    """The names of one block."""
    with path.open("rb") as file:
        file.seek(block.start)
        return [json.loads(file.readline()) for _ in range(block.names)]
