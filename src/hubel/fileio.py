"""Files and folders that are never half written: filled beside their place and renamed into it."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from hubel.errors import DataError


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it is flushed to disk and renamed into place.

    Raises:
        DataError: the folder cannot be written or the disk is full; ``path`` is then as it was.
    """
    temporary: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(descriptor)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}", "free some space or choose --out"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def streaming_write(path: Path) -> Iterator[IO[str]]:
    """Give a text file that becomes ``path`` however the block ends: by Ctrl-C or an error, with what it holds then.

    It is written beside its place and renamed; if nothing was written into it by an error, ``path`` is as it was.

    Raises:
        DataError: the folder cannot be written or the disk is full.
    """
    hint = "Free some space, or name another place."
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}.", hint) from error
    temporary = Path(name)
    ended = False
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            yield file
            ended = True
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}.", hint) from error
    finally:
        if ended or temporary.stat().st_size:
            temporary.chmod(0o644)
            temporary.replace(path)
        else:
            temporary.unlink()


@contextlib.contextmanager
def staged_directory(wanted: Path) -> Iterator[Path]:
    """Give an empty folder of the same name on the same disk, to be filled and then given to :func:`place`.

    Whatever happens, nothing of it is left behind, nor of folders above ``wanted`` that were made for it.

    Raises:
        DataError: the folder cannot be made, or writing into it fails.
    """
    above = [folder for folder in wanted.parents if not folder.exists()]
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{wanted.name}.", dir=wanted.parent) as temporary:
            folder = Path(temporary, wanted.name)
            folder.mkdir()  # unlike its parent, with the permissions that new folders have here
            yield folder
    except OSError as error:
        raise DataError(
            f"{wanted} cannot be written: {error.strerror or error}",
            "free some space or choose another place with --out",
        ) from error
    finally:
        with contextlib.suppress(OSError):  # not empty: it was filled
            for folder in above:
                folder.rmdir()


def place(folder: Path, wanted: Path) -> Path:
    """Rename a filled folder to ``wanted``, or to ``wanted-2``, ``-3``, … where there is something already.

    Raises:
        OSError: the disk does not let it.
    """
    number = 1
    while True:
        target = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            target.mkdir()  # nobody else can take it now
        except FileExistsError:
            number += 1
            continue
        if os.name == "nt":  # where a folder, even an empty one, is not renamed over
            target.rmdir()
        return folder.rename(target)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def json_line(value: Any) -> str:
    """A JSON document in one line; NaN becomes null, as JSON knows none."""
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
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a CSV table with the first row's columns."""
    text = io.StringIO()
    if rows:
        table = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    write_text(path, text.getvalue())
