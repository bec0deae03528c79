"""What is known of one published set of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hubel.data.preprocessing import Preprocessing


@dataclass(frozen=True)
class WeightsEntry:
    """One published set of weights, bound to the preprocessing it was trained with.

    Attributes:
        architecture: name as in ``create_model(name)``.
        source: who published it: ``"torchvision"``, ``"timm"``, ``"keras"``, ``"google"``.
        tag: the publisher's name of this training, e.g. ``"IMAGENET1K_V2"``.
        location: an https URL, or ``"package:IMPORT_NAME/path/inside"`` for a file that an installed
            package carries.
        sha256: lower-case hexadecimal digits of the file's SHA-256: all 64, the leading ones if no more are
            published, none if none are.
        size_bytes: of the file; to about a kilobyte where the publisher rounds; None if not published.
        license: SPDX identifier of the licence it is published under.
        metrics: published figures as fractions 0..1: ``"top1"`` and, where published, ``"top5"``; a detector's
            ``"mAP"``, COCO's mean over IoU 0.5 to 0.95.
        metrics_source: where the figures stand.
        preprocessing: from an image to the network's input.
        classes: whose names the outputs have, for :func:`hubel.weights.class_names`.
        settings: all options of the architecture that these weights need and that are not its own.
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
