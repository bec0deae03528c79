"""Cache of converted networks between runs: bounded, verified when read, safe with several processes.

An entry is a folder ``KEY`` below ``$HUBEL_CACHE/converted`` with the network's files and ``entry.json``, which has
their digests. It is filled under a temporary name and renamed; an entry that does not match its digests is removed and
converted anew. The folder is its owner's alone: what other users own or can write is not believed, whatever it says of
itself. The least recently used entries go first when the limit is reached.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubel.bounded import read_json
from hubel.console import log
from hubel.errors import UsageError
from hubel.weights.local_cache import cache_folder

CACHE_VERSION = "3"
"""Raised when what is stored, or how it computes, changes while the versions of the packages do not. Conversions of
another version are never read."""

_FACTS = "entry.json"
_LIMIT_GB = 2.0
_LONGEST_TEXT = 4096  # characters of a path
_LOCK_TIMEOUT = 60.0  # seconds for another process's conversion
_ABANDONED = 3600.0  # seconds after which an unfinished folder is left over from a killed process


@dataclass(frozen=True)
class Entry:
    """A converted network, with the model's metadata, as in ``model.json``, and the digests of its files by name.

    Attributes:
        version: the :data:`CACHE_VERSION` that wrote it.
        precision: of its weights: ``"fp32"`` or ``"int8"``.
        origin: digest of the model that was converted (:class:`hubel.models.metadata.FoundModel`).
        last_used: seconds since the epoch.
    """

    folder: Path
    version: str
    model: str
    engine: str
    precision: str
    origin: str
    metadata: dict[str, Any]
    files: dict[str, str]
    size_bytes: int = 0
    last_used: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """A row of ``hubel cache --json``."""
        shown = ("model", "engine", "precision", "size_bytes", "last_used")
        return {"key": self.folder.name, **{name: getattr(self, name) for name in shown}}


def key_of(*facts: str) -> str:
    """The name of an entry: a digest of everything that decides what the converted network computes."""
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:40]


class ConvertedCache:
    """The folder of converted networks, ``$HUBEL_CACHE/converted`` by default.

    All entries together have at most ``limit`` bytes; by default ``HUBEL_CACHE_GB``, else 2 GB.

    Raises:
        UsageError: ``HUBEL_CACHE_GB`` is not a number.
    """

    def __init__(self, folder: Path | None = None, limit: int | None = None) -> None:
        self.folder = cache_folder().with_name("converted") if folder is None else folder
        if limit is None:
            given = os.environ.get("HUBEL_CACHE_GB", "")
            try:
                limit = round((float(given) if given else _LIMIT_GB) * 1e9)
            except (ValueError, OverflowError) as error:
                raise UsageError(f"HUBEL_CACHE_GB is {given!r}", "use a number of gigabytes, such as 2") from error
        self.limit = limit

    def get(self, key: str) -> Entry | None:
        """The entry, if it exists and is intact; it becomes the most recently used."""
        if not self._is_private(self.folder):
            return None
        entry = _read(self.folder / key)
        if entry is None:
            return None
        if not all(map(self._is_private, (entry.folder, *(entry.folder / name for name in (_FACTS, *entry.files))))):
            return None  # digests prove nothing where others can write both
        if not _intact(entry):
            self._remove(entry.folder)
            return None
        with contextlib.suppress(OSError):  # a read-only folder, from which nothing is ever removed
            os.utime(entry.folder / _FACTS)
        return entry

    def put(self, key: str, write: Callable[[Path], None], facts: dict[str, Any]) -> None:
        """Add an entry under a :func:`key_of`, and remove others that would exceed the limit.

        ``write`` writes its files into a folder; ``facts`` are the attributes of the :class:`Entry` from ``version`` to
        ``metadata``.

        Raises:
            OSError: the disk is full or read-only, or the entry alone is larger than the limit.
        """
        self._make_folder()
        # The dot marks an unfinished folder.
        staged = Path(tempfile.mkdtemp(prefix=f".{key[:8]}.", dir=self.folder))
        try:
            write(staged)
            files = {path.name: _digest(path) for path in staged.iterdir()}
            size = sum(path.stat().st_size for path in staged.iterdir())
            if size > self.limit:
                raise OSError(f"{size / 1e6:.0f} MB are more than the cache may hold ({self.limit / 1e6:.0f} MB)")
            row = json.dumps({**facts, "files": files}, indent=1, ensure_ascii=False)
            (staged / _FACTS).write_text(f"{row}\n", "utf-8")
            for path in staged.iterdir():
                path.chmod(0o600)
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            self._make_room(size)
            self._remove(self.folder / key)
            try:
                staged.rename(self.folder / key)
            except OSError:
                if not (self.folder / key).is_dir():  # else another process was faster, and its entry is as good
                    raise
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def entries(self) -> list[Entry]:
        """All entries, most recently used first."""
        try:
            folders = [path for path in self.folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
        except OSError:
            return []
        return sorted(filter(None, map(_read, folders)), key=lambda entry: -entry.last_used)

    def clear(self) -> int:
        """Remove all entries and anything else in the folder; returns the bytes of the entries."""
        freed = sum(entry.size_bytes for entry in self.entries())
        with contextlib.suppress(OSError):
            for path in list(self.folder.iterdir()):
                if path.is_dir():
                    self._remove(path)
        return freed

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let one process at a time convert: the others then find its conversion.

        Raises:
            OSError: the folder is read-only, or another process takes minutes.
        """
        from filelock import FileLock, Timeout

        self._make_folder()
        lock = FileLock(self.folder / ".lock")
        # filelock's Timeout is an OSError.
        try:
            lock.acquire(timeout=1)
        except Timeout:
            log("another process converts a network: waiting for it")
            lock.acquire(timeout=_LOCK_TIMEOUT)
        try:
            yield
        finally:
            lock.release()

    def _make_folder(self) -> None:
        """Make the folder for its owner alone; raises ``OSError`` if others own it or can write to it."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if os.name != "nt" and self.folder.lstat().st_uid == os.geteuid() and not self.folder.is_symlink():
            self.folder.chmod(0o700)  # earlier versions left it to the umask
        if not self._is_private(self.folder):
            raise OSError(f"{self.folder} belongs to or can be written by other users")

    @staticmethod
    def _is_private(path: Path) -> bool:
        """True if nobody but this user and the system's can have written a file or folder; links do not count."""
        if os.name == "nt":  # where a user's folders are the user's by inheritance
            return True
        try:
            found = path.lstat()
        except OSError:
            return False
        return (
            found.st_uid in (os.geteuid(), 0)
            and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            and not stat.S_ISLNK(found.st_mode)
        )

    def _make_room(self, size: int) -> None:
        """Remove the least recently used until ``size`` more bytes fit, and what killed processes left."""
        entries = self.entries()
        total = size + sum(entry.size_bytes for entry in entries)
        while entries and total > self.limit:
            last = entries.pop()
            self._remove(last.folder)
            total -= last.size_bytes
        for path in self.folder.glob(".*.*"):
            with contextlib.suppress(OSError):
                if path.is_dir() and time.time() - path.stat().st_mtime > _ABANDONED:
                    shutil.rmtree(path, ignore_errors=True)

    def _remove(self, folder: Path) -> None:
        """Remove an entry, which disappears for other processes at once."""
        with contextlib.suppress(OSError):
            aside = Path(tempfile.mkdtemp(prefix=".removed.", dir=self.folder))
            with contextlib.suppress(OSError):
                folder.rename(aside / "entry")
            shutil.rmtree(aside, ignore_errors=True)


