"""Processor time to load and prepare a training image, with and without a pixel cache.

    HUBEL_DATA=/path/to/data python benchmarks/loading.py

Images of 28 × 28 pixels with flips, as in training on Fashion-MNIST, and flowers5's photographs with random crops of
192 px and flips: microseconds per image in the first epoch, which decodes, and in later ones; one process, one thread,
the best of three passes.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hubel.data.image_io import read_size
from hubel.data.loader import BatchDataset, PixelCache, memory_block
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import Sample
from hubel.data.transforms.image_transform import ImageTransform

BATCH, IMAGES, PASSES = 128, 1280, 3


def write_images(folder: Path) -> None:
    """Grey gradients with some noise, as compressible as articles of clothing."""
    rng = np.random.default_rng(0)
    slope = np.add.outer(np.arange(28), np.arange(28)) * 4
    for number in range(IMAGES):
        pixels = (slope + rng.integers(0, 9, (28, 28))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png", compress_level=1)


def microseconds(images: BatchDataset, epoch: int) -> float:
    """Processor time per image of one pass in batches."""
    start = time.process_time()
    for first in range(0, len(images), BATCH):
        images.__getitems__([(epoch, index) for index in range(first, min(len(images), first + BATCH))])
    return 1e6 * (time.process_time() - start) / len(images)


def report(name: str, paths: Sequence[Path], pixels: ImageTransform) -> None:
    """First and later epochs."""
    shapes = [pixels.cached_shape(*read_size(path)) for path in paths]
    first, later = [], []
    for _ in range(PASSES):
        cache = PixelCache(memory_block(PixelCache.needed(shapes)), shapes)
        images = BatchDataset([Sample(path, 0) for path in paths], pixels, 0, cache)
        first.append(microseconds(images, 1))
        later.append(microseconds(images, 2))
    size = PixelCache.needed(shapes) / 1e6
    print(
        f"{name}: first epoch {min(first):.0f} us, later {min(later):.0f} us per image; {size:.0f} MB cached",
        flush=True,
    )


def main() -> None:
    """Measure both kinds of images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("HUBEL_DATA", ".")) / "flowers5")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder))
        size = Preprocessing(28, 28, channels=1, crop_fraction=1.0)
        report("28 x 28, flip", sorted(Path(folder).iterdir()), ImageTransform(size, ("flip",)))
    photographs = sorted((arguments.data / "train").rglob("*.jpg"))
    report("photographs, crop and flip", photographs, ImageTransform(Preprocessing(192, 192), ("crop", "flip")))


if __name__ == "__main__":
    main()
