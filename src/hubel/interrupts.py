"""One policy for Ctrl-C (SIGINT), a request to end (SIGTERM) and a closed terminal (SIGHUP).

Each raises :class:`Interrupted` in the main thread, so files are closed, halves are removed, and workers are ended on
the way out; the exit status is 128 and the signal's number. A signal that is ignored, as by ``nohup``, stays ignored.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_HANDLED = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_AGAIN_SECONDS = 1.0  # within them, the same request reaches a process twice: by its shell and by the kernel

_received: list[tuple[int, float]] = []


class Interrupted(KeyboardInterrupt):
    """The process is asked to end, by the signal of that number."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.number = number


def _interrupt(number: int, _: FrameType | None) -> None:
    before = _received[-1][1] if _received else -_AGAIN_SECONDS
    _received.append((number, time.monotonic()))
    # What ends the process is not itself to be interrupted by an echo of the signal; a person's second Ctrl-C counts.
    if number == signal.SIGINT or time.monotonic() - before >= _AGAIN_SECONDS:
        raise Interrupted(number)


@contextlib.contextmanager
def interruptions() -> Iterator[Callable[[], None]]:
    """Handle the signals within the block.

    Yields a function that raises the interrupt again if a bare ``except`` in a library has swallowed it.
    """
    start = len(_received)
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # which alone may set handlers
        kept = (signal.SIG_IGN, None)  # None: not set from Python
        handled = [number for number in _HANDLED if signal.getsignal(number) not in kept]
        before = {number: signal.signal(number, _interrupt) for number in handled}

    def stop_if_asked() -> None:
        if len(_received) > start:
            raise Interrupted(_received[-1][0])

    try:
        yield stop_if_asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def forget() -> None:
    """Forget earlier interrupts, at the start of a command."""
    _received.clear()


def received() -> bool:
    """True if the process was asked to end."""
    return bool(_received)


def exit_status() -> int:
    """128 and the number of the first signal, that of Ctrl-C if there was none."""
    return 128 + (_received[0][0] if _received else signal.SIGINT)


def leave_signals_to_parent() -> None:
    """For a worker process: the terminal sends signals to the whole group, and the parent ends its workers itself.

    The first SIGTERM may be the group's. A second one comes from the parent, where it ends with its workers still
    alive: it would wait forever for a worker that ignored it.
    """
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def silence_closed_output() -> None:
    """Let what is still buffered vanish if its reader or its terminal has gone, instead of failing at exit."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
