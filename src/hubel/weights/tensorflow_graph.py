"""The weights in a frozen TensorFlow graph (``frozen_inference_graph.pb``), read without TensorFlow.

Such a file is a ``GraphDef`` of TensorFlow's ``core/framework/graph.proto`` in which every variable has become a node
of the kind ``Const``. Only these are looked at, for their name, type, shape and numbers; nothing in the graph is
executed.

Of protocol buffers the wire format is enough (protobuf.dev, "Encoding"), read six messages deep however a file nests
them: the package ``protobuf`` would need TensorFlow's schema as generated code, and makes objects of all nodes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hubel.bounded import BoundError, read_bytes
from hubel.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

_MOST_BYTES = 1 << 30
_MOST_FIELDS = 400_000  # of the messages that are looked at; the SSD with MobileNet-v2 has 70,000
_MOST_AXES = 8
_UNCHECKED_BYTES = 16 << 20  # of tensors, beyond four times the file's size

# Numbers of the fields: node_def.proto, attr_value.proto, tensor.proto, tensor_shape.proto.
_NODE, _NAME, _OP, _ATTRIBUTE, _KEY, _VALUE, _TENSOR = 1, 1, 2, 5, 1, 2, 8
_TYPE, _SHAPE, _CONTENT, _AXIS, _SIZE = 1, 2, 4, 2, 1
_NUMBERS = {1: ("<f4", 5), 2: ("<f8", 6)}  # DT_FLOAT, DT_DOUBLE: NumPy's type, the field of numbers given one by one

# TF-Slim's name of a variable → torch's, and the order of its axes there. Kernels are (height, width, in, out).
_VARIABLES: dict[str, tuple[str, tuple[int, ...]]] = {
    "weights": ("weight", (3, 2, 0, 1)),
    "depthwise_weights": ("weight", (2, 3, 0, 1)),
    "biases": ("bias", (0,)),
    "gamma": ("weight", (0,)),
    "beta": ("bias", (0,)),
    "moving_mean": ("running_mean", (0,)),
    "moving_variance": ("running_var", (0,)),
}


class _Malformed(ValueError):
    """What is wrong, to complete the sentence ``FILE …``."""


def read_graph(path: Path) -> dict[str, Tensor]:
    """Variables of the convolutions and normalizations in a frozen graph, as TF-Slim names them.

    Returns:
        Scope, a dot and torch's name of the parameter → float32 tensor in torch's layout, in the file's order:
        ``FeatureExtractor/MobilenetV2/Conv.weight`` (out, in, height, width). Other constants are left out.

    Raises:
        WeightsError: the file is damaged, not a graph, without such variables, or over a bound.
    """
    import torch

    try:
        content = read_bytes(path, _MOST_BYTES)
        found: dict[str, Tensor] = {}
        for name, array in _Reader(content).constants():
            scope, _, variable = name.rpartition("/")
            parameter, axes = _VARIABLES.get(variable, ("", ()))
            if not parameter or not scope or array.ndim != len(axes):
                continue
            if (key := f"{scope}.{parameter}") in found:
                raise _Malformed(f"has {name!r:.200} twice")
            array = array.transpose(axes)
            if variable == "depthwise_weights":  # (channels, multiplier, …): a group of kernels for each channel
                array = array.reshape(-1, 1, *array.shape[2:])
            found[key] = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
        if not found:
            raise _Malformed("contains no variables: it is not a frozen TensorFlow graph")
        return found
    except (_Malformed, BoundError) as error:
        raise WeightsError(f"{path} {error}", "use an undamaged frozen_inference_graph.pb") from error


class _Reader:
    """Goes through the messages of a file; counts what it has looked at."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._fields = 0
        self._bytes_left = 4 * len(content) + _UNCHECKED_BYTES

    def constants(self) -> Iterator[tuple[str, np.ndarray]]:
        """Names and values of the constant nodes that are real numbers."""
        for field, node in self._fields_of(memoryview(self._content)):
            if field != _NODE:
                continue
            name = op = b""
            attributes: list[memoryview] = []
            for part, value in self._fields_of(_message(node)):
                if part == _NAME:
                    name = bytes(_message(value))
                elif part == _OP:
                    op = bytes(_message(value))
                elif part == _ATTRIBUTE:
                    attributes.append(_message(value))
            tensor = self._value(attributes) if op == b"Const" else None
            array = None if tensor is None else self._array(tensor)
            if array is not None:
                yield name.decode("utf-8", "replace"), array

    def _value(self, attributes: list[memoryview]) -> memoryview | None:
        """The tensor in a node's attribute ``value``."""
        for attribute in attributes:
            entry = dict(self._fields_of(attribute))
            if bytes(_message(entry.get(_KEY, b""))) == b"value":
                tensor = dict(self._fields_of(_message(entry.get(_VALUE, b"")))).get(_TENSOR)
                return None if tensor is None else _message(tensor)
        return None

    def _array(self, tensor: memoryview) -> np.ndarray | None:
        """A ``TensorProto`` of real numbers; ``None`` for other types."""
        kind, shape, content, numbers = 0, [], memoryview(b""), b""
        given = list(self._fields_of(tensor))
        for field, value in given:
            if field == _TYPE and isinstance(value, int):
                kind = value
            elif field == _SHAPE:
                shape = self._shape(_message(value))
            elif field == _CONTENT:
                content = _message(value)
        if kind not in _NUMBERS:
            return None
        dtype, field_of_numbers = _NUMBERS[kind]
        count, width = math.prod(shape), np.dtype(dtype).itemsize
        self._bytes_left -= count * width
        if len(shape) > _MOST_AXES or self._bytes_left < 0:
            raise _Malformed("is refused: its tensors would be far larger than the file")
        if not len(content):  # packed in one field, or a field for each
            numbers = b"".join(bytes(_message(value)) for field, value in given if field == field_of_numbers)
            if len(numbers) == width:  # one number stands for all
                numbers *= count
        data = content if len(content) else numbers
        if len(data) != count * width:
            raise _Malformed(f"is damaged: a tensor of {count:,} numbers has {len(data):,} bytes")
        return np.frombuffer(data, dtype).reshape(shape)

    def _shape(self, message: memoryview) -> list[int]:
        shape = []
        for field, axis in self._fields_of(message):
            if field == _AXIS:
                size = dict(self._fields_of(_message(axis))).get(_SIZE, 0)
                if not isinstance(size, int) or size >= 1 << 31:  # a negative one is a number of 64 bits
                    raise _Malformed("is damaged: a tensor has no possible shape")
                shape.append(size)
        return shape

    def _fields_of(self, message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
        """Number and value of each field: an integer, or the bytes of a text, a message or a fixed number."""
        at, end = 0, len(message)
        while at < end:
            self._fields += 1
            if self._fields > _MOST_FIELDS:
                raise _Malformed(f"is refused: it has more than {_MOST_FIELDS:,} fields")
            tag, at = _varint(message, at)
            field, wire = tag >> 3, tag & 7
            if wire == 0:
                number, at = _varint(message, at)
                yield field, number
                continue
            if wire == 2:
                length, at = _varint(message, at)
            elif wire in (1, 5):
                length = 8 if wire == 1 else 4
            else:
                raise _Malformed("is damaged or not a frozen TensorFlow graph")
            if field == 0 or length > end - at:
                raise _Malformed("is truncated or not a frozen TensorFlow graph")
            yield field, message[at : at + length]
            at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """An integer of seven bits a byte, the lowest first, and where the next byte is."""
    number = shift = 0
    for position in range(at, min(at + 10, len(message))):
        byte = message[position]
        number |= (byte & 127) << shift
        if byte < 128:
            return number, position + 1
        shift += 7
    raise _Malformed("is truncated or not a frozen TensorFlow graph")


def _message(value: int | memoryview | bytes) -> memoryview:
    if isinstance(value, int):
        raise _Malformed("is damaged or not a frozen TensorFlow graph")
    return memoryview(value)
