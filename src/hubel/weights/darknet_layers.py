"""The layers of a Darknet network, as its cfg describes them: what each reads, its output's shape, its weights.

Nothing is allocated here; what would be too large is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hubel.weights.darknet_cfg import (
    HEADS,
    LARGEST_SIDE,
    MOST_CHANNELS,
    Section,
    boxes_of,
    cfg_error,
    class_layers,
    width_for,
)

_MOST_WEIGHTS = 1 << 30
_LARGEST_MAP = 1 << 28  # numbers in a layer's output


class Shape(NamedTuple):
    """Size of a map; a vector has height and width 1."""

    channels: int
    height: int
    width: int

    @property
    def size(self) -> int:
        """Numbers in it."""
        return self.channels * self.height * self.width


@dataclass(frozen=True)
class Layer:
    """A layer and its place in the network.

    Attributes:
        part: ``"head"`` for layers whose width depends on the number of classes, and a classifier's after that, else
            ``"backbone"``.
        sources: indices of the layers that it reads; -1 is the image.
        given: shapes of what it reads.
        stride: pixels of the image from one position to the next.
        weights: names and shapes of its tensors, in the order of a ``.weights`` file.
    """

    index: int
    section: Section
    part: str
    sources: tuple[int, ...]
    given: tuple[Shape, ...]
    output: Shape
    stride: float
    weights: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def kind(self) -> str:
        """That of the section."""
        return self.section.kind

    @property
    def name(self) -> str:
        """That of its module."""
        return f"{self.index:03d}_{self.kind}"


def net_size(net: Section) -> Shape:
    """Channels, height and width of the images that ``[net]`` asks for."""
    height, width = (net.integer(name, 0, 1, LARGEST_SIDE) for name in ("height", "width"))
    return Shape(net.integer("channels", 3, 1, 1024), height, width)


def layers_of(sections: Sequence[Section], image: Shape) -> list[Layer]:
    """The layers of a cfg for images of a size.

    Raises:
        ModelError: a layer reads one that is not before it, or maps of other sizes; its maps would have no pixels; or
            the network would be too large. The message names the layer.
    """
    heads, has_boxes = set(class_layers(sections)), any(section.kind in HEADS for section in sections)
    layers: list[Layer] = []
    numbers = 0
    for index, section in enumerate(sections[1:]):
        sources = _sources(section, index)
        read = [layers[source].output if source >= 0 else image for source in sources]
        output = _SHAPES.get(section.kind, _same)(section, read)
        if min(output) < 1:
            raise section.error(f"its maps would have no pixels, for images of {image.width} × {image.height}")
        if output.channels > MOST_CHANNELS or output.size > _LARGEST_MAP:
            raise section.error(f"its output would have {output.size:,} numbers, of {output.channels:,} channels")
        stride = _stride(section) * (layers[sources[0]].stride if sources[0] >= 0 else 1)
        weights = _WEIGHTS.get(section.kind, _none)(section, read[0], output)
        numbers += sum(math.prod(shape) for _, shape in weights)
        if numbers > _MOST_WEIGHTS:
            raise section.error(f"the network would have more than {_MOST_WEIGHTS:,} weights")
        part = "head" if index in heads or (index > max(heads) and not has_boxes) else "backbone"
        layers.append(Layer(index, section, part, sources, tuple(read), output, stride, weights))
    if not layers:
        raise cfg_error(f"{sections[0].where}: the network has no layers")
    return layers


def weights_in_order(layers: Sequence[Layer]) -> list[tuple[str, tuple[int, ...]]]:
    """Name in the module's state dictionary, and shape, of each tensor in the order of a ``.weights`` file."""
    return [(f"{layer.part}.{layer.name}.{name}", shape) for layer in layers for name, shape in layer.weights]


def _sources(section: Section, index: int) -> tuple[int, ...]:
    """Layers that a layer reads; the cfg counts them from 0, or back from the layer."""
    option = {"route": "layers", "shortcut": "from"}.get(section.kind)
    if option is None:
        return (index - 1,)
    numbers = section.integers(option)
    sources = tuple(number if number >= 0 else index + number for number in numbers)
    if not all(0 <= source < index for source in sources):
        raise section.error(f"{option}={section.options[option]:.40} are not layers before this one, the {index}th")
    if section.kind == "shortcut":
        if index == 0:
            raise section.error("there is no layer before it")
        return (index - 1, *sources)
    return sources


