"""The table of architectures: which module defines each. A family is imported when it is asked for."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import re
from typing import TYPE_CHECKING

from hubel.errors import ModelError
from hubel.tracking import TRACKERS

if TYPE_CHECKING:
    from hubel.models.base import Architecture

# Task, module below hubel.models, the names in its ARCHITECTURES.
_FAMILIES = (
    ("classify", "classification.lenet", "lenet5 lenet5_modern"),
    ("classify", "classification.simple_cnn", "simple_cnn"),
    ("classify", "classification.alexnet", "alexnet alexnet_owt zfnet"),
    ("classify", "classification.vgg", "vgg11 vgg13 vgg16 vgg19"),
    ("classify", "classification.googlenet", "googlenet googlenet_bn bn_inception se_inception"),
    ("classify", "classification.inception_v3", "inception_v3"),
    ("classify", "classification.inception_v4", "inception_v4 inception_resnet_v2 inception_resnet_v2_paper"),
    ("classify", "classification.xception", "xception"),
    ("classify", "classification.resnet", "resnet18 resnet34 resnet50 resnet101 resnet152"),
    ("classify", "classification.resnet", "resnext50_32x4d resnext101_32x8d"),
    ("classify", "classification.resnet", "se_resnet50 se_resnet101 se_resnet152 senet154"),
    ("classify", "classification.densenet", "densenet121 densenet169 densenet201 densenet264"),
    ("classify", "classification.cspnet", "cspresnet50 cspresnext50 cspdarknet53"),
    ("classify", "classification.mobilenet", "mobilenet_v1 mobilenet_v2"),
    ("classify", "classification.mobilenet_v3", "mobilenet_v3_small mobilenet_v3_large"),
    ("classify", "classification.efficientnet", " ".join(f"efficientnet_b{number}" for number in range(8))),
    ("classify", "classification.efficientnet", " ".join(f"efficientnet_lite{number}" for number in range(5))),
    ("classify", "classification.darknet", "darknet_classifier"),
    ("classify", "classification.deepsort_reid", "deepsort_reid"),
    ("localize", "localization", "localizer"),
    ("detect", "detection.sliding_window", "sliding_window"),
    ("detect", "detection.ssd", "ssd ssd300_vgg16 ssd512_vgg16 ssdlite320_mobilenet_v3_large"),
    ("detect", "detection.ssd_mobilenet_v2", "ssd300_mobilenet_v2"),
    ("detect", "detection.efficientdet", " ".join(f"efficientdet_d{number}" for number in range(8))),
    ("detect", "detection.one_stage", "one_stage"),
    ("detect", "detection.faster_rcnn", "faster_rcnn fasterrcnn_resnet50_fpn fasterrcnn_resnet50_fpn_v2"),
    ("detect", "detection.faster_rcnn", "fasterrcnn_mobilenet_v3_large_fpn fasterrcnn_mobilenet_v3_large_320_fpn"),
    ("detect", "detection.faster_rcnn_single_scale", "fasterrcnn_vgg16 fasterrcnn_resnet50_c4"),
    ("detect", "detection.yolo_v1", "yolo_v1 yolo_v1_tiny"),
    ("detect", "detection.yolo_v2", "yolo_v2 yolo_v2_tiny"),
    ("detect", "detection.yolo_9000", "yolo_9000"),
    ("detect", "detection.yolo_v3", "yolo_v3 yolo_v3_tiny yolo_v3_spp"),
    ("detect", "detection.yolo_v4", "yolo_v4 yolo_v4_tiny yolo_v4_csp"),
    ("segment", "segmentation.fcn", "fcn32s fcn16s fcn8s"),
    ("segment", "segmentation.unet", "unet"),
    ("segment", "segmentation.deeplab", "deeplabv3plus"),
    ("segment", "segmentation.torchvision_models", "fcn_resnet50 deeplabv3_resnet50 lraspp_mobilenet_v3_large"),
    ("instances", "detection.mask_rcnn", "mask_rcnn maskrcnn_resnet50_fpn maskrcnn_resnet50_fpn_v2"),
    ("super-resolve", "super_resolution.fsrcnn", "fsrcnn_x2 fsrcnn_x3 fsrcnn_x4"),
    ("super-resolve", "super_resolution.espcn", "espcn_x2 espcn_x3 espcn_x4"),
    ("super-resolve", "super_resolution.srresnet", "srresnet_x4"),
)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts resnet18 before resnet101: runs of digits count as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


_MODULE_AND_TASK = {name: (module, task) for task, module, names in _FAMILIES for name in names.split()}
_NAMES = sorted(_MODULE_AND_TASK, key=_natural)


def list_models(task: str | None = None, match: str = "*") -> list[str]:
    """Names of the registered architectures, in natural order.

    Args:
        task: as of ``hubel train --task``: ``"classify"``, ``"detect"``, …; all by default. ``"track"`` lists the
            trackers of :func:`hubel.tracking.create_tracker`, which are not networks.
        match: shell pattern that the names have to match, e.g. ``"res*"``.
    """
    names = list(TRACKERS) if task == "track" else [name for name in _NAMES if task in (None, task_of(name))]
    return [name for name in names if fnmatch.fnmatchcase(name, match)]


def task_of(name: str) -> str:
    """The task of a registered architecture, without importing it."""
    return _MODULE_AND_TASK[name][1]


def relatives(name: str) -> list[str]:
    """Names of the architectures of the same family, with its own, in natural order."""
    return [other for other in _NAMES if _MODULE_AND_TASK[other] == _MODULE_AND_TASK[name]]


def check_name(name: str) -> None:
    """Raise :class:`ModelError`, which offers the closest names, if there is no such architecture; needs no torch."""
    if name not in _MODULE_AND_TASK:
        raise ModelError(f"unknown architecture {name!r}", closest(name))


def closest(name: str) -> str:
    """A hint for a wrong name: ``did you mean resnet50 or resnet152?``."""
    close = difflib.get_close_matches(name, _NAMES, n=3)
    return f"did you mean {' or '.join(close)}?" if close else "see hubel models"


def architecture(name: str) -> Architecture:
    """The registered architecture of that name; its family is imported now.

    Raises:
        ModelError: unknown name; offers the closest ones.
    """
    check_name(name)
    family = importlib.import_module(f"hubel.models.{_MODULE_AND_TASK[name][0]}")
    found: Architecture = next(arch for arch in family.ARCHITECTURES if arch.name == name)
    return found
