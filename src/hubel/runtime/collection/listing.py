"""The names of a collection, one a line in a file: a block of them is a place in it, and nobody holds them all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hubel.data.sources import file_names
from hubel.errors import DataError
from hubel.fileio import replacing

LIST_SUFFIX = ".txt"


@dataclass(frozen=True)
class Block:
    """Consecutive names.

    Attributes:
        number: from 0.
        start: byte at which its first line begins.
        names: how many.
    """

    number: int
    start: int
    names: int


@dataclass(frozen=True)
class Listing:
    """A collection.

    Attributes:
        names: how many pictures and videos.
        digest: hexadecimal SHA-256 of the names in their order.
        blocks: all of them.
    """

    names: int
    digest: str
    blocks: tuple[Block, ...]


def named_in_lists(sources: Iterable[str]) -> Iterator[str]:
    """The sources, and in the place of a text file those that it names, one a line.

    Raises:
        DataError: such a file cannot be read.
    """
    for source in sources:
        if not source.lower().endswith(LIST_SUFFIX):
            yield source
            continue
        try:
            with Path(source).open(encoding="utf-8", errors="surrogateescape") as lines:
                yield from filter(None, (line.rstrip("\r\n") for line in lines))
        except OSError as error:
            raise DataError(
                f"{source} cannot be read: {error.strerror or error}", "name a text file with one path a line"
            ) from error


def write_listing(path: Path, sources: Iterable[str], block: int) -> Listing:
    """Write the names of a collection, each as JSON, which knows line breaks and bytes that are no UTF-8.

    Args:
        path: the file.
        sources: files, folders, patterns, and text files that name such.
        block: names in a block.

    Raises:
        DataError: there are no sources, a text file of them cannot be read, or ``path`` cannot be written.
        UsageError: a source is a webcam.
    """
    digest, count, end = hashlib.sha256(), 0, 0
    starts: list[int] = []
    with replacing(path) as temporary, temporary.open("wb") as file:
        for name in file_names(named_in_lists(sources)):
            line = json.dumps(name).encode() + b"\n"
            if count % block == 0:
                starts.append(end)
            count += 1
            end += file.write(line)
            digest.update(line)
    if not count:
        raise DataError(f"{', '.join(sources)}: there is nothing to predict", "name files, folders, or a list of them")
    sizes = [min(block, count - number * block) for number in range(len(starts))]
    blocks = (Block(number, start, size) for number, (start, size) in enumerate(zip(starts, sizes, strict=True)))
    return Listing(count, digest.hexdigest(), tuple(blocks))


def names_of(path: Path, block: Block) -> list[str]:
    """The names of one block."""
    with path.open("rb") as file:
        file.seek(block.start)
        return [json.loads(file.readline()) for _ in range(block.names)]
