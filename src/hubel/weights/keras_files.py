"""Weights as Keras saves them: ``.weights.h5``, ``.keras``, and the older ``.h5``.

All are HDF5 files of arrays (``.keras`` is an archive with one inside). A layer's arrays come out under its
name, with torch's names and torch's layout, so that the tables of :mod:`hubel.weights.formats` can translate
them like anybody else's. The configuration in the file, which can name code to run, is never looked at.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hubel.errors import MissingExtraError, WeightsError

if TYPE_CHECKING:
    import h5py
    from torch import Tensor

# A new file numbers a layer's arrays in this order; the keys are the classes of layers.
_ARRAYS_OF_CLASS = {
    "conv2d": ("kernel", "bias"),
    "depthwise_conv2d": ("depthwise_kernel", "bias"),
    "separable_conv2d": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "dense": ("kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}
_TORCH_NAME = {
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# Names that Keras gives by counting: how far the count had come does not belong to the network.
_COUNTED = re.compile(rf"({'|'.join(_ARRAYS_OF_CLASS)})(?:_(\d+))?")
_INSIDE = "model.weights.h5"
_AGAIN = "get the file again, or save it with model.save_weights('NAME.weights.h5')"


def read_keras(path: Path) -> dict[str, Tensor]:
    """Read the arrays of a file that Keras 2 or 3 has saved.

    Args:
        path: ``.h5``, ``.weights.h5`` or ``.keras``.

    Returns:
        ``LAYER.weight``, ``LAYER.bias``, ``LAYER.running_mean``, … → tensor in torch's layout. A separable
        convolution's are ``LAYER.depthwise.weight`` and ``LAYER.pointwise.weight``. Layers with counted names
        (``conv2d_17``) are numbered from 0 in the order of their numbers (``conv2d_0``, ``conv2d_1``, …).

    Raises:
        WeightsError: the file is damaged, refers to other files, or holds no layers that are known here.
        MissingExtraError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise MissingExtraError("reading Keras's files", "keras") from None
    try:
        with h5py.File(_hdf5_of(path), "r") as file:
            layers = dict(_layers(file, path))
            _refuse_more_than_there_is(file, layers)
            arrays = {name: {kind: array[()] for kind, array in found.items()} for name, found in layers.items()}
    except (OSError, KeyError, ValueError, RuntimeError, TypeError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path} is damaged or no file of Keras: {error}.", _AGAIN) from error
    if not arrays:
        raise WeightsError(f"{path} holds no layers with weights.", _AGAIN)
    return _named(arrays)


def _hdf5_of(path: Path) -> Any:
    """What h5py opens: the file, or the one inside an archive."""
    if path.suffix != ".keras":
        return path
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(_INSIDE)
        if info.file_size > 4 * path.stat().st_size:  # Keras stores it as it is: weights do not compress
            raise WeightsError(f"{path} is refused: {_INSIDE} in it unpacks to {info.file_size:,} bytes.", _AGAIN)
        return io.BytesIO(archive.read(info))


def _layers(file: h5py.File, path: Path) -> Iterator[tuple[str, dict[str, h5py.Dataset]]]:
    """Each layer's name with its arrays by Keras's names for them."""
    datasets = dict(_datasets(file, path))
    groups: dict[str, dict[str, h5py.Dataset]] = {}
    for where, dataset in datasets.items():
        folder, _, last = where.rpartition("/")
        groups.setdefault(folder, {})[last] = dataset
    for folder, arrays in groups.items():
        above, _, vars_ = folder.rpartition("/")
        if vars_ == "vars":  # layers/conv2d_3/vars/0, with the layer's own name as an attribute
            match = _COUNTED.fullmatch(above.rpartition("/")[2])
            if match is not None:
                name = str(file[folder].attrs.get("name", match[0]))
                yield name, _by_position(_ARRAYS_OF_CLASS[match[1]], arrays)
        else:  # conv1/conv1/kernel:0 or model_weights/conv1/conv1/kernel
            layer = folder.removeprefix("model_weights/").split("/")[0]
            named = {last.partition(":")[0]: dataset for last, dataset in arrays.items()}
            if set(named) <= {*_TORCH_NAME, "kernel", "depthwise_kernel", "pointwise_kernel"}:
                yield layer, named


def _datasets(group: h5py.Group, path: Path, above: str = "") -> Iterator[tuple[str, h5py.Dataset]]:
    """All arrays with their places. Nothing outside of this file is followed: HDF5 can point anywhere."""
    import h5py

    for key in group:
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise WeightsError(f"{path} is refused: {above}{key} refers to something elsewhere.", _AGAIN)
        found = group[key]
        if isinstance(found, h5py.Group):
            yield from _datasets(found, path, f"{above}{key}/")
        elif found.external or found.is_virtual:
            raise WeightsError(f"{path} is refused: the data of {above}{key} lies in another file.", _AGAIN)
        elif np.issubdtype(found.dtype, np.number):
            yield above + key, found


def _by_position(names: tuple[str, ...], arrays: Mapping[str, h5py.Dataset]) -> dict[str, h5py.Dataset]:
    ordered = [arrays[str(number)] for number in range(len(arrays))]
    if names[0] == "gamma" and len(ordered) == 3:  # scale=False
        names = names[1:]
    return dict(zip(names, ordered, strict=False))


def _refuse_more_than_there_is(file: h5py.File, layers: Mapping[str, Mapping[str, h5py.Dataset]]) -> None:
    declared = sum(array.nbytes for arrays in layers.values() for array in arrays.values())
    if declared > file.id.get_filesize():
        raise ValueError(f"it declares {declared:,} bytes of arrays, more than it is long")


def _named(layers: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Tensor]:
    """Torch's names and layout."""
    import torch

    names = _uncounted(layers)
    state: dict[str, Tensor] = {}
    for layer, arrays in layers.items():
        if "moving_variance" in arrays and "gamma" not in arrays:
            arrays = {**arrays, "gamma": np.ones_like(arrays["moving_variance"])}
        for kind, array in arrays.items():
            key = _key(kind, array, separable="pointwise_kernel" in arrays)
            tensor = torch.from_numpy(np.ascontiguousarray(_torch_layout(kind, array), dtype=np.float32))
            state[f"{names[layer]}.{key}"] = tensor
    return state


def _uncounted(layers: Mapping[str, Any]) -> dict[str, str]:
    """Layer → its name; counted names are numbered from 0."""
    counted: dict[str, list[tuple[int, str]]] = {}
    for layer in layers:
        match = _COUNTED.fullmatch(layer)
        if match is not None:
            counted.setdefault(match[1], []).append((int(match[2] or 0), layer))
    names = {layer: layer for layer in layers}
    for kind, found in counted.items():
        names |= {layer: f"{kind}_{number}" for number, (_, layer) in enumerate(sorted(found))}
    return names


def _key(kind: str, array: np.ndarray, separable: bool) -> str:
    if kind in ("depthwise_kernel", "pointwise_kernel") and separable:
        return f"{kind.removesuffix('_kernel')}.weight"
    return _TORCH_NAME.get(kind, "weight")


def _torch_layout(kind: str, array: np.ndarray) -> np.ndarray:
    """Keras has kernels as (height, width, in, out), depthwise ones as (height, width, in, multiplier)."""
    if array.ndim == 2:
        return array.T
    if array.ndim != 4:
        return array
    # Old files of Keras 3 call depthwise kernels "kernel" too; no application has a convolution with one output.
    if kind == "depthwise_kernel" or (kind == "kernel" and array.shape[3] == 1):
        height, width, channels, multiplier = array.shape
        return array.transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)
    return array.transpose(3, 2, 0, 1)
