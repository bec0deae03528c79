"""Pictures made ready for a network in background threads, in order, a bounded number of them ahead of it."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from hubel.data.preprocessing import Preprocessing
from hubel.data.sources import ImageSource
from hubel.errors import ImageError
from hubel.system import cpu_count

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST_WORKERS = 8


@dataclass(frozen=True)
class PreparedImage:
    """A picture as the network wants it.

    Attributes:
        source: file name, or ``None`` for what was handed over in memory.
        width: of the upright original in pixels.
        height: of the upright original in pixels.
        pixels: uint8 array (height, width, channels) of the network's input size.
        frame: number of the video frame, from 1; ``None`` for still images.
        time: seconds from the start of the video; ``None`` for still images.
    """

    source: str | None
    width: int
    height: int
    pixels: np.ndarray
    frame: int | None = None
    time: float | None = None


@dataclass(frozen=True)
class FailedImage:
    """A picture that could not be read.

    Attributes:
        source: file name, or ``None`` for what was handed over in memory.
        error: what is wrong with it.
        frame: number of the video frame, from 1; ``None`` for still images.
        time: seconds from the start of the video; ``None`` for still images.
    """

    source: str | None
    error: ImageError
    frame: int | None = None
    time: float | None = None


def ordered_parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], ahead: int, workers: int | None = None
) -> Generator[Result, None, None]:
    """``map(function, items)`` in threads, with the results in order.

    ``items`` are taken in the caller's thread, and at most ``ahead`` more of them than results were asked for: so
    they may be endless. An exception comes up where its result would have been. When the iterator is closed,
    what has not begun is dropped.

    Args:
        function: called from several threads at once.
        items: of any length.
        ahead: how many results may wait, at least 1.
        workers: threads; by default as many as there are processors, at most 8.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers or min(cpu_count(), _MOST_WORKERS), "hubel-image") as pool:
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
    pictures: Iterable[ImageSource], preprocessing: Preprocessing, ahead: int
) -> Generator[PreparedImage | FailedImage, None, None]:
    """Decode, turn upright, crop and scale.

    The decoded original is let go as soon as it is scaled: what waits is small, whatever the pictures' size.

    Args:
        pictures: from :func:`hubel.data.sources.expand`.
        preprocessing: the model's.
        ahead: how many pictures may wait for the network.
    """
    return ordered_parallel_map(partial(_prepare, preprocessing), pictures, ahead)


def _prepare(preprocessing: Preprocessing, picture: ImageSource) -> PreparedImage | FailedImage:
    try:
        if picture.read_reduced is None:
            image = picture.read()
            width, height, pixels = image.width, image.height, preprocessing.pixels(image)
        else:
            reduced = picture.read_reduced(preprocessing.reduction)
            width, height = reduced.width, reduced.height
            pixels = preprocessing.pixels(reduced.image, (width, height, reduced.scale))
    except ImageError as error:
        return FailedImage(picture.source, error, picture.frame, picture.time)
    return PreparedImage(picture.source, width, height, pixels, picture.frame, picture.time)


_LOOK = 0.1  # seconds between looks whether somebody still wants what is made


def prefetch(items: Iterable[Item], ahead: int) -> Generator[Item, None, None]:
    """The same items, in order, taken from ``items`` by a thread that is at most ``ahead`` of whoever takes them here.

    An exception comes up where the item would have been. When the iterator is closed, the thread ends after the item
    that it works on, and ``items`` is closed in it.

    Args:
        items: of any length; used by the thread alone.
        ahead: how many may wait, at least 1.
    """
    ready: queue.Queue[tuple[Item | None, BaseException | None, bool]] = queue.Queue(ahead)
    closed = threading.Event()

    def put(entry: tuple[Item | None, BaseException | None, bool]) -> bool:
        while not closed.is_set():
            try:
                ready.put(entry, timeout=_LOOK)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                if not put((item, None, False)):
                    return
            put((None, None, True))
        except BaseException as error:
            put((None, error, True))
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    thread = threading.Thread(target=work, name="hubel-stage", daemon=True)
    thread.start()
    try:
        while True:
            item, error, last = ready.get()
            if error is not None:
                raise error
            if last:
                return
            yield item  # type: ignore[misc]
    finally:
        closed.set()
        thread.join()
