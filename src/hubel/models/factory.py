"""From a name to a module, with published or random weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hubel.console import log
from hubel.data.preprocessing import Preprocessing
from hubel.errors import ModelError, WeightsError
from hubel.models.base import Architecture
from hubel.models.config_schema import describe_options, with_options
from hubel.models.load_checked import load_checked
from hubel.models.metadata import Backbone, BuildSpec
from hubel.models.registry import architecture

if TYPE_CHECKING:
    from hubel.analysis.summary import Summary


_BACKBONE, _AUXILIARY = "backbone.", "auxiliary."


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
        num_classes: by default that of the weights, without weights that of the paper.
        in_channels: of the images; by default the architecture's own (3; 1 for the greyscale networks). Where the
            weights have another number, those of the first convolution are summed over their inputs (1 channel), or
            repeated and scaled so that the sum over the inputs keeps its size.
        image_size: side of the square images in pixels, for architectures with dense layers of a fixed size;
            by default the one that the weights were published for, else the architecture's own.
        weights: name in the catalog (``"default"``, ``"torchvision/IMAGENET1K_V2"``,
            ``"resnet50:torchvision/IMAGENET1K_V2"``) or a local file as hubel, torchvision, timm, Keras publish it.
            If ``num_classes`` differs from the weights', the layers that depend on it get random weights.
        backbone: classifier whose backbone a detector uses: a registered name, which gets random weights, or a name
            with weights (``"resnet18:torchvision/IMAGENET1K_V1"``, ``"efficientnet_lite0:default"``,
            ``"resnet18:FILE"``); by default the architecture's own.
        options: fields of the family's configuration, e.g. ``stride_in="1x1"``.

    Returns:
        The module in training mode. It maps images (N, in_channels, H, W) to raw tensors; classifiers to
        scores (N, num_classes), detectors to scores and offsets of their anchors.

    Raises:
        ModelError: unknown name or option, or a size or number that is impossible for the architecture.
        WeightsError: weights that are missing, damaged or for another architecture.
    """
    arch = with_native_sizes(architecture(name), options)
    spec, pretrained_backbone = _resolve_backbone(arch, backbone)
    found = None if weights is None else published(weights, arch, options)
    asked_for_classes = num_classes is not None
    published_classes = None if found is None else found.classes
    in_channels = arch.input[0] if in_channels is None else in_channels
    if image_size is None:
        image_size = arch.input[1] if found is None else found.image_size
    if num_classes is None:
        num_classes = published_classes or arch.num_classes
    if found is None:
        model = build(arch, num_classes, in_channels, image_size, options, spec)
        if pretrained_backbone is not None:
            load_backbone(model, pretrained_backbone)
    else:
        spec, settings = _backbone_settings(spec, found.settings)
        options = {**settings, **options}
        # A file without the layers of the classes is refused, unless the caller has classes of their own.
        same_classes = num_classes == published_classes or (published_classes is None and not asked_for_classes)
        model = build(arch, num_classes, in_channels, image_size, options, spec, for_loading=same_classes)
        if same_classes and auxiliary_keys(model.state_dict()) and not auxiliary_keys(found.state):
            # Some publishers leave out the auxiliary classifiers, which prediction does not need: draw them.
            model = build(arch, num_classes, in_channels, image_size, options)
        load_published(model, found, left_fresh=None if same_classes else arch.class_layers.keys)
    first_weights, source = (None, None) if found is None else (found.name, found.source)
    origin = BuildSpec(name, num_classes, in_channels, image_size, options, first_weights, source, spec)
    object.__setattr__(model, "origin", origin)  # a plain attribute, not registered by nn.Module
    return model


def with_native_sizes(arch: Architecture, options: Mapping[str, Any]) -> Architecture:
    """The row with the input and the number of classes that its configuration with these options has by itself."""
    native = getattr(with_options(arch, options), "native", None) if options else None
    if native is None:
        return arch
    size, classes = native()
    return replace(arch, input=size, num_classes=classes)


