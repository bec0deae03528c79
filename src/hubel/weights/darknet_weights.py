"""Darknet's ``.weights``: numbers without names, in the order of the layers.

A header of three 32-bit integers (major, minor, revision) and the number of images seen, of 64 bits since version 0.2
and 32 before; then float32 alone. Facts are those of pjreddie/darknet (``parser.c``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hubel.errors import WeightsError
from hubel.fileio import atomic_write
from hubel.weights.darknet_layers import Layer
from hubel.weights.torch_files import DOWNLOAD_AGAIN

if TYPE_CHECKING:
    from torch import Tensor

_HEADER = 12
_MOST_BYTES = 5 << 30
_LARGEST_VERSION = 10_000
_TRANSPOSES = 1000  # a larger version says that [connected] weights are stored inputs × outputs


class DarknetNumbers(NamedTuple):
    """What a file holds.

    Attributes:
        transposed: [connected] weights are stored inputs × outputs.
        seen: number of images that the network was trained on.
    """

    numbers: np.ndarray
    transposed: bool
    seen: int


def read_darknet(path: Path) -> DarknetNumbers:
    """Read a file; its numbers are mapped, not copied.

    Raises:
        WeightsError: it is truncated or is not a Darknet weights file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_HEADER + 8)
    fault = WeightsError(f"{path} is truncated or not a Darknet weights file", DOWNLOAD_AGAIN)
    if len(start) < _HEADER:
        raise fault
    major, minor, revision = (int(number) for number in np.frombuffer(start[:_HEADER], "<i4"))
    if not all(0 <= number < _LARGEST_VERSION for number in (major, minor, revision)):
        raise fault
    header = _HEADER + (8 if major * 10 + minor >= 2 else 4)
    if size <= header or (size - header) % 4 or size > _MOST_BYTES:
        raise fault
    seen = int.from_bytes(start[_HEADER:header], "little")
    numbers = np.memmap(path, "<f4", mode="r", offset=header)
    return DarknetNumbers(numbers, major > _TRANSPOSES or minor > _TRANSPOSES, seen)


def write_darknet(path: Path, tensors: Iterable[np.ndarray], seen: int = 0) -> None:
    """Write tensors one after the other, with the header of version 0.2; the file appears when it is complete."""
    with atomic_write(path) as unfinished, unfinished.open("wb") as file:
        file.write(np.array([0, 2, 0], "<i4").tobytes() + np.uint64(seen).tobytes())
        for tensor in tensors:
            file.write(np.ascontiguousarray(tensor, "<f4").tobytes())


def named(found: DarknetNumbers, layers: Sequence[Layer], origin: str) -> dict[str, Tensor]:
    """The tensors of a file by their names in the module's state dictionary.

    Raises:
        WeightsError: the file has more or fewer numbers than the layers, or numbers that are not finite.
    """
    import torch

    needed = sum(int(np.prod(shape)) for layer in layers for _, shape in layer.weights)
    if len(found.numbers) != needed:
        raise WeightsError(
            f"{origin} has {len(found.numbers):,} numbers, and the network {needed:,}",
            "pass the cfg that the file was made with (cfg=..., --model FILE.cfg)",
        )
    state, start = {}, 0
    for layer in layers:
        for name, shape in layer.weights:
            count = int(np.prod(shape))
            part = found.numbers[start : start + count]
            start += count
            if not np.isfinite(part).all():
                raise WeightsError(f"{origin} has numbers that are not finite, in layer {layer.index}", DOWNLOAD_AGAIN)
            part = part.reshape(-1, shape[0]).T if _is_stored_transposed(layer, name, found.transposed) else part
            tensor = torch.from_numpy(np.array(part, np.float32, order="C").reshape(shape))
            state[f"{layer.part}.{layer.name}.{name}"] = tensor
    return state


def _is_stored_transposed(layer: Layer, name: str, transposed: bool) -> bool:
    """True for weights (inputs, outputs): of a connected layer in old files, of a convolution with ``flipped=1``."""
    if name == "linear.weight":
        return transposed
    return name == "conv.weight" and layer.section.flag("flipped")


def in_order(state: Mapping[str, Tensor], layers: Sequence[Layer]) -> Iterable[np.ndarray]:
    """The tensors of a state dictionary in the order of a file, for :func:`write_darknet`."""
    for layer in layers:
        for name, shape in layer.weights:
            tensor = state[f"{layer.part}.{layer.name}.{name}"].detach().cpu().float().numpy()
            if _is_stored_transposed(layer, name, False):
                tensor = tensor.reshape(shape[0], -1).T
            yield tensor
