"""A model, loaded when its weights are needed, and its conversion for an engine: from the cache, or made and stored."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hubel
from hubel.errors import HubelError, ModelError
from hubel.inference.engines.base import Backend
from hubel.inference.engines.cache import CACHE_VERSION, ConvertedCache, key_of
from hubel.inference.engines.process import claim_process
from hubel.models.metadata import FoundModel, ModelMetadata, find_model
from hubel.tasks.decoding import decoder_of, require_outputs

if TYPE_CHECKING:
    from torch import nn

_ATTEMPTS = 3  # to load a model that is being written


class ConversionError(ModelError):
    """A model that a backend's library cannot convert; torch can still run it."""


class ModelSource:
    """A model as a person names it, or a module with its metadata, by default what ``create_model`` knows of it.

    ``found`` is which model it is, where that can be found out without torch; None for modules, which may be anything.
    With ``tta``, a network whose predictions cannot be averaged afterwards is one that sees each image and its mirror
    image, with conversions of its own.

    Raises:
        ModelError, WeightsError: as ``resolve_model``.
    """

    def __init__(self, model: str | Path | nn.Module, metadata: ModelMetadata | None = None, tta: bool = False) -> None:
        self._model = model
        self._metadata = metadata
        self._tta = tta
        self._loaded: tuple[nn.Module, ModelMetadata] | None = None
        self.found: FoundModel | None = None
        if isinstance(model, str | Path):
            self.name = str(model)
            self.found = self._find(model)
        else:
            self.name = self.load()[1].architecture

    def load(self) -> tuple[nn.Module, ModelMetadata]:
        """The network, in evaluation mode unless it was passed in, and its metadata.

        Raises:
            ModelError: it cannot be found, is damaged, or gives no predictions of its task.
            WeightsError: the weights are not available.
        """
        from hubel.inference.engines.normalized_model import decoding_of
        from hubel.models.checkpoint import describe
        from hubel.models.mirrored import Mirrored

        if self._loaded is None:
            claim_process()
            if isinstance(self._model, str | Path):
                network, metadata = self._resolve(self._model)
                label = str(self._model)
            else:
                network, metadata = self._model, self._metadata or describe(self._model)
                label = metadata.architecture
            require_outputs(metadata.task, label, decoding_of(network)[0])
            self._loaded = Mirrored(network).eval() if self._mirrors(metadata.task, label) else network, metadata
        return self._loaded

    def _mirrors(self, task: str, label: str) -> bool:
        return self._tta and decoder_of(task, label).AVERAGED_IN_NETWORK

    def _find(self, model: str | Path) -> FoundModel | None:
        found = find_model(model)
        if found is None or not self._mirrors(found.task, found.name):
            return found
        return replace(found, name=f"{found.name} --tta", digest=f"{found.digest} mirrored, at three scales")

    def _resolve(self, model: str | Path) -> tuple[nn.Module, ModelMetadata]:
        """Load the model, and make :attr:`found` say what was loaded, should its files have been replaced meanwhile."""
        from hubel.models.checkpoint import resolve_model

        for _ in range(_ATTEMPTS):
            loaded = resolve_model(model)
            if self.found is None or self.found.is_unchanged():
                return loaded
            self.found = self._find(model)
        self.found = None  # a conversion of whatever this was is not kept
        return loaded


@dataclass(frozen=True)
class Converted:
    """A network in the form that :meth:`Backend.engine` takes; ``note`` says for the log where it comes from."""

    network: Any
    metadata: ModelMetadata
    note: str


def _key(found: FoundModel, backend: Backend, precision: str, calibration: str) -> str:
    versions = [f"{package} {version(package)}" for package in backend.packages]
    return key_of(CACHE_VERSION, hubel.__version__, found.digest, backend.name, precision, calibration, *versions)


