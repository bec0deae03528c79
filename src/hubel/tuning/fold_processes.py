"""Folds that are trained at the same time, each in a process of its own.

The folds of one trial are independent of each other, so they may be trained together without changing what is proposed:
a search in several processes has the trials of one in a single process. Folds behind a point where the trial may be
stopped are begun ahead, and given up if it is.
"""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Self

import psutil
import torch

from hubel.analysis.memory_advice import free_host_memory
from hubel.analysis.table import format_bytes
from hubel.config import TrainingConfig
from hubel.console import count_of
from hubel.data.samples import ImageDataset
from hubel.errors import ResumableError
from hubel.inference.precision import choose_device
from hubel.interrupts import leave_signals_to_parent
from hubel.system import cpu_count, tune_allocator
from hubel.tuning.fold_training import Ask, FoldTask, Shared, train_fold

_GIVE_UP_SECONDS = 30.0
"""Time in which a process has to come to the end of a step when its fold is not needed any more."""

_EPOCH, _ASK, _END, _GO_ON, _STOP, _GIVE_UP = "epoch", "ask", "end", "go on", "stop", "give up"


class _GivenUp(Exception):
    """The fold is not needed any more."""


@dataclass(eq=False)
class _Process:
    """A process with its connection, and the fold that it trains."""

    process: Any
    connection: Connection
    task: FoldTask | None = None
    given_up: bool = False


@dataclass(frozen=True)
class _End:
    """How a fold ended: score and seconds, ``None`` if it was stopped; or an error. ``memory`` is its peak in bytes."""

    scored: tuple[float, float] | None = None
    error: Exception | None = None
    memory: int = 0


@dataclass
class _Queue:
    """Folds by their folders: those that wait for a process, and those that have ended."""

    waiting: dict[Path, FoldTask] = field(default_factory=dict)
    ended: dict[Path, _End] = field(default_factory=dict)


