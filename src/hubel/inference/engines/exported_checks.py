"""What an exported file computes is checked, as the file may say anything of itself: errors, shapes, types, values."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from hubel.errors import HubelError, ModelError
from hubel.inference.engines.base import Engine
from hubel.tasks.decoding import decoder_of

_AGAIN = "use an undamaged copy, or export the model again"


def damaged(path: Path, error: Exception) -> ModelError:
    """What a library says of a file that it cannot read or run, in one line."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ModelError(f"{path} cannot be read: {reason:.200}", _AGAIN)


class CheckedEngine:
    """The engine of an exported file, whose predictions are those of its task, or a :class:`ModelError` names the file.

    ``classes`` is their number.
    """

    def __init__(self, engine: Engine, file: Path, task: str, classes: int) -> None:
        self.name, self.device, self.precision = engine.name, engine.device, engine.precision
        self.threads, self.batch, self.outputs = engine.threads, engine.batch, engine.outputs
        self._engine, self._file, self._task, self._classes = engine, file, task, classes

    def run(self, batches: Iterable[np.ndarray]) -> Generator[dict[str, np.ndarray], None, None]:
        """See :meth:`hubel.inference.engines.base.Engine.run`."""
        counts: deque[int] = deque()
        of_the_caller: list[Exception] = []

        def counted() -> Iterator[np.ndarray]:
            try:
                for pixels in batches:
                    counts.append(len(pixels))
                    yield pixels
            except Exception as error:
                of_the_caller.append(error)
                raise

        try:
            for predictions in self._engine.run(counted()):
                self._check(predictions, counts.popleft())
                yield predictions
        except (HubelError, MemoryError):
            raise
        except Exception as error:  # the libraries raise whatever they like
            if error in of_the_caller:
                raise
            raise damaged(self._file, error) from error

    def _check(self, predictions: Mapping[str, np.ndarray], images: int) -> None:
        """Raise :class:`ModelError` unless predictions of so many images have the shapes and types of the task."""
        names = decoder_of(self._task, str(self._file)).OUTPUTS
        anchors = predictions["boxes"].shape[1] if "boxes" in names and predictions["boxes"].ndim == 3 else 0
        side = predictions["masks"].shape[-1] if "masks" in names and predictions["masks"].ndim else 0
        shapes: dict[str, tuple[int | None, ...]] = {
            "probabilities": (images, self._classes),
            "boxes": (images, anchors, 4),
            "scores": (images, anchors, self._classes),
            "masks": (images, anchors, side, None),
            "class_map": (images, None, None),
            "image": (images, None, None, None),
        }
        for name in names:
            values, shape = predictions[name], shapes[name]
            kind = "iu" if name == "class_map" else "f"
            fits = len(shape) == values.ndim and all(
                length == wanted if wanted is not None else length > 0
                for length, wanted in zip(values.shape, shape, strict=True)
            )
            if not fits or values.dtype.kind not in kind or (self._task == "localize" and not anchors):
                found = f"{values.dtype} {values.shape}"
                raise ModelError(f"{self._file} gives {name} that its classes do not fit: {found:.100}", _AGAIN)
            of_a_class = name == "class_map" and values.size and not 0 <= values.min() <= values.max() < self._classes
            if of_a_class or (name in ("probabilities", "scores") and np.isinf(values).any()):
                raise ModelError(f"{self._file} gives {name} that no class or score has", _AGAIN)
