"""YOLOv3-tiny, and any Darknet network of its kinds of layers.

Redmon and Farhadi 2018, "YOLOv3: An Incremental Improvement", arXiv 1804.02767; the tiny network is
``yolov3-tiny.cfg`` of Darknet. A network is what its cfg says, so smaller relatives (Yolo-Fastest and others) are the
same architecture with another ``cfg``::

    cfg = Path("yolo-fastest-1.1.cfg").read_text()
    model = create_model("yolo_v3_tiny", cfg=cfg, image_size=320, weights="yolo-fastest-1.1.weights")

========================  =================================================================
layers of the tiny        output for an image of 416 × 416
========================  =================================================================
3×3 convolution, pool     six times: 16, 32, 64, 128, 256, 512 channels, to 13 × 13 (the last pool has stride 1)
3×3, 1×1                  1024, 256 channels
3×3, 1×1                  512, 3 · (5 + classes) channels: boxes of stride 32
1×1, ×2, route            128 channels enlarged to 26 × 26, beside the 256 of stride 16
3×3, 1×1                  256, 3 · (5 + classes) channels: boxes of stride 16
========================  =================================================================

Facts of the format are Darknet's (pjreddie/darknet; AlexeyAB/darknet where that adds to it).

Deviations: none in the network. The loss takes the mean over images, of sums over boxes (Darknet's rate is per batch).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubel.boxes import convert, iou
from hubel.models.base import Architecture, ClassLayers, DetectionTargets, Detector

_LARGEST_LOG = 8.0  # of a size over its anchor: more would overflow
_MOST_LAYERS = 1000
_KINDS = ("convolutional", "maxpool", "route", "shortcut", "upsample", "dropout", "yolo")


def _tiny_cfg() -> str:
    """Darknet's yolov3-tiny.cfg: the layers, without the settings of its training."""

    def conv(filters: int, size: int) -> str:
        return (
            f"[convolutional]\nbatch_normalize=1\nfilters={filters}\nsize={size}\nstride=1\npad=1\nactivation=leaky\n"
        )

    def detect(mask: str) -> str:
        out = "[convolutional]\nsize=1\nstride=1\npad=1\nfilters=255\nactivation=linear\n"
        anchors = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319"
        return f"{out}[yolo]\nmask={mask}\nanchors={anchors}\nclasses=80\nnum=6\nignore_thresh=.7\n"

    stages = "".join(
        f"{conv(16 << number, 3)}[maxpool]\nsize=2\nstride={1 if number == 5 else 2}\n" for number in range(6)
    )
    top = conv(1024, 3) + conv(256, 1) + conv(512, 3) + detect("3,4,5")
    fine = f"[route]\nlayers=-4\n{conv(128, 1)}[upsample]\nstride=2\n[route]\nlayers=-1,8\n{conv(256, 3)}"
    return f"[net]\nwidth=416\nheight=416\nchannels=3\n{stages}{top}{fine}{detect('0,1,2')}"


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
    """Convolution, batch normalization (or a bias), leaky ReLU of slope 0.1 (or nothing)."""

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
        activations = {"leaky": nn.LeakyReLU(0.1), "linear": nn.Identity(), "relu": nn.ReLU()}
        if activation not in activations:
            raise ValueError(f"the cfg has the activation {activation}; known are {', '.join(activations)}")
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
        sides = 2 * (self.before, self.after)
        return functional.max_pool2d(functional.pad(maps, sides, value=-torch.inf), self.size, self.stride)


class YOLOScale(NamedTuple):
    """A ``[yolo]`` section: the boxes of one scale."""

    stride: int  # pixels of the input from cell to cell
    every: tuple[tuple[float, float], ...]  # width and height of the anchors of all scales, in pixels of the input
    mask: tuple[int, ...]  # indices of this scale's anchors among them
    scale_xy: float  # reach of a centre beyond its cell; 1 in YOLOv3
    ignore: float  # IoU with an object above which a box is not taught that there is nothing


class Step(NamedTuple):
    """A layer in the order of computation."""

    kind: str  # that of the section; "head" for the convolution before a [yolo] section
    name: str  # that of its module in the backbone or the head
    sources: tuple[int, ...]  # steps whose outputs it reads; -1 is the image
    channels: int
    stride: float


