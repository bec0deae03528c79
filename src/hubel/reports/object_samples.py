"""Training images with their objects as augmentation changes them, for the sheet in a report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from hubel.data.loader import ObjectImages
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import ObjectSample
from hubel.data.transforms.object_pipeline import ObjectPixels
from hubel.drawing import BoxLabel, draw_boxes
from hubel.reports.report_data import AugmentationSample


def object_samples(
    samples: Sequence[ObjectSample],
    preprocessing: Preprocessing,
    names: Sequence[str],
    seed: int,
    images: int,
    variants: int,
) -> list[AugmentationSample]:
    """A few training images, evenly taken, with boxes in the colours of their classes.

    Args:
        samples: of the training split.
        preprocessing: of the network.
        names: of :data:`~hubel.data.transforms.object_pipeline.OBJECT_AUGMENTATIONS`.
        seed: of the run.
        images: how many; those that cannot be read are left out.
        variants: how many changed versions of each: what the first epochs show.
    """
    plain = ObjectImages(samples, ObjectPixels(preprocessing), seed)
    changed = ObjectImages(samples, ObjectPixels(preprocessing, names), seed)
    step = max(1, len(samples) // images)
    sheet = []
    for index in range(0, len(samples), step)[:images]:
        original = _drawn(plain, [(0, index)])
        if original:
            sheet.append(
                AugmentationSample(original[0], _drawn(changed, [(epoch, index) for epoch in range(variants)]))
            )
    return sheet


def _drawn(images: ObjectImages, keys: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    batch = images.__getitems__(keys)
    drawn = []
    for pixels, targets in zip(batch.pixels.permute(0, 2, 3, 1).numpy(), batch.targets, strict=True):
        picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        objects = zip(targets.boxes.tolist(), targets.labels.tolist(), strict=True)
        drawn.append(
            np.asarray(draw_boxes(picture, [BoxLabel((x1, y1, x2, y2), "", k) for (x1, y1, x2, y2), k in objects]))
        )
    return drawn
