"""The process whose threads run networks: they do not exist in one that is forked from it."""

from __future__ import annotations

import os

from hubel.errors import ModelError

_process: int | None = None


def claim_process() -> None:
    """Note that networks are prepared or run in this process.

    A server that loads a model and then forks its workers would otherwise hang: OpenMP's and OpenVINO's threads stay in
    the parent, and the child, even with a new engine, would wait for them for ever.

    Raises:
        ModelError: they were in the process from which this one was forked.
    """
    global _process
    if _process not in (None, os.getpid()):
        raise ModelError(
            f"this process was forked from one that had prepared a network (process {_process}), whose threads do not "
            "exist here: it would wait for them for ever",
            "make the Predictor in each worker process (not before the fork), or start processes with spawn",
        )
    _process = os.getpid()
