"""Receptive fields: the part of the image that a unit depends on.

A unit of a map looks at a window of ``size`` pixels; its neighbour's window lies ``jump`` pixels further. A kernel of
k taps, d apart, at stride s makes ``size + (k - 1) * d * jump`` and ``s * jump`` of them (Araujo, Norris and Sim 2019,
"Computing Receptive Fields of Convolutional Neural Networks", Distill, section "Computing the receptive field size").
Where branches meet, the largest window counts. These are windows on the padded plane: near the border, and in deep
networks, part of them lies outside of the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, inf
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from hubel.analysis.tracing import Operation

Sizes = tuple[float, float]
_WHOLE_IMAGE = (inf, inf)


@dataclass(frozen=True)
class ReceptiveField:
    """The input window of a map's units.

    Attributes:
        size: height and width of the window in pixels; infinite: the whole image.
        jump: distance of neighbouring units' windows in pixels, down and to the right.
        channels: of the map.
        extent: height and width of the map. Both are those of the last map where the tensor is a vector.
    """

    size: Sizes
    jump: Sizes
    channels: int
    extent: tuple[int, int]

    def through(self, kernel: Sizes, stride: Sizes, dilation: Sizes = (1, 1)) -> ReceptiveField:
        """The field after a kernel."""
        jump = (self.jump[0] * stride[0], self.jump[1] * stride[1])
        size = (
            self.size[0] + (kernel[0] - 1) * dilation[0] * self.jump[0],
            self.size[1] + (kernel[1] - 1) * dilation[1] * self.jump[1],
        )
        return replace(self, size=size, jump=jump)

    def over_all(self) -> ReceptiveField:
        """The field of a unit that reads the whole map."""
        return self if self.extent == (1, 1) else replace(self, size=_WHOLE_IMAGE, extent=(1, 1))

    @property
    def pixels(self) -> int | None:
        """The larger side of the window in pixels; ``None``: the whole image."""
        return None if self.size == _WHOLE_IMAGE else ceil(max(self.size))


def pair(value: Any) -> tuple[int, int]:
    """PyTorch's sizes as height and width: an int or a list of one stands for both."""
    values = [value] if isinstance(value, int) else list(value)
    return (values[0], values[-1])


class ReceptiveFields:
    """An observer that tracks the receptive field of every tensor that depends on the images (N, C, H, W)."""

    def __init__(self, image: Tensor) -> None:
        self._fields = WeakTensorKeyDictionary()
        height, width = image.shape[-2:]
        self._fields[image] = ReceptiveField((1, 1), (1, 1), image.shape[1], (height, width))

    def of(self, tensor: Tensor) -> ReceptiveField | None:
        """The field of a tensor; ``None`` if it does not depend on the image."""
        field: ReceptiveField | None = self._fields.get(tensor)
        return field

    def __call__(self, operation: Operation) -> None:
        """Compute the fields of the operation's outputs."""
        fields = [(tensor, field) for tensor in operation.inputs if (field := self.of(tensor)) is not None]
        if not fields:
            return
        rule = _RULES.get(operation.name)
        for output in operation.outputs:
            field = _joined(fields, output)
            if rule is not None:
                field = rule(field, operation)
            if output.dim() == 4:
                field = replace(field, channels=output.shape[1], extent=(output.shape[2], output.shape[3]))
            self._fields[output] = field


def _joined(fields: list[tuple[Tensor, ReceptiveField]], output: Tensor) -> ReceptiveField:
    """The largest window where branches meet.

    Gates, one number per channel that scales a whole map (squeeze-and-excitation), are ignored: through them every unit
    depends on the whole image, which would hide the kernels' fields.
    """
    candidates = [field for _, field in fields]
    if output.dim() == 4:
        same_size = [field for tensor, field in fields if tensor.dim() != 4 or tensor.shape[2:] == output.shape[2:]]
        candidates = same_size or candidates
    size = (max(field.size[0] for field in candidates), max(field.size[1] for field in candidates))
    jump = (max(field.jump[0] for field in candidates), max(field.jump[1] for field in candidates))
    return replace(candidates[0], size=size, jump=jump)


def _convolution(field: ReceptiveField, operation: Operation) -> ReceptiveField:
    _, weight, _, stride, _, dilation, transposed, *_ = operation.arguments
    kernel, stride, dilation = pair(weight.shape[2:]), pair(stride), pair(dilation)
    if not transposed:
        return field.through(kernel, stride, dilation)
    # An output pixel is reached from every input pixel whose kernel covers it: one in `stride` of its span.
    span = ((kernel[0] - 1) * dilation[0] + 1, (kernel[1] - 1) * dilation[1] + 1)
    taps = (ceil(span[0] / stride[0]), ceil(span[1] / stride[1]))
    return field.through(taps, (1 / stride[0], 1 / stride[1]))


def _pooling(field: ReceptiveField, operation: Operation) -> ReceptiveField:
    kernel = pair(operation.arguments[1])
    stride = pair(operation.arguments[2]) if len(operation.arguments) > 2 and operation.arguments[2] else kernel
    dilated = operation.name.startswith("max") and len(operation.arguments) > 4
    return field.through(kernel, stride, pair(operation.arguments[4]) if dilated else (1, 1))


def _adaptive_pooling(field: ReceptiveField, operation: Operation) -> ReceptiveField:
    """A map of n pixels in m cells: cells of at most ceil(n / m) + 1 pixels, n / m apart."""
    size, cells = field.extent, pair(operation.arguments[1])
    if cells == (1, 1):
        return field.over_all()
    kernel = [n // m if n % m == 0 else ceil(n / m) + 1 for n, m in zip(size, cells, strict=True)]
    return field.through((kernel[0], kernel[1]), (size[0] / cells[0], size[1] / cells[1]))


def _matrix_product(field: ReceptiveField, operation: Operation) -> ReceptiveField:
    """A dense layer on the vector of each pixel changes nothing; on the flattened map it reads all pixels."""
    features = operation.arguments[-2].shape[-1]
    if features != field.channels:
        field = field.over_all()
    return replace(field, channels=operation.outputs[0].shape[-1])


def _interpolation(taps: int) -> Any:
    def rule(field: ReceptiveField, operation: Operation) -> ReceptiveField:
        before, after = field.extent, operation.outputs[0].shape[-2:]
        return field.through((taps, taps), (before[0] / after[0], before[1] / after[1]))

    return rule


def is_global_mean(operation: Operation) -> bool:
    """True if the operation averages maps (N, C, H, W) over all their pixels."""
    if operation.name != "mean" or operation.inputs[0].dim() != 4 or len(operation.arguments) < 2:
        return False
    return {dimension % 4 for dimension in operation.arguments[1] or ()} == {2, 3}


_RULES: dict[str, Callable[[ReceptiveField, Operation], ReceptiveField]] = {
    "convolution": _convolution,
    "max_pool2d_with_indices": _pooling,
    "max_pool2d": _pooling,
    "avg_pool2d": _pooling,
    "_adaptive_avg_pool2d": _adaptive_pooling,
    "adaptive_max_pool2d": _adaptive_pooling,
    "mean": lambda field, operation: field.over_all() if is_global_mean(operation) else field,
    "mm": _matrix_product,
    "addmm": _matrix_product,
    # attention: every position looks at every other
    "bmm": lambda field, _: field.over_all(),
    "baddbmm": lambda field, _: field.over_all(),
    "upsample_bilinear2d": _interpolation(taps=2),
    "upsample_bicubic2d": _interpolation(taps=4),
    "upsample_nearest2d": _interpolation(taps=1),
}