def _sources(section: Section, index: int) -> tuple[int, ...]:
    """Steps that a layer reads; the cfg counts them from 0, or back from the layer."""
    listed = {"route": "layers", "shortcut": "from"}.get(section.kind)
    if listed is None:
        return (index - 1,)
    numbers = [int(number) for number in section.numbers(listed)]
    sources = tuple(number if number >= 0 else index + number for number in numbers)
    if not sources or not all(0 <= source < index for source in sources):
        raise ValueError(f"layer {index} of the cfg reads layers that are not before it")
    return sources if section.kind == "route" else (index - 1, *sources)


def _scale(section: Section, stride: float) -> YOLOScale:
    numbers = section.numbers("anchors")
    every = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    mask = tuple(int(index) for index in section.numbers("mask"))
    scale_xy, ignore = float(section.options.get("scale_x_y", 1)), float(section.options.get("ignore_thresh", 0.5))
    return YOLOScale(int(stride), every, mask, scale_xy, ignore)


class Darknet:
    """Modules of backbone and head, steps and scales, built section by section."""

    def __init__(self, sections: Sequence[Section], num_classes: int, in_channels: int) -> None:
        self.backbone: dict[str, nn.Module] = {}
        self.head: dict[str, nn.Module] = {}
        self.steps: list[Step] = []
        self.scales: list[YOLOScale] = []
        image = Step("image", "", (), in_channels, 1.0)
        for index, (section, following) in enumerate(zip(sections, [*sections[1:], None], strict=True)):
            sources = _sources(section, index)
            read = [self.steps[source] if source >= 0 else image for source in sources]
            if following is not None and following.kind == "yolo":
                filters = len(following.numbers("mask")) * (5 + num_classes)
                self._add(section, "head", index, sources, read, filters)
            else:
                self._add(section, section.kind, index, sources, read, section.integer("filters", 1))
        if not self.scales:
            raise ValueError("the cfg has no [yolo] section")

    def _add(
        self, section: Section, kind: str, index: int, sources: tuple[int, ...], read: Sequence[Step], filters: int
    ) -> None:
        name, (channels, stride) = f"{index:03d}_{section.kind}", read[0][3:]
        if kind in ("convolutional", "head"):
            modules = self.head if kind == "head" else self.backbone
            modules[name] = DarknetConvolution(section, channels, filters)
            channels, stride = filters, stride * section.integer("stride", 1)
        elif kind == "maxpool":
            self.backbone[name] = DarknetMaxPool(section)
            stride *= section.integer("stride", 1)
        elif kind == "upsample":
            factor = section.integer("stride", 2)
            self.backbone[name] = nn.Upsample(scale_factor=float(factor), mode="nearest")
            stride /= factor
        elif kind == "dropout":
            self.backbone[name] = nn.Dropout(float(section.options.get("probability", 0.5)))
        elif kind == "route":
            channels = sum(each.channels for each in read)
        elif kind == "yolo":
            self.scales.append(_scale(section, stride))
        self.steps.append(Step(kind, name, sources, channels, stride))


@dataclass(frozen=True)
class YOLOConfig:
    """The text of a Darknet cfg."""

    cfg: str = _tiny_cfg()


