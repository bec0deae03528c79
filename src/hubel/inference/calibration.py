"""Images that calibrate a quantized network, and others that evaluate it; never the same."""

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

# More images hardly change NNCF's quantizers, or the score.
_MAX_CALIBRATION, _MAX_HELD_OUT = 256, 1000
_MIN_CALIBRATION = 32
_HELD_OUT_FRACTION = 1 / 3


@dataclass(frozen=True)
class CalibrationFiles:
    """Images on disk.

    Attributes:
        calibration: for the quantizers' ranges.
        held_out: others, for evaluation.
        labels: class indices of the held-out images; None if unknown.
        origin: where they come from, for messages.
    """

    calibration: Sequence[Path]
    held_out: Sequence[Path]
    labels: Sequence[int] | None
    origin: str

    def digest(self) -> str:
        """Changes with the choice of files, and when one of them is written again."""
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
    """Choose images without opening any.

    A run knows its data: its training split calibrates, its validation split is held out. Any other model needs
    ``data``: class folders with ``train`` and ``val`` are used as they are, and of everything else a random third is
    held out. Labels are used if the model has all of the classes.

    Args:
        reference: name of the model, or a run folder.
        classes: of the model.
        data: a folder of images or of class folders; None: the run's own.
        tolerance: the loss that has to be measurable, which takes at least 1 / tolerance images.
        seed: of the random choice.

    Raises:
        UsageError: there is no data.
        DataError: it cannot be listed, or has too few images.
    """
    files = _find(Path(reference), tuple(classes), data, tolerance, seed)
    _check(files.origin, len(files.calibration), len(files.held_out), tolerance)
    return files


def read_calibration_images(
    files: CalibrationFiles, preprocessing: Preprocessing, tolerance: float, log: Callable[[str], None]
) -> CalibrationImages:
    """Decode the images; unreadable ones are reported and left out.

    Raises:
        DataError: too few are left.
    """
    calibration, _ = _decoded(files.calibration, preprocessing, log)
    held_out, kept = _decoded(files.held_out, preprocessing, log)
    _check(f"{files.origin}, those that can be read,", len(calibration), len(held_out), tolerance)
    labels = None if files.labels is None else np.array(files.labels, np.int64)[kept]
    return CalibrationImages(calibration, held_out, labels)


def _check(origin: str, calibration: int, held_out: int, tolerance: float) -> None:
    """Refuse too few images, with the number that is required."""
    if held_out < _required(tolerance):
        raise DataError(
            f"{origin}: {held_out} held-out images; measuring a loss of {tolerance:g} takes {_required(tolerance)}.",
            "Name more images with --calibrate, allow more loss with --tolerance, or use --precision bf16.",
        )
    if calibration < _MIN_CALIBRATION:
        raise DataError(
            f"{origin}: {calibration} calibration images; int8 needs {_MIN_CALIBRATION}.",
            "Name more images with --calibrate, or use --precision bf16.",
        )


def _required(tolerance: float) -> int:
    """Images of which a single one counts for no more than the tolerance."""
    return math.ceil(1 / tolerance - 1e-9)


def _find(
    reference: Path, classes: tuple[str, ...], data: Path | str | None, tolerance: float, seed: int
) -> CalibrationFiles:
    record = reference / "splits.json"
    if data is None:
        if not record.is_file():
            raise UsageError(
                f"int8 needs images for calibration, and {reference} has none of its own",
                "name some: --calibrate DATA, a folder of images like those to come",
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
        raise ModelError(f"{run / 'config.yaml'} does not name the run's data.", "Name it: --calibrate DATA") from error


def _from_folders(folders: ImageDataset, known: bool, tolerance: float, seed: int) -> CalibrationFiles:
    train, val = folders.splits.get("train", ()), folders.splits.get("val", ())
    if train and val:
        return _from_samples(train, val, known, f"{folders.root} (train and val)", seed)
    pool = train or val or [sample for samples in folders.splits.values() for sample in samples]
    return _from_pool(pool, known, folders.root, tolerance, seed)


def _from_loose_images(root: Path, tolerance: float, seed: int) -> CalibrationFiles:
    def refuse(where: Path, error: OSError) -> None:
        message = f"{where} cannot be listed: {error.strerror or error}."
        raise DataError(message, "Make it readable (chmod +rx).")

    pool = [Sample(path, 0) for path in files_below(root, refuse) if path.suffix.lower() in PICTURE_SUFFIXES]
    return _from_pool(pool, False, root, tolerance, seed)


def _from_pool(pool: Sequence[Sample], known: bool, root: Path, tolerance: float, seed: int) -> CalibrationFiles:
    """Hold out a third, or more if the tolerance requires it and enough are left for calibration."""
    shuffled = _some(pool, len(pool), seed)
    wanted = max(round(len(pool) * _HELD_OUT_FRACTION), _required(tolerance))
    held_out = max(0, min(wanted, len(pool) - _MIN_CALIBRATION))
    origin = f"{root} ({held_out} of {len(pool)} held out)"
    return _from_samples(shuffled[held_out:], shuffled[:held_out], known, origin, seed)


def _from_samples(
    train: Sequence[Sample], val: Sequence[Sample], known: bool, origin: str, seed: int
) -> CalibrationFiles:
    calibration = _some([sample.path for sample in train], _MAX_CALIBRATION, seed)
    held_out = _some(val, _MAX_HELD_OUT, seed)
    labels = [sample.label for sample in held_out] if known else None
    return CalibrationFiles(calibration, [sample.path for sample in held_out], labels, origin)


def _some(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    """At most ``count`` of the items, in random order."""
    return random.Random(seed).sample(list(items), min(count, len(items)))


def _decoded(
    paths: Sequence[Path], preprocessing: Preprocessing, log: Callable[[str], None]
) -> tuple[np.ndarray, list[int]]:
    """Pixels of the readable images, and their indices; the others are reported."""
    images = (ImageSource(str(path), partial(read_image, path)) for path in paths)
    pixels, kept = [], []
    for index, outcome in enumerate(prepare(images, preprocessing, ahead=32)):
        if isinstance(outcome, PreparedImage):
            pixels.append(outcome.pixels)
            kept.append(index)
        else:
            log(f"left out: {outcome.error.message}")
    empty = np.empty((0, preprocessing.height, preprocessing.width, preprocessing.channels), np.uint8)
    return (np.stack(pixels) if pixels else empty), kept
