"""Models in int8, by name: finds images to calibrate and to evaluate with, quantizes, and caches the result."""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hubel.bounded import read_yaml
from hubel.config import TOLERANCE
from hubel.console import log as log_to_stderr
from hubel.data.annotated_images import read_annotated_images
from hubel.data.file_kinds import is_image_file
from hubel.data.file_listing import files_below
from hubel.data.image_folder import read_class_folders
from hubel.data.image_io import read_image
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import UNLABELLED, ImageDataset, Sample
from hubel.data.sources import ImageSource
from hubel.data.splits import belongs_to, read_splits, recorded_splits
from hubel.errors import DataError, ModelError, UsageError
from hubel.inference.accuracy_control import (
    QuantizationReport,
    classifier_held_out,
    detector_held_out,
    quantize_with_accuracy_control,
    runner,
)
from hubel.inference.engines.convert import Converted, ModelSource, convert, find_converted, find_newest, store
from hubel.inference.engines.openvino import OpenVinoBackend
from hubel.inference.engines.processor import EXACT_ON, exact_weight_bits
from hubel.inference.pipeline import PreparedImage, prepare, stacked
from hubel.inference.quantize import nncf_library
from hubel.models.metadata import recorded_folder
from hubel.tasks.decoding import decoder_of

if TYPE_CHECKING:
    from openvino import Model

# More images hardly change NNCF's quantizers, or the score.
_MAX_CALIBRATION, _MAX_HELD_OUT = 256, 1000
_MIN_CALIBRATION = 32
_HELD_OUT_FRACTION = 1 / 3
_REPORT = "int8.json"
# Precisions of cached networks, by bits of the weights: machines that share a cache may need different ones.
_PRECISIONS = {8: "int8", 7: "int8 (7-bit weights)"}


