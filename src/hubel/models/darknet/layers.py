"""The layers that a Darknet cfg can name, as modules; each takes the maps that the layer reads.

Facts are those of pjreddie/darknet, and of AlexeyAB/darknet where that adds to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubel.layers.conv_norm_act import ConvNormActivation
from hubel.layers.drop_block import DropBlock
from hubel.weights.darknet_cfg import ACTIVATIONS
from hubel.weights.darknet_layers import Layer, Shape, conv_padding, local_padding, pool_window

NORM_EPS = 1e-5
"""Added to the variance, as both Darknets do on GPUs, where networks are trained; pjreddie's CPU code adds 1e-6 to the
deviation instead. The two differ for tiny variances alone."""
# Darknet's 0.01 needs more batches than a small data set has: networks would be evaluated with the averages of their
# random beginning.
NORM_MOMENTUM = 0.1


class Ramp(nn.Module):
    """``x`` where it is positive, plus a tenth of it everywhere."""

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of the same shape."""
        return functional.relu(maps) + 0.1 * maps


_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "leaky": lambda: nn.LeakyReLU(0.1),
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "mish": nn.Mish,
    "logistic": nn.Sigmoid,
    "swish": nn.SiLU,
    "ramp": Ramp,
}
assert tuple(_ACTIVATIONS) == ACTIVATIONS


def _activation(layer: Layer, default: str) -> Callable[[], nn.Module]:
    return _ACTIVATIONS[layer.section.options.get("activation", default)]


def _convolution(layer: Layer) -> nn.Module:
    section = layer.section
    unit = ConvNormActivation(
        layer.given[0].channels,
        layer.output.channels,
        section.integer("size", 1),
        section.integer("stride", 1),
        conv_padding(section),
        section.integer("groups", 1, 1, layer.output.channels),
        norm=_norm if section.flag("batch_normalize") else None,
        activation=_activation(layer, "logistic"),
    )
    nn.init.kaiming_normal_(unit.conv.weight)  # as in Darknet, whatever the activation
    return unit


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=NORM_EPS, momentum=NORM_MOMENTUM)


class Connected(nn.Module):
    """A dense layer on all numbers of the maps, channel by channel."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        normalized = layer.section.flag("batch_normalize")
        width = layer.output.channels
        self.linear = nn.Linear(layer.given[0].size, width, bias=not normalized)
        self.norm = nn.BatchNorm1d(width, eps=NORM_EPS, momentum=NORM_MOMENTUM) if normalized else nn.Identity()
        self.activation = _activation(layer, "logistic")()
        limit = (2 / layer.given[0].size) ** 0.5
        nn.init.uniform_(self.linear.weight, -limit, limit)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, outputs, 1, 1) of maps (N, C, H, W) of the size that the layer was made for."""
        given: Tensor = self.activation(self.norm(self.linear(maps.flatten(1))))
        return given[:, :, None, None]


class Local(nn.Module):
    """A convolution with filters of its own at each position."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        section, (count, _, window) = layer.section, dict(layer.weights)["weight"]
        self.window = (section.integer("size", 1), local_padding(section), section.integer("stride", 1))
        self.output = layer.output
        self.weight = nn.Parameter(torch.empty(count, layer.output.channels, window))
        nn.init.uniform_(self.weight, -((2 / window) ** 0.5), (2 / window) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(tuple(layer.output)))
        self.activation = _activation(layer, "logistic")()

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, filters, H', W') of maps (N, C, H, W) of the size that the layer was made for."""
        size, padding, stride = self.window
        windows = functional.unfold(maps, size, padding=padding, stride=stride)  # (N, C · size², positions)
        each = torch.matmul(windows.permute(2, 0, 1), self.weight.transpose(1, 2))  # (positions, N, filters)
        result: Tensor = self.activation(each.permute(1, 2, 0).unflatten(2, self.output[1:]) + self.bias)
        return result


