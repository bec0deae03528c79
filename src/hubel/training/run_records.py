"""What was measured and decided, so that the next run of the same kind, and a resumed one, compute as before.

Records are files that people copy and edit: what is not a record of the expected kind is not believed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from hubel.bounded import read_json
from hubel.console import log
from hubel.errors import DataError
from hubel.fileio import write_json
from hubel.validation import reason
from hubel.weights.local_cache import cache_folder

Record = TypeVar("Record")

STRICT: ConfigDict = {"extra": "forbid", "allow_inf_nan": False}
"""For the attribute ``__pydantic_config__`` of records."""

_LARGEST = 4 << 20  # bytes of a file of records; a measurement has a few hundred
_noted: set[Path] = set()


def measured_once(key: str, kind: type[Record], measure: Callable[[], Record]) -> Record:
    """A measurement of an earlier run on this machine, or a new one, which is stored for later runs.

    ``kind`` is a dataclass. What cannot be stored is measured again next time; one line says so.
    """
    path = cache_folder() / "measurements.json"
    stored = _stored(path)
    try:
        return _checked(kind, stored[key])
    except (KeyError, ValidationError):  # missing or damaged: measuring again costs seconds
        row = measure()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**_stored(path), key: asdict(row)})  # type: ignore[call-overload]
    except (OSError, DataError) as error:
        if path not in _noted:
            _noted.add(path)
            reason = error.message if isinstance(error, DataError) else f"{error.filename}: {error.strerror}"
            log(f"note: what was measured is not kept for the next run: {reason}")
    return row


def _stored(path: Path) -> dict[str, Any]:
    try:
        rows = read_json(path, _LARGEST)
    except (OSError, ValueError):
        return {}
    # Others' rows are written again with the new one: what is not a record of numbers and texts is dropped.
    return {key: row for key, row in rows.items() if _is_record(row)} if isinstance(rows, dict) else {}


def _is_record(row: Any) -> bool:
    return isinstance(row, dict) and all(isinstance(value, str | float | int) for value in row.values())


def decided_once(folder: Path, name: str, kind: type[Record], decide: Callable[[], Record]) -> Record:
    """A run's own decision where it has been made, so that a resumed run computes as it began.

    Raises:
        DataError: ``decisions.json`` is damaged, or cannot be written.
    """
    path = folder / "decisions.json"
    try:
        decisions = read_json(path, _LARGEST) if path.exists() else {}
        if not isinstance(decisions, dict):
            raise ValueError(f"it holds a {type(decisions).__name__}")
        if wrong := [key for key, row in decisions.items() if row is not None and not _is_record(row)]:
            raise ValueError(f"{wrong[0]!r:.40} is not a record")
        if decisions.get(name):
            return _checked(kind, decisions[name])
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is damaged: {_reason(error)}", "delete it, and the run decides anew how it computes"
        ) from error
    decision = decide()
    write_json(path, {**decisions, name: asdict(decision)})  # type: ignore[call-overload]
    return decision


def _checked(kind: type[Record], row: Any) -> Record:
    adapter: TypeAdapter[Record] = TypeAdapter(kind)
    # From JSON: of Python objects, strict validation takes instances of the dataclass only.
    return adapter.validate_json(json.dumps(row), strict=True)


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {reason(first)}"
    return f"{error or type(error).__name__}"[:200]
