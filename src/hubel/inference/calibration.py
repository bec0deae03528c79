"""Which images quantization is set on, and which others it is judged on; never the same."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import yaml

from hubel.data.file_listing import PICTURE_SUFFIXES, files_below
from hubel.data.image_folder import read_class_folders
from hubel.data.image_io import read_image
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import ImageDataset, Sample
from hubel.data.sources import ImageSource
from hubel.data.splits import belongs_to, read_splits, recorded_splits
from hubel.errors import DataError, ModelError, UsageError
from hubel.inference.pipeline import PreparedImage, prepare

Item = TypeVar("Item")

# NNCF's quantizers hardly move any more beyond this; scoring more than a thousand images takes longer than it tells.
_MOST_CALIBRATION, _MOST_HELD_OUT = 256, 1000
_FEWEST_CALIBRATION = 32
_HELD_OUT_SHARE = 1 / 3


@dataclass(frozen=True)
class CalibrationFiles:
    """Images on disk.

    Attributes:
        calibration: to set the quantizers on.
        held_out: others, to judge on.
        labels: of the held-out images, class indices; None if they are not known.
        origin: where all this comes from, in words.
    """

    calibration: Sequence[Path]
    held_out: Sequence[Path]
    labels: Sequence[int] | None
    origin: str

    def digest(self) -> str:
        """Changes when other files are taken, or one of them is written again."""
        stamps = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in self._all()]
        return hashlib.sha256(repr((stamps, len(self.calibration), self.labels)).encode()).hexdigest()

    def _all(self) -> Sequence[Path]:
        return [*self.calibration, *self.held_out]


@dataclass(frozen=True)
class CalibrationImages:
    """Images ready for a network.

    Attributes:
        calibration: uint8 (N, height, width, channels).
        held_out: the same of the others.
        labels: of the held-out images (N,), or None.
    """

    calibration: np.ndarray
    held_out: np.ndarray
    labels: np.ndarray | None


def find_calibration_files(
    reference: str, classes: Sequence[str], data: Path | str | None, tolerance: float, seed: int = 0
) -> CalibrationFiles:
    """Choose images; none is opened.

    A run knows its data: its training split calibrates, its validation split is held out. Any other model needs
    ``data``: class folders with ``train`` and ``val`` count as they are, and of everything else a third is held out,
    at random. The labels count if the model knows all of the classes.

    Args:
        reference: the model as it was named; a run folder is recognized.
        classes: the model's.
        data: a folder of images or of class folders; None takes the run's own.
        tolerance: the loss that is to be seen, which takes as many images as it goes into one.
        seed: the same seed takes the same of the same files.

    Raises:
        UsageError: there is no data.
        DataError: it cannot be listed, or is too little.
    """
    files = _find(Path(reference), tuple(classes), data, tolerance, seed)
    _check(files.origin, len(files.calibration), len(files.held_out), tolerance)
    return files


def read_calibration_images(
    files: CalibrationFiles, preprocessing: Preprocessing, tolerance: float, log: Callable[[str], None]
) -> CalibrationImages:
    """Decode the images; those that cannot be read are named and left out.

    Raises:
        DataError: too few are left.
    """
    calibration, _ = _decoded(files.calibration, preprocessing, log)
    held_out, kept = _decoded(files.held_out, preprocessing, log)
    _check(f"{files.origin}, those that can be read,", len(calibration), len(held_out), tolerance)
    labels = None if files.labels is None else np.array(files.labels, np.int64)[kept]
    return CalibrationImages(calibration, held_out, labels)


def _check(origin: str, calibration: int, held_out: int, tolerance: float) -> None:
    """Refuse too few images, with the number that is needed."""
    if held_out < _needed(tolerance):
        raise DataError(
            f"{origin}: {held_out} held-out images; it takes {_needed(tolerance)} to see a loss of {tolerance:g}.",
            "Name more images with --calibrate, allow more loss with --tolerance, or use --precision bf16.",
        )
    if calibration < _FEWEST_CALIBRATION:
        raise DataError(
            f"{origin}: {calibration} calibration images; int8 needs {_FEWEST_CALIBRATION}.",
            "Name more images with --calibrate, or use --precision bf16.",
        )


def _needed(tolerance: float) -> int:
    """Images on which one answer more or less is no more than the tolerance."""
    return math.ceil(1 / tolerance - 1e-9)


def _find(
    reference: Path, classes: tuple[str, ...], data: Path | str | None, tolerance: float, seed: int
) -> CalibrationFiles:
    record = reference / "splits.json"
    if data is None:
        if not record.is_file():
            raise UsageError(
                f"int8 needs images to set its quantizers on, and {reference} has none of its own",
                "name some: --calibrate DATA, a folder of images like those that it will see",
            )
        data = _data_of_run(reference)
    root = Path(data)
    try:
        folders = read_class_folders(root)
    except DataError:
        if not root.is_dir():
            raise
        return _from_loose_images(root, tolerance, seed)
    recorded = read_splits(record) if record.is_file() else {}
    if recorded and belongs_to(folders, recorded):
        splits = recorded_splits(folders.remap_classes(classes), recorded)
        return _from_samples(splits.train, splits.val, True, f"the run's own data, {root}", seed)
    known = set(folders.classes) <= set(classes)
    return _from_folders(folders.remap_classes(classes) if known else folders, known, tolerance, seed)


def _data_of_run(run: Path) -> Path:
    try:
        return Path(yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["data"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as error:
        raise ModelError(f"{run / 'config.yaml'} does not tell the run's data.", "Name it: --calibrate DATA") from error


def _from_folders(folders: ImageDataset, known: bool, tolerance: float, seed: int) -> CalibrationFiles:
    train, val = folders.splits.get("train", ()), folders.splits.get("val", ())
    if train and val:
        return _from_samples(train, val, known, f"{folders.root} (train and val)", seed)
    pool = train or val or [sample for samples in folders.splits.values() for sample in samples]
    return _from_pool(pool, known, folders.root, tolerance, seed)


def _from_loose_images(root: Path, tolerance: float, seed: int) -> CalibrationFiles:
    def refuse(where: Path, error: OSError) -> None:
        message = f"{where} cannot be listed: {error.strerror or error}."
        raise DataError(message, "Ask its owner for the right to read it (chmod +rx).")

    pool = [Sample(path, 0) for path in files_below(root, refuse) if path.suffix.lower() in PICTURE_SUFFIXES]
    return _from_pool(pool, False, root, tolerance, seed)


def _from_pool(pool: Sequence[Sample], known: bool, root: Path, tolerance: float, seed: int) -> CalibrationFiles:
    """A third is held out, or as many more as the tolerance needs while enough are left to calibrate with."""
    shuffled = _some(pool, len(pool), seed)
    wanted = max(round(len(pool) * _HELD_OUT_SHARE), _needed(tolerance))
    held_out = max(0, min(wanted, len(pool) - _FEWEST_CALIBRATION))
    origin = f"{root} ({held_out} of {len(pool)} held out)"
    return _from_samples(shuffled[held_out:], shuffled[:held_out], known, origin, seed)


def _from_samples(
    train: Sequence[Sample], val: Sequence[Sample], known: bool, origin: str, seed: int
) -> CalibrationFiles:
    calibration = _some([sample.path for sample in train], _MOST_CALIBRATION, seed)
    held_out = _some(val, _MOST_HELD_OUT, seed)
    labels = [sample.label for sample in held_out] if known else None
    return CalibrationFiles(calibration, [sample.path for sample in held_out], labels, origin)


def _some(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    """``count`` of the items at random, all of them in random order if there are no more."""
    return random.Random(seed).sample(list(items), min(count, len(items)))


def _decoded(
    paths: Sequence[Path], preprocessing: Preprocessing, log: Callable[[str], None]
) -> tuple[np.ndarray, list[int]]:
    """Pixels of the images that can be read, and their positions; the others are named."""
    pictures = (ImageSource(str(path), partial(read_image, path)) for path in paths)
    pixels, kept = [], []
    for place, outcome in enumerate(prepare(pictures, preprocessing, ahead=32)):
        if isinstance(outcome, PreparedImage):
            pixels.append(outcome.pixels)
            kept.append(place)
        else:
            log(f"left out: {outcome.error.message}")
    empty = np.empty((0, preprocessing.height, preprocessing.width, preprocessing.channels), np.uint8)
    return (np.stack(pixels) if pixels else empty), kept
