"""The folder of a run: made whole or not at all, found again, and used by one training at a time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hubel.config import TrainingConfig
from hubel.config_file import write_config
from hubel.data.samples import ImageDataset
from hubel.data.splits import Splits, write_splits
from hubel.errors import DataError, ResumableError
from hubel.fileio import rename_unique, staged_directory

CONFIG, SPLITS, CHECKPOINT, STAGES = "config.yaml", "splits.json", "checkpoint.pt", "stages"
_LOCK = ".lock"
_WAIT = 8.0
"""Seconds: the loading processes of a training that was killed live a little longer, and hold its lock."""


def make_run_folder(base: Path, config: TrainingConfig, splits: Splits, data: ImageDataset) -> Path:
    """Make ``base``, or ``base-2``, ``-3``, … if it exists, with what ``--resume`` needs; all of it or nothing.

    Raises:
        DataError: the folder cannot be made or written.
    """
    try:
        with staged_directory(base) as staged:
            write_config(staged / CONFIG, config)
            write_splits(staged / SPLITS, splits, data.root)
            return rename_unique(staged, base)
    except DataError as error:
        raise DataError(f"{base} cannot be created: {error.message}", "choose another folder with --out") from error


@contextmanager
def failed_start_removed(folder: Path, quiet: bool) -> Iterator[None]:
    """Leave no folder behind that could only fail again; one that was interrupted can be continued.

    The same holds where the error's hint promises it: after a full disk, or when memory ran out. A quiet process, which
    has not made the folder, removes nothing.
    """
    try:
        yield
    except Exception as error:
        if not quiet and not isinstance(error, ResumableError) and not has_trained(folder):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def has_trained(folder: Path) -> bool:
    """True if an epoch of the run, or of a stage before, is finished."""
    return (folder / CHECKPOINT).exists() or any(folder.glob(f"{STAGES}/*/{CHECKPOINT}"))


def latest_run_folder(base: Path, holds: str = CONFIG, what: str = "run") -> Path:
    """The newest run of ``base``, ``base-2``, …, which holds a file of that name; :class:`DataError` for none."""
    found = [base] if (base / holds).is_file() else []
    if base.parent.is_dir():
        numbered = base.parent.glob(f"{base.name}-*")
        found += [path for path in numbered if path.name[len(base.name) + 1 :].isdigit() and (path / holds).is_file()]
    if not found:
        message = f"{base / holds} is missing" if base.is_dir() else f"{base}: there is no {what} to resume"
        raise DataError(message, f"start a {what} without --resume, or pass its folder with --out")
    return max(found, key=lambda path: int(path.name[len(base.name) + 1 :] or 1))


@contextmanager
def in_use(folder: Path, waits: float | None = None) -> Iterator[None]:
    """Hold the run's lock: two trainings in one folder would destroy each other's epochs.

    The system releases the lock of a process that has ended, however it ended.

    Raises:
        DataError: another process trains in the folder.
    """
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=_WAIT if waits is None else waits)
    except Timeout:
        message = f"{folder}: another training is running in this folder"
        raise DataError(message, "wait for it or stop it, or start a new run without --resume") from None
    except (OSError, NotImplementedError):  # a file system without locks
        yield
        return
    try:
        yield
    finally:
        lock.release()
