"""Several processes that end together: with one message, and none of them left waiting for the others.

Whoever fails or is interrupted leaves a word before it goes. The others notice that it has gone when they next
exchange something, read the word, and go silently.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed

from hubel.errors import DataError
from hubel.training.processes import Processes, join, store

_WORD, _GONE = "hubel/ended", "hubel/gone"
_FAREWELL = 2.0  # seconds; a process that was killed says none
_INTERRUPTED, _FAILED = "interrupted", "failed"


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """The processes that were started together, from their meeting to their parting.

    Raises:
        KeyboardInterrupt: in the main process, where any was interrupted.
        SystemExit: where another process has said what is wrong.
    """
    processes = join(device)
    if processes.alone:
        yield processes
        return
    try:
        with one_voice(processes):
            yield processes
    except BaseException as error:
        _leave(processes)
        if isinstance(error, KeyboardInterrupt) and not processes.is_main:
            raise SystemExit(130) from None
        raise
    else:
        distributed.destroy_process_group()


def _leave(processes: Processes) -> None:
    """Cut the connections, which wakes those who wait, and give them time to read why: the store may be in here."""
    kept = store()
    if distributed.get_backend() == "gloo":  # NCCL would first wait for what will never come
        distributed.destroy_process_group()
    with contextlib.suppress(RuntimeError):  # of a store that has gone with the main process
        gone = kept.add(_GONE, 1)
        until = time.monotonic() + _FAREWELL
        while processes.is_main and gone < processes.count and time.monotonic() < until:
            time.sleep(0.05)
            gone = kept.add(_GONE, 0)


@contextmanager
def one_voice(processes: Processes) -> Iterator[None]:
    """Turn an exception into what this process has to make of it: only the first to end says why.

    Raises:
        KeyboardInterrupt: this process, or before it another, was interrupted.
        DataError: another process has gone without a word.
        SystemExit: another process has failed, and says why itself.
    """
    try:
        yield
    except SystemExit:
        raise
    except BaseException as error:
        if processes.alone:
            raise
        first, why = _word(processes.rank, _INTERRUPTED if isinstance(error, KeyboardInterrupt) else _FAILED)
        if first != processes.rank:
            if why == _INTERRUPTED:
                raise KeyboardInterrupt from None
            raise SystemExit(1) from None
        if _says_that_another_has_gone(error):
            raise DataError(
                f"another process of this training has gone without a word: {str(error).splitlines()[0]}",
                "often memory ran out, or a machine cannot be reached: look into its log, then go on with --resume",
            ) from error
        raise


def _word(rank: int, why: str) -> tuple[int, str]:
    """Which process ended first, and why; this one, if none has before."""
    try:
        first, _, reason = store().compare_set(_WORD, "", f"{rank}:{why}").decode().partition(":")
        return int(first), reason
    except (RuntimeError, ValueError):  # it was kept by the main process, which has gone
        return (0, _FAILED) if rank else (rank, why)


def _says_that_another_has_gone(error: BaseException) -> bool:
    """Whether torch's means of exchange, which have no exception of their own everywhere, raised it."""
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        mark in text for mark in ("gloo", "NCCL", "Connection closed", "Connection reset", "Broken pipe")
    )
