"""Training images as augmentation changes them, with their objects, for a report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from hubel.data.loader import BatchDataset
from hubel.data.samples import Sample
from hubel.data.transforms.pipeline import Transform
from hubel.drawing import BoxLabel, draw_boxes, draw_instances
from hubel.masks import encode
from hubel.reports.report_data import AugmentationSample


def augmentation_preview(
    samples: Sequence[Sample], plain: Transform, augmented: Transform, seed: int, images: int = 6, variants: int = 7
) -> list[AugmentationSample]:
    """A few training images, evenly taken, with boxes, or masks, in the colours of their classes.

    Unreadable ones are left out. Each is shown as ``plain`` makes it, without random changes, and in the versions that
    ``augmented`` makes of it in the first epochs of the run with this seed, at the same size.
    """
    originals, changed = (BatchDataset(samples, transform, seed) for transform in (plain, augmented))
    step = max(1, len(samples) // images)
    preview = []
    for index in range(0, len(samples), step)[:images]:
        if original := _drawn(originals, [(0, index)]):
            versions = _drawn(changed, [(epoch, index) for epoch in range(variants)])
            preview.append(AugmentationSample(original[0], versions))
    return preview


def _drawn(images: BatchDataset, keys: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    batch = images.__getitems__(keys)
    drawn = []
    for pixels, target in zip(batch.pixels.permute(0, 2, 3, 1).numpy(), batch.targets, strict=True):
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        objects = zip(target.boxes.tolist(), target.labels.tolist(), strict=True)
        labels = [BoxLabel((x1, y1, x2, y2), "", index) for (x1, y1, x2, y2), index in objects]
        if not labels:
            drawn.append(pixels)
        elif target.masks is None:
            drawn.append(np.asarray(draw_boxes(image, labels)))
        else:
            drawn.append(np.asarray(draw_instances(image, labels, list(map(encode, target.masks)))))
    return drawn
