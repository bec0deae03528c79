"""Test-time augmentation: predictions from an image and its mirror image together.

Krizhevsky et al. 2012, "ImageNet Classification with Deep Convolutional Neural Networks", section 4.1, average over
mirror images; what is done with the predictions of a task, ``merge_mirrored`` of its ``tasks/NAME/decode.py`` says.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from functools import partial

import numpy as np

from hubel.errors import UsageError
from hubel.inference.engines.base import Engine
from hubel.models.metadata import ModelMetadata
from hubel.tasks.decoding import Thresholds, decoder_of, images_with_nan

Predictions = Mapping[str, np.ndarray]
Merge = Callable[[Predictions, Predictions], dict[str, np.ndarray]]
"""From the predictions (N, …) for images, and for their mirror images, to those for both together."""


def merge_of(metadata: ModelMetadata, model: str, thresholds: Thresholds, is_file: bool) -> Merge | None:
    """How the two predictions of a model become one: not a number if one of them is not.

    None where they are decisions: these are averaged by a network that is :class:`~hubel.models.mirrored.Mirrored`,
    which an exported file (``is_file``) is not.

    Raises:
        ModelError: such models make no predictions of images.
        UsageError: masks cannot be merged, an exported file gives decisions, or scores would fall twice: in each view
            and in both together.
    """
    if thresholds.suppression.decay is not None:
        message = f"--nms {thresholds.nms} would lower the scores of --tta twice, in each view and of both together"
        raise UsageError(message, "omit one of them")
    decoder = decoder_of(metadata.task, model)
    if decoder.AVERAGED_IN_NETWORK:
        if is_file:
            message = f"{model} is an exported model without the probabilities that --tta averages"
            raise UsageError(message, "omit --tta, or pass the model that was exported instead of its file")
        return None
    if not hasattr(decoder, "merge_mirrored"):
        raise UsageError(f"{model} finds masks, which --tta cannot join", "omit --tta")
    merge = partial(decoder.merge_mirrored, metadata=metadata, thresholds=thresholds)

    def merged(predictions: Predictions, mirrored: Predictions) -> dict[str, np.ndarray]:
        both = merge(predictions, mirrored)
        # Thresholds would leave such scores out, as if nothing had been found.
        broken = [
            index for view in (predictions, mirrored) for each in view.values() for index in images_with_nan(each)
        ]
        if broken:
            both[next(iter(both))][broken] = np.nan
        return both

    return merged


class MirroringEngine:
    """An engine that sees each image twice: as it is, and mirrored from left to right.

    A batch is followed by that of its mirror images: memory grows by the predictions of one batch.
    """

    def __init__(self, engine: Engine, merge: Merge) -> None:
        self.name, self.device, self.precision = engine.name, engine.device, engine.precision
        self.threads, self.batch, self.outputs = engine.threads, engine.batch, engine.outputs
        self._engine, self._merge = engine, merge

    def run(self, batches: Iterable[np.ndarray]) -> Generator[dict[str, np.ndarray], None, None]:
        """See :meth:`hubel.inference.engines.base.Engine.run`."""

        def views() -> Iterator[np.ndarray]:
            for pixels in batches:
                yield pixels
                yield np.ascontiguousarray(pixels[:, :, ::-1])

        with closing(self._engine.run(views())) as outputs:
            for predictions, mirrored in zip(outputs, outputs, strict=True):
                yield self._merge(predictions, mirrored)
