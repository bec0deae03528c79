"""The contract of engines and their backends, whichever library computes."""

from __future__ import annotations

import inspect
import json
import logging
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hubel.errors import ModelError, UsageError
from hubel.system import cpu_count

if TYPE_CHECKING:
    import torch

    from hubel.data.preprocessing import Preprocessing
    from hubel.inference.engines.normalized_model import NormalizedModel

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
_FILE_BATCH = 16
_LONG_NAMES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class Precision:
    """The precision of an engine, one of :data:`PRECISIONS`, and why it was chosen, for the log line."""

    name: str
    reason: str = "as requested"


def canonical(precision: str, allowed: Sequence[str] = PRECISIONS) -> str:
    """The short name of a precision, which may be spelled ``"float32"``, ``"bfloat16"``, …; ``"auto"`` stays.

    Raises:
        UsageError: it is not ``"auto"`` and not one of ``allowed``.
    """
    name = _LONG_NAMES.get(precision, precision)
    if name != "auto" and name not in allowed:
        problem = "is not available with this engine and device" if name in PRECISIONS else "is not known"
        raise UsageError(f"precision {precision!r} {problem}", f"use auto, {', '.join(allowed)}")
    return name


class Engine(Protocol):
    """A network ready to run, from uint8 pixels to decoded predictions.

    Attributes:
        batch: images that go through the network at once. Batches of any other size are accepted too.
        outputs: names of the predictions.
    """

    name: str
    device: str
    precision: Precision
    threads: int
    batch: int
    outputs: tuple[str, ...]

    def run(self, batches: Iterable[np.ndarray]) -> Generator[dict[str, np.ndarray], None, None]:
        """Predictions of each batch, in order: float32 (N, …) by name, as a model's ``prediction_names`` has them.

        Batches are uint8 (N, height, width, channels), of any N from 0. They are taken one by one, in the caller's
        thread, and only a few more than were answered: ``batches`` may be endless.
        """
        ...


@dataclass(frozen=True)
class RunOptions:
    """How an engine is to run: by default on all cores of the CPU, with the batches that it is fastest with.

    With ``many``, several images run in parallel; otherwise all threads work on one.
    """

    precision: str = "auto"
    device: torch.device | None = None
    threads: int | None = None
    batch: int | None = None
    many: bool = True


Run = Callable[[np.ndarray], dict[str, np.ndarray]]
"""From uint8 pixels (N, height, width, channels) to predictions by name."""


class Backend(ABC):
    """A library that runs networks: what it can do, its conversion, its engine, its exported file.

    Attributes:
        converts: networks are converted first, and conversions are cached.
        parallel: its engine runs several images side by side, and is another for one image alone.
        packages: distributions whose versions decide what a conversion gives.
        precisions: those it can compute in, by type of device.
        export_file: name of an exported model's file.
        example_package: what a program needs to run that file.
        weight_precisions: those that weights of an exported graph are cast to; others are left to the library.
        not_exported: precision → why no file is written in it.
        opener: opens an exported file as a program without hubel does; its source is part of that program.
    """

    name: str
    converts = True
    parallel = False
    packages: tuple[str, ...]
    precisions: Mapping[str, tuple[str, ...]]
    export_file: str
    example_package: str
    weight_precisions: tuple[str, ...]
    not_exported: Mapping[str, str]
    opener: Callable[..., tuple[list[str], Run]]

    def require(self, feature: str) -> None:
        """Raise ``MissingExtraError``, which names ``feature``, unless its packages are installed."""
        return

    def check_nms(self, precision: str) -> None:
        """Raise ``UsageError`` or ``MissingExtraError`` if no graph with NMS can be written in a precision."""
        return

    def check_selection(self, precision: str, name: str) -> None:
        """Raise ``UsageError`` if a network that selects regions itself cannot run in a precision."""
        return

    @abstractmethod
    def convert(self, model: NormalizedModel) -> Any:
        """The graph of a model in the library's own form."""

    @abstractmethod
    def save(self, converted: Any, folder: Path, facts: Mapping[str, Any] | None = None, half: bool = False) -> None:
        """Write a conversion as :attr:`export_file` with ``facts`` as metadata, ``half``: float weights in 16 bits.

        Raises:
            OSError: it cannot be written.
        """

    def load(self, folder: Path) -> Any:
        """The inverse of :meth:`save`, for :meth:`engine`.

        Raises:
            ModelError: the backend does not convert: it runs modules as they are.
        """
        raise ModelError(f"{self.name} has no conversion to load from {folder}", "load the model itself")

    @abstractmethod
    def engine(self, network: Any, preprocessing: Preprocessing, options: RunOptions) -> Engine:
        """A network ready to run: a conversion, or the module itself where the backend does not convert.

        Raises:
            UsageError: it cannot compute in this precision on this machine.
        """

    def open_file(self, path: Path, threads: int = 0) -> tuple[list[str], Run]:
        """The classes of an exported file, and what runs it with so many threads, 0 for all."""
        return self.opener(path, threads=threads)

    @abstractmethod
    def read_facts(self, path: Path) -> Mapping[str, Any]:
        """The metadata that :meth:`save` has written into a file; where it holds text alone, as :func:`metadata_text`.

        Raises whatever the library raises for a damaged file.
        """

    def file_precision(self, precision: str) -> Precision:
        """What a file that was exported in a precision computes in on this processor."""
        return Precision(precision, "as exported")

    @abstractmethod
    def file_engine(self, path: Path, precision: Precision, outputs: tuple[str, ...], options: RunOptions) -> Engine:
        """An exported file ready to run; its predictions have the names ``outputs``."""

    def example(self) -> str:
        """Source of the :attr:`opener` without annotations, for a program without hubel."""
        source = inspect.getsource(self.opener)
        source = re.sub(r": (?:Path|Any|int|np\.ndarray)(?=[,)= ])|  # type: ignore\[.*?\]", "", source)
        return re.sub(r"(?m)^( *def \w+\(.*\)) -> .*:$", r"\1:", source).rstrip()


class FileEngine:
    """Runs an exported file batch after batch, by the function that also programs without hubel use."""

    device = "cpu"

    def __init__(
        self,
        name: str,
        run: Run,
        precision: Precision,
        outputs: tuple[str, ...],
        threads: int | None = None,
        batch: int | None = None,
    ) -> None:
        self.name, self.precision, self.outputs = name, precision, outputs
        self.threads, self.batch = threads or cpu_count(), batch or _FILE_BATCH
        self._run = run

    def run(self, batches: Iterable[np.ndarray]) -> Generator[dict[str, np.ndarray], None, None]:
        """See :meth:`hubel.inference.engines.base.Engine.run`."""
        for pixels in batches:
            # A graph takes one image at least.
            filled = pixels if len(pixels) else np.zeros((1, *pixels.shape[1:]), np.uint8)
            parts = [self._run(filled[start : start + self.batch]) for start in range(0, len(filled), self.batch)]
            yield {name: np.concatenate([part[name] for part in parts])[: len(pixels)] for name in self.outputs}


def metadata_text(facts: Mapping[str, Any]) -> dict[str, str]:
    """Metadata for files that hold text only: strings as they are, everything else as JSON."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for key, value in facts.items()
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings, and loggers below errors, whatever level their libraries set meanwhile."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
