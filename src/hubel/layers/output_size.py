"""Output sizes of convolutions and pooling: arithmetic, without torch.

Formulas: Dumoulin and Visin 2016, "A guide to convolution arithmetic for deep learning", arXiv 1603.07285,
relationships 6 and 15; "same" as TensorFlow defines it. With kernels of 7×7, an input of 70×120 gives

>>> map_size((70, 120), 7)
(64, 114)
>>> map_size((70, 120), 7, padding="same")
(70, 120)
>>> map_size((70, 120), 7, stride=2, padding="same")
(35, 60)
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from hubel.errors import ModelError

Padding = int | Literal["valid", "same"]


class SamePadding(NamedTuple):
    """Pixels to add along one axis; TensorFlow puts the odd one after."""

    total: int
    before: int
    after: int


def effective_kernel(kernel: int, dilation: int = 1) -> int:
    """Pixels that a kernel spans whose taps are ``dilation`` pixels apart: ``dilation * (kernel - 1) + 1``."""
    return dilation * (kernel - 1) + 1


def valid_size(size: int, kernel: int, stride: int = 1, dilation: int = 1) -> int:
    """Positions at which the kernel lies wholly on the input: ``floor((size - kernel + stride) / stride)``.

    Raises:
        ModelError: the kernel spans more than the input.
    """
    span = effective_kernel(kernel, dilation)
    if span > size:
        raise ModelError(
            f"a kernel that spans {span} pixels does not fit an input of {size}",
            "use a larger input, a smaller kernel, or padding",
        )
    return (size - span + stride) // stride


def same_size(size: int, stride: int = 1) -> int:
    """``ceil(size / stride)``, whatever the kernel."""
    return -(-size // stride)


def same_padding(size: int, kernel: int, stride: int = 1, dilation: int = 1) -> SamePadding:
    """The padding along one axis that gives ``ceil(size / stride)`` pixels; arguments as :func:`output_size`."""
    needed = (same_size(size, stride) - 1) * stride + effective_kernel(kernel, dilation)
    total = max(needed - size, 0)
    return SamePadding(total, total // 2, total - total // 2)


def output_size(size: int, kernel: int, stride: int = 1, padding: Padding = 0, dilation: int = 1) -> int:
    """Pixels of the output along one axis.

    Args:
        size: of the input along the axis in pixels.
        kernel: taps of the kernel along the axis.
        stride: step of the kernel.
        padding: ``"valid"`` (none), ``"same"``, or pixels added on each side.
        dilation: distance of the taps.

    Raises:
        ModelError: the kernel spans more than the padded input.
    """
    if padding == "same":
        return same_size(size, stride)
    added = 0 if padding == "valid" else 2 * padding
    return valid_size(size + added, kernel, stride, dilation)


def map_size(
    size: tuple[int, int], kernel: int, stride: int = 1, padding: Padding = 0, dilation: int = 1
) -> tuple[int, int]:
    """Height and width of the maps that a square kernel gives; arguments as :func:`output_size`."""
    height, width = (output_size(side, kernel, stride, padding, dilation) for side in size)
    return height, width
