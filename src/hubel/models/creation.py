"""From a name to a module, with published weights or fresh ones."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hubel.data.preprocessing import Preprocessing
from hubel.errors import ModelError, WeightsError
from hubel.models import classification
from hubel.models.options import allowed, configured
from hubel.models.registry import Architecture, Origin

if TYPE_CHECKING:
    from hubel.insight.summary import Summary

# Keys of the layers whose shape depends on the number of classes, and of what only training needs.
_CLASSIFIER = re.compile(r"(head|auxiliary\.\w+)\.classifier\.")
_HEAD_CLASSIFIER, _AUXILIARY = "head.classifier.", "auxiliary."


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts resnet18 before resnet101: runs of digits count as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


_ARCHITECTURES = {row.name: row for row in sorted(classification.ARCHITECTURES, key=lambda row: _natural(row.name))}


def list_models(task: str | None = None, match: str = "*") -> list[str]:
    """Names of the registered architectures, in natural order.

    Args:
        task: ``"classify"``, …; all tasks by default.
        match: shell pattern that the names have to match, e.g. ``"res*"``.
    """
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
    remedy = f"Did you mean {' or '.join(close)}?" if close else "hubel models lists the names there are."
    raise ModelError(f"There is no architecture named {name!r}.", remedy)


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
            With another ``num_classes`` than the weights', the classifier stays fresh.
        backbone: name of another architecture, for detectors and segmenters.
        options: fields of the family's configuration, e.g. ``stride_in="1x1"``.

    Returns:
        The module in training mode. It maps images (N, in_channels, H, W) to raw tensors; classifiers to
        scores (N, num_classes).

    Raises:
        ModelError: unknown name or option, or a size or number that the architecture cannot have.
        WeightsError: weights that are missing, damaged or of another architecture.
    """
    row = architecture(name)
    if backbone is not None:
        raise ModelError(f"{name} takes no backbone: it is one.", "Leave backbone out.")
    in_channels = row.input[0] if in_channels is None else in_channels
    if weights is None:
        image_size = row.input[1] if image_size is None else image_size
        num_classes = row.num_classes if num_classes is None else num_classes
        model = build(row, num_classes, in_channels, image_size, options)
        return _marked(model, Origin(name, num_classes, in_channels, image_size, options, None))
    published = _published(weights, row)
    state, path = published.state, published.path
    image_size = published.image_size if image_size is None else image_size
    published_classes = _classes_of(state)
    if num_classes is None:
        num_classes = published_classes or row.num_classes
    same_classes = num_classes == published_classes
    options = {**published.settings, **options}
    model = build(row, num_classes, in_channels, image_size, options, for_loading=same_classes)
    if same_classes and _auxiliary_keys(model.state_dict()) and not _auxiliary_keys(state):
        # Some publish what prediction needs and no more: the auxiliary classifiers have to be drawn.
        model = build(row, num_classes, in_channels, image_size, options)
    _load_published(model, state, path, with_classifier=same_classes)
    origin = Origin(name, num_classes, in_channels, image_size, options, published.name, published.source)
    return _marked(model, origin)


def _marked(model: nn.Module, origin: Origin) -> nn.Module:
    """The module with its origin as a plain attribute, past torch's bookkeeping of tensors and modules."""
    object.__setattr__(model, "origin", origin)
    return model


def build(
    row: Architecture,
    num_classes: int,
    in_channels: int,
    image_size: int,
    options: Mapping[str, Any],
    for_loading: bool = False,
) -> nn.Module:
    """Build a row's module with the given options.

    Args:
        row: the architecture.
        num_classes: what it tells apart.
        in_channels: of the images.
        image_size: side of the images in pixels.
        options: fields of the configuration to replace.
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
    config = configured(row, options)
    try:
        with _NoDrawing() if for_loading else nullcontext():
            return row.build(config, num_classes, in_channels, image_size)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if not options:
            raise
        given = ", ".join(f"{option}={value!r}" for option, value in options.items())
        fault = f"{row.name} cannot be built with {given}: {str(error).rstrip('.')}."
        raise ModelError(fault, allowed(row, options)) from error


class _NoDrawing(TorchFunctionMode):
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
    fills the picture as a rule, are scaled as a whole to -1..1.

    Args:
        name: one of :func:`list_models`.
        image_size: side of the square input in pixels; the native one by default.
        in_channels: channels of the input; the native number by default.

    Raises:
        ModelError: unknown name, or a number of channels that images do not have.
    """
    row = architecture(name)
    height, width = (row.input[1], row.input[2]) if image_size is None else (image_size, image_size)
    channels = row.input[0] if in_channels is None else in_channels
    if channels == 1:
        return Preprocessing(height, width, 1, mean=(127.5,), std=(127.5,), crop_fraction=1.0)
    if channels != 3:
        raise ModelError(
            f"Image files do not give {channels} channels.", "Use 1 (greyscale) or 3 (RGB), or feed tensors."
        )
    return Preprocessing(height, width)


