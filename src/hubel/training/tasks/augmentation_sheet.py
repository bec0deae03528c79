"""What augmentation makes of a few training images, for the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image

from hubel.data.image_folder import Sample
from hubel.data.image_io import read_image
from hubel.data.loader import seed_for
from hubel.errors import ImageError
from hubel.reports import AugmentationSample

SHEET_IMAGES, SHEET_VARIANTS = 6, 7


def augmentation_sheet(
    samples: Sequence[Sample],
    seed: int,
    original: Callable[[Image.Image], np.ndarray],
    changed: Callable[[Image.Image], np.ndarray],
) -> list[AugmentationSample]:
    """A few training images, evenly taken, as they are and changed.

    Args:
        samples: of the training split.
        seed: of the run.
        original: an upright image's pixels without changes, uint8 (H, W, C).
        changed: with random changes, drawn from torch's global generator.
    """
    sheet = []
    step = max(1, len(samples) // SHEET_IMAGES)
    for sample in list(samples)[::step][:SHEET_IMAGES]:
        try:
            image = read_image(sample.path)
        except ImageError:
            continue
        variants = []
        for number in range(SHEET_VARIANTS):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed_for(seed, "sheet", sample.path.name, number))
                variants.append(changed(image))
        sheet.append(AugmentationSample(original(image), variants))
    return sheet
