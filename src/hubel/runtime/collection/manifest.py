"""What a job is, in ``job.json`` of its folder: a later run goes on with it only if it would give the same rows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hubel.errors import DataError
from hubel.fileio import write_json

MANIFEST = "job.json"


@dataclass(frozen=True)
class Manifest:
    """All that decides what is in which shard.

    Attributes:
        hubel: the version.
        model: as it was named; rows have it.
        digest: of its weights, classes and preprocessing.
        engine: as it was asked for, like ``precision`` and ``device``.
        precision: see there.
        device: see there.
        top: classes in a row.
        format: of the shards.
        block: names in one.
        names: pictures and videos in all.
        sources: digest of their names.
    """

    hubel: str
    model: str
    digest: str
    engine: str
    precision: str
    device: str
    top: int
    format: str
    block: int
    names: int
    sources: str


_AS_PEOPLE_SAY = {
    "hubel": "hubel's version",
    "digest": "the model's weights",
    "block": "--block",
    "format": "--format",
    "top": "--top",
    "engine": "--engine",
    "precision": "--precision",
    "device": "--device",
    "model": "--model",
    "names": "the number of sources",
    "sources": "the names of the sources",
}


@dataclass(frozen=True)
class Chosen:
    """What was decided when the job began, and stays: with which engine, in which number format."""

    engine: str
    precision: str


def write_manifest(folder: Path, manifest: Manifest, chosen: Chosen) -> None:
    """Write ``job.json``."""
    write_json(folder / MANIFEST, {"format_version": 1, **asdict(manifest), "chosen": asdict(chosen)})


def read_manifest(folder: Path, manifest: Manifest) -> Chosen | None:
    """What the job in the folder has decided; ``None`` where there is no job.

    Raises:
        DataError: it is another job than ``manifest``, its file is damaged, or the folder has other files in it.
    """
    path = folder / MANIFEST
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
        chosen = Chosen(**recorded["chosen"])
    except FileNotFoundError:
        strangers = [file.name for file in folder.iterdir() if not file.name.startswith(".")]
        if strangers:
            raise DataError(
                f"{folder} is not empty and has no {MANIFEST}: it has {strangers[0]}", "choose another --out"
            ) from None
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: {error}", "delete the folder, or choose another --out") from error
    here = asdict(manifest)
    differences = [_difference(key, recorded.get(key), here[key]) for key in here if recorded.get(key) != here[key]]
    if differences:
        raise DataError(
            f"{folder} holds a job with other settings: {'; '.join(differences)}",
            "repeat the command as it was to go on with that job, or choose another --out",
        )
    return chosen


def _difference(key: str, there: Any, here: Any) -> str:
    name = _AS_PEOPLE_SAY[key]
    return f"{name} differ" if key in ("digest", "sources") else f"{name} was {there}, is {here}"