class MaxPool(nn.Module):
    """Maximum in windows; the pixels added beside the maps, more of them right and below, never win."""

    def __init__(self, size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.size, self.stride = size, stride
        self.sides = 2 * (padding // 2, padding - padding // 2)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, H', W') of maps (N, C, H, W)."""
        return functional.max_pool2d(functional.pad(maps, self.sides, value=-torch.inf), self.size, self.stride)


def _maxpool(layer: Layer) -> nn.Module:
    """The pooling of torch where it does the same, as it copies nothing."""
    size, stride, padding = pool_window(layer.section)
    if padding % 2 == 0 and padding <= size:
        return nn.MaxPool2d(size, stride, padding // 2)
    if padding == size - 1 == 1 and stride == 2:  # only the last row and column of odd maps are alone
        return nn.MaxPool2d(size, stride, ceil_mode=True)
    return MaxPool(size, stride, padding)


class Mean(nn.Module):
    """Mean over all positions."""

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, 1, 1) of maps (N, C, H, W)."""
        return maps.mean((2, 3), keepdim=True)


class Route(nn.Module):
    """Maps of several layers, one after the other; of each layer one of several equal groups of channels."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        groups, group = (layer.section.integer(name, default) for name, default in (("groups", 1), ("group_id", 0)))
        sizes = [given.channels // groups for given in layer.given]
        self.parts = None if groups == 1 else [(group * size, size) for size in sizes]

    def forward(self, *maps: Tensor) -> Tensor:
        """Maps (N, C, H, W) of maps with the same N, H and W."""
        if self.parts is not None:
            maps = tuple(each.narrow(1, *part) for each, part in zip(maps, self.parts, strict=True))
        return torch.cat(maps, 1) if len(maps) > 1 else maps[0]


class Shortcut(nn.Module):
    """The sum of layers.

    Where channels differ, as many are added as there are; of larger maps every second (third, …) pixel is, and smaller
    ones are added to every second pixel.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        own = layer.given[0]
        self.changes = [None if other == own else (own, other) for other in layer.given[1:]]
        self.activation = _activation(layer, "linear")()

    def forward(self, own: Tensor, *others: Tensor) -> Tensor:
        """Maps of the first one's shape."""
        total = own
        for other, change in zip(others, self.changes, strict=True):
            total = total + (other if change is None else self._fitted(other, *change))
        result: Tensor = self.activation(total)
        return result

    @staticmethod
    def _fitted(other: Tensor, own: Shape, given: Shape) -> Tensor:
        """Maps (N, C, H, W) for the sum."""
        if (step := given.height // own.height) > 1:
            other = other[:, :, ::step, ::step]
        if (step := own.height // given.height) > 1:  # zeros between the pixels
            spread = functional.pad(other[..., None, :, None], (0, step - 1, 0, 0, 0, step - 1))
            other = spread.flatten(4, 5).flatten(2, 3)
        missing = own.channels - given.channels
        return functional.pad(other, (0, 0, 0, 0, 0, missing)) if missing else other


class Reorg(nn.Module):
    """Darknet's reorganization of maps into more and smaller ones.

    Not the space-to-depth of YOLOv2's paper: the numbers of C × H × W maps are read as if they were those of
    C/s² × sH × sW maps, these are taken apart into s² maps of H × W each, and the result is read as sC × H/s × W/s.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.step, self.given, self.output = layer.section.integer("stride", 1), layer.given[0], layer.output

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, s²C, H / s, W / s) of maps (N, C, H, W)."""
        step, (height, width) = self.step, maps.shape[2:]
        channels = self.given.channels
        read = maps.reshape(-1, channels // step**2, height, step, width, step)
        return read.permute(0, 3, 5, 1, 2, 4).reshape(-1, channels * step**2, height // step, width // step)


class Extended(nn.Module):
    """All numbers of the maps in a row, and zeros (``reorg`` with ``extra``)."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C · H · W + extra, 1, 1) of maps (N, C, H, W)."""
        return functional.pad(maps.flatten(1), (0, self.extra))[:, :, None, None]


def _reorg(layer: Layer) -> nn.Module:
    extra = layer.section.integer("extra", 0, 0, layer.output.channels)
    return Extended(extra) if extra else Reorg(layer)


class Crop(nn.Module):
    """The middle of the maps; pixels 0..1 become -1..1, unless ``noadjust=1``. (Darknet crops at random to train.)"""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        given, output = layer.given[0], layer.output
        self.top, self.left = (given.height - output.height) // 2, (given.width - output.width) // 2
        self.size = (output.height, output.width)
        self.adjusts = not layer.section.flag("noadjust")

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, crop_height, crop_width) of maps (N, C, H, W) of the size that the layer was made for."""
        middle = maps.narrow(2, self.top, self.size[0]).narrow(3, self.left, self.size[1])
        return 2 * middle - 1 if self.adjusts else middle


class Softmax(nn.Module):
    """Softmax over the channels, or over each of equal groups of them."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.groups = layer.section.integer("groups", 1, 1, layer.output.channels)
        self.temperature = layer.section.number("temperature", 1, 1e-6)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of the same shape."""
        grouped = (maps / self.temperature).unflatten(1, (self.groups, -1))
        return torch.softmax(grouped, 2).flatten(1, 2)


def _dropout(layer: Layer) -> nn.Module:
    """Dropout, or DropBlock (AlexeyAB's ``dropblock=1``), whose block does not grow in training, as Darknet's does."""
    section = layer.section
    probability = section.number("probability", 0.5, 0, 1)
    if not section.flag("dropblock"):
        return nn.Dropout(probability)
    given = layer.given[0]
    relative = section.number("dropblock_size_rel", 0, 0, 1) * min(given.height, given.width)
    return DropBlock(probability, section.integer("dropblock_size_abs", round(relative) or 7, 1))


class BatchNorm(nn.Module):
    """A normalization by itself."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.norm = _norm(layer.output.channels)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of the same shape (N, C, H, W)."""
        normalized: Tensor = self.norm(maps)
        return normalized


_MODULES: Mapping[str, Callable[[Layer], nn.Module]] = {
    "convolutional": _convolution,
    "connected": Connected,
    "local": Local,
    "batchnorm": BatchNorm,
    "maxpool": _maxpool,
    "avgpool": lambda _: Mean(),
    "route": Route,
    "shortcut": Shortcut,
    "upsample": lambda layer: nn.Upsample(scale_factor=float(layer.section.integer("stride", 2)), mode="nearest"),
    "reorg": _reorg,
    "crop": Crop,
    "softmax": Softmax,
    "dropout": _dropout,
}


def module_of(layer: Layer) -> nn.Module:
    """The module of a layer; costs and heads, which only read maps, are identities."""
    make = _MODULES.get(layer.kind)
    return nn.Identity() if make is None else make(layer)
