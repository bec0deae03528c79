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

Deviations: none in the network. The loss takes the mean over images, of sums over boxes (Darknet's rate is per batch).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubel.boxes import convert, iou
from hubel.models.base import Architecture, ClassLayers, DetectionTargets, Detector
from hubel.models.detection.darknet import Darknet, Section, YOLOScale, parse_cfg

_LARGEST_LOG = 8.0  # of a size over its anchor: more would overflow


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


@dataclass(frozen=True)
class YOLOConfig:
    """The text of a Darknet cfg."""

    cfg: str = _tiny_cfg()


class YOLOv3(Detector):
    """A network made from a cfg.

    ``forward`` gives raw ``"boxes"`` (N, A, 4): x, y, width, height; ``"objectness"`` (N, A, 1) and ``"scores"``
    (N, A, classes), A boxes scale by scale, row by row, and in a cell in the order of the mask.

    Args:
        sections: of the cfg, without ``[net]``.
        num_classes: those that the heads tell apart, whatever the cfg says.
        in_channels: of the images.
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
            terms.append(self._losses_of_image(raw, truth.boxes, truth.labels, table, targets.size))
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

        It is in the cell of the object's centre; its anchor is, of those of all scales, the one whose shape has the
        largest IoU with the object's (section 2.1).
        """
        centre, extent = convert(boxes, "xyxy", "cxcywh").split(2, 1)
        anchors = extent.new_tensor(self.scales[0].every)
        origin = torch.zeros_like(extent), torch.zeros_like(anchors)
        shapes = iou(torch.cat((origin[0], extent), 1), torch.cat((origin[1], anchors), 1))
        best = shapes.argmax(1)
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
    """What is known of each box beforehand, for images of a height and width: (A, 7), its columns as above."""
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
