"""Images with the class of every pixel, from whatever the data set has: masks, outlines, run lengths."""

from __future__ import annotations

from pathlib import Path

from hubel.data.annotations.api import detect_formats
from hubel.data.image_io import read_size
from hubel.data.mask_folder import MASK_TREES, OTHER_TREES, VOC_TREES, is_mask_folder, read_mask_folder
from hubel.data.object_masks import read_object_masks
from hubel.data.samples import ImageDataset, Sample
from hubel.errors import DataError, ImageError
from hubel.fileio import check_exists


def read_class_maps(path: Path, strict: bool = False) -> ImageDataset:
    """Read masks if the data set has any, else the outlines and masks in labels of any annotation format.

    Images in folders that other labels have too, such as ``labels``, are masks where nothing else is found. Raises
    :class:`DataError` if there is nothing, or, if ``strict``, a label file has a fault.
    """
    check_exists(path)
    if path.is_dir() and (is_mask_folder(path, MASK_TREES | VOC_TREES) or not detect_formats(path)):
        return read_mask_folder(path)
    try:
        return read_object_masks(path, strict)
    except DataError:
        if is_mask_folder(path, OTHER_TREES):
            return read_mask_folder(path)
        raise


def size_fault(sample: Sample, shape: tuple[int, ...], size: tuple[int, int]) -> str | None:
    """The sentence on a class map of ``shape`` whose image has another ``size``, width and height."""
    if shape == size[::-1]:
        return None
    return f"{sample.class_map} is {shape[1]} × {shape[0]}, its image {size[0]} × {size[1]}"


def class_map_fault(sample: Sample) -> ImageError | None:
    """Why the class map of a sample cannot be used: it is unreadable, or of another size; ``None`` if nothing is wrong.

    Also where the image itself cannot be read.
    """
    if sample.class_map is None:
        return None
    try:
        shape = sample.class_map.read().shape
    except ImageError as error:
        return error
    try:
        message = size_fault(sample, shape, read_size(sample.path))
    except ImageError:
        return None
    return None if message is None else ImageError(message, "export the labels again, for the image as it is")
