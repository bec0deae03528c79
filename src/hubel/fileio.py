"""Atomic writes: files and folders are filled beside their destination and renamed into place."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import itertools
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from hubel.errors import DataError

# Names of files may hold bytes that are not text, which Python keeps as halves of surrogate pairs. Escaped by a
# backslash they are what JSON and YAML read back as the same name.
_ERRORS = "backslashreplace"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of the errors that a full disk, a quota, or a limit of file sizes gives."""


def is_special(path: Path) -> bool:
    """True for what exists and is written to, but never replaced: a device, a pipe, ``/dev/stdout``."""
    return path.exists() and not path.is_file() and not path.is_dir()


def temporary_beside(path: Path, prefix: str = "", suffix: str = "") -> Path:
    """Make an empty file in the folder of ``path``, to be filled and given to :func:`rename_into_place`.

    It is in the folder for temporary files if ``path`` is a device or a pipe.
    Its permissions are those of any new file there, by the umask; those of ``tempfile`` are the owner's alone.
    """
    folder = Path(tempfile.gettempdir()) if is_special(path) else path.parent
    while True:
        temporary = folder / f"{prefix or f'.{path.name}.'}{secrets.token_hex(4)}{suffix}"
        with contextlib.suppress(FileExistsError):
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            return temporary


def rename_into_place(temporary: Path, path: Path) -> None:
    """Flush a file to disk and rename it to ``path``; a device or a pipe gets its content."""
    if is_special(path):
        with temporary.open("rb") as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)
        temporary.unlink()
        return
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it is renamed into place.

    If the folder cannot be written or the disk is full, raises :class:`DataError` and leaves ``path`` unchanged.
    """
    temporary: Path | None = None
    try:
        temporary = temporary_beside(path)
        mode = temporary.stat().st_mode
        yield temporary
        if temporary.stat().st_mode != mode:  # a library has put a file of its own in its place
            temporary.chmod(stat.S_IMODE(mode))
        rename_into_place(temporary, path)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def partial_path(path: Path) -> Path:
    """Where a part of a file is kept beside the whole one: ``tracks.partial.txt`` for ``tracks.txt``."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def keep_partial(temporary: Path, path: Path, interrupted: bool) -> Path:
    """Rename a file that is not whole to :func:`partial_path`, and return where it is.

    Only if its writing was interrupted, and there is no older file, it becomes ``path`` itself.
    """
    kept = path if interrupted and not path.exists() else partial_path(path)
    rename_into_place(temporary, kept)
    return kept


class StreamingFile:
    """A text file that is written over a long time, and takes the place of ``path`` when the ``with`` block ends.

    What was written before an interrupt (see :attr:`interrupted`) or an error is kept as in :func:`keep_partial`, and
    ``on_partial`` is called with its path. After a failed write nothing is kept: it would end anywhere.

    Raises :class:`DataError` if the file cannot be written, or the disk is full; ``path`` is then unchanged.
    """

    def __init__(self, path: Path, on_partial: Callable[[Path], None]) -> None:
        self.path = path
        self.interrupted = False
        self._on_partial = on_partial
        self._failed = False

    def __enter__(self) -> Self:
        try:
            self._temporary = temporary_beside(self.path)
            self._file = self._temporary.open("w", encoding="utf-8", errors=_ERRORS, newline="\n")
        except OSError as error:
            raise _not_written(self.path, error) from error
        return self

    def write(self, text: str) -> None:
        """Append text."""
        try:
            self._file.write(text)
        except OSError as error:
            self._failed = True
            raise _not_written(self.path, error) from error

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        is_whole = kind is None and not self.interrupted
        try:
            self._file.close()
            if is_whole:
                rename_into_place(self._temporary, self.path)
            elif not self._failed and self._temporary.stat().st_size:
                interrupted = self.interrupted or (kind is not None and issubclass(kind, KeyboardInterrupt))
                self._on_partial(keep_partial(self._temporary, self.path, interrupted))
        except OSError as error:
            if kind is None:  # else the first error says it
                raise _not_written(self.path, error) from error
        finally:
            self._temporary.unlink(missing_ok=True)


def _not_written(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} cannot be written: {error.strerror or error}", remedy(error))


def check_exists(path: Path) -> None:
    """Raise :class:`DataError` if there is no such file or folder; one that may not be looked at is not judged."""
    try:
        is_there = path.exists()
    except OSError as error:
        is_there = error.errno != errno.ENAMETOOLONG
    if not is_there:
        raise DataError(f"{path} does not exist", "check the spelling and the folder")


def remedy(error: OSError) -> str:
    """What to do about a file that cannot be written."""
    if error.errno in NO_SPACE:
        return "free some space, or write to another disk"
    return "choose another file or folder, or change the permissions"


@contextlib.contextmanager
def staged_directory(wanted: Path) -> Iterator[Path]:
    """Give an empty folder of the same name on the same disk, to be filled and then given to :func:`rename_unique`.

    If it is not renamed, it is removed, and with it the folders above ``wanted`` that were made for it. Raises
    :class:`DataError` if the folder cannot be made, or writing into it fails.
    """
    above = [folder for folder in wanted.parents if not folder.exists()]
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{wanted.name}.", dir=wanted.parent) as temporary:
            folder = Path(temporary, wanted.name)
            folder.mkdir()  # unlike its parent, with the permissions that new folders have here
            yield folder
    except OSError as error:
        failure = _not_written(wanted, error)
        failure.hint += " (--out)"  # every command that makes a folder has this option
        raise failure from error
    finally:
        with contextlib.suppress(OSError):  # not empty: the folder was renamed
            for folder in above:
                folder.rmdir()


def rename_unique(folder: Path, wanted: Path) -> Path:
    """Rename a filled folder to ``wanted``, or to ``wanted-2``, ``-3``, … where that exists; returns its path."""
    target = wanted
    for number in itertools.count(2):
        try:
            target.mkdir()  # no other process can take the name now
            break
        except FileExistsError:
            target = wanted.with_name(f"{wanted.name}-{number}")
    if os.name == "nt":  # where a folder, even an empty one, is not renamed over
        target.rmdir()
    return folder.rename(target)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=_ERRORS)


def json_line(value: Any, ascii_only: bool = False) -> str:
    """A JSON document in one line; NaN, which JSON does not have, becomes null."""
    return json.dumps(_without_nan(value), ensure_ascii=ascii_only, allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a CSV table with the columns of the first row."""
    text = io.StringIO()
    if rows:
        table = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    write_text(path, text.getvalue())
