"""Data sets whose labels lie in folders: a folder of images per class.

Class folders are ``daisy/1.jpg``, or ``train/daisy/1.jpg`` where they are split. A folder whose name is a split's
(``train``, ``val``, ``valid``, ``validation``, ``test``, in any case) is that split if it has folders in it, or if
nothing but such folders is there; so a class may be called ``train`` next to ``bus`` and ``tram``. Names that published
data sets use (``Training``, ``test_set``, ``seg_train``, ``val2017``: see :mod:`hubel.data.split_names`) are splits too
if the same class folders repeat in them. A folder with nothing in it but one other folder stands for that one
(``seg_train/seg_train/sea``). What lies beside the splits, or beside the class folders, is not read, and a warning says
so; and so it does where class folders have the same folders in them, which may be splits under other names. What hubel
itself wrote into the data set (runs, exports) is not data.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

from hubel.console import count_of
from hubel.data.annotations.encodings import guess_encoding
from hubel.data.file_kinds import is_image_file
from hubel.data.file_listing import files_below, is_own_output, is_shown, is_written_data, listing, not_listed
from hubel.data.samples import ImageDataset, Sample
from hubel.data.split_names import SPLIT_NAMES, split_of, splits_among
from hubel.errors import DataError
from hubel.fileio import check_exists

_CLASS_LAYOUT = "pass one folder of images per class: flowers/daisy/1.jpg, or flowers/train/daisy/1.jpg"


def read_class_folders(root: Path) -> ImageDataset:
    """Find the classes, the splits and the images of a data set; no image is opened.

    Images in folders inside a class folder belong to the class. Hidden files and folders are left out.

    Raises:
        DataError: the folder does not exist or cannot be listed, has no class folders or no images in them, or has a
            split under two names.
    """
    root = Path(root)
    check_exists(root)
    try:
        if not root.is_dir():
            raise DataError(f"{root} is a file, not a folder of images", _CLASS_LAYOUT)
    except OSError as error:
        raise not_listed(root, error) from error
    warnings: list[str] = []
    split_folders = _split_folders(root, warnings)
    found = {split: _images_by_class(folder, warnings) for split, folder in split_folders.items()}
    with_images = {name for by_class in found.values() for name, files in by_class.items() if files}
    if not with_images:
        raise _nothing_found(root, split_folders)
    if empty := sorted({name for by_class in found.values() for name in by_class} - with_images):
        warnings.append(f"{root}: no images in {listing(empty)}: left out of the classes")
    classes = tuple(sorted(with_images))
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(" ".join(name.casefold().split()), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            warnings.append(f"{root}: {' and '.join(map(repr, names))} are different classes: rename one if not")
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
        warnings.append(f"{root}: all there is lies in {inner.relative_to(root)}, which is taken for the data set")
    root = inner
    folders = _folders_in(root)
    named = _named_as_splits(folders)
    if not named:
        return {"all": root}
    splits: dict[str, Path] = {}
    for folder, split in named.items():
        if split in splits:
            message = f"{root} has the {split} split twice: {splits[split].name} and {folder.name}"
            raise DataError(message, "merge their images into one folder")
        splits[split] = folder
    if others := [folder.name for folder in folders if folder not in named]:
        warnings.append(f"{root}: ignored folders beside {listing(list(_in_order(splits)))}: {listing(others)}")
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
    return [f"{message} if these are the classes, name the folders around them train, val and test"]


def class_name(folder: str) -> str:
    """The class that a folder is named after: composed characters, and no bytes that are not text.

    A name from a disk with another encoding is decoded by a guess, so that it can be written.
    """
    data = folder.encode("utf-8", "surrogateescape")
    try:
        name = data.decode("utf-8")
    except UnicodeError:
        name = data.decode(guess_encoding(data), "backslashreplace")
    return unicodedata.normalize("NFC", name)


def _in_order(splits: dict[str, Path]) -> dict[str, Path]:
    return {split: splits[split] for split in ("train", "val", "test") if split in splits}


def _folders_in(folder: Path) -> list[Path]:
    try:
        shown = sorted(path for path in folder.iterdir() if is_shown(path.name) and path.is_dir())
        data = [path for path in shown if not is_own_output(path)]
        return [path for path in data if not is_written_data(path)] or data
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
        warnings.append(f"{folder}: ignored {count_of(loose, 'image')} beside the class folders")
    if others:
        warnings.append(f"{folder}: ignored, not images: {listing(others)}")
    return images


def _nothing_found(root: Path, split_folders: dict[str, Path]) -> DataError:
    for folder in split_folders.values():
        if loose := _loose_images(folder):
            message = f"{folder} has {loose} images, but no class folders: their classes are unknown"
            return DataError(message, _CLASS_LAYOUT)
    if not _folders_in(root):
        return DataError(f"{root} has neither class folders nor images", _CLASS_LAYOUT)
    return DataError(f"{root} has no images in its folders", _CLASS_LAYOUT)
