"""Images with a mask each: a PNG in which the value of a pixel is the index of its class.

``SPLIT/images/a.jpg`` beside ``SPLIT/masks/a.png``, or ``images/`` and ``masks/`` of an unsplit data set. The names of
the classes are the lines of ``classes.txt``, ``INDEX NAME`` or ``NAME``; a name that ends in "(ignore)" is that of
pixels that do not count. 255 never counts.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from hubel.data.file_listing import PICTURE_SUFFIXES, listing
from hubel.data.image_folder import SPLIT_NAMES
from hubel.data.image_io import read_size
from hubel.data.samples import ImageDataset, Sample
from hubel.errors import DataError, ImageError

IMAGES, MASKS, CLASSES = "images", "masks", "classes.txt"
_LAYOUT = "Expected images/a.jpg and masks/a.png, both in train/ and val/ if it is split, and classes.txt beside them."


def is_mask_folder(root: Path) -> bool:
    """Whether a folder, or one of its splits, has images and masks."""
    return any((folder / IMAGES).is_dir() and (folder / MASKS).is_dir() for folder in _folders(root).values())


def read_mask_folder(root: Path) -> ImageDataset:
    """Find the images, their masks and the classes; no image is decoded.

    Raises:
        DataError: there are none, classes.txt is missing or wrong, or an image has no mask.
    """
    root = Path(root)
    splits: dict[str, tuple[Sample, ...]] = {}
    warnings: list[str] = []
    for split, folder in _folders(root).items():
        if (folder / IMAGES).is_dir() and (folder / MASKS).is_dir():
            splits[split] = _samples(folder, warnings)
    if not any(splits.values()):
        raise DataError(f"{root} has no images with masks.", _LAYOUT)
    return ImageDataset(root, _classes(root), splits, tuple(warnings))


def read_class_map(path: Path) -> np.ndarray:
    """The class of every pixel: uint8 (h, w).

    Raises:
        ImageError: the file cannot be read, or is not an image of indices (modes L, P, 1).
    """
    try:
        with Image.open(path, formats=("PNG", "BMP", "TIFF", "GIF")) as image:
            if image.mode not in ("L", "P", "1"):
                raise ImageError(f"{path} is not a mask of class indices: its mode is {image.mode}.", _LAYOUT)
            return np.asarray(image.convert("L") if image.mode == "1" else image, np.uint8)
    except ImageError:
        raise
    except Exception as error:  # Pillow raises whatever damaged bytes lead to
        raise ImageError(f"{path} cannot be read: {error}.", "Copy or export the mask again.") from error


def _folders(root: Path) -> dict[str, Path]:
    if (root / IMAGES).is_dir():
        return {"all": root}
    if not root.is_dir():
        return {}
    named = {SPLIT_NAMES[each.name.casefold()]: each for each in root.iterdir() if each.name.casefold() in SPLIT_NAMES}
    return {split: named[split] for split in ("train", "val", "test") if split in named}


def _samples(folder: Path, warnings: list[str]) -> tuple[Sample, ...]:
    masks = {path.stem: path for path in (folder / MASKS).iterdir() if path.suffix.lower() == ".png"}
    samples: list[Sample] = []
    missing: list[str] = []
    for path in sorted(path for path in (folder / IMAGES).iterdir() if path.suffix.lower() in PICTURE_SUFFIXES):
        if path.stem not in masks:
            missing.append(path.name)
            continue
        try:
            width, height = read_size(path)
        except ImageError:  # the check reports it
            width = height = 0
        samples.append(Sample(path, width=width, height=height, class_map=masks[path.stem], stratum=0))
    if missing:
        warnings.append(f"{folder}: {len(missing)} images have no mask and are left out: {listing(missing)}.")
    return tuple(samples)


def _classes(root: Path) -> tuple[str, ...]:
    file = root / CLASSES
    if not file.is_file():
        raise DataError(f"{root} has no {CLASSES}: the classes have no names.", "Write one name per line, in order.")
    names: list[str] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        match = re.fullmatch(r"(?:(\d+)\s+)?(\S.*?)\s*", line)
        if not match:
            continue
        if match[1] is not None and int(match[1]) != len(names):
            message = f"{file}, line {number}: index {match[1]} where {len(names)} is expected."
            raise DataError(message, "Number the classes from 0, without gaps.")
        if match[2].endswith("(ignore)"):
            break  # it and what follows it are not classes
        names.append(match[2])
    if not names:
        raise DataError(f"{file} names no class.", "Write one name per line, in order.")
    return tuple(names)
