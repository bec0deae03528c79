"""From a name to a module, with published weights or fresh ones."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from hubel.data.preprocessing import Preprocessing
from hubel.errors import ModelError
from hubel.models import classification, detection, localization
from hubel.models.backbone_spec import Backbone
from hubel.models.base import Architecture, BuildSpec
from hubel.models.config_schema import allowed, with_options
from hubel.models.pretrained import Published, auxiliary_keys, load_backbone, load_published, published
from hubel.tracking import TRACKERS

if TYPE_CHECKING:
    from hubel.analysis.summary import Summary


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts resnet18 before resnet101: runs of digits count as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


_ROWS = (*classification.ARCHITECTURES, *localization.ARCHITECTURES, *detection.ARCHITECTURES)
_WHOLE = ("detect", "localize")  # tasks that ask of the whole image
_ARCHITECTURES = {row.name: row for row in sorted(_ROWS, key=lambda row: _natural(row.name))}


def list_models(task: str | None = None, match: str = "*") -> list[str]:
    """Names of the registered architectures, in natural order.

    Args:
        task: ``"classify"``, ``"localize"``, ``"detect"``; all of these by default. ``"track"`` gives the trackers of
            :func:`hubel.tracking.create_tracker`, which are no networks.
        match: shell pattern that the names have to match, e.g. ``"res*"``.
    """
    if task == "track":
        return [name for name in TRACKERS if fnmatch.fnmatchcase(name, match)]
    return [
        row.name for row in _ARCHITECTURES.values() if task in (None, row.task) and fnmatch.fnmatchcase(row.name, match)
    ]


def architecture(name: str) -> Architecture:
    """The registered row of that name.

    Raises:
        ModelError: there is none; names the closest ones.
    """
    if name in _ARCHITECTURES:
        return _ARCHITECTURES[name]
    close = difflib.get_close_matches(name, _ARCHITECTURES, n=3)
    hint = f"Did you mean {' or '.join(close)}?" if close else "hubel models lists the names there are."
    raise ModelError(f"There is no architecture named {name!r}.", hint)


def create_model(
    name: str,
    num_classes: int | None = None,
    in_channels: int | None = None,
    image_size: int | None = None,
    weights: str | Path | None = None,
    backbone: str | None = None,
    **options: Any,
) -> nn.Module:
    """Build a registered architecture.

    Args:
        name: one of :func:`list_models`.
        num_classes: by default as many as the weights tell apart, without weights as many as the paper's
            network.
        in_channels: of the images; by default the architecture's own (3; 1 for the greyscale networks). For
            other numbers than the weights have, the first convolution's weights are summed over their inputs
            (1 channel), or repeated and scaled so that the sum over the inputs keeps its size.
        image_size: side of the square images in pixels, for architectures with dense layers of a fixed size;
            by default what the weights were published for, else the architecture's own.
        weights: name in the catalog (``"default"``, ``"torchvision/IMAGENET1K_V2"``,
            ``"resnet50:torchvision/IMAGENET1K_V2"``) or a local file as hubel, torchvision, timm, Keras publish it.
            With another ``num_classes`` than the weights', the layers that tell classes apart stay fresh.
        backbone: the classifier that a detector stands on: a registered name, which gets random weights, or a name
            with weights (``"resnet18:torchvision/IMAGENET1K_V1"``, ``"efficientnet_lite0:default"``,
            ``"resnet18:FILE"``); by default the architecture's own.
        options: fields of the family's configuration, e.g. ``stride_in="1x1"``.

    Returns:
        The module in training mode. It maps images (N, in_channels, H, W) to raw tensors; classifiers to
        scores (N, num_classes), detectors to scores and offsets of their anchors.

    Raises:
        ModelError: unknown name or option, or a size or number that the architecture cannot have.
        WeightsError: weights that are missing, damaged or of another architecture.
    """
    row = architecture(name)
    ground, pretrained = _ground(row, backbone)
    in_channels = row.input[0] if in_channels is None else in_channels
    if weights is None:
        image_size = row.input[1] if image_size is None else image_size
        num_classes = row.num_classes if num_classes is None else num_classes
        model = build(row, num_classes, in_channels, image_size, options, ground)
        if pretrained is not None:
            load_backbone(model, pretrained)
        return _attach_spec(model, BuildSpec(name, num_classes, in_channels, image_size, options, None, None, ground))
    found = published(weights, row)
    image_size = found.image_size if image_size is None else image_size
    published_classes = row.class_layers.count(found.state)
    if num_classes is None:
        num_classes = published_classes or row.num_classes
    same_classes = num_classes == published_classes
    options = {**found.settings, **options}
    model = build(row, num_classes, in_channels, image_size, options, ground, for_loading=same_classes)
    if same_classes and auxiliary_keys(model.state_dict()) and not auxiliary_keys(found.state):
        # Some publish what prediction needs and no more: the auxiliary classifiers have to be drawn.
        model = build(row, num_classes, in_channels, image_size, options)
    load_published(model, found, left_fresh=None if same_classes else row.class_layers.keys)
    origin = BuildSpec(name, num_classes, in_channels, image_size, options, found.name, found.source, ground)
    return _attach_spec(model, origin)


def _ground(row: Architecture, name: str | None) -> tuple[Backbone | None, Published | None]:
    """What an architecture is to stand on, and the weights that this begins with."""
    if row.backbone is None:
        if name is not None:
            message = "it is one" if row.task == "classify" else "it has its own"
            raise ModelError(f"{row.name} takes no backbone: {message}.", "Leave backbone out.")
        return None, None
    wanted, _, weights = (name or row.backbone).partition(":")
    below = architecture(wanted)
    if below.task != "classify":
        raise ModelError(f"{wanted} cannot be a backbone: it is no classifier.", "hubel models --task classify.")
    if not weights:
        return Backbone(wanted), None
    found = published(weights, below)
    return Backbone(wanted, found.settings, found.name, found.source), found


def _attach_spec(model: nn.Module, origin: BuildSpec) -> nn.Module:
    """The module with its origin as a plain attribute, past torch's bookkeeping of tensors and modules."""
    object.__setattr__(model, "origin", origin)
    return model


