"""Atomic writes: files and folders are filled beside their destination and renamed into place."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from hubel.errors import DataError

# Names of files may hold bytes that are not text, which Python keeps as halves of surrogate pairs. Escaped by a
# backslash they are what JSON and YAML read back as the same name.
_ERRORS = "backslashreplace"


def temporary_beside(path: Path, prefix: str = "", suffix: str = "") -> Path:
    """Make an empty file in the folder of ``path``, to be filled and given to :func:`rename_into_place`.

    Its permissions are those of any new file there, by the umask; those of ``tempfile`` are the owner's alone.
    """
    while True:
        temporary = path.with_name(f"{prefix or f'.{path.name}.'}{secrets.token_hex(4)}{suffix}")
        with contextlib.suppress(FileExistsError):
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            return temporary


def rename_into_place(temporary: Path, path: Path) -> None:
    """Flush a file to disk and rename it to ``path``."""
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


@contextlib.contextmanager
def streaming_write(path: Path) -> Iterator[IO[str]]:
    """Give a text file that becomes ``path`` with what it holds when the block ends, also by Ctrl-C or an error.

    If the block ends by an error before anything was written, ``path`` is unchanged. Errors are those of
    :func:`atomic_write`.
    """
    try:
        temporary = temporary_beside(path)
        ended = False
        try:
            with temporary.open("w", encoding="utf-8", errors=_ERRORS, newline="\n") as file:
                yield file
                ended = True
        finally:
            if ended or temporary.stat().st_size:
                rename_into_place(temporary, path)
            else:
                temporary.unlink()
    except OSError as error:
        raise _not_written(path, error) from error


def _not_written(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} cannot be written: {error.strerror or error}", "free some space or choose --out")


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
        raise _not_written(wanted, error) from error
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


def json_line(value: Any) -> str:
    """A JSON document in one line; NaN, which JSON does not have, becomes null."""
    return json.dumps(_without_nan(value), ensure_ascii=False, allow_nan=False)


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
