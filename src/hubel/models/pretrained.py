"""Find published weights, read them under our names, adapt and check them, and load them into a module."""

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
    """Keys of the auxiliary classifiers."""
    return {key for key in state if key.startswith(_AUXILIARY)}


class Published(NamedTuple):
    """Weights read from a file.

    Attributes:
        state: tensors under our names.
        settings: options that they need.
        name: in the catalog, or of the file.
        image_size: height and width of the images that they were made for, in pixels.
        source: library that published them.
    """

    state: dict[str, Tensor]
    path: str
    settings: dict[str, Any]
    name: str
    image_size: int
    source: str | None


def published(weights: str | Path, arch: Architecture) -> Published:
    """Find an architecture's weights in the catalog or on the disk, and read them.

    Raises:
        WeightsError: missing, damaged, or for another architecture.
    """
    from hubel.weights import fetch, find_entry, read_state_dict
    from hubel.weights.key_mapping import rename
    from hubel.weights.state_dict import FILE_SUFFIXES

    settings: dict[str, Any] | None = None  # those of a local file depend on its format
    path, image_size = Path(weights), arch.input[1]
    weights_name = path.name
    if not path.is_file():
        if isinstance(weights, Path) or path.suffix in FILE_SUFFIXES:
            raise WeightsError(f"{weights}: no such file.", "Check the path.")
        entry = find_entry(weights, arch.name)
        settings, weights_name, image_size = dict(entry.settings), entry.name, entry.preprocessing.height
        path = fetch(entry)
    state, needed, source = rename(read_state_dict(path, arch.name), arch.name, origin=str(path))
    return Published(state, str(path), needed if settings is None else settings, weights_name, image_size, source)


def load_published(model: nn.Module, found: Published, left_fresh: str | None = None) -> None:
    """Load weights, but for keys that begin with a pattern, and adapt the first convolution to the images' channels.

    Raises:
        WeightsError: they do not fit.
    """
    from hubel.weights.key_rules.darknet import FLAT, unflatten

    own, state = model.state_dict(), found.state
    fresh: set[str] = set()
    order = getattr(model, "flat_order", None)
    if FLAT in state and order is not None:  # a file without names is of one network alone, classes included
        state = unflatten(state[FLAT], order(), own, found.path)
    elif left_fresh is not None:
        fresh = {key for key in own if re.match(left_fresh, key)}
        state = {key: tensor for key, tensor in state.items() if not re.match(left_fresh, key)}
    published_keys, own_keys = auxiliary_keys(state), auxiliary_keys(own)
    if not published_keys:
        fresh |= own_keys
    if not own_keys:
        state = {key: tensor for key, tensor in state.items() if key not in published_keys}
    load_checked(model, _with_channels_of(model, state), found.path, may_be_fresh=fresh)


def load_backbone(model: nn.Module, found: Published) -> None:
    """Load a classifier's weights into the parts of a backbone that are the same as the classifier's.

    Raises:
        WeightsError: they do not fit.
    """
    own = model.state_dict()
    state = {key: tensor for key, tensor in found.state.items() if key.startswith(_BACKBONE) and key in own}
    others = [key for key in own if not key.startswith(_BACKBONE)]
    load_checked(model, _with_channels_of(model, state), found.path, may_be_fresh=others)


def _with_channels_of(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dictionary with the first convolution adapted to the model's input channels."""
    first = next((name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)), None)
    key = f"{first}.weight"
    own = model.state_dict().get(key)
    if key not in state or own is None or state[key].ndim != own.ndim:
        return dict(state)
    return {**state, key: _adapted(state[key], own.shape[1])}


def _adapted(kernel: Tensor, in_channels: int) -> Tensor:
    """Weights (out, in, k, k) of the first convolution for another number of input channels."""
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
    """Load a state dictionary from a file ``origin``, and refuse it if it does not fit; some keys may be missing.

    Raises:
        WeightsError: keys are missing or unknown, or shapes differ; lists the first of them.
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
    mismatches = (("misses", missing), ("has unknown", unexpected), ("has other shapes:", misshapen))
    messages = [f"{verb} {_first_three(keys)}" for verb, keys in mismatches if keys]
    if messages:
        raise WeightsError(
            f"{origin} does not fit the model: it {'; it '.join(messages)}.",
            "Give the architecture and the options of the file, or start without weights (--from-scratch).",
        )
    model.load_state_dict(state, strict=False)


def _first_three(keys: list[str]) -> str:
    more = len(keys) - 3
    return ", ".join(keys[:3]) + (f" and {more} more" if more > 0 else "")
