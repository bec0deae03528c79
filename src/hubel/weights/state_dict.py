"""Reading weights files without executing anything in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubel.errors import WeightsError
from hubel.weights.checkpoint_layout import WeightSet, find_weights
from hubel.weights.safetensors_files import read_safetensors
from hubel.weights.torch_files import DOWNLOAD_AGAIN, PICKLE, ZIP, read_torch

if TYPE_CHECKING:
    from torch import Tensor

_KERAS_SUFFIXES = (".h5", ".keras")
_HDF5 = b"\x89HDF\r\n\x1a\n"
FILE_SUFFIXES = (".pth", ".pt", ".safetensors", ".weights", *_KERAS_SUFFIXES)
FLAT = "flat"  # the one tensor of a Darknet file; the model says by ``flat_order()`` what it is made of


def read_state_dict(path: str | Path, architecture: str | None = None) -> dict[str, Tensor]:
    """Read the parameters in a file.

    Args:
        path: a ``.safetensors`` file, one that ``torch.save`` wrote (a state dict, bare or anywhere in a checkpoint),
            one of Keras (:mod:`hubel.weights.keras_h5`), or Darknet's ``.weights``.
        architecture: as in ``create_model(architecture)``; necessary for Keras's published files, whose
            layers have other names than Keras gives them today. Of a checkpoint, it tells which weights are meant.

    Returns:
        Name → tensor, on the CPU, in the file's order, with the file's types; without the prefixes of wrappers. Other
        entries are left out.

    Raises:
        WeightsError: the file is missing, truncated, not a weights file, without tensors, or would run code.
    """
    return read_weights(path, architecture)[0].tensors


def read_weights(path: str | Path, architecture: str | None = None) -> tuple[WeightSet, list[str]]:
    """As :func:`read_state_dict`, with the place of the weights in the file, and of others that were not taken."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"the weights file {path} does not exist", "check the path")
    try:
        content = _content(path, architecture)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}", "check its permissions") from error
    signatures: list[str] = []
    if architecture is not None:
        from hubel.weights.key_mapping import rules_for

        signatures = [rules.signature for rules in rules_for(architecture)]
    return find_weights(content, path, signatures)


def _content(path: Path, architecture: str | None) -> Any:
    """What a file holds; its first bytes tell which library wrote it, where its name does not."""
    with path.open("rb") as file:
        start = file.read(9)
    if path.suffix in _KERAS_SUFFIXES or start.startswith(_HDF5):
        from hubel.weights.catalog import keras_layers
        from hubel.weights.keras_h5 import read_keras

        return read_keras(path, keras_layers(architecture) if architecture else ())
    if path.suffix == ".weights" and not start.startswith((ZIP, PICKLE)):
        return _read_darknet(path)
    is_torch = start.startswith((ZIP, PICKLE))
    if not is_torch and (path.suffix == ".safetensors" or start[8:] == b"{"):
        return read_safetensors(path)
    return read_torch(path)


def _read_darknet(path: Path) -> Mapping[str, Any]:
    """The numbers behind the header: three 32-bit integers (a version) and how many images were seen.

    The count has 64 bits since version 0.2.
    """
    import numpy as np
    import torch

    content = path.read_bytes()
    major, minor, _ = np.frombuffer(content[:12], "<i4") if len(content) >= 12 else (0, 0, 0)
    start = 12 + (8 if major * 10 + minor >= 2 else 4)
    if len(content) <= start or (len(content) - start) % 4 or not (0 <= major < 1000 and 0 <= minor < 1000):
        raise WeightsError(f"{path} is truncated or not a Darknet weights file", DOWNLOAD_AGAIN)
    return {FLAT: torch.from_numpy(np.frombuffer(content, "<f4", offset=start).astype(np.float32))}


def unflatten(flat: Tensor, order: Sequence[str], own: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """A state dictionary of a Darknet file's numbers.

    Args:
        flat: float32 (numbers,).
        order: names of the tensors.
        own: the model's state dictionary, for their shapes.
        origin: the file, for messages.

    Raises:
        WeightsError: the file has more or fewer numbers than the model.
    """
    sizes = [own[name].numel() for name in order]
    if flat.numel() != sum(sizes):
        raise WeightsError(
            f"{origin} has {flat.numel():,} numbers, and the network {sum(sizes):,}",
            "pass the cfg that the file was made with (cfg=..., num_classes=...)",
        )
    return {name: part.view_as(own[name]).clone() for name, part in zip(order, flat.split(sizes), strict=True)}