def _read(folder: Path) -> Entry | None:
    """The entry that a folder describes; None if there is none."""
    facts = folder / _FACTS
    # Refused by _intact, so that it is listed and removed.
    damaged = Entry(folder, "", "damaged", "", "", "", {}, {})
    try:
        row = read_json(facts)
        # Only names of files in the folder itself: the contents of a cache are not to be trusted.
        files = {Path(name).name: str(value) for name, value in row["files"].items()}
        size = sum((folder / name).stat().st_size for name in files)
        # Entries of the first version have neither version nor metadata; they are listed and removed, but not read.
        texts = [row.get("version", "1"), *(row[key] for key in ("model", "engine", "precision", "origin"))]
        metadata = row.get("metadata", {})
        if not all(isinstance(text, str) and len(text) <= _LONGEST_TEXT for text in texts):
            raise TypeError("texts are not texts")
        version, model, engine, precision, origin = texts
        last_used = facts.stat().st_mtime
        return Entry(folder, version, model, engine, precision, origin, metadata, files, size, last_used)
    except FileNotFoundError:
        return damaged if facts.exists() else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return damaged


def _intact(entry: Entry) -> bool:
    try:
        return bool(entry.files) and all(_digest(entry.folder / name) == value for name, value in entry.files.items())
    except OSError:
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
