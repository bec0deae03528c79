"""Data sets whose labels are folder names: ``daisy/1.jpg``, or ``train/daisy/1.jpg`` where they are split.

A folder whose name is a split's (``train``, ``val``, ``valid``, ``validation``, ``test``, in any case) is
that split if it has folders in it, or if nothing but such folders is there; so a class may be called
``train`` next to ``bus`` and ``tram``. What lies beside the splits, or beside the class folders, is not read,
and a warning says so.
"""

from __future__ import annotations

from pathlib import Path

from hubel.data.file_listing import PICTURE_SUFFIXES, files_below, listing
from hubel.data.samples import ImageDataset, Sample
from hubel.errors import DataError

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Folder names (and values of ``--split``) and the split that they mean."""

_LAYOUT = "Expected a folder a class with its pictures in it: flowers/daisy/1.jpg, or flowers/train/daisy/1.jpg."


def read_class_folders(root: Path) -> ImageDataset:
    """Find the classes, the splits and the images of a data set; no image is opened.

    Images in folders inside a class folder belong to the class. Hidden files and folders are left out.

    Raises:
        DataError: there is no such folder, it has no class folders or no images in them, one split is there
            under two names, or a folder cannot be listed.
    """
    root = Path(root)
    try:
        if not root.is_dir():
            what = "is a file, not a folder of pictures" if root.exists() else "does not exist"
            raise DataError(f"{root} {what}.", _LAYOUT)
    except OSError as error:
        raise _not_listed(root, error) from error
    warnings: list[str] = []
    split_folders = _split_folders(root, warnings)
    found = {split: _pictures_by_class(folder, warnings) for split, folder in split_folders.items()}
    with_pictures = {name for by_class in found.values() for name, files in by_class.items() if files}
    if not with_pictures:
        raise _nothing_found(root, split_folders)
    empty = sorted({name for by_class in found.values() for name in by_class} - with_pictures)
    if empty:
        warnings.append(f"{root}: no picture in {listing(empty)}: left out of the classes.")
    classes = tuple(sorted(with_pictures))
    splits = {
        split: tuple(Sample(path, label) for label, name in enumerate(classes) for path in by_class.get(name, ()))
        for split, by_class in found.items()
    }
    return ImageDataset(root, classes, splits, tuple(warnings))


def _split_folders(root: Path, warnings: list[str]) -> dict[str, Path]:
    """The folder of each split in the order train, val, test; ``{"all": root}`` if there are no splits."""
    folders = _folders_in(root)
    named = [folder for folder in folders if folder.name.casefold() in SPLIT_NAMES]
    if len(named) < len(folders):
        named = [folder for folder in named if _folders_in(folder)]
    if not named:
        return {"all": root}
    splits: dict[str, Path] = {}
    for folder in named:
        split = SPLIT_NAMES[folder.name.casefold()]
        if split in splits:
            message = f"{root} has the {split} split twice: {splits[split].name} and {folder.name}."
            raise DataError(message, "Put their pictures into one folder.")
        splits[split] = folder
    if others := [folder.name for folder in folders if folder not in named]:
        warnings.append(f"{root}: beside {listing(list(splits))}, not read: {listing(others)}.")
    return {split: splits[split] for split in ("train", "val", "test") if split in splits}


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if _is_shown(path) and path.is_dir())
    except OSError as error:
        raise _not_listed(folder, error) from error


def _loose_pictures(folder: Path) -> int:
    return sum(_is_shown(path) and path.suffix.lower() in PICTURE_SUFFIXES for path in folder.iterdir())


def _is_shown(path: Path) -> bool:
    return not path.name.startswith(".") and path.name != "__MACOSX"


def _pictures_by_class(folder: Path, warnings: list[str]) -> dict[str, list[Path]]:
    """The images in each class folder of one split; one warning names what else lies in them."""
    pictures: dict[str, list[Path]] = {}
    others: list[str] = []

    def refuse(where: Path, error: OSError) -> None:
        raise _not_listed(where, error) from error

    for class_folder in _folders_in(folder):
        files = pictures.setdefault(class_folder.name, [])
        for path in files_below(class_folder, refuse):
            if path.suffix.lower() in PICTURE_SUFFIXES:
                files.append(path)
            elif path.name != "Thumbs.db":
                others.append(path.relative_to(folder).as_posix())
    if loose := _loose_pictures(folder):
        warnings.append(f"{folder}: {loose} pictures beside the class folders are not read.")
    if others:
        warnings.append(f"{folder}: not pictures, left out: {listing(others)}.")
    return pictures


def _not_listed(folder: Path, error: OSError) -> DataError:
    reason = error.strerror or str(error)
    return DataError(f"{folder} cannot be listed: {reason}.", "Ask its owner for the right to read it (chmod +rx).")


def _nothing_found(root: Path, split_folders: dict[str, Path]) -> DataError:
    for folder in split_folders.values():
        if loose := _loose_pictures(folder):
            message = f"{folder} has {loose} pictures, but no class folders: nothing says what they show."
            return DataError(message, _LAYOUT)
    if not _folders_in(root):
        return DataError(f"{root} has neither class folders nor pictures.", _LAYOUT)
    return DataError(f"{root} has no pictures in its folders.", _LAYOUT)