class SeveralAtATime:
    """Trains up to ``count`` folds at a time; a context, which ends the processes.

    The first fold is trained alone: what it decides by measuring holds for all, and its memory tells how many processes
    there is room for.

    Args:
        count: of processes, at least 2.
        folder: of the search.
        data: has the classes.
        threads: of all processes together; ``None`` for as many as there are cores.
        log: writes a line for the user.
    """

    def __init__(
        self, count: int, folder: Path, data: ImageDataset, threads: int | None, log: Callable[[str], None]
    ) -> None:
        self.at_a_time = count
        self._arguments = (folder, data, max(1, (threads or cpu_count()) // count), count)
        self._log = log
        self._allowed = 1
        self._processes: list[_Process] = []
        self._queue = _Queue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._processes:
            each.connection.close()  # which ends it after the step
        until = time.monotonic() + _GIVE_UP_SECONDS
        for each in self._processes:
            each.process.join(max(0.0, until - time.monotonic()))
            if each.process.is_alive():
                each.process.kill()
                each.process.join()

    def train(
        self, task: FoldTask, ahead: Sequence[FoldTask], on_epoch: Callable[[], None], ask: Ask
    ) -> tuple[float, float] | None:
        """See :class:`~hubel.tuning.fold_training.Trainer`."""
        under_way = {each.task.folder for each in self._processes if each.task is not None}
        for each in (task, *ahead):
            if each.folder not in under_way and each.folder not in self._queue.ended:
                self._queue.waiting[each.folder] = each
        while task.folder not in self._queue.ended:
            self._start_waiting()
            self._handle(wait([each.connection for each in self._processes], timeout=1.0), on_epoch, ask)
        end = self._queue.ended.pop(task.folder)
        if end.error is not None:
            raise end.error
        return end.scored

    def forget(self) -> None:
        """See :class:`~hubel.tuning.fold_training.Trainer`; waits until the processes have stopped."""
        self._queue = _Queue()
        busy = [each for each in self._processes if each.task is not None]
        for each in busy:
            each.given_up = True
            _send(each.connection, _GIVE_UP)
        until = time.monotonic() + _GIVE_UP_SECONDS
        while any(each.task is not None for each in self._processes):
            self._handle(wait([each.connection for each in self._processes], timeout=1.0), lambda: None, _never)
            if time.monotonic() > until:
                for each in [each for each in self._processes if each.task is not None]:
                    each.process.kill()
                    self._processes.remove(each)

    def _start_waiting(self) -> None:
        """Give the folds that wait to processes that are free; start some, as far as they are allowed."""
        for folder in list(self._queue.waiting):
            free = next((each for each in self._processes if each.task is None), None)
            if free is None and len(self._processes) < self._allowed:
                free = self._new_process()
            if free is None:
                return
            task = self._queue.waiting.pop(folder)
            free.task, free.given_up = task, False
            if not _send(free.connection, replace(task, config=_on_device(task.config, self._processes.index(free)))):
                self._died(free)

    def _new_process(self) -> _Process:
        context = get_context("spawn")  # a fork would copy the state of torch's threads
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, *self._arguments))
        process.start()
        theirs.close()  # so that the process's end is the connection's
        self._processes.append(_Process(process, ours))
        return self._processes[-1]

    def _handle(self, ready: Sequence[Any], on_epoch: Callable[[], None], ask: Ask) -> None:
        for each in [each for each in self._processes if each.connection in ready]:
            try:
                kind, content = each.connection.recv()
            except (EOFError, OSError):
                self._died(each)
            if kind == _EPOCH:
                on_epoch()
            elif kind == _ASK and not each.given_up:
                _send(each.connection, _STOP if ask(*content) else _GO_ON)
            elif kind == _END:
                assert each.task is not None
                if not each.given_up:
                    self._queue.ended[each.task.folder] = content
                each.task = None
                if self._allowed == 1:
                    self._allow(content.memory)

    def _allow(self, memory: int) -> None:
        """As many processes as were asked for, if there is memory for them beside the first."""
        free = free_host_memory().free
        self._allowed = max(1, min(self.at_a_time, 1 + free // max(1, memory)))
        if self._allowed < self.at_a_time:
            takes = f"a fold takes {format_bytes(memory)} of memory, and {format_bytes(free)} are free"
            self._log(f"note: {count_of(self._allowed, 'fold')} at a time instead of {self.at_a_time}: {takes}")
            self.at_a_time = self._allowed

    def _died(self, each: _Process) -> None:
        each.process.join(_GIVE_UP_SECONDS)
        self._processes.remove(each)
        code = each.process.exitcode
        try:
            how = f"killed by {signal.Signals(-code).name}" if code and code < 0 else f"exit status {code}"
        except ValueError:
            how = f"killed by signal {-code}"
        raise ResumableError(
            f"a process that trains a fold ended unexpectedly: {how}",
            "continue with --resume, with a smaller --parallel if memory ran out",
        )


def _never(score: float, seconds: float) -> bool:
    return False


def _send(connection: Connection, message: Any) -> bool:
    """Send a message; returns whether there is somebody to receive it."""
    try:
        connection.send(message)
    except OSError:
        return False
    return True


def _on_device(config: TrainingConfig, number: int) -> TrainingConfig:
    """The configuration for the process of that number: where there are several GPUs, each has its own."""
    gpus = torch.cuda.device_count()
    if gpus > 1 and config.device in ("auto", "cuda") and choose_device(config.device).type == "cuda":
        return replace(config, device=f"cuda:{number % gpus}")
    return config


def _work(connection: Connection, folder: Path, data: ImageDataset, threads: int, count: int) -> None:
    """Train the folds that come through the connection, until it is closed."""
    leave_signals_to_parent()
    torch.set_num_threads(threads)
    tune_allocator(keep=None)
    shared = Shared(folder)
    while True:
        try:
            task = connection.recv()
            if isinstance(task, FoldTask):  # else a fold was given up that had ended
                connection.send((_END, _trained(connection, shared, task, data, count)))
        except (EOFError, OSError):
            return


def _trained(connection: Connection, shared: Shared, task: FoldTask, data: ImageDataset, count: int) -> _End:
    def stop_if_asked() -> None:
        if connection.poll():
            connection.recv()
            raise _GivenUp

    def ask(score: float, seconds: float) -> bool:
        connection.send((_ASK, (score, seconds)))
        answer = connection.recv()
        if answer == _GIVE_UP:
            raise _GivenUp
        return bool(answer == _STOP)

    try:
        scored = train_fold(shared, task, data, stop_if_asked, lambda: connection.send((_EPOCH, None)), ask, count)
        return _End(scored, memory=_peak_memory())
    except _GivenUp:
        return _End()
    except EOFError:
        raise
    except Exception as error:
        error.add_note(traceback.format_exc())  # which is lost on the way
        return _End(error=error)


def _peak_memory() -> int:
    """The most memory that this process has had, in bytes; what it has now, where the system does not tell."""
    try:
        import resource
        import sys

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    except ImportError:  # Windows
        return int(psutil.Process().memory_info().rss)
