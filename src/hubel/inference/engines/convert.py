"""A network in an engine's own form: found in the cache, or made and put there."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import hubel
from hubel.errors import ModelError
from hubel.inference.engines.cache import ConvertedCache, Entry, key_of
from hubel.inference.engines.lazy_model import ModelSource
from hubel.models.metadata import FoundModel, ModelMetadata

# To be counted up when what is written, or how it computes, changes while the versions do not.
CACHE_VERSION = "2"
_ANCHORS = "anchors.npy"


class Format(Protocol):
    """How networks are converted for an engine, stored and read again.

    Attributes:
        engine: its name.
        packages: whose versions decide what a conversion gives.
    """

    engine: str
    packages: tuple[str, ...]

    def convert(self, source: ModelSource) -> Any:
        """The network in the engine's form, in float32."""

    def write(self, network: Any, folder: Path) -> None:
        """Write its files; raises ``OSError``."""

    def read(self, folder: Path) -> Any:
        """The inverse of :meth:`write`."""


@dataclass(frozen=True)
class Converted:
    """A network in an engine's form.

    Attributes:
        network: what the engine takes.
        card: the model's.
        note: where it comes from, for the log line.
        anchors: a detector's, float32 (A, 4) in pixels of its input; ``None`` for other tasks.
    """

    network: Any
    metadata: ModelMetadata
    note: str
    anchors: np.ndarray | None = None


def conversion_key(found: FoundModel, form: Format, precision: str = "fp32", calibration: str = "") -> str:
    """The name in the cache of a model's conversion.

    Args:
        found: the model.
        form: of the engine.
        precision: of the weights that are stored: ``"fp32"``, which every float format is computed from, or
            ``"int8"``.
        calibration: a digest of what int8's ranges were measured on, and how.
    """
    versions = [f"{package} {version(package)}" for package in form.packages]
    return key_of(CACHE_VERSION, hubel.__version__, found.digest, form.engine, precision, calibration, *versions)


def find_converted(source: ModelSource, form: Format) -> Converted | None:
    """The conversion in float32 that the cache has, without torch; None if it has none."""
    if source.found is None:
        return None
    return read_converted(conversion_key(source.found, form), form)


def read_converted(key: str, form: Format) -> Converted | None:
    """The conversion of a key that the cache has; None if it has none."""
    return _read(ConvertedCache().get(key), form)


def find_newest(source: ModelSource, form: Format, precision: str) -> Converted | None:
    """The conversion of a precision that was used last, whatever it was calibrated on."""
    cache = ConvertedCache()
    for entry in cache.entries():
        if source.found is not None and (entry.origin, entry.precision, entry.engine) == (
            source.found.digest,
            precision,
            form.engine,
        ):
            converted = _read(cache.get(entry.folder.name), form)
            if converted is not None:
                return converted
    return None


def _read(entry: Entry | None, form: Format) -> Converted | None:
    if entry is None:
        return None
    try:
        anchors = entry.folder / _ANCHORS
        return Converted(
            form.read(entry.folder),
            ModelMetadata.from_json(entry.metadata),
            "converted before",
            np.load(anchors, allow_pickle=False) if anchors.is_file() else None,
        )
    except (
        RuntimeError,
        OSError,
        ValueError,
        TypeError,
        KeyError,
        ModelError,
    ):  # another process has just thrown it out
        return None


def convert(source: ModelSource, form: Format) -> Converted:
    """Find a model's conversion in the cache, or make it and put it there.

    What cannot be kept (a full disk, a folder that may not be written, a module that was handed over) is made all the
    same; the note says so.

    Raises:
        ModelError, WeightsError: the model cannot be loaded.
    """
    try:
        with ConvertedCache().alone():
            return find_converted(source, form) or _converted(source, form)
    except OSError as error:
        made = _make(source, form)
        return replace(made, note=f"{made.note}, not kept: {error.strerror or error}")


def _make(source: ModelSource, form: Format) -> Converted:
    _, metadata = source.load()
    start = time.perf_counter()
    network = form.convert(source)
    return Converted(network, metadata, f"converted in {time.perf_counter() - start:.1f} s", source.anchors())


def _converted(source: ModelSource, form: Format) -> Converted:
    made = _make(source, form)
    found = source.found
    if found is None:
        return replace(made, note=f"{made.note}, not kept: only models with a name are")
    failure = store_converted(found, form, made, conversion_key(found, form))
    if failure:
        return replace(made, note=f"{made.note}, not kept: {failure}")
    # What was written, as every later run will read it: the first then answers to the last digit as they do.
    kept = find_converted(source, form) or made
    return replace(kept, note=f"{made.note}, kept for next time")


def store_converted(found: FoundModel, form: Format, made: Converted, key: str, precision: str = "fp32") -> str:
    """Put a conversion into the cache.

    Args:
        found: the model that was converted.
        form: of the engine.
        made: the conversion.
        key: from :func:`conversion_key`.
        precision: as the key has it.

    Returns:
        In a few words why it could not be kept; empty if it is.
    """
    facts = {
        "model": found.name,
        "engine": form.engine,
        "precision": precision,
        "origin": found.digest,
        "metadata": made.metadata.to_json(),
    }

    def write(folder: Path) -> None:
        form.write(made.network, folder)
        if made.anchors is not None:
            np.save(folder / _ANCHORS, made.anchors)

    try:
        ConvertedCache().put(key, write, facts)
    except OSError as error:
        return error.strerror or str(error)
    except RuntimeError:  # OpenVINO's, which does not tell more
        return "it could not be written (is the disk full?)"
    return ""