def _stride(section: Section) -> float:
    if section.kind == "upsample":
        return 1 / section.integer("stride", 2, 1, 64)
    strided = ("convolutional", "local", "maxpool", "reorg")
    return section.integer("stride", 1, 1, 64) if section.kind in strided else 1


def conv_padding(section: Section) -> int:
    """Pixels that a convolution adds on each side."""
    size = section.integer("size", 1, 1, 255)
    return size // 2 if section.flag("pad") else section.integer("padding", 0, 0, 255)


def pool_window(section: Section) -> tuple[int, int, int]:
    """Size and stride of a pooling, and the pixels that it adds, on both sides together."""
    stride = section.integer("stride", 1, 1, 64)
    size = section.integer("size", stride, 1, 255)
    return size, stride, section.integer("padding", size - 1, 0, 255)


def local_padding(section: Section) -> int:
    """Pixels that a locally connected layer adds on each side: the flag itself, whatever the size."""
    return int(section.flag("pad"))


def _windows(section: Section, given: Shape, padding: int) -> tuple[int, int]:
    """Height and width of maps of windows, ``padding`` being that of both sides together."""
    size, stride = section.integer("size", 1, 1, 255), section.integer("stride", 1, 1, 64)
    height, width = ((side + padding - size) // stride + 1 for side in given[1:])
    return height, width


def _convolutional(section: Section, read: Sequence[Shape]) -> Shape:
    filters, groups = (section.integer(name, 1, 1, MOST_CHANNELS) for name in ("filters", "groups"))
    if read[0].channels % groups or filters % groups:
        raise section.error(f"groups={groups} does not divide {read[0].channels} and {filters} channels")
    return Shape(filters, *_windows(section, read[0], 2 * conv_padding(section)))


def _local(section: Section, read: Sequence[Shape]) -> Shape:
    padding, size = local_padding(section), section.integer("size", 1, 1, 255)
    if padding and size != 3:
        raise section.error("pad=1 needs size=3")
    filters = section.integer("filters", 1, 1, MOST_CHANNELS)
    return Shape(filters, *_windows(section, read[0], 2 * padding))


def _connected(section: Section, read: Sequence[Shape]) -> Shape:
    return Shape(section.integer("output", 1, 1, MOST_CHANNELS), 1, 1)


def _maxpool(section: Section, read: Sequence[Shape]) -> Shape:
    size, stride, padding = pool_window(section)
    height, width = ((side + padding - size) // stride + 1 for side in read[0][1:])
    return Shape(read[0].channels, height, width)


def _avgpool(section: Section, read: Sequence[Shape]) -> Shape:
    return Shape(read[0].channels, 1, 1)


def _route(section: Section, read: Sequence[Shape]) -> Shape:
    groups, group = section.integer("groups", 1, 1, MOST_CHANNELS), section.integer("group_id", 0, 0, MOST_CHANNELS)
    if any(each[1:] != read[0][1:] for each in read):
        sizes = ", ".join(f"{each.height} × {each.width}" for each in read)
        raise section.error(f"the maps that it joins have different sizes: {sizes}")
    if group >= groups or any(each.channels % groups for each in read):
        raise section.error(f"its maps have no group {group} of {groups}")
    return Shape(sum(each.channels for each in read) // groups, *read[0][1:])


def _shortcut(section: Section, read: Sequence[Shape]) -> Shape:
    own = read[0]
    for other in read[1:]:
        steps = [max(one, two) / min(one, two) for one, two in zip(own[1:], other[1:], strict=True)]
        if steps[0] != steps[1] or not steps[0].is_integer():
            raise section.error(f"it adds maps of {other.height} × {other.width} to {own.height} × {own.width}")
    return own


def _upsample(section: Section, read: Sequence[Shape]) -> Shape:
    factor = section.integer("stride", 2, 1, 64)
    return Shape(read[0].channels, factor * read[0].height, factor * read[0].width)


def _reorg(section: Section, read: Sequence[Shape]) -> Shape:
    own, step, extra = read[0], section.integer("stride", 1, 1, 64), section.integer("extra", 0, 0, MOST_CHANNELS)
    if section.flag("reverse") or section.flag("flatten"):
        raise section.error("reverse and flatten are not supported")
    if extra:
        return Shape(own.size + extra, 1, 1)
    if own.height % step or own.width % step or own.channels % step**2:
        raise section.error(f"stride={step} does not divide {own.channels} maps of {own.height} × {own.width}")
    return Shape(own.channels * step**2, own.height // step, own.width // step)


def _crop(section: Section, read: Sequence[Shape]) -> Shape:
    height, width = (section.integer(f"crop_{side}", 1, 1, LARGEST_SIDE) for side in ("height", "width"))
    if height > read[0].height or width > read[0].width:
        raise section.error(f"it cuts {width} × {height} out of images of {read[0].width} × {read[0].height}")
    return Shape(read[0].channels, height, width)


def _softmax(section: Section, read: Sequence[Shape]) -> Shape:
    groups = section.integer("groups", 1, 1, MOST_CHANNELS)
    if read[0].height * read[0].width > 1 or read[0].channels % groups:
        raise section.error(f"it reads {groups} vectors, not {read[0].channels} maps")
    return read[0]


def _head(section: Section, read: Sequence[Shape]) -> Shape:
    if section.integer("coords", 4, 0, 100) != 4:
        raise section.error("coords is not 4")
    classes = section.integer("classes", 20, 1, MOST_CHANNELS)
    wanted, given = width_for(section, classes), read[0].channels
    if wanted != given:
        boxes = boxes_of(section)
        raise section.error(f"its {boxes} boxes of {classes} classes need {wanted:,} channels, and it gets {given:,}")
    if section.kind != "detection":
        anchors = section.numbers("anchors", 1e-6, 1e5)
        if len(anchors) % 2:
            raise section.error("anchors are not pairs of width and height")
        most = max(section.integers("mask", 0), default=0) if "mask" in section.options else boxes_of(section) - 1
        if most >= len(anchors) // 2:
            raise section.error(f"it has {len(anchors) // 2} anchors, and none of the number {most}")
    return read[0]


def _same(section: Section, read: Sequence[Shape]) -> Shape:
    return read[0]


_SHAPES: dict[str, Callable[[Section, Sequence[Shape]], Shape]] = {
    "convolutional": _convolutional,
    "local": _local,
    "connected": _connected,
    "maxpool": _maxpool,
    "avgpool": _avgpool,
    "route": _route,
    "shortcut": _shortcut,
    "upsample": _upsample,
    "reorg": _reorg,
    "crop": _crop,
    "softmax": _softmax,
    **dict.fromkeys(HEADS, _head),
}

_Weights = tuple[tuple[str, tuple[int, ...]], ...]


def _none(section: Section, given: Shape, output: Shape) -> _Weights:
    return ()


def _norm(channels: int) -> _Weights:
    return tuple((f"norm.{name}", (channels,)) for name in ("weight", "running_mean", "running_var"))


def _of_convolution(section: Section, given: Shape, output: Shape) -> _Weights:
    size, filters = section.integer("size", 1, 1, 255), output.channels
    weight = ("conv.weight", (filters, given.channels // section.integer("groups", 1, 1, MOST_CHANNELS), size, size))
    if section.flag("batch_normalize"):
        return (("norm.bias", (filters,)), *_norm(filters), weight)
    return (("conv.bias", (filters,)), weight)


def _of_connected(section: Section, given: Shape, output: Shape) -> _Weights:
    width = output.channels
    weight = ("linear.weight", (width, given.size))
    if section.flag("batch_normalize"):  # the normalization's numbers are the last
        return (("norm.bias", (width,)), weight, *_norm(width))
    return (("linear.bias", (width,)), weight)


def _of_local(section: Section, given: Shape, output: Shape) -> _Weights:
    window = given.channels * section.integer("size", 1, 1, 255) ** 2
    return (("bias", tuple(output)), ("weight", (output.height * output.width, output.channels, window)))


def _of_batchnorm(section: Section, given: Shape, output: Shape) -> _Weights:
    return _norm(output.channels)


_WEIGHTS: dict[str, Callable[[Section, Shape, Shape], _Weights]] = {
    "convolutional": _of_convolution,
    "connected": _of_connected,
    "local": _of_local,
    "batchnorm": _of_batchnorm,
}
