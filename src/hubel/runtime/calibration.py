"""Which images quantization is set on, and which others it is judged on; never the same."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import yaml

from hubel.data.class_folders import ClassFolders, Sample, read_class_folders
from hubel.data.decoding import read_image
from hubel.data.preprocessing import Preprocessing
from hubel.data.sources import Picture
from hubel.data.splits import hold_back, is_of, read_splits, recorded_splits
from hubel.data.walking import PICTURE_SUFFIXES, files_below
from hubel.errors import DataError, ModelError, UsageError
from hubel.runtime.image_pipeline import PreparedImage, prepare

Item = TypeVar("Item")

# NNCF's quantizers hardly move any more beyond this; scoring more than a thousand images takes longer than it tells.
_MOST_CALIBRATION, _MOST_HELD_OUT = 256, 1000
_FEWEST_CALIBRATION = 32
_HELD_OUT_SHARE = 1 / 3


@dataclass(frozen=True)
class CalibrationImages:
    """Images ready for a network.

    Attributes:
        calibration: uint8 (N, height, width, channels), to set the quantizers on.
        held_out: the same of other images, to judge on.
        labels: of the held-out images, class indices (N,); None if they are not known.
        origin: where all this comes from, in words.
    """

    calibration: np.ndarray
    held_out: np.ndarray
    labels: np.ndarray | None
    origin: str


@dataclass(frozen=True)
class _Files:
    calibration: Sequence[Path]
    held_out: Sequence[Path]
    labels: Sequence[int] | None
    origin: str


def calibration_images(
    reference: str | Path,
    classes: Sequence[str],
    preprocessing: Preprocessing,
    data: Path | str | None,
    tolerance: float,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> CalibrationImages:
    """Find images and decode them.

    A run knows its data: its training split calibrates, its validation split is held out. Any other model needs
    ``data``: class folders with ``train`` and ``val`` count as they are, and of everything else a third is held out,
    at random. The labels count if the model knows all of the classes.

    Args:
        reference: the model as it was named; a run folder is recognized.
        classes: the model's.
        preprocessing: the model's.
        data: a folder of images or of class folders; None takes the run's own.
        tolerance: the loss that is to be seen: it takes one image over its inverse, or more, to see it.
        seed: the same seed takes the same of the same files.
        say: shows a line to the person.

    Raises:
        UsageError: there is no data.
        DataError: it cannot be read, or is too little.
    """
    if not 0 < tolerance < 1:
        raise UsageError(f"tolerance is {tolerance:g}", "use a fraction such as 0.01: one point of accuracy")
    files = _find(Path(reference), tuple(classes), data, tolerance, seed)
    few = {"calibration": (files.calibration, _FEWEST_CALIBRATION), "held-out": (files.held_out, _needed(tolerance))}
    for what, (found, needed) in few.items():
        if len(found) < needed:
            raise _too_few(files.origin, what, len(found), needed, tolerance)
    calibration, _ = _decoded(files.calibration, preprocessing, say)
    held_out, kept = _decoded(files.held_out, preprocessing, say)
    for what, pixels, needed in (
        ("calibration", calibration, _FEWEST_CALIBRATION),
        ("held-out", held_out, _needed(tolerance)),
    ):
        if len(pixels) < needed:
            raise _too_few(f"{files.origin}, those that can be read,", what, len(pixels), needed, tolerance)
    labels = None if files.labels is None else np.array(files.labels, np.int64)[kept]
    return CalibrationImages(calibration, held_out, labels, files.origin)


def _needed(tolerance: float) -> int:
    """Images on which one answer more or less is no more than the tolerance."""
    return math.ceil(1 / tolerance - 1e-9)


def _too_few(origin: str, what: str, found: int, needed: int, tolerance: float) -> DataError:
    see = f" to see a loss of {tolerance:g}" if what == "held-out" else ""
    larger = ", allow more loss with --tolerance" if what == "held-out" else ""
    return DataError(
        f"{origin}: {found} {what} images; int8 needs {needed} or more{see}.",
        f"Name more images with --calibrate{larger}, or use --precision bf16.",
    )


def _find(reference: Path, classes: tuple[str, ...], data: Path | str | None, tolerance: float, seed: int) -> _Files:
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
    if recorded and is_of(folders, recorded):
        splits = recorded_splits(folders.labelled_by(classes), recorded)
        return _from_samples(splits.train, splits.val, True, f"the run's own data, {root}", seed)
    known = set(folders.classes) <= set(classes)
    return _from_folders(folders.labelled_by(classes) if known else folders, known, tolerance, seed)


def _data_of_run(run: Path) -> Path:
    try:
        return Path(yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["data"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as error:
        raise ModelError(f"{run / 'config.yaml'} does not tell the run's data.", "Name it: --calibrate DATA") from error


def _from_folders(folders: ClassFolders, known: bool, tolerance: float, seed: int) -> _Files:
    train, val = folders.splits.get("train", ()), folders.splits.get("val", ())
    if train and val:
        return _from_samples(train, val, known, f"{folders.root} (train and val)", seed)
    everything = [sample for samples in folders.splits.values() for sample in samples]
    train, val = hold_back(everything, _share(len(everything), tolerance), seed)
    return _from_samples(train, val, known, f"{folders.root} (a part held out)", seed)


def _from_samples(train: Sequence[Sample], val: Sequence[Sample], known: bool, origin: str, seed: int) -> _Files:
    calibration = _some([sample.path for sample in train], _MOST_CALIBRATION, seed)
    held_out = _some(val, _MOST_HELD_OUT, seed)
    labels = [sample.label for sample in held_out] if known else None
    return _Files(calibration, [sample.path for sample in held_out], labels, origin)


def _from_loose_images(root: Path, tolerance: float, seed: int) -> _Files:
    def refuse(where: Path, error: OSError) -> None:
        raise DataError(
            f"{where} cannot be listed: {error.strerror or error}.", "Ask its owner for the right to read it."
        )

    found = [path for path in files_below(root, refuse) if path.suffix.lower() in PICTURE_SUFFIXES]
    shuffled = _some(found, len(found), seed)
    held_out = round(len(found) * _share(len(found), tolerance))
    return _Files(
        shuffled[held_out:][:_MOST_CALIBRATION], shuffled[:held_out][:_MOST_HELD_OUT], None, f"{root} (a part held out)"
    )


def _share(images: int, tolerance: float) -> float:
    """A third, or as much more as it takes to see the tolerance, while enough to calibrate with is left."""
    most = max(0, images - _FEWEST_CALIBRATION) / max(1, images)
    return min(max(_HELD_OUT_SHARE, _needed(tolerance) / max(1, images)), max(most, 0.01))


def _some(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    """``count`` of the items at random, all of them in random order if there are no more."""
    return random.Random(seed).sample(list(items), min(count, len(items)))


def _decoded(
    paths: Sequence[Path], preprocessing: Preprocessing, say: Callable[[str], None]
) -> tuple[np.ndarray, list[int]]:
    """Pixels of the images that can be read, and their positions; the others are named."""
    pictures = (Picture(str(path), partial(read_image, path)) for path in paths)
    pixels, kept = [], []
    for place, outcome in enumerate(prepare(pictures, preprocessing, ahead=32)):
        if isinstance(outcome, PreparedImage):
            pixels.append(outcome.pixels)
            kept.append(place)
        else:
            say(f"left out: {outcome.error.fault}")
    empty = np.empty((0, preprocessing.height, preprocessing.width, preprocessing.channels), np.uint8)
    return (np.stack(pixels) if pixels else empty), kept
