"""Any classifier as a detector: slid over an image in windows of several sizes.

:mod:`hubel.models.detection.sliding_window` is trained for this; here it is done with a network for whole images.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from hubel.boxes import clip, nms
from hubel.data.image_io import read_image
from hubel.data.preprocessing import Preprocessing
from hubel.errors import ModelError, UsageError
from hubel.inference.engines.normalized_model import decoding_of
from hubel.inference.fusion import fuse
from hubel.models import ModelMetadata, describe, resolve_model
from hubel.models.detection.sliding_window import ImagePyramid
from hubel.models.fully_convolutional import to_fully_convolutional
from hubel.results import Detections

_FRACTIONS = (1.0, 0.7, 0.5)
_MAX_DETECTIONS = 300
_OVERLAPPING = 4  # windows in a row that contain a position, if the network does not define it


def slide(
    model: str | Path | nn.Module,
    image: str | Path | Image.Image,
    sizes: Sequence[float] | None = None,
    conf: float = 0.5,
    iou: float = 0.3,
    nothing: Collection[str] = (),
    metadata: ModelMetadata | None = None,
    crops: bool = False,
    batch: int = 32,
) -> Detections:
    """Slide a classifier over an image, and keep the windows with a confident prediction, 300 at most, best first.

    If the network allows it, it runs once over the image at each size (:func:`hubel.to_fully_convolutional`), else over
    the windows one by one. The boxes are the windows, which are a stride of the network apart.

    Args:
        model: a classifier: a name, a run folder, or a module with its ``metadata``, by default what ``create_model``
            knows of it.
        image: a file, or an upright image.
        sizes: sides of the windows in pixels of the image; by default its shorter side, 0.7 and 0.5 of it.
        conf: minimum probability of a window, 0..1.
        iou: NMS threshold, 0..1: of two windows of a class with a greater IoU, the better one is kept.
        nothing: classes that are not objects, such as "background".
        crops: always run over the windows one by one, ``batch`` at a time.

    Raises:
        ModelError: the model is not a classifier.
        UsageError: a window is larger than the image, or ``nothing`` names an unknown class.
    """
    if isinstance(model, nn.Module):
        network, metadata = model, metadata or describe(model)
    else:
        network, metadata = resolve_model(model)
    if "probabilities" not in decoding_of(network)[0]:
        raise ModelError(f"{metadata.architecture} is not a classifier", "use it as it is: hubel predict")
    if unknown := set(nothing) - set(metadata.classes):
        message = f"nothing: {min(unknown)!r} is not a class of the model"
        raise UsageError(message, f"choose from {', '.join(metadata.classes[:5])}")
    original = image if isinstance(image, Image.Image) else read_image(Path(image))
    shorter = min(original.size)
    sizes = [fraction * shorter for fraction in _FRACTIONS] if sizes is None else sizes
    if not all(0 < size <= shorter for size in sizes):
        raise UsageError(f"sizes {list(sizes)}: the image's shorter side has {shorter} pixels", "use 1 to that")
    slider = _Slider(network, metadata.preprocessing, crops, batch)
    windows = [slider.windows(original, size) for size in sizes]
    boxes, probabilities = (torch.cat(parts) for parts in zip(*windows, strict=True))
    probabilities[:, [metadata.classes.index(name) for name in nothing]] = 0
    window, label = torch.nonzero(probabilities >= conf, as_tuple=True)
    score, boxes = probabilities[window, label], clip(boxes[window], original.width, original.height)
    kept = nms(boxes, score, label, iou=iou)[:_MAX_DETECTIONS]
    names = tuple(metadata.classes[index] for index in label[kept].tolist())
    source = None if isinstance(image, Image.Image) else str(image)
    best = boxes[kept].numpy(), score[kept].numpy(), label[kept].numpy()
    return Detections(source, original.width, original.height, *best, names)


class _Slider:
    """A network that maps an image to the scores of all windows, or else ``batch`` crops to theirs."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, crops: bool, batch: int) -> None:
        window = preprocessing.width
        stride = max(1, window // _OVERLAPPING)
        self.everywhere = False
        try:
            everywhere = to_fully_convolutional(network, window)
            self.everywhere, stride = not crops, everywhere.stride
        except ModelError:
            pass
        self.network = fuse(everywhere if self.everywhere else network, torch.device("cpu"), torch.float32)
        self.preprocessing, self.batch = preprocessing, batch
        self.pyramid = ImagePyramid(window, stride)

    @torch.inference_mode()
    def windows(self, original: Image.Image, size: float) -> tuple[Tensor, Tensor]:
        """All windows (A, 4) of one size in pixels of the image, and their probabilities (A, classes)."""
        ready, pyramid = self.preprocessing, self.pyramid
        scaled = [pyramid.fitted(side * pyramid.window / size) for side in (original.height, original.width)]
        drawn = original.convert("L" if ready.channels == 1 else "RGB").resize((scaled[1], scaled[0]), ready.filter)
        pixels = torch.from_numpy(np.array(drawn)).view(*scaled, ready.channels).permute(2, 0, 1)
        images = ready.normalize(pixels[None])
        if self.everywhere:
            scores = self.network(images)[0].flatten(1).T
        else:
            rows = images[0].unfold(1, pyramid.window, pyramid.stride).unfold(2, pyramid.window, pyramid.stride)
            crops = rows.permute(1, 2, 0, 3, 4).flatten(0, 1)  # (A, C, window, window), row by row
            scores = torch.cat([self.network(part) for part in torch.split(crops, self.batch)])
        boxes = pyramid.boxes((scaled[0], scaled[1]), original.height, original.width)
        return boxes, torch.softmax(scores.float(), 1)