def find_converted(
    source: ModelSource, backend: Backend, precision: str = "fp32", calibration: str = ""
) -> Converted | None:
    """The cached conversion, without torch; None if there is none.

    The precision is that of the stored weights: ``"fp32"``, which every float precision is computed from, or
    ``"int8"``, to which a digest of the images and settings belongs that its ranges were measured with.
    """
    return None if source.found is None else _read(_key(source.found, backend, precision, calibration), backend)


def has_kept(source: ModelSource, precision: str) -> bool:
    """Check for conversions of the model whose precision begins so, without opening them."""
    found = source.found
    return found is not None and any(
        entry.origin == found.digest and entry.precision.startswith(precision) for entry in ConvertedCache().entries()
    )


def find_newest(source: ModelSource, backend: Backend, precision: str) -> Converted | None:
    """The conversion of a precision that was used last, whatever it was calibrated on."""
    if source.found is None:
        return None
    identity = (CACHE_VERSION, source.found.digest, precision, backend.name)
    for entry in ConvertedCache().entries():
        matches = (entry.version, entry.origin, entry.precision, entry.engine) == identity
        if matches and (converted := _read(entry.folder.name, backend)) is not None:
            return converted
    return None


def _read(key: str, backend: Backend) -> Converted | None:
    entry = ConvertedCache().get(key)
    if entry is None:
        return None
    try:
        return Converted(backend.load(entry.folder), ModelMetadata.from_json(entry.metadata), "converted before")
    # Another process may just have removed it.
    except (RuntimeError, OSError, ValueError, TypeError, KeyError, ModelError):
        return None


def convert(source: ModelSource, backend: Backend) -> Converted:
    """Find a model's conversion in the cache, or make it and store it.

    What cannot be stored (a full disk, a read-only folder, a module that was passed in) is converted all the same; the
    note says so.

    Raises:
        ConversionError: the library cannot convert the model.
        ModelError, WeightsError: the model cannot be loaded.
    """
    try:
        with ConvertedCache().lock():
            if (converted := find_converted(source, backend)) is not None:
                return converted
            made = _make(source, backend)
            note = f"{made.note}, {store(source, backend, made)}"
            # As every later run will read it: all runs then give the same predictions to the last digit.
            return replace(find_converted(source, backend) or made, note=note)
    except OSError as error:
        made = _make(source, backend)
        return replace(made, note=f"{made.note}, not cached: {error.strerror or error}")


def _make(source: ModelSource, backend: Backend) -> Converted:
    from hubel.inference.engines.normalized_model import NormalizedModel

    model, metadata = source.load()
    start = time.perf_counter()
    with failing_as(f"{source.name} cannot be converted for the engine {backend.name}", "use --engine torch"):
        network = backend.convert(NormalizedModel(model, metadata.preprocessing))
    return Converted(network, metadata, f"converted in {time.perf_counter() - start:.1f} s")


@contextmanager
def failing_as(message: str, hint: str) -> Iterator[None]:
    """Report what a library raises, which may be anything, in one line.

    Raises:
        ConversionError: with the operations that OpenVINO does not know, or the first line of the library's message.
    """
    try:
        yield
    except (HubelError, OSError, MemoryError):
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        unknown = (line.lstrip("- ") for line in lines if "No conversion rule found" in line)
        raise ConversionError(f"{message}: {next(unknown, lines[0]):.300}", hint) from error


def store(
    source: ModelSource, backend: Backend, made: Converted, precision: str = "fp32", calibration: str = ""
) -> str:
    """Put a conversion into the cache, for :func:`find_converted`; says in a few words if it is there, or why not."""
    found = source.found
    if found is None:
        return "not cached: only models with a name are"
    facts = {
        "version": CACHE_VERSION,
        "model": found.name,
        "engine": backend.name,
        "precision": precision,
        "origin": found.digest,
        "metadata": made.metadata.to_json(),
    }
    key = _key(found, backend, precision, calibration)
    try:
        ConvertedCache().put(key, lambda folder: backend.save(made.network, folder), facts)
    except OSError as error:
        return f"not cached: {error.strerror or error}"
    return "cached for next time"
