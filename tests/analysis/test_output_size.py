"""Output sizes against torch's own convolutions, the textbook's examples and TensorFlow's rule by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from hubel.errors import ModelError
from hubel.layers.output_size import (
    effective_kernel,
    map_size,
    output_size,
    same_padding,
    same_size,
    valid_size,
)


def test_the_textbooks_examples() -> None:
    assert map_size((70, 120), 7, padding="valid") == (64, 114)
    assert map_size((70, 120), 7, padding="same") == (70, 120)
    assert map_size((70, 120), 7, stride=2, padding="same") == (35, 60)


@pytest.mark.parametrize("size", [7, 12, 33])
@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (5, 1), (3, 2), (2, 3)])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_sizes_are_those_that_torch_computes(size: int, kernel: int, dilation: int, stride: int, padding: int) -> None:
    image = torch.zeros(1, 1, 1, size)
    computed = F.conv2d(
        image, torch.zeros(1, 1, 1, kernel), stride=(1, stride), padding=(0, padding), dilation=(1, dilation)
    )
    assert output_size(size, kernel, stride, padding, dilation) == computed.shape[-1]
    if padding == 0:
        assert valid_size(size, kernel, stride, dilation) == computed.shape[-1]


# size, kernel, stride, dilation → output, total, before, after: worked by hand with TensorFlow's rule
# (sizes that the stride divides: max(kernel - stride, 0), else max(kernel - size % stride, 0)).
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "output", "padding"),
    [
        (224, 3, 2, 1, 112, (1, 0, 1)),
        (224, 7, 2, 1, 112, (5, 2, 3)),
        (225, 3, 2, 1, 113, (2, 1, 1)),
        (10, 5, 1, 1, 10, (4, 2, 2)),
        (10, 4, 1, 1, 10, (3, 1, 2)),
        (13, 6, 5, 1, 3, (3, 1, 2)),
        (8, 1, 2, 1, 4, (0, 0, 0)),
        (9, 3, 1, 2, 9, (4, 2, 2)),
    ],
)
def test_same_padding_is_tensorflows(
    size: int, kernel: int, stride: int, dilation: int, output: int, padding: tuple[int, int, int]
) -> None:
    assert same_size(size, stride) == output == output_size(size, kernel, stride, "same", dilation)
    assert same_padding(size, kernel, stride, dilation) == padding
    image = F.pad(torch.zeros(1, 1, 1, size), padding[1:])
    computed = F.conv2d(image, torch.zeros(1, 1, 1, kernel), stride=(1, stride), dilation=(1, dilation))
    assert computed.shape[-1] == output


def test_a_7x7_kernel_spans_three_pixels_each_side_of_its_centre() -> None:
    assert effective_kernel(7) == 7
    assert effective_kernel(3, dilation=3) == 7
    assert same_padding(100, 7)[1:] == (3, 3)


def test_a_kernel_larger_than_its_input_is_refused() -> None:
    with pytest.raises(ModelError, match="spans 7 pixels does not fit an input of 5"):
        valid_size(5, 7)
    assert output_size(5, 7, padding=1) == 1
