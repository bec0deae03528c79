"""Weights as Keras saves them: ``.weights.h5``, ``.keras``, and the older ``.h5``.

All are HDF5 files of arrays (``.keras`` is an archive with one inside). A layer's arrays are read under its
name, with torch's names and layout, for the tables of :mod:`hubel.weights.key_rules`. The configuration in the file,
which can name code to run, is never read.

The files that Keras publishes (``weights="imagenet"``) are of the older kind, and have the layer names of their
time: Xception's are ``convolution2d_1``, ``batchnormalization_1``, … of Keras 1. Keras goes by position, as
:func:`read_keras` does if it gets today's names.
"""

from __future__ import annotations

import io
import itertools
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
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
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "pointwise_kernel": "pointwise.weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# Names in Keras 1, whose running_std was a variance.
_KERAS_1 = {"W": "kernel", "b": "bias", "running_mean": "moving_mean", "running_std": "moving_variance"}
# An older file's array: "conv1/kernel:0", "block1_conv1_W_1:0"
_NAMED_ARRAY = re.compile(rf"(?:.*?[/_])??({'|'.join([*_TORCH_NAME, *_KERAS_1])})(?:_\d+)?(?::\d+)?")
# Names that Keras numbers; where the count starts does not depend on the network.
_COUNTED = re.compile(rf"({'|'.join(_ARRAYS_OF_CLASS)})(?:_(\d+))?")
_WITHOUT_TOP = 3  # layers that a file without the classifier lacks, at most: VGG's
_INSIDE = "model.weights.h5"
_AGAIN = "download the file again, or save it with model.save_weights('NAME.weights.h5')"

# Keras does not compress; an array without data, or of one number a million times, could have any size.
_UNCHECKED_BYTES, _MAX_EXPANSION = 1 << 24, 50

# Raised by h5py, NumPy and zipfile for damaged bytes.
_DAMAGED = (OSError, LookupError, ValueError, RuntimeError, TypeError, ArithmeticError, EOFError)

Layers = dict[str, dict[str, "h5py.Dataset"]]


def read_keras(path: Path, layers: Iterable[str] = ()) -> dict[str, Tensor]:
    """Read the arrays of a file saved by Keras 1, 2 or 3.

    Args:
        layers: today's names of the application's layers with weights in Keras's order, for older files: as many as the
            file has, or those of the classifier more.

    Returns:
        ``LAYER.weight``, ``LAYER.bias``, ``LAYER.running_mean``, … → tensor in torch's layout. A separable
        convolution's are ``LAYER.depthwise.weight`` and ``LAYER.pointwise.weight``. Layers with counted names
        (``conv2d_17``) are numbered from 0 in the order of their numbers (``conv2d_0``, ``conv2d_1``, …).

    Raises:
        WeightsError: the file is damaged, refers to other files, or holds no known layers.
        MissingExtraError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise MissingExtraError("reading Keras's files", "keras") from None
    try:
        with h5py.File(_hdf5_of(path), "r") as file:
            datasets = dict(_datasets(file, path))
            declared = sum(array.nbytes for array in datasets.values())
            if declared > file.id.get_filesize():
                raise ValueError(f"it declares {declared:,} bytes of arrays, more than it is long")
            root = file.get("model_weights", file)
            if "layer_names" in root.attrs or "layer_names0" in root.attrs:
                found = _by_position(dict(_named_layers(root, datasets)), tuple(layers))
            else:
                found = dict(_numbered_layers(file, datasets))
            arrays = {name: {kind: array[()] for kind, array in held.items()} for name, held in found.items()}
        if not arrays:
            raise WeightsError(f"{path} contains no layers with weights", _AGAIN)
        return _named(arrays)
    except (*_DAMAGED, zipfile.BadZipFile) as error:
        lines = str(error).strip("'\"").splitlines() or [type(error).__name__]
        raise WeightsError(f"{path} is damaged or not a Keras file: {lines[0]:.150}", _AGAIN) from error


def _hdf5_of(path: Path) -> Any:
    """The argument for h5py: the file, or the one inside an archive."""
    if path.suffix != ".keras":
        return path
    with zipfile.ZipFile(path) as archive:
        if _INSIDE not in archive.namelist():
            raise WeightsError(f"{path} contains no {_INSIDE}: not a model saved by Keras, or without weights", _AGAIN)
        info = archive.getinfo(_INSIDE)
        # Keras stores it uncompressed; a compressed one could unpack to any size.
        if info.compress_type != zipfile.ZIP_STORED:
            raise WeightsError(f"{path} is refused: {_INSIDE} in it is compressed", _AGAIN)
        return io.BytesIO(archive.read(info))


def _datasets(
    group: h5py.Group, path: Path, above: str = "", seen: set[Any] | None = None
) -> Iterator[tuple[str, h5py.Dataset]]:
    """All arrays of numbers with their paths. Links out of the file are refused: HDF5 can point anywhere."""
    import h5py

    seen = {h5py.h5o.get_info(group.id).addr} if seen is None else seen
    for key in group:
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise WeightsError(f"{path} is refused: {above}{key} refers to something elsewhere", _AGAIN)
        found = group[key]
        address = h5py.h5o.get_info(found.id).addr
        if address in seen:  # a group within itself, or one array under many names, would be endless
            raise WeightsError(f"{path} is refused: {above}{key} is in it twice", _AGAIN)
        seen.add(address)
        if isinstance(found, h5py.Group):
            yield from _datasets(found, path, f"{above}{key}/", seen)
        elif isinstance(found, h5py.Dataset):
            if found.external or found.is_virtual:
                raise WeightsError(f"{path} is refused: the data of {above}{key} lies in another file", _AGAIN)
            if found.nbytes > _UNCHECKED_BYTES and found.nbytes > _MAX_EXPANSION * found.id.get_storage_size():
                raise WeightsError(f"{path} is refused: {above}{key} has more numbers than the file", _AGAIN)
            if np.issubdtype(found.dtype, np.number):
                yield above + key, found


def _numbered_layers(file: h5py.File, datasets: Mapping[str, h5py.Dataset]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Keras 3's files: ``layers/conv2d_3/vars/0``, with the layer's own name as an attribute."""
    groups: Layers = {}
    for where, dataset in datasets.items():
        folder, _, number = where.rpartition("/")
        groups.setdefault(folder, {})[number] = dataset
    for folder, arrays in groups.items():
        above, _, last = folder.rpartition("/")
        match = _COUNTED.fullmatch(above.rpartition("/")[2])
        if last == "vars" and match is not None:
            kinds = _ARRAYS_OF_CLASS[match[1]]
            if kinds[0] == "gamma" and len(arrays) == 3:  # scale=False
                kinds = kinds[1:]
            held = {kind: arrays[str(number)] for number, kind in enumerate(kinds[: len(arrays)])}
            yield _text(file[folder].attrs.get("name", match[0])), held


