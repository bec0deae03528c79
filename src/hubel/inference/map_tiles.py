"""Class maps of images of any size: the network sees overlapping tiles, of which the middle counts.

Two tiles overlap by a fifth of their side. Each pixel takes its class from the tile in which it is farther from the
border, beyond which a tile shows nothing (Ronneberger et al. 2015, arXiv 1505.04597, section 2, "overlap-tile
strategy"; tiles at the border of the image end there instead of being mirrored).

Memory holds the image, its class map of one byte a pixel, and a few tiles.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from PIL import Image

from hubel.data.preprocessing import Preprocessing
from hubel.data.sources import ImageSource
from hubel.inference.pipeline import FailedImage, PreparedImage, prepare_parts
from hubel.inference.tiles import tile_starts
from hubel.results import InMemory, Prediction, SegmentationMap

Window = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class MapTile(PreparedImage):
    """A part of an image, prepared as an image of its own.

    Attributes:
        window: x1, y1, x2, y2 in pixels of the original.
        kept: the part of it whose classes count, likewise.
        size: width and height of the original.
        last: no other tile of the image follows.
    """

    window: Window
    kept: Window
    size: tuple[int, int]
    last: bool


def windows_of(width: int, height: int, side: tuple[int, int]) -> Iterator[tuple[Window, Window]]:
    """Tiles of an image row by row, ``side`` wide and high or what there is of it, and the part of each that counts."""
    across, down = _spans(width, side[0]), _spans(height, side[1])
    for (y1, y2), (top, bottom) in down:
        for (x1, x2), (left, right) in across:
            yield (x1, y1, x2, y2), (left, top, right, bottom)


def _spans(length: int, side: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where tiles begin and end along a side of the image, and what counts of each: up to the overlaps' middles."""
    starts = tile_starts(length, side)
    ends = [min(start + side, length) for start in starts]
    cuts = [0, *((end + start) // 2 for end, start in zip(ends[:-1], starts[1:], strict=True)), length]
    return [
        ((start, end), (cuts[index], cuts[index + 1]))
        for index, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]


def prepare_map_tiles(
    images: Iterable[ImageSource], preprocessing: Preprocessing, ahead: int, side: int
) -> Generator[MapTile | FailedImage, None, None]:
    """As :func:`hubel.inference.pipeline.prepare`, for the tiles of each image.

    ``side`` is that of the shorter side of a tile, which has the shape of the network's input.
    """
    shorter = min(preprocessing.width, preprocessing.height)
    sides = round(side * preprocessing.width / shorter), round(side * preprocessing.height / shorter)
    return prepare_parts(images, partial(_tiles, preprocessing, sides), ahead)


def _tiles(
    preprocessing: Preprocessing, sides: tuple[int, int], source: ImageSource, image: Image.Image
) -> Iterator[partial[MapTile]]:
    tile = partial(_tile, preprocessing, source, image)
    windows = list(windows_of(image.width, image.height, sides))
    for index, (window, kept) in enumerate(windows, 1):
        yield partial(tile, window, kept, last=index == len(windows))


def _tile(
    preprocessing: Preprocessing, source: ImageSource, image: Image.Image, window: Window, kept: Window, last: bool
) -> MapTile:
    part = image.crop(window)
    reader = source.reopen or InMemory(source.read)
    prepared = source.source, part.width, part.height, preprocessing.pixels(part), source.frame, source.time, reader
    return MapTile(*prepared, window=window, kept=kept, size=image.size, last=last)


def join_maps(
    outcomes: Iterable[tuple[MapTile, Prediction] | FailedImage],
) -> Generator[SegmentationMap | FailedImage, None, None]:
    """The class map of each image from those of its tiles, which come in order."""
    whole: np.ndarray | None = None
    for outcome in outcomes:
        if isinstance(outcome, FailedImage):
            yield outcome
            continue
        tile, found = outcome
        assert isinstance(found, SegmentationMap)
        width, height = tile.size
        if whole is None:
            whole = np.empty((height, width), np.uint8)
        (x, y, _, _), (left, top, right, bottom) = tile.window, tile.kept
        whole[top:bottom, left:right] = found.classes[top - y : bottom - y, left - x : right - x]
        if tile.last:
            yield replace(found, width=width, height=height, classes=whole, reader=tile.reader)
            whole = None
