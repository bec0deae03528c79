"""Darknet's cfg files: their sections, and the layers that they describe.

Facts of the format are Darknet's (pjreddie/darknet; AlexeyAB/darknet where that adds to it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

_MOST_LAYERS = 1000
_KINDS = ("convolutional", "maxpool", "route", "shortcut", "upsample", "dropout", "yolo")


class Section(NamedTuple):
    """A layer as its cfg describes it."""

    kind: str
    options: Mapping[str, str]

    def integer(self, name: str, default: int) -> int:
        """An option that is a whole number."""
        return int(self.options.get(name, default))

    def numbers(self, name: str) -> list[float]:
        """An option that is a list of numbers."""
        return [float(number) for number in self.options[name].split(",") if number.strip()]


def parse_cfg(text: str) -> list[Section]:
    """The sections of a Darknet cfg, ``[net]`` first.

    Raises:
        ValueError: the text is not a cfg, or has layers of a kind that this family does not have.
    """
    sections: list[Section] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.split("#")[0].strip()
        if line.startswith("[") and line.endswith("]"):
            sections.append(Section(line[1:-1].strip(), {}))
        elif line:
            name, equals, value = line.partition("=")
            if not equals or not sections:
                raise ValueError(f"line {number} of the cfg is not NAME=VALUE in a section: {line:.40}")
            sections[-1].options[name.strip()] = value.strip()  # type: ignore[index]
    if not sections or sections[0].kind not in ("net", "network"):
        raise ValueError("the cfg does not begin with [net]")
    if len(sections) > _MOST_LAYERS:
        raise ValueError(f"the cfg has {len(sections)} sections, more than {_MOST_LAYERS}")
    if unknown := [section.kind for section in sections[1:] if section.kind not in _KINDS]:
        raise ValueError(f"the cfg has a layer of the kind [{unknown[0]}]; known are {', '.join(_KINDS)}")
    return sections


class DarknetConvolution(nn.Module):
    """Convolution, batch normalization (or a bias), leaky ReLU of slope 0.1 (or nothing).

    Args:
        section: its cfg.
        in_channels: of the maps.
        filters: output channels.
    """

    def __init__(self, section: Section, in_channels: int, filters: int) -> None:
        super().__init__()
        size, normalized = section.integer("size", 1), bool(section.integer("batch_normalize", 0))
        padding = size // 2 if section.integer("pad", 0) else section.integer("padding", 0)
        groups = section.integer("groups", 1)
        stride = section.integer("stride", 1)
        self.conv = nn.Conv2d(in_channels, filters, size, stride, padding, groups=groups, bias=not normalized)
        # Darknet adds 1e-6 to the deviation where this adds to the variance: equal but for tiny variances.
        self.norm = nn.BatchNorm2d(filters, eps=1e-5, momentum=0.01) if normalized else nn.Identity()
        activation = section.options.get("activation", "logistic")
        if activation not in ("leaky", "linear", "relu"):
            raise ValueError(f"the cfg has the activation {activation}; known are leaky, linear, relu")
        activations = {"leaky": nn.LeakyReLU(0.1), "relu": nn.ReLU(), "linear": nn.Identity()}
        self.activation = activations[activation]

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, filters, H', W') of maps (N, C, H, W)."""
        result: Tensor = self.activation(self.norm(self.conv(maps)))
        return result


