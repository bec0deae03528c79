"""What a job has written down in its folder: its settings, and the rows of its finished shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hubel.batch_predict.shards import Written
from hubel.bounded import BoundError, load_json, read_json
from hubel.errors import DataError

MANIFEST, LISTING, FINISHED = "job.json", "sources.jsonl", "finished.jsonl"
_LONGEST_LINE = 10_000  # characters of FINISHED
_SHOWN = 60
_LABELS = {
    "hubel": "hubel's version",
    "model": "--model",
    "digest": "the model's weights",
    "engine": "--engine",
    "precision": "--precision",
    "device": "--device",
    "top": "--top",
    "tta": "--tta",
    "format": "--format",
    "block": "--block",
    "names": "the number of sources",
    "sources": "the names of the sources",
}
"""Settings that decide the contents of the shards, by their keys in ``job.json``: what a message calls them."""

_ADDED = {"tta": False}
"""Settings that earlier versions did not record, and what they had."""


def read_manifest(folder: Path, settings: dict[str, Any]) -> dict[str, str] | None:
    """The engine and the precision of the job in the folder; ``None`` if there is no job.

    Raises:
        DataError: its settings are others, its file is damaged, or the folder contains other files.
    """
    path = folder / MANIFEST
    try:
        recorded = read_json(path)
        chosen = {key: recorded["chosen"][key] for key in ("engine", "precision")}
        if not all(isinstance(value, str) for value in chosen.values()):
            raise TypeError("engine and precision are not names")
    except FileNotFoundError:
        others = [file.name for file in folder.iterdir() if not file.name.startswith(".")]
        if others:
            message = f"{folder} is not empty and contains no {MANIFEST}, but {others[0]}"
            raise DataError(message, "choose another --out") from None
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path} is damaged: {error}", "delete the folder, or choose another --out") from error
    differences = []
    for key, here in settings.items():
        if (there := recorded.get(key, _ADDED.get(key))) != here:
            is_digest = key in ("digest", "sources")
            was = f"{_LABELS[key]} was {there!s:.{_SHOWN}}, is {here}"
            differences.append(f"{_LABELS[key]} differ" if is_digest else was)
    if differences:
        raise DataError(
            f"{folder} holds a job with other settings: {'; '.join(differences)}",
            "repeat the command as it was to continue with that job, or choose another --out",
        )
    return chosen


def read_finished(path: Path) -> dict[int, Written]:
    """Rows of each shard, by its number, as recorded when it was computed; without lines that cannot be read."""
    recorded: dict[int, Written] = {}
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            while line := lines.readline(_LONGEST_LINE):  # the last line of a killed run is incomplete
                if (found := _written(line)) is not None:
                    recorded[found[0]] = found[1]
    except FileNotFoundError:
        pass
    return recorded


def _written(line: str) -> tuple[int, Written] | None:
    try:
        row = load_json(line)
        block, rows, errors = (row[key] for key in ("block", "rows", "errors"))
    except (BoundError, LookupError, TypeError):
        return None
    if not all(type(number) is int for number in (block, rows, errors)) or not 0 <= errors <= rows < 1 << 32:
        return None
    return block, Written(rows, errors)