def _resolve_backbone(arch: Architecture, name: str | None) -> tuple[Backbone | None, Published | None]:
    """The backbone of an architecture that takes one, and the weights it starts from."""
    found_name = arch.stands_on(name)
    if found_name is None:
        if name is not None:
            reason = "it is one" if arch.is_backbone else "it has its own"
            raise ModelError(f"{arch.name} does not accept a backbone: {reason}", "omit backbone")
        return None, None
    classifier_name, _, weights = found_name.partition(":")
    classifier = architecture(classifier_name)
    if not classifier.is_backbone:
        raise ModelError(
            f"{classifier_name} cannot be a backbone: it is not a classifier",
            "choose one of hubel models --task classify",
        )
    if not weights:
        return Backbone(classifier_name), None
    found = published(weights, classifier)
    return Backbone(classifier_name, found.settings, found.name, found.source), found


def _backbone_settings(spec: Backbone | None, settings: Mapping[str, Any]) -> tuple[Backbone | None, dict[str, Any]]:
    """The backbone with those of the weights' settings that are its own (``backbone.OPTION``), and the others."""
    own = {option.removeprefix(_BACKBONE): value for option, value in settings.items() if option.startswith(_BACKBONE)}
    others = {option: value for option, value in settings.items() if not option.startswith(_BACKBONE)}
    return (replace(spec, options={**spec.options, **own}) if spec and own else spec), others


def build(
    arch: Architecture,
    num_classes: int,
    in_channels: int,
    image_size: int,
    options: Mapping[str, Any],
    backbone: Backbone | None = None,
    for_loading: bool = False,
    limit: SizeLimit | None = None,
) -> nn.Module:
    """Build an architecture's module as :func:`create_model` does, but without weights.

    ``for_loading`` leaves parameters uninitialized, as drawing them takes a second for the large networks; all of them
    have to be loaded afterwards, and ``limit`` ends what becomes far larger than they are. Raises ``ModelError`` for an
    unknown option, or an impossible value, size or number.
    """
    sizes = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    for argument, number in sizes.items():
        if number < 1 and (argument != "num_classes" or arch.num_classes):
            raise ModelError(f"{arch.name} cannot be built with {argument}={number}", f"use a positive {argument}")
    config = with_options(arch, options)
    make = arch.build
    inputs: tuple[Any, ...] = (in_channels, image_size)
    if arch.backbone is not None and backbone is None:
        backbone = Backbone(arch.backbone)
    if backbone is not None and arch.stands_on(backbone.architecture):
        classifier = architecture(backbone.architecture)
        side = classifier.input[1]
        source = build(classifier, 1, in_channels, side, backbone.options, for_loading=for_loading, limit=limit)
        make, inputs = (arch.build_on, (source, image_size)) if arch.build_on else (arch.build, (source,))
    try:
        with _SkipInit(limit) if for_loading else nullcontext():
            return make(config, num_classes, *inputs)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if not options and for_loading:  # what a saved model's file says of its sizes
            given = ", ".join(f"{argument}={number}" for argument, number in sizes.items())
            message = f"{arch.name} cannot be built with {given}: {str(error).splitlines()[0]}"
            raise ModelError(message, "use an undamaged copy, or train again") from error
        if not options:
            raise
        given = ", ".join(f"{option}={value!r}" for option, value in options.items())
        message = f"{arch.name} cannot be built with {given}: {str(error).rstrip('.')}"
        raise ModelError(message, describe_options(arch, options)) from error


@dataclass
class SizeLimit:
    """How many tensors, and numbers in them, may still be made while a network is built."""

    tensors: int
    numbers: int

    @classmethod
    def for_weights(cls, state: Mapping[str, Tensor]) -> SizeLimit:
        """Enough for any network with these weights: parts that are built and left out, too."""
        return cls(10 * len(state) + 10_000, 4 * sum(tensor.numel() for tensor in state.values()) + 50_000_000)

    def take(self, sizes: tuple[Any, ...]) -> None:
        """Count one more tensor; raises ``ValueError`` if it was one too many."""
        sides = sizes[0] if sizes and isinstance(sizes[0], list | tuple) else sizes
        self.tensors -= 1
        self.numbers -= math.prod(side for side in sides if isinstance(side, int))
        if self.tensors < 0 or self.numbers < 0:
            raise ValueError("the network would be far larger than its weights")


_MAKES_TENSOR = (torch.empty, torch.zeros, torch.ones)