def build(
    row: Architecture,
    num_classes: int,
    in_channels: int,
    image_size: int,
    options: Mapping[str, Any],
    backbone: Backbone | None = None,
    for_loading: bool = False,
) -> nn.Module:
    """Build a row's module with the given options.

    Args:
        row: the architecture.
        num_classes: what it tells apart.
        in_channels: of the images.
        image_size: side of the images in pixels.
        options: fields of the configuration to replace.
        backbone: what it stands on; by default the architecture's own, if it has one.
        for_loading: leave memory as it comes instead of drawing random weights, which takes a second for the
            large networks. All of it has to be loaded then.

    Raises:
        ModelError: an option that the configuration does not have, or a size or number that cannot be.
    """
    for what, number in (
        ("num_classes", num_classes),
        ("in_channels", in_channels),
        ("image_size", image_size),
    ):
        if number < 1:
            raise ModelError(f"{row.name} cannot be built with {what}={number}.", f"Give a positive {what}.")
    config = with_options(row, options)
    needs: tuple[Any, ...] = (in_channels, image_size)
    if row.backbone is not None:
        ground = backbone or Backbone(row.backbone)
        below = architecture(ground.architecture)
        needs = (build(below, 1, in_channels, below.input[1], ground.options, for_loading=for_loading),)
    try:
        with _SkipInit() if for_loading else nullcontext():
            return row.build(config, num_classes, *needs)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if not options:
            raise
        given = ", ".join(f"{option}={value!r}" for option, value in options.items())
        message = f"{row.name} cannot be built with {given}: {str(error).rstrip('.')}."
        raise ModelError(message, allowed(row, options)) from error


class _SkipInit(TorchFunctionMode):
    """While active, random initializations leave a tensor as it is."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (torch.Tensor.normal_, torch.Tensor.uniform_):
            return args[0]
        if getattr(func, "__module__", "") == "torch.nn.init":  # the mode is off within what it passes on
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def default_preprocessing(name: str, image_size: int | None = None, in_channels: int | None = None) -> Preprocessing:
    """How images are prepared for an architecture without pretrained weights.

    Colour images get ImageNet's mean and deviation and its usual centre crop; greyscale ones, whose subject
    fills the picture as a rule, are scaled as a whole to -1..1. For detectors and localizers, and networks whose
    input is no square, the whole image is stretched.

    Args:
        name: one of :func:`list_models`.
        image_size: height of the input in pixels, in its native shape; the native one by default.
        in_channels: channels of the input; the native number by default.

    Raises:
        ModelError: unknown name, or a number of channels that images do not have.
    """
    row = architecture(name)
    height, width = row.input[1:]
    if image_size is not None:
        height, width = image_size, round(image_size * width / height)
    channels = row.input[0] if in_channels is None else in_channels
    if channels not in (1, 3):
        raise ModelError(
            f"Image files do not give {channels} channels.", "Use 1 (greyscale) or 3 (RGB), or feed tensors."
        )
    ready = Preprocessing(height, width)
    if channels == 1:
        ready = Preprocessing(height, width, 1, mean=(127.5,), std=(127.5,), crop_fraction=1.0)
    whole = row.task in _WHOLE or height != width
    return replace(ready, resize="stretch", crop_fraction=1.0) if whole else ready


def summary(
    model: str | nn.Module,
    input_shape: tuple[int, int, int] | None = None,
    batch: int = 1,
    dtype: str = "float32",
) -> Summary:
    """Layer by layer: what a network outputs and what it costs (:func:`hubel.analysis.summary.summarize`).

    Args:
        model: a registered name, or any module.
        input_shape: channels, height, width; a registered name has a native one.
        batch: images at a time.
        dtype: of the activations.

    Raises:
        ModelError: unknown name, or a module without ``input_shape``.
    """
    from hubel.analysis.summary import summarize

    name = None
    if isinstance(model, str):
        row, name = architecture(model), model
        channels, height, width = input_shape = row.input if input_shape is None else input_shape
        size = height if height == width else row.input[1]
        with torch.device("meta"):  # shapes are enough: no weights are drawn
            model = build(row, row.num_classes, channels, size, {}, for_loading=True)
    if input_shape is None:
        raise ModelError("A module has no native input size.", "Give input_shape=(channels, height, width).")
    return summarize(model, input_shape, batch=batch, dtype=dtype, name=name)
