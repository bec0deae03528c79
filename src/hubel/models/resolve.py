"""From what a person calls a model to the file of its weights, without torch."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubel.models.metadata import METADATA_FILE, WEIGHTS_FILE, read_metadata
from hubel.weights.catalog import default_entry, find_entry
from hubel.weights.download import digest
from hubel.weights.local_cache import fetch


@dataclass(frozen=True)
class FoundModel:
    """A model that is on this machine.

    Attributes:
        name: as it was asked for.
        digest: hexadecimal SHA-256 of all that decides what it answers: its weights, architecture, classes and
            preprocessing. Models of the same digest are the same.
    """

    name: str
    digest: str


def find_model(reference: Path | str) -> FoundModel | None:
    """Find a model of those that :func:`~hubel.models.checkpoint.resolve_model` knows, and say which it is.

    Args:
        reference: as for ``resolve_model``.

    Returns:
        The model; or None where only ``resolve_model`` can tell, or say what is wrong.

    Raises:
        ModelError: the saved model's card is missing or damaged.
        WeightsError: there are no such weights, or they could not be had.
    """
    name, _, weights = str(reference).partition(":")
    if isinstance(reference, str) and default_entry(name) is not None:
        entry = find_entry(f"{name}:{weights}", name) if weights else default_entry(name)
        assert entry is not None
        facts = (entry.name, entry.preprocessing.to_json(), dict(entry.settings), entry.classes)
        return FoundModel(str(reference), _digest_of(facts, digest(fetch(entry))))
    if isinstance(reference, str) and not {"/", os.sep} & set(reference):
        return None  # it may be an architecture without weights as well as a folder
    folder = Path(reference)
    if (folder / "best").is_dir() and not (folder / METADATA_FILE).is_file():
        folder /= "best"
    if not (folder / METADATA_FILE).is_file() or not (folder / WEIGHTS_FILE).is_file():
        return None
    metadata = read_metadata(folder / METADATA_FILE)
    return FoundModel(str(reference), _digest_of(metadata.to_json(), digest(folder / WEIGHTS_FILE)))


def _digest_of(facts: Any, weights: str) -> str:
    text = json.dumps([facts, weights], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
