"""Prepares images for a network in background threads, in order, a bounded number of them ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import TypeVar, cast

import numpy as np
from PIL import Image

from hubel.data.preprocessing import Preprocessing
from hubel.data.sources import ImageSource
from hubel.errors import ImageError
from hubel.results import InMemory
from hubel.system import cpu_count

Item = TypeVar("Item")
Result = TypeVar("Result")

_MAX_WORKERS = 8


@dataclass(frozen=True)
class PreparedImage:
    """A decoded image: its size, and its ``pixels``, uint8 (height, width, channels), cropped and scaled for a network.

    See :class:`hubel.results.Classification` and :class:`hubel.results.ImageResult` for the other attributes.
    """

    source: str | None
    width: int
    height: int
    pixels: np.ndarray
    frame: int | None = None
    time: float | None = None
    reader: Callable[[], Image.Image] | None = None


@dataclass(frozen=True)
class FailedImage:
    """An image that could not be read, and why; see :class:`PreparedImage`."""

    source: str | None
    error: ImageError
    frame: int | None = None
    time: float | None = None


def ordered_parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], ahead: int, workers: int | None = None
) -> Generator[Result, None, None]:
    """``map(function, items)`` in threads, with the results in order.

    ``items`` are taken in the caller's thread, and at most ``ahead`` more of them than results were taken: they may be
    endless. An exception is raised where its result would have been. When the iterator is closed, what has not begun is
    dropped. By default there is a thread per CPU, and at most 8.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers or min(cpu_count(), _MAX_WORKERS), "hubel-image") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def prepare(
    images: Iterable[ImageSource], preprocessing: Preprocessing, ahead: int
) -> Generator[PreparedImage | FailedImage, None, None]:
    """Decode, turn upright, crop and scale.

    The decoded original is released as soon as it is scaled: images that wait for the network, ``ahead`` of them, are
    small, whatever their original size. With 0 ahead, images are prepared in the caller's thread when they are asked
    for: nothing is gained by threads for an image that comes alone, and starting them takes longer than scaling it.
    """
    if not ahead:
        return (_prepare(preprocessing, image) for image in images)
    return ordered_parallel_map(partial(_prepare, preprocessing), images, ahead)


def _prepare(preprocessing: Preprocessing, source: ImageSource) -> PreparedImage | FailedImage:
    try:
        if source.read_reduced is None:
            image = source.read()
            width, height, pixels = image.width, image.height, preprocessing.pixels(image)
        else:
            reduced = source.read_reduced(preprocessing.reduction)
            width, height = reduced.width, reduced.height
            pixels = preprocessing.pixels(reduced.image, (width, height, reduced.scale))
    except ImageError as error:
        return FailedImage(source.source, error, source.frame, source.time)
    reader = source.reopen or InMemory(source.read)
    return PreparedImage(source.source, width, height, pixels, source.frame, source.time, reader)


def decode_ahead(
    images: Iterable[ImageSource], read: Callable[[ImageSource], Image.Image] = lambda source: source.read()
) -> Generator[tuple[ImageSource, Image.Image] | FailedImage, None, None]:
    """Images as they are, in order, one of them decoded ahead."""
    return ordered_parallel_map(partial(_decode, read), images, ahead=1, workers=1)


def _decode(
    read: Callable[[ImageSource], Image.Image], source: ImageSource
) -> tuple[ImageSource, Image.Image] | FailedImage:
    try:
        return source, read(source)
    except ImageError as error:
        return FailedImage(source.source, error, source.frame, source.time)


def prepare_parts(
    images: Iterable[ImageSource],
    parts_of: Callable[[ImageSource, Image.Image], Iterable[Callable[[], Result]]],
    ahead: int,
) -> Generator[Result | FailedImage, None, None]:
    """The parts of each image, in order, which ``parts_of`` gives as what has to be called for them.

    One image is decoded ahead, and ``ahead`` parts are prepared: what waits does not grow with the number of parts.
    """

    def planned() -> Iterator[Callable[[], Result] | FailedImage]:
        for each in decoded:
            if isinstance(each, FailedImage):
                yield each
            else:
                yield from parts_of(*each)

    with closing(decode_ahead(images)) as decoded, closing(ordered_parallel_map(_called, planned(), ahead)) as parts:
        yield from parts


def _called(planned: Callable[[], Result] | FailedImage) -> Result | FailedImage:
    return planned if isinstance(planned, FailedImage) else planned()


def stacked(pixels: Sequence[np.ndarray], preprocessing: Preprocessing) -> np.ndarray:
    """Images in one array (N, height, width, channels), also where there are none."""
    if pixels:
        return np.stack(pixels)
    return np.empty((0, preprocessing.height, preprocessing.width, preprocessing.channels), np.uint8)


def prefetch(items: Iterable[Item], ahead: int) -> Generator[Item, None, None]:
    """The same items, in order, taken from ``items`` by a thread that is at most ``ahead`` of the consumer.

    An exception is raised where the item would have been. When the iterator is closed, the thread ends after its
    current item, and ``items`` is closed.
    """
    iterator, end = iter(items), object()
    try:
        with closing(ordered_parallel_map(lambda _: next(iterator, end), repeat(None), ahead, workers=1)) as taken:
            for item in taken:
                if item is end:
                    return
                yield cast(Item, item)
    finally:
        if isinstance(iterator, Generator):
            iterator.close()
