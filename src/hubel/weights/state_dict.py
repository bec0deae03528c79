"""Reading weights files without executing anything in them."""

from __future__ import annotations

import re
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubel.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

_WRAPPERS = ("state_dict", "model")  # keys under which training scripts store the parameters
_KERAS_SUFFIXES = (".h5", ".keras")
FILE_SUFFIXES = (".pth", ".pt", ".safetensors", ".weights", *_KERAS_SUFFIXES)
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"  # how torch.save's files begin, since version 1.6 and before
FLAT = "flat"  # the one tensor of a Darknet file; the model says by ``flat_order()`` what it is made of
_DOWNLOAD_AGAIN = "download the file again"
_ANOTHER_FILE = "use a .safetensors file, or a .pth file made by torch.save(model.state_dict(), ...)"


def read_state_dict(path: str | Path, architecture: str | None = None) -> dict[str, Tensor]:
    """Read the parameters in a file.

    Args:
        path: a ``.safetensors`` file, one that ``torch.save`` wrote (a state dict, bare or under
            ``"state_dict"`` or ``"model"``), one of Keras (:mod:`hubel.weights.keras_h5`), or Darknet's ``.weights``.
        architecture: as in ``create_model(architecture)``; necessary for Keras's published files, whose
            layers have other names than Keras gives them today.

    Returns:
        Name → tensor, on the CPU, in the file's order, with the file's types. Other entries are left out.

    Raises:
        WeightsError: the file is missing, truncated, not a weights file, without tensors, or would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"The weights file {path} does not exist.", "check the path")
    try:
        content: Any
        if path.suffix in _KERAS_SUFFIXES:
            from hubel.weights.catalog import keras_layers
            from hubel.weights.keras_h5 import read_keras

            content = read_keras(path, keras_layers(architecture) if architecture else ())
        elif path.suffix == ".weights":
            content = _read_darknet(path)
        else:
            content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.", "check its permissions") from error
    return _tensors_of(content, path)


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
        raise WeightsError(f"{path} is truncated or not a Darknet weights file.", _DOWNLOAD_AGAIN)
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
            f"{origin} has {flat.numel():,} numbers, and the network {sum(sizes):,}.",
            "Pass the cfg that the file was made with (cfg=..., num_classes=...).",
        )
    return {name: part.view_as(own[name]).clone() for name, part in zip(order, flat.split(sizes), strict=True)}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is damaged or not a safetensors file: {_first_line(error)}.", _DOWNLOAD_AGAIN
        ) from error
    return tensors


def _read_torch(path: Path) -> Any:
    import pickle

    import torch

    with path.open("rb") as file:
        start = file.read(4)
    if not start.startswith((_ZIP, _PICKLE)):
        raise WeightsError(f"{path} is not a weights file.", _ANOTHER_FILE)
    try:
        with warnings.catch_warnings():  # torch comments on pickle protocols
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=start == _ZIP)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = (
            f"it would execute code ({named[1]}) when it is read"
            if named
            else "it is damaged, or holds more than tensors and could execute code when it is read"
        )
        raise WeightsError(f"{path} is refused: {reason}.", _ANOTHER_FILE) from error
    except Exception as error:  # damaged bytes raise anything, including OSError
        raise WeightsError(f"{path} is truncated or damaged: {_first_line(error)}.", _DOWNLOAD_AGAIN) from error


def _tensors_of(content: Any, path: Path) -> dict[str, Tensor]:
    import torch

    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    tensors: dict[str, Tensor] = {}
    if isinstance(content, Mapping):
        tensors = {str(name): value.detach() for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise WeightsError(f"{path} contains no named tensors.", _ANOTHER_FILE)
    return tensors


def _first_line(error: Exception) -> str:
    """The start of a message of any length, or the error's type if the message is empty."""
    lines = str(error).strip().splitlines()
    return textwrap.shorten(lines[0], 150).rstrip(".") if lines else type(error).__name__
