"""Several processes that end together: with one message, and none of them left waiting for the others.

Whoever fails or is interrupted leaves a word before it goes. The others notice that it has gone when they next
exchange something, read the word, and go silently.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed

from hubel.errors import DataError
from hubel.training.processes import Processes, join, store

_WORD = "hubel/ended"
_INTERRUPTED, _FAILED = "interrupted", "failed"


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """The processes that were started together, from their meeting to their parting.

    Raises:
        KeyboardInterrupt: in the main process, where any was interrupted.
        SystemExit: where another process has said what is wrong.
    """
    processes = join(device)
    try:
        with one_voice(processes):
            yield processes
    except KeyboardInterrupt:
        if not processes.is_main:
            raise SystemExit(130) from None
        raise
    finally:
        if not processes.alone and distributed.is_initialized():
            distributed.destroy_process_group()


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
