"""Work of one stage in a thread of its own, while the next stage works on what it has given before."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

Item = TypeVar("Item")

_LOOK = 0.1  # seconds between looks whether somebody still wants what is made


def in_background(items: Iterable[Item], ahead: int) -> Generator[Item, None, None]:
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
