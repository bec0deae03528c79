"""What a predictor is asked for, and its results as a sequence that is computed when it is needed."""

from __future__ import annotations

import io
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, overload

import numpy as np
from PIL import Image

from hubel.errors import UsageError
from hubel.inference.pipeline import FailedImage
from hubel.results import Prediction

if TYPE_CHECKING:
    from hubel.results import ImageResult

Source = str | Path | int | bytes | Image.Image | np.ndarray
ImageInput = Source | IO[bytes]

_ONE = (str, Path, int, bytes, Image.Image, np.ndarray)
_ACCEPTED = "pass file names, PIL images or NumPy arrays (height, width[, 3]): one, or an iterable of them"
_SHOWN = 12  # in a notebook
_THUMBNAIL = 320  # pixels of the longer side


def as_inputs(
    images: ImageInput | Iterable[ImageInput],
) -> Iterable[Source]:
    """What a predictor was called with as an iterable, a list where that is known; open files become their bytes.

    Raises:
        UsageError: it is not an image, or something of a list is not.
    """
    if _is_one(images):
        return [_checked(images)]
    if isinstance(images, list | tuple):
        return [_checked(image) for image in images]
    if isinstance(images, Iterable):
        return map(_checked, images)
    raise _not_an_image(images)


def _is_one(images: object) -> bool:
    return isinstance(images, _ONE) or hasattr(images, "read")


def _checked(image: object) -> Source:
    if isinstance(image, _ONE):
        return image
    if isinstance(image, io.TextIOBase):
        raise UsageError(f"{image!r:.80} was opened as text", 'open the image with open(name, "rb")')
    if callable(read := getattr(image, "read", None)) and isinstance(content := read(), bytes):
        return content
    raise _not_an_image(image)


def _not_an_image(found: object) -> UsageError:
    return UsageError(f"{found!r:.80} ({type(found).__name__}) is not an image", _ACCEPTED)


class LazyResults(Sequence[Prediction]):
    """Results of images, in their order. Each is computed when it, or one after it, is asked for first.

    ::

        results = predict(["a.jpg", "b.jpg", "c.jpg"])
        results[0].show()                # computes the first, and a few ahead
        len(results)                     # computes all

    Computed results are kept as long as the sequence is. ``for result in predict(folder)`` keeps none of them: there
    is nothing but the loop then that could ask for one again.

    Asking for the result of an image that cannot be read, or iterating to it, raises its ``ImageError``.
    """

    def __init__(self, outcomes: Iterator[Prediction | FailedImage]) -> None:
        self._outcomes = outcomes
        self._computed: list[Prediction | FailedImage] = []
        self._complete = False
        self._shared = False

    def _compute(self, count: int | None) -> None:
        """Compute the first ``count`` results, or all."""
        while not self._complete and (count is None or len(self._computed) < count):
            try:
                self._computed.append(next(self._outcomes))
            except StopIteration:
                self._complete = True

    def __len__(self) -> int:
        self._compute(None)
        return len(self._computed)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...

    @overload
    def __getitem__(self, index: slice) -> list[Prediction]: ...

    def __getitem__(self, index: int | slice) -> Prediction | list[Prediction]:
        last = index.stop if isinstance(index, slice) else index + 1
        known = last is not None and last > 0 and (isinstance(index, int) or (index.start or 0) >= 0)
        self._compute(last if known else None)
        if isinstance(index, slice):
            return [_result(outcome) for outcome in self._computed[index]]
        return _result(self._computed[index])

    def __iter__(self) -> Generator[Prediction, None, None]:
        # The first iterator does not keep the sequence: see the docstring. Later ones do, so that none misses results.
        first, self._shared = not self._shared, True
        return _iterate(weakref.ref(self) if first else lambda: self, self._computed, self._outcomes)

    def __repr__(self) -> str:
        if not self._computed:
            return "<LazyResults, not computed yet: iterate over them, or ask for one by its index>"
        lines = [f"  {_line(outcome)}" for outcome in self._computed[:_SHOWN]]
        more = "" if self._complete and len(self._computed) <= _SHOWN else "\n  …"
        return "<LazyResults:\n" + "\n".join(lines) + f"{more}>"

    def _repr_html_(self) -> str:
        """The first annotated images with their results, for notebooks; computes these."""
        from hubel.drawing.gallery import gallery

        self._compute(_SHOWN + 1)
        shown = self._computed[:_SHOWN]
        images = [None if isinstance(outcome, FailedImage) else _thumbnail(outcome) for outcome in shown]
        note = f"the first {_SHOWN}" if len(self._computed) > _SHOWN else ""
        return gallery(images, [_line(outcome) for outcome in shown], note)


def _iterate(
    sequence: Callable[[], LazyResults | None],
    computed: list[Prediction | FailedImage],
    outcomes: Iterator[Prediction | FailedImage],
) -> Generator[Prediction, None, None]:
    """The results of a sequence: those that are computed, and the others, which are kept while the sequence is."""
    position = 0
    while True:
        alive = sequence()
        if alive is not None:
            alive._compute(position + 1)
        del alive
        if position < len(computed):
            outcome = computed[position]
        else:
            following = next(outcomes, None)
            if following is None:
                return
            outcome = following
        position += 1
        yield _result(outcome)


def _result(outcome: Prediction | FailedImage) -> Prediction:
    if isinstance(outcome, FailedImage):
        raise outcome.error
    return outcome


def _line(outcome: Prediction | FailedImage) -> str:
    name = outcome.source or "image"
    if isinstance(outcome, FailedImage):
        return outcome.error.message
    return f"{name}: {outcome.describe()}"


def _thumbnail(result: ImageResult) -> bytes | None:
    from hubel.drawing.canvas import png_bytes
    from hubel.errors import ImageError

    try:
        return png_bytes(result.draw(), _THUMBNAIL)
    except ImageError:
        return None