class YOLOv3(Detector):
    """A network made from a cfg.

    ``forward`` gives raw ``"boxes"`` (N, A, 4): x, y, width, height; ``"objectness"`` (N, A, 1) and ``"scores"``
    (N, A, classes), A boxes scale by scale, row by row, and in a cell in the order of the mask. The heads tell
    ``num_classes`` apart, whatever the cfg says.
    """

    loss_weights: Mapping[str, float] = {"box": 1.0, "objectness": 1.0, "class": 1.0}

    def __init__(self, sections: Sequence[Section], num_classes: int, in_channels: int) -> None:
        parts = Darknet(sections, num_classes, in_channels)
        # The last step of each whole stride gives its map.
        last = {
            int(step.stride): (step.name, step.channels)
            for step in parts.steps
            if step.kind not in ("head", "yolo") and step.stride >= 2
        }
        backbone = nn.Sequential(OrderedDict(parts.backbone))
        super().__init__(backbone, nn.ModuleDict(parts.head), num_classes, dict(sorted(last.items())))
        self.scales, self._steps = parts.scales, parts.steps

    def features(self, images: Tensor) -> dict[int, Tensor]:
        """The last map of each stride."""
        maps = {step.name: each for step, each in zip(self._steps, self._run(images), strict=True)}
        return {stride: maps[name] for stride, (name, _) in self.feature_info.items()}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Raw outputs of images (N, C, H, W)."""
        maps = [each for each, step in zip(self._run(images), self._steps, strict=True) if step.kind == "yolo"]
        # (N, B · (5 + classes), H, W) → (N, H · W · B, 5 + classes)
        rows = [
            each.unflatten(1, (len(scale.mask), -1)).permute(0, 3, 4, 1, 2).flatten(1, 3)
            for each, scale in zip(maps, self.scales, strict=True)
        ]
        boxes, objectness, scores = torch.cat(rows, 1).split((4, 1, self.num_classes), 2)
        return {"boxes": boxes, "objectness": objectness, "scores": scores}

    def _run(self, images: Tensor) -> list[Tensor]:
        """The output of every step."""
        maps: list[Tensor] = []
        for step in self._steps:
            read = [images if source < 0 else maps[source] for source in step.sources]
            if step.kind == "yolo":
                maps.append(read[0])
            elif step.kind == "route":
                maps.append(torch.cat(read, 1) if len(read) > 1 else read[0])
            elif step.kind == "shortcut":
                maps.append(read[0] + read[1])
            else:
                modules = self.head if step.kind == "head" else self.backbone
                maps.append(modules.get_submodule(step.name)(read[0]))
        return maps

    def predictions(self, outputs: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """Boxes of section 2.1; scores are objectness times the probability of each class (independent logistics)."""
        boxes = decode_boxes(outputs["boxes"].float(), priors(tuple(self.scales), size).to(outputs["boxes"].device))
        scores = outputs["objectness"].float().sigmoid() * outputs["scores"].float().sigmoid()
        return {"boxes": boxes, "scores": scores}

    def losses(self, outputs: dict[str, Tensor], targets: DetectionTargets) -> dict[str, Tensor]:
        """Sums over boxes, means over images, of the terms that Darknet's gradients belong to.

        ``"box"``: binary cross-entropy of the centre in its cell and half the squared error of the raw width and
        height, times 2 - w · h; ``"objectness"``: binary cross-entropy, but for boxes without an object of their own
        that overlap one by more than the cfg's ``ignore_thresh``; ``"class"``: binary cross-entropy of each class.
        """
        table = priors(tuple(self.scales), targets.size).to(outputs["boxes"].device)
        terms = []
        for index, truth in enumerate(targets.objects):
            raw = {name: output[index].float() for name, output in outputs.items()}
            terms.append(self._losses_of_image(raw, *truth, table, targets.size))
        return self.weighted({name: torch.stack([each[name] for each in terms]).mean() for name in self.loss_weights})

    def _losses_of_image(
        self, raw: dict[str, Tensor], boxes: Tensor, labels: Tensor, table: Tensor, size: tuple[int, int]
    ) -> dict[str, Tensor]:
        with torch.no_grad():
            overlap = iou(decode_boxes(raw["boxes"], table), boxes)
            ignored = overlap.amax(1) > table[:, _IGNORE] if len(boxes) else torch.zeros(len(table), dtype=torch.bool)
            rows = self._responsible(boxes, size)
        objectness = raw["objectness"][:, 0]
        there = torch.zeros_like(objectness)
        there[rows] = 1
        counted = ~ignored.to(there.device) | (there > 0)
        prior, given = table[rows], raw["boxes"][rows]
        centre, extent = convert(boxes, "xyxy", "cxcywh").split(2, 1)
        inside = (centre / prior[:, _STRIDE] - prior[:, _CELL]).clamp(0, 1)
        weight = 2 - (extent / extent.new_tensor([size[1], size[0]])).prod(1, keepdim=True)
        of_centre = functional.binary_cross_entropy_with_logits(given[:, :2], inside, reduction="none")
        of_size = (given[:, 2:] - (extent / prior[:, _ANCHOR]).log()).square() / 2
        # Objects that share a box: it is of all their classes, as in Darknet.
        taken, position = rows.unique(return_inverse=True)
        classes = torch.zeros(len(taken), self.num_classes, device=boxes.device)
        classes[position, labels] = 1
        total = partial(functional.binary_cross_entropy_with_logits, reduction="sum")
        return {
            "box": (weight * (of_centre + of_size)).sum(),
            "objectness": total(objectness[counted], there[counted]),
            "class": total(raw["scores"][taken], classes),
        }

    def _responsible(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Index, among all boxes, of the one that has to find each object (M,).

        It is in the cell of the object's centre; its anchor has the shape of largest IoU with it (section 2.1).
        """
        centre, extent = convert(boxes, "xyxy", "cxcywh").split(2, 1)
        anchors = extent.new_tensor(self.scales[0].every)
        at_origin = [torch.cat((torch.zeros_like(sizes), sizes), 1) for sizes in (extent, anchors)]
        best = iou(*at_origin).argmax(1)
        rows = torch.zeros_like(best)
        first = 0
        for scale in self.scales:
            height, width = size[0] // scale.stride, size[1] // scale.stride
            column = (centre[:, 0] / scale.stride).long().clamp(0, width - 1)
            row = (centre[:, 1] / scale.stride).long().clamp(0, height - 1)
            for position, anchor in enumerate(scale.mask):
                here = first + (row * width + column) * len(scale.mask) + position
                rows = torch.where(best == anchor, here, rows)
            first += height * width * len(scale.mask)
        return rows

    def flat_order(self) -> list[str]:
        """Names of the tensors in the order in which a Darknet ``.weights`` file has them."""
        own, order = self.state_dict(), []
        for step in self._steps:
            part = f"{'head' if step.kind == 'head' else 'backbone'}.{step.name}"
            names = ("conv.bias", "norm.bias", "norm.weight", "norm.running_mean", "norm.running_var", "conv.weight")
            order += [name for each in names if (name := f"{part}.{each}") in own]
        return order