class QuantizedOpenVino(OpenVinoBackend):
    """Stores a quantized network in the cache, with the report of what it costs beside it."""

    packages = ("openvino", "nncf")

    def save(self, converted: Any, folder: Path, facts: Mapping[str, Any] | None = None, half: bool = False) -> None:
        """Write both of ``(model, report)``."""
        model, report = converted
        super().save(model, folder, facts, half)
        (folder / _REPORT).write_text(json.dumps(asdict(report)) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> tuple[Model, QuantizationReport]:
        """The inverse of :meth:`save`."""
        row = json.loads((folder / _REPORT).read_text(encoding="utf-8"))
        report = QuantizationReport(**{**row, "kept_in_float": tuple(row["kept_in_float"])})
        return super().load(folder), report


def quantized_for(
    reference: str | Path,
    calibrate: str | Path | None = None,
    tolerance: float = TOLERANCE,
    log: Callable[[str], None] = log_to_stderr,
    portable: bool = False,
) -> tuple[Model, QuantizationReport]:
    """A model in int8 for OpenVINO, no worse than allowed on images that it was not calibrated with, and its cost.

    Its weights have as many bits as this processor computes with exactly, 7 for any if ``portable``. A network
    quantized so before on the same images, whose loss is within the tolerance, is taken from the cache. The model and
    the other arguments are named as for :class:`~hubel.inference.predictor.Predictor`.

    Raises:
        MissingExtraError: NNCF is not installed.
        UsageError: there are no images to calibrate with, or the tolerance is not a fraction.
        DataError: they cannot be read, or are too few.
        ModelError: more than the tolerance is lost; or the loss cannot be measured for the model's task.
    """
    network, report = find_or_quantize(ModelSource(reference), calibrate, tolerance, log, portable).network
    return network, report


def find_quantized(source: ModelSource, portable: bool = False) -> Converted | None:
    """The cached network in int8 that was used last, of those for this processor, or for any if ``portable``."""
    return find_newest(source, QuantizedOpenVino(), _PRECISIONS[_weight_bits(portable)])


def find_accepted(source: ModelSource, tolerance: float) -> Converted | None:
    """The network of :func:`find_quantized`, ready to run, if no more accuracy is lost than the tolerance allows."""
    converted = find_quantized(source)
    if converted is None or not converted.network[1].loss <= tolerance:
        return None
    network, report = converted.network
    note = (
        f"quantized before: {report.metric} {report.float_score:.3f} → {report.int8_score:.3f} on {report.images} "
        "held-out images, --precision fp32 for floats"
    )
    return replace(converted, network=network, note=note)


def _weight_bits(portable: bool) -> int:
    return min(EXACT_ON) if portable else exact_weight_bits()


def find_or_quantize(
    source: ModelSource,
    calibrate: str | Path | None,
    tolerance: float,
    log: Callable[[str], None] = log_to_stderr,
    portable: bool = False,
) -> Converted:
    """As :func:`quantized_for`; the network of the conversion is the pair of both results."""
    if not 0 < tolerance < 1:
        raise UsageError(f"tolerance is {tolerance:g}", "use a fraction such as 0.01: one point of accuracy")
    backend = QuantizedOpenVino()
    weight_bits = _weight_bits(portable)
    precision = _PRECISIONS[weight_bits]
    cached = find_quantized(source, portable) if calibrate is None else None
    if cached is not None and cached.network[1].loss <= tolerance:
        log(cached.network[1].line())
        return cached
    metadata = source.load()[1]
    decoder = decoder_of(metadata.task, source.name)
    if "masks" in decoder.OUTPUTS or ("probabilities" not in decoder.OUTPUTS and not decoder.NMS):
        raise ModelError(
            f"{source.name} cannot be quantized: the cost of int8 is only measured for classifiers and detectors",
            "use --precision bf16, fp16 or fp32",
        )
    read = read_annotated_images if decoder.NMS else read_class_folders
    files = find_calibration_files(source.name, metadata.classes, calibrate, tolerance, read)
    nncf_library()  # before the work begins: it may be missing
    digest = files.digest()
    converted = find_converted(source, backend, precision, digest)
    if converted is None or converted.network[1].loss > tolerance:
        start = time.perf_counter()
        images = read_calibration_images(files, metadata.preprocessing, tolerance, log)
        log(f"int8: {len(images.calibration)} calibration and {len(images.held_out)} held-out images of {files.origin}")
        model = convert(source, OpenVinoBackend()).network
        exact = runner(model, "fp32")
        held_out = (
            detector_held_out(images.held_out, images.samples, metadata, exact)
            if decoder.NMS
            else classifier_held_out(images.held_out, images.labels, exact)
        )
        pair = quantize_with_accuracy_control(
            model, images.calibration, held_out, tolerance, weight_bits=weight_bits, log=log
        )
        made = Converted(pair, metadata, f"quantized in {time.perf_counter() - start:.0f} s")
        converted = replace(made, note=f"{made.note}, {store(source, backend, made, precision, digest)}")
    log(converted.network[1].line())
    return converted


@dataclass(frozen=True)
class CalibrationFiles:
    """Images for the quantizers' ranges, and others held out for evaluation, with their class indices if known.

    ``origin`` says where they come from, for messages; ``samples`` are the held-out ones with their objects, if known.
    """

    calibration: Sequence[Path]
    held_out: Sequence[Path]
    labels: Sequence[int] | None
    origin: str
    samples: Sequence[Sample] | None = None

    def digest(self) -> str:
        """Changes with the choice of files, and when one of them is written again."""
        stats = [(str(path), path.stat()) for path in (*self.calibration, *self.held_out)]
        stamps = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
        objects = [(each.boxes.tolist(), each.labels.tolist()) for each in self.samples or ()]
        return hashlib.sha256(repr((stamps, len(self.calibration), self.labels, *objects)).encode()).hexdigest()


@dataclass(frozen=True)
class CalibrationImages:
    """The pixels of :class:`CalibrationFiles`, uint8 (N, height, width, channels), labels (N,) and samples, or None."""

    calibration: np.ndarray
    held_out: np.ndarray
    labels: np.ndarray | None
    samples: Sequence[Sample] | None = None


def find_calibration_files(
    reference: str,
    classes: Sequence[str],
    data: Path | str | None,
    tolerance: float,
    read: Callable[[Path], ImageDataset] = read_class_folders,
) -> CalibrationFiles:
    """Choose images without opening any.

    A run knows its data: its training split calibrates, its validation split is held out; of the images of a search,
    for its ensemble, a third. Any other model needs ``data``: what ``read`` takes, with ``train`` and ``val``, is used
    as it is, and of everything else a random third is held out, 1 / tolerance images at least. Labels are used if the
    model, a name or a run folder, has all of the classes.

    Raises:
        UsageError: there is no data.
        DataError: it cannot be listed, or has too few images.
    """
    run = recorded_folder(Path(reference))
    record = run / "splits.json"
    if data is None:
        if not record.is_file():
            raise UsageError(
                f"int8 requires calibration images, and {reference} has none",
                "pass a folder of images like those to predict: --calibrate DATA",
            )
        data = _data_of_run(run)
    root = Path(data)
    try:
        folders = read(root)
    except DataError:
        if not root.is_dir():
            raise
        return _divided(_loose_images(root), False, root, tolerance)
    recorded = read_splits(record) if record.is_file() else {}
    if recorded and belongs_to(folders, recorded):
        splits = recorded_splits(folders.remap_classes(classes), recorded)
        if splits.val:
            return _chosen(splits.train, splits.val, True, f"the run's own data, {root}", tolerance)
        return _divided(splits.train, True, root, tolerance)  # an ensemble's: each image was held out by one member
    known = set(folders.classes) <= set(classes)
    named = (folders.remap_classes(classes) if known else folders).splits
    train, val = named.get("train", ()), named.get("val", ())
    if train and val:
        return _chosen(train, val, known, f"{root} (train and val)", tolerance)
    pool = train or val or [sample for samples in named.values() for sample in samples]
    return _divided(pool, known, root, tolerance)


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
    samples = None if files.samples is None else [files.samples[index] for index in kept]
    return CalibrationImages(calibration, held_out, labels, samples)


def _check(origin: str, calibration: int, held_out: int, tolerance: float) -> None:
    """Refuse too few images, with the number that is required."""
    if held_out < _required(tolerance):
        raise DataError(
            f"{origin}: {held_out} held-out images; measuring a loss of {tolerance:g} takes {_required(tolerance)}",
            "pass more images with --calibrate, allow more loss with --tolerance, or use --precision bf16",
        )
    if calibration < _MIN_CALIBRATION:
        raise DataError(
            f"{origin}: {calibration} calibration images; int8 needs {_MIN_CALIBRATION}",
            "pass more images with --calibrate, or use --precision bf16",
        )


def _required(tolerance: float) -> int:
    """Images of which a single one counts for no more than the tolerance."""
    return math.ceil(1 / tolerance - 1e-9)


def _data_of_run(run: Path) -> Path:
    try:
        return Path(read_yaml(run / "config.yaml")["data"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{run / 'config.yaml'} does not name the data set", "use --calibrate DATA") from error


def _loose_images(root: Path) -> list[Sample]:
    def refuse(where: Path, error: OSError) -> None:
        message = f"{where} cannot be listed: {error.strerror or error}"
        raise DataError(message, "make it readable (chmod +rx)")

    return [Sample(path, 0) for path in files_below(root, refuse) if is_image_file(path)]


def _divided(pool: Sequence[Sample], known: bool, root: Path, tolerance: float) -> CalibrationFiles:
    """Hold out a third, or more if the tolerance requires it and enough are left for calibration."""
    shuffled = _some(pool, len(pool))
    count = max(round(len(pool) * _HELD_OUT_FRACTION), _required(tolerance))
    held_out = max(0, min(count, len(pool) - _MIN_CALIBRATION))
    origin = f"{root} ({held_out} of {len(pool)} held out)"
    return _chosen(shuffled[held_out:], shuffled[:held_out], known, origin, tolerance)


def _chosen(
    train: Sequence[Sample], val: Sequence[Sample], known: bool, origin: str, tolerance: float
) -> CalibrationFiles:
    """At most as many of the images as are worth it; ``known``: their labels are the model's classes."""
    calibration, held_out = _some(train, _MAX_CALIBRATION), _some(val, _MAX_HELD_OUT)
    _check(origin, len(calibration), len(held_out), tolerance)
    whole = known and all(sample.label != UNLABELLED for sample in held_out)
    return CalibrationFiles(
        [sample.path for sample in calibration],
        [sample.path for sample in held_out],
        [sample.label for sample in held_out] if whole else None,
        origin,
        held_out if known and not whole else None,
    )


def _some(samples: Sequence[Sample], count: int) -> list[Sample]:
    """At most ``count`` of the samples, in random order."""
    return random.Random(0).sample(list(samples), min(count, len(samples)))


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
    return stacked(pixels, preprocessing), kept
