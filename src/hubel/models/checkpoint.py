"""Saved models: folders with ``model.safetensors`` (weights) and ``model.json`` (everything else)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from hubel.analysis.tracing import Tracing, to_meta
from hubel.errors import DataError, ModelError, WeightsError
from hubel.fileio import atomic_write, write_text
from hubel.models.cfg_reference import is_cfg, read_cfg_model
from hubel.models.factory import SizeLimit, create_model, default_preprocessing
from hubel.models.load_checked import load_checked
from hubel.models.metadata import (
    METADATA_FILE,
    WEIGHTS_FILE,
    Backbone,
    BuildSpec,
    ModelMetadata,
    read_metadata,
    saved_folder,
    unknown_model,
    without_weights,
)
from hubel.models.registry import list_models, task_of
from hubel.weights.safetensors_files import read_safetensors
from hubel.weights.torch_files import first_line

if TYPE_CHECKING:
    from hubel.weights import WeightsEntry


def save_model(folder: Path | str, model: nn.Module, metadata: ModelMetadata) -> None:
    """Write ``model.safetensors`` and ``model.json``.

    Each file is written under another name and renamed, so that an interruption leaves the old or the new one intact.
    Tensors are stored contiguous on the CPU, whatever the model's layout and device; training state is not stored.
    The folder is created if necessary.

    Raises:
        ModelError: the folder is not writable.
    """
    folder = Path(folder)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    text = json.dumps(metadata.to_json(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / WEIGHTS_FILE) as path:
            save_file(state, path, metadata={"format": "pt"})
        write_text(folder / METADATA_FILE, text)
    except (OSError, SafetensorError, DataError) as error:
        reason = error.message if isinstance(error, DataError) else error
        raise ModelError(
            f"{folder}: the model cannot be written: {reason}", "free some space, or choose another folder"
        ) from error


def load_model(folder: Path | str) -> tuple[nn.Module, ModelMetadata]:
    """Read a saved model, in evaluation mode on the CPU, and its metadata.

    Raises:
        ModelError: the folder or its ``model.json`` is missing or damaged, or the architecture is unknown.
        WeightsError: the weights are missing, damaged or do not fit.
    """
    folder = Path(folder)
    metadata = read_metadata(folder / METADATA_FILE)
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise WeightsError(f"{path} is missing", "copy both files of the model, model.safetensors and model.json")
    again = "use an undamaged copy, or train again"
    try:
        state = read_safetensors(path, again)
    except OSError as error:
        raise WeightsError(f"{path} is damaged: {first_line(error)}", again) from error
    try:
        model = metadata.build(for_loading=True, limit=SizeLimit.for_weights(state))
    except ModelError as error:
        raise ModelError(f"{folder / METADATA_FILE}: {error.message}", error.hint) from error
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        reason = f"{metadata.architecture} cannot be built as it says: {first_line(error)}"
        raise ModelError(f"{folder / METADATA_FILE}: {reason}", again) from error
    load_checked(model, state, str(path))
    _require_size(model.eval(), metadata, folder / METADATA_FILE)
    return model, metadata


def _require_size(model: nn.Module, metadata: ModelMetadata, file: Path) -> None:
    """Raise ``ModelError`` if a network cannot take images of the size that its file says, unless it is the usual."""
    size = (metadata.preprocessing.height, metadata.preprocessing.width)
    usual = default_preprocessing(metadata.architecture, metadata.image_size, metadata.in_channels, metadata.options)
    if size == (usual.height, usual.width):
        return
    try:
        with torch.no_grad(), Tracing():  # shapes alone, as large as they may be
            to_meta(model, torch.float32)(torch.empty(1, metadata.in_channels, *size, device="meta"))
    except (ModelError, ArithmeticError, LookupError, RuntimeError, ValueError) as error:
        reason = first_line(error)
        raise ModelError(
            f"{file}: {metadata.architecture} cannot take images of {size[0]} × {size[1]} pixels: {reason}",
            "use an undamaged copy, or train again",
        ) from error


def resolve_model(reference: Path | str) -> tuple[nn.Module, ModelMetadata]:
    """Load the model that a reference names, in evaluation mode on the CPU, and its metadata.

    Args:
        reference: a registered name (its default weights), a name with weights
            (``resnet50:torchvision/IMAGENET1K_V2``), a run folder (its ``best/``), a search's (its ``ensemble/``), or a
            saved model's folder; or a Darknet cfg, with weights (:mod:`hubel.models.cfg_reference`).
            A registered name wins over a folder of the same name; ``./NAME`` means the folder.

    Raises:
        ModelError: unknown reference, a name without pretrained weights, or a damaged saved model.
        WeightsError: the weights cannot be fetched or read.
    """
    text = str(reference)
    name, _, weights = text.partition(":")
    if isinstance(reference, str) and name in list_models():
        return _pretrained(name, weights)
    if is_cfg(reference):
        return _of_cfg(reference)
    folder = Path(reference)
    if folder.is_dir():
        return load_model(saved_folder(folder))
    if folder.is_file():
        raise ModelError(
            f"{text} is a file; a saved model is a folder with model.json and model.safetensors",
            'pass the folder, or load weights alone with hubel.create_model(NAME, weights="FILE")',
        )
    raise unknown_model(text)


def _of_cfg(reference: Path | str) -> tuple[nn.Module, ModelMetadata]:
    """The network of a Darknet cfg, with its weights."""
    cfg = read_cfg_model(reference)
    model = create_model(cfg.architecture, weights=cfg.require_weights(), **cfg.options)
    return model.eval(), replace(describe(model), classes=cfg.classes, preprocessing=cfg.preprocessing)


def _pretrained(name: str, weights: str) -> tuple[nn.Module, ModelMetadata]:
    """An architecture with weights from the catalog; the default ones if ``weights`` is empty."""
    from hubel.weights import default_entry, find_entry

    entry = find_entry(f"{name}:{weights}", name) if weights else default_entry(name)
    if entry is None:
        raise without_weights(name)
    model = create_model(name, weights=entry.name)
    return model.eval(), describe(model)


def describe(model: nn.Module) -> ModelMetadata:
    """The metadata of a module from ``create_model``.

    Preprocessing and class names are those of the weights' catalog entry. A local file in a library's format has that
    library's preprocessing, if all entries of the library for the architecture agree on mean and standard deviation. If
    the number of classes differs, their names are numbers. A detector with pretrained weights in its backbone alone has
    the backbone's mean and standard deviation.

    Raises:
        ModelError: the module is not from ``create_model``, or its number of channels is not an image's.
    """
    from hubel.weights import class_names

    origin = getattr(model, "origin", None)
    if not isinstance(origin, BuildSpec):
        raise ModelError(
            f"the classes and the preprocessing of this {type(model).__name__} are unknown",
            "build it with hubel.create_model, or pass its metadata (hubel.models.ModelMetadata)",
        )
    size = origin.image_size
    entry = _entry_of(origin.architecture, origin)
    preprocessing = default_preprocessing(origin.architecture, size, origin.in_channels, origin.options)
    known = {each.classes for each in _entries_like(origin.architecture, origin)}
    names = class_names(known.pop()) if len(known) == 1 else []
    classes = names if len(names) == origin.num_classes else [str(index) for index in range(origin.num_classes)]
    if entry is not None:
        if origin.in_channels == entry.preprocessing.channels:
            same = (entry.preprocessing.height, entry.preprocessing.width) == (size, size)
            preprocessing = entry.preprocessing if same else entry.preprocessing.resized(size)
    elif origin.backbone is not None:
        entry = _entry_of(origin.backbone.architecture, origin.backbone)
        if entry is not None and origin.in_channels == entry.preprocessing.channels:
            preprocessing = replace(preprocessing, mean=entry.preprocessing.mean, std=entry.preprocessing.std)
    return ModelMetadata(
        task=task_of(origin.architecture),
        architecture=origin.architecture,
        num_classes=origin.num_classes,
        in_channels=origin.in_channels,
        image_size=size,
        classes=classes,
        preprocessing=preprocessing,
        options=dict(origin.options),
        weights=origin.weights,
        backbone=origin.backbone,
    )


def _entry_of(architecture: str, spec: BuildSpec | Backbone) -> WeightsEntry | None:
    """The catalog entry whose preprocessing fits an architecture's first weights; None if it is unknown."""
    published = _entries_like(architecture, spec)
    pixels = {(entry.preprocessing.mean, entry.preprocessing.std) for entry in published}
    return published[0] if len(pixels) == 1 else None


def _entries_like(architecture: str, spec: BuildSpec | Backbone) -> list[WeightsEntry]:
    """The catalog entry of an architecture's first weights; of a local file, all of the library that wrote it."""
    from hubel.weights import entries_for

    if "cfg" in spec.options:  # another network of the family
        return []
    entries = entries_for(architecture)
    named = [entry for entry in entries if entry.name == spec.weights]
    return named or [entry for entry in entries if entry.source == spec.source]