class _SkipInit(TorchFunctionMode):
    """While active, random initialization leaves tensors unchanged, and no more are made than a limit allows."""

    def __init__(self, limit: SizeLimit | None = None) -> None:
        super().__init__()
        self._limit = limit

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self._limit is not None and func in _MAKES_TENSOR:
            self._limit.take(args)
        if func in (torch.Tensor.normal_, torch.Tensor.uniform_):
            return args[0]
        if getattr(func, "__module__", "") == "torch.nn.init":  # the mode is off inside the functions it calls
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def default_preprocessing(
    name: str,
    image_size: int | None = None,
    in_channels: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Preprocessing:
    """Preprocessing for an architecture without pretrained weights.

    Colour images get ImageNet's mean and standard deviation and its usual centre crop; greyscale ones, whose subject
    usually fills the image, are scaled as a whole to -1..1. Detectors and localizers, and networks whose input is
    not square, see the whole image: stretched, or fitted into the input as torchvision's two-stage detectors have it.

    Args:
        name: one of :func:`list_models`.
        image_size: height of the input in pixels, keeping the native aspect ratio; the native one by default.
        in_channels: 1 or 3; the native number by default.
        options: of the architecture's configuration, which may say what is native.

    Raises:
        ModelError: unknown name, or another number of channels.
    """
    arch = with_native_sizes(architecture(name), options or {})
    height, width = arch.input[1:]
    if image_size is not None:
        height, width = image_size, round(image_size * width / height)
    channels = arch.input[0] if in_channels is None else in_channels
    if channels not in (1, 3):
        raise ModelError(
            f"image files do not have {channels} channels", "use 1 (greyscale) or 3 (RGB), or feed tensors"
        )
    ready = Preprocessing(height, width)
    if arch.pixels == "unit":
        ready = replace(ready, mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
    if channels == 1:
        ready = Preprocessing(height, width, 1, mean=(127.5,), std=(127.5,), crop_fraction=1.0)
    if margin := getattr(config := with_options(arch, options or {}), "margin", 0):
        if 2 * margin >= min(height, width):
            message = f"{name} sees {margin} pixels on each side: of tiles of {min(height, width)} nothing is left"
            raise ModelError(message, f"use an image size of {4 * margin} pixels or more")
        tiles = {"margin": margin, "scale": config.scale, "crop_fraction": 1.0, "interpolation": "bicubic"}
        return replace(ready, resize="tiles", **tiles)
    whole = not arch.is_backbone or height != width
    return replace(ready, resize=arch.resize, crop_fraction=1.0) if whole else ready


def build_on_meta(
    arch: Architecture,
    input_shape: tuple[int, int, int] | None = None,
    options: Mapping[str, Any] | None = None,
    num_classes: int | None = None,
    backbone: str | None = None,
) -> nn.Module:
    """The architecture on the meta device, where parameters have shapes but take no time or memory.

    Its own input shape (channels, height, width), number of classes and backbone by default; otherwise as
    :func:`build`. Weights that ``backbone`` names are not read. Options may be the settings of published weights, with
    those of the backbone among them.
    """
    with torch.device("meta"):
        return build_random(arch, input_shape, options, num_classes, backbone, for_loading=True)


def build_random(
    arch: Architecture,
    input_shape: tuple[int, int, int] | None = None,
    options: Mapping[str, Any] | None = None,
    num_classes: int | None = None,
    backbone: str | None = None,
    for_loading: bool = False,
) -> nn.Module:
    """As :func:`build_on_meta`, with random weights."""
    spec, _ = _resolve_backbone(arch, None if backbone is None else backbone.partition(":")[0])
    spec, own = _backbone_settings(spec, options or {})
    arch = with_native_sizes(arch, own)
    channels, height, width = input_shape or arch.input
    size = height if height == width else arch.input[1]
    return build(arch, num_classes or arch.num_classes, channels, size, own, spec, for_loading=for_loading)


def summary(
    model: str | nn.Module,
    input_shape: tuple[int, int, int] | None = None,
    batch: int = 1,
    dtype: str = "float32",
) -> Summary:
    """Output shape and cost of a network, layer by layer (:func:`hubel.analysis.summary.summarize`).

    Args:
        model: a registered name, or any module.
        input_shape: channels, height, width; a registered name has a native one.

    Raises:
        ModelError: unknown name, or a module without ``input_shape``.
    """
    from hubel.analysis.summary import summarize

    name = None
    if isinstance(model, str):
        arch, name = architecture(model), model
        input_shape = input_shape or arch.input
        model = build_on_meta(arch, input_shape)
    if input_shape is None:
        raise ModelError("a module has no native input size", "pass input_shape=(channels, height, width)")
    return summarize(model, input_shape, batch=batch, dtype=dtype, name=name)


class Published(NamedTuple):
    """Weights read from a file, under our names."""

    state: dict[str, Tensor]
    path: str
    settings: dict[str, Any]  # options that they need
    name: str  # in the catalog, or of the file
    classes: int | None  # that they tell apart; None if they have no such layers
    image_size: int  # height and width of the images that they were made for, in pixels
    source: str | None  # library that published them


def auxiliary_keys(state: Mapping[str, Tensor]) -> set[str]:
    """Keys of the auxiliary classifiers."""
    return {key for key in state if key.startswith(_AUXILIARY)}


def published(weights: str | Path, arch: Architecture, options: Mapping[str, Any] | None = None) -> Published:
    """Find an architecture's weights in the catalog or on the disk, and read them.

    Files without names (Darknet's) hold what the configuration with these ``options`` says.
    """
    from hubel.weights import fetch, find_entry
    from hubel.weights.key_mapping import rename
    from hubel.weights.state_dict import FILE_SUFFIXES, is_darknet, read_weights

    settings: dict[str, Any] | None = None  # those of a local file depend on its format
    path, image_size = Path(weights), arch.input[1]
    weights_name = path.name
    if not path.is_file():
        if isinstance(weights, Path) or path.suffix in FILE_SUFFIXES:
            raise WeightsError(f"{weights}: no such file", "check the path")
        entry = find_entry(weights, arch.name)
        settings, weights_name, image_size = dict(entry.settings), entry.name, entry.preprocessing.height
        path = fetch(entry)
    config = with_options(arch, options or {})
    if hasattr(config, "read_weights") and is_darknet(path):
        state, classes = config.read_weights(path), config.classes_of_weights()
        return Published(state, str(path), settings or {}, weights_name, classes, image_size, "darknet")
    found, others = read_weights(path, arch.name)
    if others:
        log(f"{path.name}: took the averaged weights, {found.place}, not {', '.join(others)}")
        weights_name = f"{weights_name} ({found.place})"
    state, needed, source = rename(found.tensors, arch.name, origin=str(path))
    settings, classes = needed if settings is None else settings, arch.class_layers.count(state)
    return Published(state, str(path), settings, weights_name, classes, image_size, source)


def load_published(model: nn.Module, found: Published, left_fresh: str | None = None) -> None:
    """Load weights, but for keys that begin with a pattern, and adapt the first convolution to the images' channels."""
    own, state = model.state_dict(), found.state
    fresh: set[str] = set()
    if left_fresh is not None:
        fresh = {key for key in own if re.match(left_fresh, key)}
        state = {key: tensor for key, tensor in state.items() if not re.match(left_fresh, key)}
    published_keys, own_keys = auxiliary_keys(state), auxiliary_keys(own)
    if not published_keys:
        fresh |= own_keys
    if not own_keys:
        state = {key: tensor for key, tensor in state.items() if key not in published_keys}
    load_checked(model, _with_channels_of(model, state), found.path, may_be_fresh=fresh)


def load_backbone(model: nn.Module, found: Published) -> None:
    """Load a classifier's weights into the parts of a backbone that are the same as the classifier's."""
    own = model.state_dict()
    state = {key: tensor for key, tensor in found.state.items() if key.startswith(_BACKBONE) and key in own}
    others = [key for key in own if not key.startswith(_BACKBONE)]
    load_checked(model, _with_channels_of(model, state), found.path, may_be_fresh=others)


def _with_channels_of(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dictionary with the first convolution (out, in, k, k) adapted to the model's input channels."""
    first = next((name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)), None)
    key = f"{first}.weight"
    own, kernel = model.state_dict().get(key), state.get(key)
    if own is None or kernel is None or kernel.ndim != own.ndim or kernel.shape[1] == own.shape[1]:
        return dict(state)
    before, channels = kernel.shape[1], own.shape[1]
    if channels == 1:
        return {**state, key: kernel.sum(dim=1, keepdim=True)}
    repeats = -(-channels // before)
    return {**state, key: kernel.repeat(1, repeats, 1, 1)[:, :channels] * (before / channels)}
