"""Images with masks in files that tell their objects apart, as they are published or made by hand.

Read are, in this order:

- Pascal VOC: ``SegmentationObject``, in which each object has a value, and ``SegmentationClass`` with its class, that
  of most of its pixels; 255 is no object's. Divided by ``ImageSets/Segmentation``.
- Cityscapes: ``gtFine/SPLIT/CITY/…_gtFine_instanceIds.png``, in which an object's value is a thousand times the id of
  its class and a number. Values below are of no single object; those of the classes of objects are crowds.
- Masks of one class, in a tree of folders beside that of the images as :mod:`~hubel.data.mask_folder` has it, named
  ``masks``, ``instances`` or (PennFudanPed's) ``PedMasks``. Either a mask numbers the objects of its image (0 is none),
  or an image has a folder of masks, one for each object, whose pixels are those that are not 0: ``masks/a/1.png`` for
  ``images/a.jpg``, or ``a/masks/1.png`` for ``a/images/a.png``. ``classes.txt`` may name the class.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hubel.console import count_of
from hubel.data.annotated_images import stratified
from hubel.data.annotations.labelled_classes import labelled_by_path, partly_labelled_note
from hubel.data.file_listing import listing
from hubel.data.image_io import read_size
from hubel.data.mask_classes import CLASS_FILES, cityscapes_objects, read_mask_classes, voc_classes
from hubel.data.mask_file import read_class_map, read_object_ids
from hubel.data.mask_folder import (
    MASK_TREES,
    OBJECT_TREES,
    SPLIT_ORDER,
    VOC_TREES,
    MaskTrees,
    by_image_sets,
    find_trees,
    image_stem,
    masks_by_stem,
    pair_images,
    split_of_key,
)
from hubel.data.samples import IGNORE_INDEX, UNLABELLED, ImageDataset, Sample
from hubel.errors import DataError, HubelError, ImageError
from hubel.masks import RunLengthMask, encode_part

PLAIN_TREES = frozenset({"masks", "mask", "instances", "pedmasks"})
"""Names of folders whose masks may be of objects of one class."""

_PUBLISHED_TREES = frozenset({"instances", "pedmasks"})  # whose masks are of nothing else
_TREES = OBJECT_TREES | MASK_TREES | PLAIN_TREES
_WORD = re.compile(r"[_\-. ]")
_KIND = "instanceIds"
_CLASS_OF_ALL = "object"
_THOUSAND = 1000

Found = tuple[int, bool, np.ndarray, int, int]
"""A class, whether it is a crowd, and the pixels of a part of the image, bool (h, w), with its left and top."""

Read = Callable[[Sequence[Path]], tuple[tuple[int, int], list[Found]]]
"""Masks of an image: their width and height, and the objects."""


def is_instance_folder(root: Path, published: bool = False) -> bool:
    """True for a folder of images with masks of objects; if ``published``, only with such as are of nothing else."""
    # A name is found many times as fast as the images of a large folder are listed.
    if not any(_TREES & set(_WORD.split(Path(folder).name.casefold())) for folder, _, _ in os.walk(root)):
        return False
    plain = _PUBLISHED_TREES if published else PLAIN_TREES
    kinds: tuple[tuple[frozenset[str], str], ...] = ((OBJECT_TREES, ""), (MASK_TREES, _KIND), (plain, ""))
    # A class may be called "mask", too: only masks of images count.
    return any(_pairs(root, find_trees(root, names, (kind,)), []) for names, kind in kinds)


def read_instance_folder(root: Path, strict: bool = False) -> ImageDataset:
    """Read the images and the masks of their objects; the masks are decoded, to have boxes.

    Raises :class:`DataError` if there are no objects, or classes.txt names several classes, or, if ``strict``, a mask
    cannot be used.
    """
    root = Path(root)
    warnings: list[str] = []
    classes, read, found = _find(root, warnings)
    if not found:
        raise DataError(f"{root} has no images with masks of objects", "pass images/a.jpg and masks/a.png")
    splits: dict[str, tuple[Sample, ...]] = {}
    faults: list[str] = []
    for split in (*SPLIT_ORDER, "all"):
        if split in found:
            splits[split] = tuple(_samples(found[split], read, faults, strict))
    if not any(len(sample.labels) for samples in splits.values() for sample in samples):
        why = faults[0] if faults else "all values are 0"
        raise DataError(f"{root} has masks without any object: {why}", "give each object a value of its own, from 1")
    if faults:
        images = count_of(len(faults), "image")
        warnings.append(f"{images} left out, as the masks cannot be used: {listing(faults, 3)}")
    return with_labelled_classes(ImageDataset(root, classes, stratified(splits), tuple(warnings)))


def with_labelled_classes(dataset: ImageDataset) -> ImageDataset:
    """The data set with what :mod:`~hubel.data.annotations.labelled_classes` finds beside the masks."""
    paths = [sample.path for samples in dataset.splits.values() for sample in samples]
    stated = labelled_by_path(dataset.root, dataset.classes, paths)
    some = {path: np.array(labels) for path, labels in stated.items() if len(labels) < len(dataset.classes)}
    splits = {
        split: tuple(replace(sample, labelled=some.get(sample.path)) for sample in samples)
        for split, samples in dataset.splits.items()
    }
    notes = partly_labelled_note([some.get(path) for path in paths])
    return replace(dataset, splits=splits, warnings=(*dataset.warnings, *notes))


_Places = dict[str, list[tuple[Path, list[Path]]]]  # images with their masks, by split


def _find(root: Path, warnings: list[str]) -> tuple[tuple[str, ...], Read, _Places]:
    trees = find_trees(root, OBJECT_TREES)
    if trees.masks:
        # The masks of classes beside them are not images.
        for key in [key for key, images in trees.images.items() if images[0].parent.name.casefold() in VOC_TREES]:
            del trees.images[key]
        places = _pairs(root, trees, warnings)
        if set(places) == {"all"}:
            singles = [(image, mask) for image, (mask, *_) in places["all"]]
            divided = by_image_sets(singles, warnings)
            places = {split: [(image, [mask]) for image, mask in pairs] for split, pairs in divided.items()}
        return voc_classes().names[1:], _voc_objects, places
    trees = find_trees(root, MASK_TREES, (_KIND,))
    if trees.masks:
        return tuple(cityscapes_objects().values()), _cityscapes_objects, _pairs(root, trees, warnings)
    named = read_mask_classes(root)
    if named is not None and len(named.names) > 1:
        message = f"{root / CLASS_FILES[0]} names {len(named.names)} classes: masks of objects have one"
        raise DataError(message, "pass --task segment if values are classes, or labels with outlines, such as COCO")
    trees = find_trees(root, PLAIN_TREES, ("",))
    return (named.names[0] if named else _CLASS_OF_ALL,), _plain_objects, _pairs(root, trees, warnings)


def _pairs(root: Path, trees: MaskTrees, warnings: list[str]) -> _Places:
    """Each image with the mask that numbers its objects, or with those in its folder."""
    found: _Places = defaultdict(list)
    by_stem = masks_by_stem(trees)
    for key in sorted(trees.images):
        images, here = trees.images[key], trees.masks.get(key, [])
        if len(images) == 1 and here and not by_stem[key].get(image_stem(images[0])):
            pairs = [(images[0], sorted(here))]
        elif folders := [(image, trees.masks.get((*key, image_stem(image)), [])) for image in images if not here]:
            pairs = [(image, sorted(masks)) for image, masks in folders if masks]
            if without := [image.name for image, masks in folders if not masks]:
                folder = images[0].parent
                warnings.append(
                    f"{folder}: {count_of(len(without), 'image', 'have')} no masks: left out: {listing(without)}"
                )
        else:
            pairs = [(image, [mask]) for image, mask in pair_images(root, images, by_stem.get(key, {}), warnings)]
        if pairs:
            found[split_of_key(key)] += pairs
    return found


def _samples(pairs: Iterable[tuple[Path, list[Path]]], read: Read, faults: list[str], strict: bool) -> Iterator[Sample]:
    for image, masks in pairs:
        try:
            size, objects = read(masks)
            if size != (actual := read_size(image)):
                message = f"{masks[0]} is {size[0]} × {size[1]}, its image {actual[0]} × {actual[1]}"
                raise ImageError(message, "export the masks again, for the image as it is")
        except HubelError as error:
            if strict:
                raise DataError(error.message, error.hint) from error
            faults.append(error.message)
            continue
        yield _sample(image, size, objects)


def _sample(image: Path, size: tuple[int, int], objects: Sequence[Found]) -> Sample:
    width, height = size
    shapes: list[RunLengthMask] = []
    boxes = np.zeros((len(objects), 4), np.float32)
    for index, (_, _, pixels, left, top) in enumerate(objects):
        shapes.append(encode_part(pixels, left, top, height, width))
        boxes[index] = left, top, left + pixels.shape[1], top + pixels.shape[0]
    crowd = np.array([each[1] for each in objects], bool)
    areas = np.array([each[2].sum() for each in objects], np.float32)
    labels = np.array([each[0] for each in objects], np.int64)
    return Sample(
        image, UNLABELLED, width, height, boxes, labels, crowd, np.zeros(len(objects), bool), areas,
        shapes=tuple(shapes),
    )  # fmt: skip


def _parts(ids: np.ndarray, labels: Mapping[int, tuple[int, bool]]) -> list[Found]:
    """The objects in a mask: a class, and whether it is a crowd, of each value that is one."""
    from scipy.ndimage import find_objects  # takes a tenth of a second to import

    values, inverse = np.unique(ids, return_inverse=True)
    inverse = inverse.reshape(ids.shape) + 1
    found: list[Found] = []
    for number, (value, place) in enumerate(zip(values.tolist(), find_objects(inverse), strict=True), 1):
        if value in labels and place is not None:
            rows, columns = place
            found.append((*labels[value], inverse[place] == number, columns.start, rows.start))
    return found


def _plain_objects(masks: Sequence[Path]) -> tuple[tuple[int, int], list[Found]]:
    sizes: dict[tuple[int, int], Path] = {}
    found: list[Found] = []
    for mask in masks:
        ids = read_object_ids(mask)
        sizes.setdefault((ids.shape[1], ids.shape[0]), mask)
        if len(masks) > 1:  # one for each object
            ids = (ids != 0).astype(np.int32)
        found += _parts(ids, dict.fromkeys(np.unique(ids[ids != 0]).tolist(), (0, False)))
    if len(sizes) > 1:
        first, second, *_ = sizes.values()
        raise ImageError(f"{second} has another size than {first}", "export the masks again, for the image as it is")
    return next(iter(sizes)), found


def _cityscapes_objects(masks: Sequence[Path]) -> tuple[tuple[int, int], list[Found]]:
    ids = read_object_ids(masks[0])
    index = {id_: label for label, id_ in enumerate(cityscapes_objects())}
    values = np.unique(ids).tolist()
    labels = {value: (index[value], True) for value in values if value in index}
    labels |= {value: (index[value // _THOUSAND], False) for value in values if value // _THOUSAND in index}
    return (ids.shape[1], ids.shape[0]), _parts(ids, labels)


def _voc_objects(masks: Sequence[Path]) -> tuple[tuple[int, int], list[Found]]:
    ids = read_object_ids(masks[0])
    folder = next(path for path in masks[0].parents if path.name.casefold() in OBJECT_TREES)
    file = folder.parent / "SegmentationClass" / masks[0].relative_to(folder)
    classes = read_class_map(file, voc_classes().colours)
    if classes.shape != ids.shape:
        raise ImageError(f"{masks[0]} has another size than {file}", "copy both again")
    labels: dict[int, tuple[int, bool]] = {}
    for value in np.unique(ids).tolist():
        counts = np.bincount(classes[ids == value], minlength=IGNORE_INDEX)[1 : len(voc_classes().names)]
        if value not in (0, IGNORE_INDEX) and counts.any():
            labels[value] = int(counts.argmax()), False
    return (ids.shape[1], ids.shape[0]), _parts(ids, labels)