class DarknetMaxPool(nn.Module):
    """Maximum in windows; by default size - 1 pixels are added beside the maps, most of them right and below."""

    def __init__(self, section: Section) -> None:
        super().__init__()
        self.size, self.stride = section.integer("size", 2), section.integer("stride", 1)
        padding = section.integer("padding", self.size - 1)
        self.before, self.after = padding // 2, padding - padding // 2

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, H', W') of maps (N, C, H, W)."""
        sides = (self.before, self.after, self.before, self.after)
        return functional.max_pool2d(functional.pad(maps, sides, value=-torch.inf), self.size, self.stride)


class YOLOScale(NamedTuple):
    """A ``[yolo]`` section: the boxes of one scale.

    Attributes:
        stride: pixels of the input from cell to cell.
        every: width and height of the anchors of all scales, in pixels of the input.
        mask: indices of this scale's anchors among them.
        scale_xy: reach of a centre beyond its cell; 1 in YOLOv3.
        ignore: IoU with an object above which a box is not taught that there is nothing.
    """

    stride: int
    every: tuple[tuple[float, float], ...]
    mask: tuple[int, ...]
    scale_xy: float
    ignore: float


class Step(NamedTuple):
    """A layer in the order of computation.

    Attributes:
        kind: of the section; ``"head"`` for the convolution before a ``[yolo]`` section.
        name: of its module in the backbone or the head.
        sources: the steps whose outputs it reads; -1 is the image.
        channels: of its output.
        stride: of its output.
    """

    kind: str
    name: str
    sources: tuple[int, ...]
    channels: int
    stride: float


class Darknet:
    """Modules of backbone and head, steps and scales, built section by section."""

    def __init__(self, sections: Sequence[Section], num_classes: int, in_channels: int) -> None:
        self.backbone: dict[str, nn.Module] = {}
        self.head: dict[str, nn.Module] = {}
        self.steps: list[Step] = []
        self.scales: list[YOLOScale] = []
        self._image = Step("image", "", (), in_channels, 1.0)
        for index, (section, following) in enumerate(zip(sections, [*sections[1:], None], strict=True)):
            sources = self._sources(section, index)
            name = f"{index:03d}_{section.kind}"
            if following is not None and following.kind == "yolo":
                filters = len(following.numbers("mask")) * (5 + num_classes)
                self._add_convolution(section, "head", name, sources, filters)
            else:
                getattr(self, f"_add_{section.kind}")(section, section.kind, name, sources)
        if not self.scales:
            raise ValueError("the cfg has no [yolo] section")

    def _read(self, source: int) -> Step:
        return self.steps[source] if source >= 0 else self._image

    def _sources(self, section: Section, index: int) -> tuple[int, ...]:
        """Steps that a layer reads; the cfg counts them from 0, or back from the layer."""
        listed = {"route": "layers", "shortcut": "from"}.get(section.kind)
        if listed is None:
            return (index - 1,)
        numbers = [int(number) for number in section.numbers(listed)]
        sources = tuple(number if number >= 0 else index + number for number in numbers)
        if not sources or not all(0 <= source < index for source in sources):
            raise ValueError(f"layer {index} of the cfg reads layers that are not before it")
        return sources if section.kind == "route" else (index - 1, *sources)

    def _add(self, kind: str, name: str, sources: tuple[int, ...], channels: int, stride: float) -> None:
        self.steps.append(Step(kind, name, sources, channels, stride))

    def _add_convolutional(self, section: Section, kind: str, name: str, sources: tuple[int, ...]) -> None:
        self._add_convolution(section, kind, name, sources, section.integer("filters", 1))

    def _add_convolution(self, section: Section, kind: str, name: str, sources: tuple[int, ...], filters: int) -> None:
        read = self._read(sources[0])
        modules = self.head if kind == "head" else self.backbone
        modules[name] = DarknetConvolution(section, read.channels, filters)
        self._add(kind, name, sources, filters, read.stride * section.integer("stride", 1))

    def _add_maxpool(self, section: Section, kind: str, name: str, sources: tuple[int, ...]) -> None:
        read = self._read(sources[0])
        self.backbone[name] = DarknetMaxPool(section)
        self._add(kind, name, sources, read.channels, read.stride * section.integer("stride", 1))

    def _add_upsample(self, section: Section, kind: str, name: str, sources: tuple[int, ...]) -> None:
        read, factor = self._read(sources[0]), section.integer("stride", 2)
        self.backbone[name] = nn.Upsample(scale_factor=float(factor), mode="nearest")
        self._add(kind, name, sources, read.channels, read.stride / factor)

    def _add_dropout(self, section: Section, kind: str, name: str, sources: tuple[int, ...]) -> None:
        read = self._read(sources[0])
        self.backbone[name] = nn.Dropout(float(section.options.get("probability", 0.5)))
        self._add(kind, name, sources, read.channels, read.stride)

    def _add_route(self, section: Section, kind: str, name: str, sources: tuple[int, ...]) -> None:
        read = [self._read(source) for source in sources]
        self._add(kind, name, sources, sum(each.channels for each in read), read[0].stride)

    def _add_shortcut(self, section: Section, kind: str, name: str, sources: tuple[int, ...]) -> None:
        read = self._read(sources[0])
        self._add(kind, name, sources, read.channels, read.stride)

    def _add_yolo(self, section: Section, kind: str, name: str, sources: tuple[int, ...]) -> None:
        read, numbers = self._read(sources[0]), section.numbers("anchors")
        every = tuple(zip(numbers[::2], numbers[1::2], strict=True))
        mask = tuple(int(index) for index in section.numbers("mask"))
        scale_xy, ignore = float(section.options.get("scale_x_y", 1)), float(section.options.get("ignore_thresh", 0.5))
        self.scales.append(YOLOScale(int(read.stride), every, mask, scale_xy, ignore))
        self._add(kind, name, sources, read.channels, read.stride)