def _named_layers(root: h5py.Group, datasets: Mapping[str, h5py.Dataset]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Older files: attributes list the layers and their arrays in order.

    A model within the model counts as one layer; its arrays' names begin with those of its own layers.
    """
    prefix = root.name.strip("/") + "/" if root.name != "/" else ""
    for layer in _texts(root, "layer_names"):
        inner: Layers = {}
        for name in _texts(root[layer], "weight_names"):
            match = _NAMED_ARRAY.fullmatch(name)
            dataset = datasets.get(f"{prefix}{layer}/{name}")
            if match is not None and dataset is not None:
                inner.setdefault(name.rpartition("/")[0], {})[_KERAS_1.get(match[1], match[1])] = dataset
        if len(inner) == 1:
            yield layer, next(iter(inner.values()))
        else:
            yield from ((name.removeprefix(f"{layer}/"), arrays) for name, arrays in inner.items())


def _by_position(found: Layers, layers: tuple[str, ...]) -> Layers:
    """Today's names, if the file has others and as many layers."""
    if set(found) <= set(layers) or not 0 <= len(layers) - len(found) <= _WITHOUT_TOP:
        return found
    return dict(zip(layers, found.values(), strict=False))


def _texts(group: h5py.Group, name: str) -> list[str]:
    """An attribute that is a list of names; a long one is cut into ``NAME0``, ``NAME1``, …"""
    pieces = (f"{name}{number}" for number in itertools.count())
    cut = itertools.takewhile(group.attrs.__contains__, pieces)
    return [_text(value) for piece in ((name,) if name in group.attrs else cut) for value in group.attrs[piece]]


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _named(layers: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Tensor]:
    """Torch's names and layout."""
    import torch

    names = _uncounted(layers)
    state: dict[str, Tensor] = {}
    for layer, arrays in layers.items():
        if "moving_variance" in arrays and "gamma" not in arrays:
            arrays = {**arrays, "gamma": np.ones_like(arrays["moving_variance"])}
        separable = "pointwise_kernel" in arrays
        for kind, array in arrays.items():
            key = "depthwise.weight" if separable and kind == "depthwise_kernel" else _TORCH_NAME[kind]
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


def _torch_layout(kind: str, array: np.ndarray) -> np.ndarray:
    """Keras has kernels as (height, width, in, out), depthwise ones as (height, width, in, multiplier)."""
    if array.ndim == 2:
        return array.T
    if array.ndim != 4:
        return array
    # Keras 3 calls depthwise kernels "kernel" in older files; no application has a convolution with one output.
    if kind == "depthwise_kernel" or (kind == "kernel" and array.shape[3] == 1):
        height, width, channels, multiplier = array.shape
        return array.transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)
    return array.transpose(3, 2, 0, 1)
