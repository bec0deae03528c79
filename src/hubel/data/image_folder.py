"""Data sets whose labels lie in folders: a folder of images per class, or a mask beside each image.

Class folders are ``daisy/1.jpg``, or ``train/daisy/1.jpg`` where they are split. A folder whose name is a split's
(``train``, ``val``, ``valid``, ``validation``, ``test``, in any case) is that split if it has folders in it, or if
nothing but such folders is there; so a class may be called ``train`` next to ``bus`` and ``tram``. Names that published
data sets use (``Training``, ``test_set``, ``seg_train``, ``val2017``: see :mod:`hubel.data.split_names`) are splits too
if the same class folders repeat in them. A folder with nothing in it but one other folder stands for that one
(``seg_train/seg_train/sea``). What lies beside the splits, or beside the class folders, is not read, and a warning says
so; and so it does where class folders have the same folders in them, which may be splits under other names. What hubel
itself wrote into the data set (runs, exports) is not data.

Masks are ``SPLIT/images/a.jpg`` beside ``SPLIT/masks/a.png``, or ``images/`` and ``masks/`` of an unsplit data set. The
value of a mask's pixel is the index of its class. The names of the classes are the lines of ``classes.txt``, ``INDEX
NAME`` or ``NAME``; a name that ends in "(ignore)" is that of pixels that do not count. 255 never counts.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from hubel.bounded import BoundError, read_text
from hubel.data.file_kinds import is_image_file
from hubel.data.file_listing import IMAGE_SUFFIXES, composed, files_below, is_own_output, is_shown, listing, not_listed
from hubel.data.image_io import read_size
from hubel.data.samples import ImageDataset, Sample
from hubel.data.split_names import SPLIT_NAMES, split_of, splits_among
from hubel.errors import DataError, ImageError

_CLASS_LAYOUT = "Expected one folder of images per class: flowers/daisy/1.jpg, or flowers/train/daisy/1.jpg."
_MASK_LAYOUT = (
    "Expected images/a.jpg and masks/a.png, both in train/ and val/ if it is split, and classes.txt beside them."
)


def read_class_folders(root: Path) -> ImageDataset:
    """Find the classes, the splits and the images of a data set; no image is opened.

    Images in folders inside a class folder belong to the class. Hidden files and folders are left out.

    Raises:
        DataError: the folder does not exist or cannot be listed, has no class folders or no images in them, or has a
            split under two names.
    """
    root = Path(root)
    try:
        if not root.is_dir():
            what = "is a file, not a folder of images" if root.exists() else "does not exist"
            raise DataError(f"{root} {what}.", _CLASS_LAYOUT)
    except OSError as error:
        raise not_listed(root, error) from error
    warnings: list[str] = []
    split_folders = _split_folders(root, warnings)
    found = {split: _images_by_class(folder, warnings) for split, folder in split_folders.items()}
    with_images = {name for by_class in found.values() for name, files in by_class.items() if files}
    if not with_images:
        raise _nothing_found(root, split_folders)
    if empty := sorted({name for by_class in found.values() for name in by_class} - with_images):
        warnings.append(f"{root}: no images in {listing(empty)}: left out of the classes.")
    classes = tuple(sorted(with_images))
    if "all" in split_folders:
        warnings += _doubts(split_folders["all"], classes)
    splits = {
        split: tuple(Sample(path, label) for label, name in enumerate(classes) for path in by_class.get(name, ()))
        for split, by_class in found.items()
    }
    return ImageDataset(root, classes, splits, tuple(warnings))


def _split_folders(root: Path, warnings: list[str]) -> dict[str, Path]:
    """The folder of each split in the order train, val, test; ``{"all": folder}`` if there are no splits."""
    inner = _unwrapped(root)
    if inner != root:
        warnings.append(f"{root}: all there is lies in {inner.relative_to(root)}, which is taken for the data set.")
    root = inner
    folders = _folders_in(root)
    named = _named_as_splits(folders)
    if not named:
        return {"all": root}
    splits: dict[str, Path] = {}
    for folder, split in named.items():
        if split in splits:
            message = f"{root} has the {split} split twice: {splits[split].name} and {folder.name}."
            raise DataError(message, "Merge their images into one folder.")
        splits[split] = folder
    if others := [folder.name for folder in folders if folder not in named]:
        warnings.append(f"{root}: ignored folders beside {listing(list(_in_order(splits)))}: {listing(others)}.")
    return _in_order({split: _unwrapped(folder, folder.name) for split, folder in splits.items()})


def _named_as_splits(folders: list[Path]) -> dict[Path, str]:
    """The folders that are splits, by the rules above, and which."""
    exact = {folder: SPLIT_NAMES[name] for folder in folders if (name := folder.name.casefold()) in SPLIT_NAMES}
    if len(exact) < len(folders):
        exact = {folder: split for folder, split in exact.items() if _folders_in(folder)}
    named = splits_among([folder.name for folder in folders])
    other = {folder: named[folder.name] for folder in folders if folder.name in named and _folders_in(folder)}
    repeat = len(other) == len(folders) or bool(_repeated([_unwrapped(folder, folder.name) for folder in other]))
    return other if repeat and len(other) > len(exact) else exact


def _unwrapped(folder: Path, split: str = "") -> Path:
    """The folder, or the one inside it, where that is all it holds: ``flowers/flowers/daisy``, ``seg_train/seg_train``.

    A split is not passed by, except in the folder of that ``split``; nor is a folder without folders inside: a class.
    """
    while len(inside := _folders_in(folder)) == 1 and not _loose_images(folder):
        (only,) = inside
        if (split_of(only.name) and only.name != split) or not _folders_in(only):
            break
        folder = only
    return folder


def _repeated(folders: list[Path]) -> set[str]:
    """The names of folders that are in each of two or more folders."""
    names = [{path.name for path in _folders_in(folder)} for folder in folders]
    return set.intersection(*names) if len(names) > 1 else set()


def _doubts(root: Path, classes: tuple[str, ...]) -> list[str]:
    """A warning if all classes have the same folders in them, two or more: then these may be the classes."""
    repeated = sorted(_repeated([folder for folder in _folders_in(root) if class_name(folder.name) in classes]))
    if len(repeated) < 2:
        return []
    message = f"{root}: {listing(classes)} are taken for classes, but all have the folders {listing(repeated)}:"
    return [f"{message} if these are the classes, name the folders around them train, val and test."]


def class_name(folder: str) -> str:
    """The class that a folder is named after: composed characters, and no bytes that are not text.

    A name from a disk with another encoding is taken for Windows-1252, the most common one, so that it can be written.
    """
    try:
        name = folder.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        name = folder.encode("utf-8", "surrogateescape").decode("cp1252", "backslashreplace")
    return unicodedata.normalize("NFC", name)


def _in_order(splits: dict[str, Path]) -> dict[str, Path]:
    return {split: splits[split] for split in ("train", "val", "test") if split in splits}


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(
            path for path in folder.iterdir() if is_shown(path.name) and path.is_dir() and not is_own_output(path)
        )
    except OSError as error:
        raise not_listed(folder, error) from error


def _loose_images(folder: Path) -> int:
    return sum(is_shown(path.name) and is_image_file(path) and not path.is_dir() for path in folder.iterdir())


def _images_by_class(folder: Path, warnings: list[str]) -> dict[str, list[Path]]:
    """The images in each class folder of one split; one warning names what else lies in them."""
    images: dict[str, list[Path]] = {}
    others: list[str] = []
    for class_folder in _folders_in(folder):
        files = images.setdefault(class_name(class_folder.name), [])
        for path in files_below(class_folder):
            if is_image_file(path):
                files.append(path)
            else:
                others.append(path.relative_to(folder).as_posix())
    if loose := _loose_images(folder):
        warnings.append(f"{folder}: {loose} images beside the class folders are ignored.")
    if others:
        warnings.append(f"{folder}: ignored, not images: {listing(others)}.")
    return images


def _nothing_found(root: Path, split_folders: dict[str, Path]) -> DataError:
    for folder in split_folders.values():
        if loose := _loose_images(folder):
            message = f"{folder} has {loose} images, but no class folders: their classes are unknown."
            return DataError(message, _CLASS_LAYOUT)
    if not _folders_in(root):
        return DataError(f"{root} has neither class folders nor images.", _CLASS_LAYOUT)
    return DataError(f"{root} has no images in its folders.", _CLASS_LAYOUT)


def is_mask_folder(root: Path) -> bool:
    """True if a folder, or one of its splits, has images and masks."""
    return bool(_mask_folders(root))


def read_mask_folder(root: Path) -> ImageDataset:
    """Find the images, their masks and the classes; no image is decoded.

    Raises :class:`DataError` if there are none, or classes.txt is missing or wrong.
    """
    root = Path(root)
    warnings: list[str] = []
    splits = {split: _with_masks(folder, warnings) for split, folder in _mask_folders(root).items()}
    if not any(splits.values()):
        raise DataError(f"{root} has no images with masks.", _MASK_LAYOUT)
    return ImageDataset(root, _mask_classes(root), splits, tuple(warnings))


def read_class_map(path: Path) -> np.ndarray:
    """The class of every pixel, uint8 (h, w), of an image of indices (modes L, P, 1); else :class:`ImageError`."""
    try:
        with Image.open(path, formats=("PNG", "BMP", "TIFF", "GIF")) as image:
            if image.mode not in ("L", "P", "1"):
                raise ImageError(f"{path} is not a mask of class indices: its mode is {image.mode}.", _MASK_LAYOUT)
            return np.asarray(image.convert("L") if image.mode == "1" else image, np.uint8)
    except ImageError:
        raise
    except Exception as error:  # Pillow raises whatever damaged bytes lead to
        raise ImageError(f"{path} cannot be read: {error}.", "Copy or export the mask again.") from error


def _mask_folders(root: Path) -> dict[str, Path]:
    """The folder of each split that has images and masks."""
    splits: dict[str, Path] = {}
    if (root / "images").is_dir():
        splits = {"all": root}
    elif root.is_dir():
        named = {SPLIT_NAMES.get(folder.name.casefold(), ""): folder for folder in root.iterdir()}
        splits = _in_order(named)
    return {
        split: folder
        for split, folder in splits.items()
        if (folder / "images").is_dir() and (folder / "masks").is_dir()
    }


def _shown_in(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if is_shown(path.name))


def _with_masks(folder: Path, warnings: list[str]) -> tuple[Sample, ...]:
    masks = {composed(path.stem): path for path in _shown_in(folder / "masks") if path.suffix.lower() == ".png"}
    samples: list[Sample] = []
    missing: list[str] = []
    for path in sorted(path for path in _shown_in(folder / "images") if path.suffix.lower() in IMAGE_SUFFIXES):
        if composed(path.stem) not in masks:
            missing.append(path.name)
            continue
        try:
            width, height = read_size(path)
        except ImageError:  # the check reports it
            width = height = 0
        samples.append(Sample(path, width=width, height=height, class_map=masks[composed(path.stem)], stratum=0))
    if missing:
        warnings.append(f"{folder}: {len(missing)} images have no mask and are left out: {listing(missing)}.")
    return tuple(samples)


def _mask_classes(root: Path) -> tuple[str, ...]:
    file = root / "classes.txt"
    if not file.is_file():
        raise DataError(f"{root} has no {file.name}: the classes have no names.", "Write one name per line, in order.")
    names: list[str] = []
    try:
        lines = read_text(file).splitlines()
    except (OSError, BoundError) as error:
        raise DataError(f"{file} cannot be read: {error}.", "Write one name per line, in order.") from error
    for number, line in enumerate(map(str.strip, lines), 1):
        index, *rest = line.split(maxsplit=1)[:2] if line else ("",)
        if rest and index.isdecimal():
            if (index.lstrip("0") or "0") != str(len(names)):
                message = f"{file}, line {number}: index {index:.20} where {len(names)} is expected."
                raise DataError(message, "Number the classes from 0, without gaps.")
            line = rest[0]
        if line.endswith("(ignore)"):
            break  # it and what follows it are not classes
        if line:
            names.append(line)
    if not names:
        raise DataError(f"{file} names no class.", "Write one name per line, in order.")
    return tuple(names)
