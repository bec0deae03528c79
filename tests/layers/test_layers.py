"""The layers against torch's own functions, timm, scipy and plain numpy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hubel.layers.conv_norm_act import ConvNormActivation, ReLU6
from hubel.layers.lenet import (
    LENET5_C3,
    MINIMUM_DISTANCE,
    ConnectionTableConv2d,
    RadialBasisOutput,
    ScaledTanh,
    TrainableSubsampling,
    digit_codes,
    random_codes,
)
from hubel.layers.padding import SameConv2d, same_conv, same_padding
from hubel.layers.pooling import DepthwiseMaxPool2d, GlobalAveragePool2d

# LeCun et al. 1998, table I as printed: a row for each map of S2, a column for each map of C3.
TABLE_I = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""


def test_same_padding_of_tensorflows_documentation() -> None:
    # tf.nn's notes on padding: 13 pixels, filter 6, stride 5 are padded by 1 and 2.
    assert same_padding(13, kernel=6, stride=5) == (1, 2)
    assert same_padding(224, kernel=3, stride=2) == (0, 1)
    assert same_padding(97, kernel=3, stride=2) == (1, 1)
    assert same_padding(8, kernel=1, stride=2) == (0, 0)


@pytest.mark.parametrize(("kernel", "stride", "dilation"), list(itertools.product((1, 2, 3, 5), (1, 2, 3), (1, 2))))
def test_same_convolution_equals_timms(kernel: int, stride: int, dilation: int) -> None:
    from timm.layers import Conv2dSame

    theirs = Conv2dSame(2, 3, kernel, stride, dilation=dilation)
    ours = SameConv2d(2, 3, kernel, stride, dilation=dilation)
    ours.load_state_dict(theirs.state_dict())
    for height, width in ((16, 17), (13, 10), (11, 11), (12, 12)):
        images = torch.randn(1, 2, height, width)
        torch.testing.assert_close(ours(images), theirs(images))


def test_same_convolution_is_a_plain_one_where_both_sides_get_as_much() -> None:
    images = torch.randn(1, 2, 9, 12)
    for kernel, stride, plain in ((3, 1, True), (3, 2, False), (2, 1, False)):
        convolution = same_conv(2, 3, kernel, stride)
        assert (type(convolution) is nn.Conv2d) is plain
        assert convolution(images).shape[2:] == (-(-9 // stride), -(-12 // stride))


def test_same_convolution_exported_with_free_sizes_pads_each_size_its_own_way() -> None:
    convolution = SameConv2d(2, 3, 3, 2)
    height, width = torch.export.Dim("height", min=8, max=64), torch.export.Dim("width", min=8, max=64)
    exported = torch.export.export(
        convolution, (torch.randn(1, 2, 16, 18),), dynamic_shapes=({2: height, 3: width},)
    ).module()
    for size in ((16, 18), (17, 18), (21, 33), (9, 64)):
        images = torch.randn(1, 2, *size)
        torch.testing.assert_close(exported(images), convolution(images))


def test_conv_norm_activation_is_what_its_name_says() -> None:
    layer = ConvNormActivation(4, 6, 3, stride=2, groups=2, activation=ReLU6)
    assert layer.conv.bias is None
    assert isinstance(layer.norm, nn.BatchNorm2d)
    nn.init.uniform_(layer.norm.weight, 0.5, 4)
    nn.init.normal_(layer.norm.bias, std=3)
    images = torch.randn(3, 4, 9, 8)
    maps = F.conv2d(images, layer.conv.weight, stride=2, padding=1, groups=2)
    mean, variance = maps.mean((0, 2, 3), keepdim=True), maps.var((0, 2, 3), correction=0, keepdim=True)
    scale, shift = layer.norm.weight.view(1, -1, 1, 1), layer.norm.bias.view(1, -1, 1, 1)
    expected = ((maps - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(0, 6)
    torch.testing.assert_close(layer(images), expected, rtol=1e-4, atol=1e-5)


def test_conv_norm_activation_without_norm_has_biases() -> None:
    layer = ConvNormActivation(2, 3, 5, padding=0, norm=None, activation=None)
    images = torch.randn(1, 2, 8, 8)
    torch.testing.assert_close(layer(images), F.conv2d(images, layer.conv.weight, layer.conv.bias))


def test_depthwise_max_pool_takes_the_largest_of_each_group() -> None:
    maps = torch.randn(2, 6, 3, 4)
    expected = np.empty((2, 2, 3, 4), np.float32)
    for n, group, y, x in np.ndindex(2, 2, 3, 4):
        expected[n, group, y, x] = max(float(maps[n, 3 * group + k, y, x]) for k in range(3))
    np.testing.assert_array_equal(DepthwiseMaxPool2d(3)(maps).numpy(), expected)
    with pytest.raises(ValueError, match="6 channels do not divide into groups of 4"):
        DepthwiseMaxPool2d(4)(maps)


def test_global_average_pool_is_the_mean() -> None:
    maps = torch.randn(2, 3, 5, 7)
    np.testing.assert_allclose(GlobalAveragePool2d()(maps), maps.numpy().mean(axis=(2, 3)), atol=1e-6)


def test_scaled_tanh_goes_through_one_and_bends_most_there() -> None:
    grid = torch.linspace(0, 3, 3001, dtype=torch.float64)
    values = ScaledTanh()(grid)
    np.testing.assert_allclose(values, 1.7159 * np.tanh(2 / 3 * grid.numpy()), rtol=1e-12)
    # Appendix A: f(±1) = ±1, and the second derivative has its extreme at 1.
    assert float(ScaledTanh()(torch.tensor(1.0))) == pytest.approx(1, abs=1e-4)
    assert float(ScaledTanh()(torch.tensor(-1.0))) == pytest.approx(-1, abs=1e-4)
    bend = np.abs(np.gradient(np.gradient(values.numpy())))
    assert float(grid[bend[5:-5].argmax() + 5]) == pytest.approx(1, abs=0.02)


def test_trainable_subsampling_sums_multiplies_adds() -> None:
    layer = TrainableSubsampling(3)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 6
    maps = torch.randn(2, 3, 6, 5)
    expected = np.empty((2, 3, 3, 2), np.float32)
    for n, c, y, x in np.ndindex(*expected.shape):
        total = maps[n, c, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].numpy().sum()
        expected[n, c, y, x] = total * layer.weight[c].item() + layer.bias[c].item()
    np.testing.assert_allclose(layer(maps).detach().numpy(), expected, atol=1e-5)


def test_connection_table_is_the_papers() -> None:
    printed = [row for row in TABLE_I.split() if row]
    columns = [tuple(s2 for s2 in range(6) if printed[s2][c3] == "X") for c3 in range(16)]
    assert [tuple(sorted(seen)) for seen in LENET5_C3] == columns
    assert sum(map(len, LENET5_C3)) == 60


def test_connection_table_convolves_only_what_it_lists() -> None:
    from scipy.signal import correlate2d

    layer = ConnectionTableConv2d(6, LENET5_C3, 5)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 1516
    maps = torch.randn(1, 6, 9, 8)
    kernels = iter(layer.weight.detach().numpy())
    expected = np.zeros((16, 5, 4), np.float32)
    for c3, seen in enumerate(LENET5_C3):
        for s2 in sorted(seen):
            expected[c3] += correlate2d(maps[0, s2].numpy(), next(kernels), mode="valid")
        expected[c3] += layer.bias[c3].item()
    np.testing.assert_allclose(layer(maps)[0].detach().numpy(), expected, atol=1e-5)


def test_connections_outside_the_table_stay_away_in_training() -> None:
    layer = ConnectionTableConv2d(6, LENET5_C3, 5)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer(torch.randn(2, 6, 8, 8)).square().sum().backward()
    assert layer.weight.grad is not None
    assert bool((layer.weight.grad.flatten(1).norm(dim=1) > 0).all())
    optimizer.step()
    connected = layer.dense_weight().flatten(2).abs().sum(2) > 0
    expected = [[s2 in seen for s2 in range(6)] for seen in LENET5_C3]
    assert connected.tolist() == expected


def test_radial_basis_gives_negated_squared_distances() -> None:
    layer = RadialBasisOutput(10)
    assert not list(layer.parameters())
    features = torch.randn(3, 84)
    expected = np.array([[-((f - c) ** 2).sum() for c in digit_codes()] for f in features.numpy()])
    np.testing.assert_allclose(layer(features).numpy(), expected, rtol=1e-5)


def test_cross_entropy_on_it_is_equation_9_without_the_rubbish_class() -> None:
    features = torch.randn(5, 84, dtype=torch.float64)
    labels = torch.tensor([3, 1, 4, 1, 5])
    distances = ((features[:, None] - torch.from_numpy(digit_codes())[None]) ** 2).sum(2).numpy()
    right = distances[np.arange(5), labels.numpy()]
    j = 1000.0
    equation_9 = np.mean(right + np.log(np.exp(-j) + np.exp(-distances).sum(1)))
    loss = F.cross_entropy(RadialBasisOutput(10).double()(features), labels)
    assert float(loss) == pytest.approx(equation_9, rel=1e-9)


def test_digit_codes_are_images_of_the_digits() -> None:
    digits = digit_codes().reshape(10, 12, 7)
    assert set(np.unique(digits)) == {-1.0, 1.0}
    # Similar digits have similar codes, as the paper wants it, but none the same.
    differing = (digits[:, None] != digits[None]).sum((2, 3))
    assert differing[~np.eye(10, dtype=bool)].min() >= 4
    assert differing[0].argsort()[1] in (6, 8, 9)
    # The one and the seven have a single stem in their lower half, the zero two.
    assert (digits[0, 5] > 0).tolist() == [True, True, False, False, False, True, True]
    assert (digits[1, 5] > 0).tolist() == [False, False, False, True, True, False, False]


def test_random_codes_keep_their_distance_and_do_not_change() -> None:
    codes = random_codes(300)
    differing = (codes[:, None] != codes[None]).sum(2)
    assert differing[~np.eye(300, dtype=bool)].min() >= MINIMUM_DISTANCE
    np.testing.assert_array_equal(random_codes(7), codes[:7])