def summary(
    model: str | nn.Module,
    input_shape: tuple[int, int, int] | None = None,
    batch: int = 1,
    dtype: str = "float32",
) -> Summary:
    """Layer by layer: what a network outputs and what it costs (:func:`hubel.insight.summary.summarize`).

    Args:
        model: a registered name, or any module.
        input_shape: channels, height, width; a registered name has a native one.
        batch: images at a time.
        dtype: of the activations.

    Raises:
        ModelError: unknown name, or a module without ``input_shape``.
    """
    from hubel.insight.summary import summarize

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


def _auxiliary_keys(state: Mapping[str, Tensor]) -> set[str]:
    return {key for key in state if key.startswith(_AUXILIARY)}


class _Published(NamedTuple):
    """Weights that were read: tensors under our names, and what is known of them."""

    state: dict[str, Tensor]
    path: str
    settings: dict[str, Any]  # options that they need
    name: str  # in the catalog, or of the file
    image_size: int  # pixels
    source: str | None  # whose format it was


def _published(weights: str | Path, row: Architecture) -> _Published:
    """Find weights in the catalog or on the disk, and read them."""
    from hubel.weights import fetch, find_entry, read_state_dict
    from hubel.weights.reading import FILE_SUFFIXES
    from hubel.weights.renaming import rename

    settings: dict[str, Any] | None = None  # of a file that is not in the catalog the format says them
    path, image_size = Path(weights), row.input[1]
    weights_name = path.name
    if not path.is_file():
        if isinstance(weights, Path) or path.suffix in FILE_SUFFIXES:
            raise WeightsError(f"{weights}: no such file.", "Check the path.")
        entry = find_entry(weights, row.name)
        settings, weights_name, image_size = dict(entry.settings), entry.name, entry.preprocessing.height
        path = fetch(entry)
    state, needed, source = rename(read_state_dict(path, row.name), row.name, origin=str(path))
    return _Published(state, str(path), needed if settings is None else settings, weights_name, image_size, source)


def _classes_of(state: Mapping[str, Tensor]) -> int | None:
    """How many classes the classifier in the weights has; None if it has no classifier."""
    scores = (tensor for key, tensor in state.items() if key.startswith(_HEAD_CLASSIFIER))
    return next((len(tensor) for tensor in scores if tensor.ndim), None)


def _load_published(model: nn.Module, state: dict[str, Tensor], origin: str, with_classifier: bool) -> None:
    """Load weights, with or without the classifier, and adapt the first convolution to the images' channels."""
    own = model.state_dict()
    fresh = set() if with_classifier else {key for key in own if _CLASSIFIER.match(key)}
    if not with_classifier:
        state = {key: tensor for key, tensor in state.items() if not _CLASSIFIER.match(key)}
    published, wanted = _auxiliary_keys(state), _auxiliary_keys(own)
    if not published:
        fresh |= wanted
    if not wanted:
        state = {key: tensor for key, tensor in state.items() if key not in published}
    first = next((name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)), None)
    key = f"{first}.weight"
    if key in state and state[key].ndim == own[key].ndim:
        state[key] = _adapted(state[key], own[key].shape[1])
    load_checked(model, state, origin, may_be_fresh=fresh)


def _adapted(kernel: Tensor, in_channels: int) -> Tensor:
    """First convolution's weights (out, in, k, k) for another number of input channels."""
    before = kernel.shape[1]
    if before == in_channels:
        return kernel
    if in_channels == 1:
        return kernel.sum(dim=1, keepdim=True)
    repeats = -(-in_channels // before)
    return kernel.repeat(1, repeats, 1, 1)[:, :in_channels] * (before / in_channels)


def load_checked(
    model: nn.Module, state: Mapping[str, Tensor], origin: str, may_be_fresh: set[str] | None = None
) -> None:
    """Load a state dictionary that has to fit, but for ``may_be_fresh``.

    Args:
        model: what is loaded into.
        state: tensors under the model's names.
        origin: the file, for messages.
        may_be_fresh: keys that may be missing.

    Raises:
        WeightsError: keys are missing or too many, or shapes differ; names the file and the first of them.
    """
    own = model.state_dict()
    # Files from before 2018 lack the counters of batches; a new model's are at 0.
    missing = [
        key
        for key in own
        if key not in state and key not in (may_be_fresh or ()) and not key.endswith(".num_batches_tracked")
    ]
    unexpected = [key for key in state if key not in own]
    misshapen = [
        f"{key} {tuple(tensor.shape)} for {tuple(own[key].shape)}"
        for key, tensor in state.items()
        if key in own and own[key].shape != tensor.shape
    ]
    faults = (("misses", missing), ("has unknown", unexpected), ("has other shapes:", misshapen))
    said = [f"{verb} {_first(keys)}" for verb, keys in faults if keys]
    if said:
        raise WeightsError(
            f"{origin} does not fit the model: it {'; it '.join(said)}.",
            "Give the architecture and the options of the file, or start without weights (--from-scratch).",
        )
    model.load_state_dict(state, strict=False)


def _first(keys: list[str]) -> str:
    more = len(keys) - 3
    return ", ".join(keys[:3]) + (f" and {more} more" if more > 0 else "")
