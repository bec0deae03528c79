"""Any images as a data set without labels, and small images that are made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from hubel.console import count_of
from hubel.data.file_kinds import is_image_file
from hubel.data.file_listing import files_below, listing
from hubel.data.samples import ImageDataset, Sample
from hubel.data.split_names import SPLIT_NAMES
from hubel.errors import DataError
from hubel.fileio import check_exists

_LAYOUT = "pass a folder of images, in folders or not; folders named train, val and test are taken as such"


def read_photographs(root: Path) -> ImageDataset:
    """All images below a folder, in natural order; none is opened.

    Where the folder has folders named ``train``, ``val`` (``valid``, ``validation``) or ``test``, these are the splits,
    and a warning says what lies beside them.

    Raises:
        DataError: the folder does not exist or cannot be listed, or there are no images.
    """
    root = Path(root)
    check_exists(root)
    if not root.is_dir():
        raise DataError(f"{root} is a file, not a folder of images", _LAYOUT)
    found: dict[str, list[Path]] = {"train": [], "val": [], "test": []}
    others: list[Path] = []
    for path in files_below(root):
        if is_image_file(path):
            inside = path.relative_to(root).parts
            split = SPLIT_NAMES.get(inside[0].casefold()) if len(inside) > 1 else None
            (others if split is None else found[split]).append(path)
    warnings: tuple[str, ...] = ()
    splits = {split: tuple(map(Sample, paths)) for split, paths in found.items() if paths}
    if not splits:
        splits = {"all": tuple(map(Sample, others))}
    elif others:
        beside = listing([path.relative_to(root).as_posix() for path in others], 2)
        warnings = (f"{root}: ignored {count_of(len(others), 'image')} beside {listing(list(splits))}: {beside}",)
    if not any(splits.values()):
        raise DataError(f"{root} has no images", _LAYOUT)
    return ImageDataset(root, (), splits, warnings)


def whole_blocks(pixels: np.ndarray, scale: int) -> np.ndarray:
    """An image (H, W, C) without the last rows and columns that do not fill blocks of ``scale`` × ``scale`` pixels."""
    height, width = (side - side % scale for side in pixels.shape[:2])
    return pixels[:height, :width]


def reduced(pixels: np.ndarray, scale: int, window: tuple[int, int, int, int] | None = None) -> np.ndarray:
    """The small image of a large one of whole blocks, uint8 (H, W, C): by Pillow's antialiased bicubic filter.

    It is the filter of MATLAB's ``imresize``, which made the small images of the literature. A ``window``, x1, y1, x2,
    y2 in pixels of the small image, gives that part of it, as if it had been cut out of the whole.
    """
    height, width = pixels.shape[:2]
    x1, y1, x2, y2 = (scale * side for side in window or (0, 0, width // scale, height // scale))
    support = 3 * scale  # the filter reaches two small pixels far
    left, top = max(0, x1 - support), max(0, y1 - support)
    part = pixels[top : y2 + support, left : x2 + support]
    box = (x1 - left, y1 - top, x2 - left, y2 - top)
    size = (x2 - x1) // scale, (y2 - y1) // scale
    small = Image.fromarray(np.ascontiguousarray(part)).resize(size, Image.Resampling.BICUBIC, box)
    return np.asarray(small)
