"""Any classifier as a detector: slid over a picture in windows of several sizes.

What :mod:`hubel.models.detection.sliding_window` is trained for, done with a network that knows whole pictures only.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from hubel.boxes import clip, nms
from hubel.data.image_io import read_image
from hubel.data.preprocessing import FILTERS, Preprocessing
from hubel.errors import ModelError, UsageError
from hubel.inference.fusion import fuse
from hubel.models import ModelMetadata, describe, resolve_model
from hubel.models.detection.sliding_window import ImagePyramid
from hubel.models.fully_convolutional import to_fully_convolutional
from hubel.results import Detections

_SHARES = (1.0, 0.7, 0.5)
_MOST = 300
_OVERLAPPING = 4  # windows in a row that show a place, where the network does not say


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
    """Slide a classifier over a picture, and keep the windows of which it is sure.

    Where the network allows it, it runs once over the picture at each size
    (:func:`hubel.to_fully_convolutional`), else over the windows one by one. These overlap by as many pixels as the
    network's stride leaves; so do the boxes, which are the windows.

    Args:
        model: a classifier: a name, a run folder, or a module.
        image: a file, or an upright image.
        sizes: sides of the windows in pixels of the picture; by default its shorter side, 0.7 and 0.5 of it.
        conf: windows of a lower probability are left out, 0..1.
        iou: of two windows of a class that overlap by more, the better one stays, 0..1.
        nothing: classes that are no objects, as "background".
        metadata: describes ``model`` if that is a module; by default what ``create_model`` recorded.
        crops: run over the windows one by one in any case.
        batch: windows at a time, one by one.

    Returns:
        The windows that stay, 300 at most, best first.

    Raises:
        ModelError: the model is no classifier.
        UsageError: a window is larger than the picture, or ``nothing`` names what is no class.
    """
    if isinstance(model, nn.Module):
        network, metadata = model, metadata or describe(model)
    else:
        network, metadata = resolve_model(model)
    if metadata.task != "classify":
        raise ModelError(f"{metadata.architecture} is no classifier.", "Use it as it is: hubel predict.")
    if unknown := set(nothing) - set(metadata.classes):
        raise UsageError(
            f"nothing: {min(unknown)!r} is no class of the model", f"it has {', '.join(metadata.classes[:5])}"
        )
    picture = image if isinstance(image, Image.Image) else read_image(Path(image))
    shorter = min(picture.size)
    sizes = [share * shorter for share in _SHARES] if sizes is None else sizes
    if not all(0 < size <= shorter for size in sizes):
        raise UsageError(f"sizes {list(sizes)}: the picture's shorter side has {shorter} pixels", "use 1 to that")
    slider = _slider(network, metadata.preprocessing, crops, batch)
    boxes, probabilities = (
        torch.cat(parts) for parts in zip(*(slider.windows(picture, size) for size in sizes), strict=True)
    )
    probabilities[:, [metadata.classes.index(name) for name in nothing]] = 0
    place, label = torch.nonzero(probabilities >= conf, as_tuple=True)
    score, boxes = probabilities[place, label], clip(boxes[place], picture.width, picture.height)
    kept = nms(boxes, score, label, iou=iou)[:_MOST]
    names = tuple(metadata.classes[index] for index in label[kept].tolist())
    source = None if isinstance(image, Image.Image) else str(image)
    best = boxes[kept].numpy(), score[kept].numpy(), label[kept].numpy()
    return Detections(source, picture.width, picture.height, *best, names)


@dataclass(frozen=True)
class _Slider:
    """A network that looks at windows.

    Attributes:
        network: maps images to the scores of all windows, or crops to those of one each.
        everywhere: whether it is the former.
        preprocessing: the classifier's.
        pyramid: window and stride.
        batch: crops at a time.
    """

    network: nn.Module
    everywhere: bool
    preprocessing: Preprocessing
    pyramid: ImagePyramid
    batch: int

    @torch.inference_mode()
    def windows(self, picture: Image.Image, size: float) -> tuple[Tensor, Tensor]:
        """All windows (A, 4) of one size in pixels of the picture, and their probabilities (A, classes)."""
        ready, pyramid = self.preprocessing, self.pyramid
        scaled = [pyramid.fitted(side * pyramid.window / size) for side in (picture.height, picture.width)]
        drawn = picture.convert("L" if ready.channels == 1 else "RGB").resize(
            (scaled[1], scaled[0]), FILTERS[ready.interpolation]
        )
        pixels = torch.from_numpy(np.array(drawn)).view(*scaled, ready.channels).permute(2, 0, 1)
        images = ready.normalize(pixels[None])
        if self.everywhere:
            scores = self.network(images)[0].flatten(1).T
        else:
            scores = torch.cat([self.network(part) for part in self._crops(images[0]).split(self.batch)])
        boxes = pyramid.boxes((scaled[0], scaled[1]), picture.height, picture.width)
        return boxes, torch.softmax(scores.float(), 1)

    def _crops(self, image: Tensor) -> Tensor:
        """The windows (A, C, window, window) of an image (C, H, W), row by row."""
        window, stride = self.pyramid.window, self.pyramid.stride
        crops = image.unfold(1, window, stride).unfold(2, window, stride)
        return crops.permute(1, 2, 0, 3, 4).flatten(0, 1)


def _slider(network: nn.Module, preprocessing: Preprocessing, crops: bool, batch: int) -> _Slider:
    window = preprocessing.width
    plain = fuse(network, torch.device("cpu"), torch.float32)
    one_by_one = _Slider(plain, False, preprocessing, ImagePyramid(window, max(1, window // _OVERLAPPING)), batch)
    try:
        everywhere = to_fully_convolutional(network, window)
    except ModelError:
        return one_by_one
    pyramid = ImagePyramid(window, everywhere.stride)
    if crops:
        return replace(one_by_one, pyramid=pyramid)
    return _Slider(fuse(everywhere, torch.device("cpu"), torch.float32), True, preprocessing, pyramid, batch)
