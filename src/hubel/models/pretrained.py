"""Published weights on their way into a module: found, read under our names, adapted, checked."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from hubel.errors import WeightsError
from hubel.models.base import Architecture

_BACKBONE, _AUXILIARY = "backbone.", "auxiliary."


def auxiliary_keys(state: Mapping[str, Tensor]) -> set[str]:
    """The keys of auxiliary classifiers."""
    return {key for key in state if key.startswith(_AUXILIARY)}


class Published(NamedTuple):
    """Weights that were read.

    Attributes:
        state: tensors under our names.
        path: of the file.
        settings: options that they need.
        name: in the catalog, or of the file.
        image_size: side of the images that they were made for, in pixels.
        source: whose format it was.
    """

    state: dict[str, Tensor]
    path: str
    settings: dict[str, Any]
    name: str
    image_size: int
    source: str | None


def published(weights: str | Path, row: Architecture) -> Published:
    """Find an architecture's weights in the catalog or on the disk, and read them.

    Raises:
        WeightsError: they are missing, damaged or of another architecture.
    """
    from hubel.weights import fetch, find_entry, read_state_dict
    from hubel.weights.key_mapping import rename
    from hubel.weights.state_dict import FILE_SUFFIXES

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
    return Published(state, str(path), needed if settings is None else settings, weights_name, image_size, source)


def load_published(model: nn.Module, found: Published, left_fresh: str | None = None) -> None:
    """Load weights, and adapt the first convolution to the images' channels.

    Args:
        model: what is loaded into.
        found: the weights.
        left_fresh: pattern that the keys begin with which are not loaded.

    Raises:
        WeightsError: they do not fit.
    """
    own, state = model.state_dict(), found.state
    fresh: set[str] = set()
    if left_fresh is not None:
        fresh = {key for key in own if re.match(left_fresh, key)}
        state = {key: tensor for key, tensor in state.items() if not re.match(left_fresh, key)}
    given, wanted = auxiliary_keys(state), auxiliary_keys(own)
    if not given:
        fresh |= wanted
    if not wanted:
        state = {key: tensor for key, tensor in state.items() if key not in given}
    load_checked(model, _with_channels_of(model, state), found.path, may_be_fresh=fresh)


def load_backbone(model: nn.Module, found: Published) -> None:
    """Load a classifier's weights into the parts of a module's backbone that it has in common with the classifier.

    Raises:
        WeightsError: they do not fit.
    """
    own = model.state_dict()
    state = {key: tensor for key, tensor in found.state.items() if key.startswith(_BACKBONE) and key in own}
    others = [key for key in own if not key.startswith(_BACKBONE)]
    load_checked(model, _with_channels_of(model, state), found.path, may_be_fresh=others)


def _with_channels_of(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dictionary with the first convolution for images of as many channels as the model's."""
    first = next((name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)), None)
    key = f"{first}.weight"
    own = model.state_dict().get(key)
    if key not in state or own is None or state[key].ndim != own.ndim:
        return dict(state)
    return {**state, key: _adapted(state[key], own.shape[1])}


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
    model: nn.Module, state: Mapping[str, Tensor], origin: str, may_be_fresh: Collection[str] = ()
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
        key for key in own if key not in state and key not in may_be_fresh and not key.endswith(".num_batches_tracked")
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