# Columns of the table of priors: column and row of the cell, stride, anchor, scale_xy, ignored IoU.
_CELL, _STRIDE, _ANCHOR, _SCALE_XY, _IGNORE = slice(0, 2), slice(2, 3), slice(3, 5), slice(5, 6), 6


@lru_cache(maxsize=8)
def priors(scales: tuple[YOLOScale, ...], size: tuple[int, int]) -> Tensor:
    """Priors of each box (A, 7), with these columns, for images of a height and width."""
    tables = []
    for scale in scales:
        rows, columns = size[0] // scale.stride, size[1] // scale.stride
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        cells = torch.stack((x, y), -1).view(-1, 1, 2).expand(-1, len(scale.mask), 2)
        anchors = torch.tensor([scale.every[index] for index in scale.mask]).expand(len(cells), -1, 2)
        constants = torch.tensor([scale.stride, scale.scale_xy, scale.ignore]).expand(*cells.shape[:2], 3)
        tables.append(torch.cat((cells, constants[..., :1], anchors, constants[..., 1:]), -1).flatten(0, 1))
    return torch.cat(tables)


def decode_boxes(raw: Tensor, table: Tensor) -> Tensor:
    """Boxes (..., A, 4), x1, y1, x2, y2 in pixels of the input, of raw ones (..., A, 4) and their priors (A, 7)."""
    reach = table[:, _SCALE_XY]
    centre = (raw[..., :2].sigmoid() * reach - (reach - 1) / 2 + table[:, _CELL]) * table[:, _STRIDE]
    halves = raw[..., 2:].clamp(max=_LARGEST_LOG).exp() * table[:, _ANCHOR] / 2
    return torch.cat((centre - halves, centre + halves), -1)


def build(config: YOLOConfig, num_classes: int, in_channels: int, image_size: int) -> YOLOv3:
    """The network of a cfg, for images whose sides are multiples of its largest stride."""
    model = YOLOv3(parse_cfg(config.cfg)[1:], num_classes, in_channels)
    stride = max(scale.stride for scale in model.scales)
    if image_size % stride:
        raise ValueError(f"image_size={image_size} is not a multiple of the stride {stride}")
    return model


def _classes_of(state: Mapping[str, Tensor]) -> int | None:
    """A Darknet file does not tell its classes: they are those of its cfg."""
    biases = next((tensor for key, tensor in state.items() if key.startswith("head.") and key.endswith("bias")), None)
    return None if biases is None else len(biases) // 3 - 5


ARCHITECTURES = (
    Architecture(
        "yolo_v3_tiny",
        build,
        YOLOConfig(),
        depth=13,
        reference="Redmon and Farhadi 2018, arXiv 1804.02767; Darknet's yolov3-tiny.cfg",
        task="detect",
        input=(3, 416, 416),
        num_classes=80,
        class_layers=ClassLayers(r"head\.", _classes_of),
        pixels="unit",
    ),
)
