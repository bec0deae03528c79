"""YOLOv3-tiny and its relatives: Darknet's files, OpenCV's detections, the loss by a plain loop."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from hubel.boxes import nms
from hubel.errors import ModelError, WeightsError
from hubel.models import create_model, default_preprocessing
from hubel.models.base import DetectionTargets, ObjectTargets
from hubel.weights.darknet_cfg import parse_cfg
from hubel.weights.darknet_layers import weights_in_order
from hubel.weights.darknet_weights import in_order

NETWORKS = ("yolo-fastest-1.1", "yolo-fastest-1.1-xl")


def overlap(a: list[float], b: list[float]) -> float:
    wide, high = (max(0.0, min(a[k + 2], b[k + 2]) - max(a[k], b[k])) for k in (0, 1))
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b)]
    return wide * high / (sum(areas) - wide * high)


@pytest.mark.data
@pytest.mark.parametrize("name", NETWORKS)
def test_detections_are_opencvs(name: str, data_folder: Path) -> None:
    """The same files through OpenCV's dnn module, which scales images without antialiasing."""
    folder = data_folder / "yolo_fastest"
    cfg = (folder / "yolo-fastest-1.1_coco" / f"{name}.cfg").read_text()
    weights = folder / "yolo-fastest-1.1_coco" / f"{name}.weights"
    model = create_model("yolo_v3_tiny", cfg=cfg, image_size=320, weights=weights).eval()
    classes = (folder / "yolo-fastest-1.1_coco" / "coco.names").read_text().splitlines()
    oracle = json.loads((folder / f"oracle_{name}.json").read_text())["detections"]
    overlaps, differences, extra = [], [], 0
    for file, theirs in oracle.items():
        image = Image.open(data_folder / "coco128" / "images" / file).convert("RGB")
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            found = model.predictions(model(functional.interpolate(pixels, (320, 320), mode="bilinear")), (320, 320))
        boxes = found["boxes"][0] * torch.tensor([image.width / 320, image.height / 320] * 2)
        box, label = (found["scores"][0] > 0.25).nonzero(as_tuple=True)
        scores = found["scores"][0][box, label]
        kept = nms(boxes[box], scores, label, 0.45)
        ours = [(classes[label[k]], float(scores[k]), boxes[box[k]].tolist()) for k in kept.tolist()]
        extra += max(0, len(ours) - len(theirs))
        for row in theirs:
            same = [(overlap(each, row["xyxy"]), score) for kind, score, each in ours if kind == row["cls"]]
            iou, score = max(same, default=(0.0, 0.0))
            overlaps.append(iou)
            differences.append(abs(score - row["score"]))
    assert len(overlaps) >= 40 and extra <= 1
    # Of two nearly equal boxes a rounding decides which one suppresses the other.
    assert sum(iou < 0.95 for iou in overlaps) <= 2 and min(overlaps) > 0.5 and np.mean(overlaps) > 0.98
    assert sum(difference > 0.03 for difference in differences) <= 1
    assert np.mean(differences) < 0.006


def test_the_published_network() -> None:
    """Of yolov3-tiny.weights, 35,434,956 bytes: a header of 20 and 8,858,734 numbers."""
    model = create_model("yolo_v3_tiny")
    own = model.state_dict()
    layers = model.graph.layers
    assert sum(tensor.size for tensor in in_order(own, layers)) == 8_858_734
    named = {name for name, _ in weights_in_order(layers)}
    assert set(own) - named == {name for name in own if name.endswith("num_batches_tracked")}
    outputs = model.eval()(torch.zeros(1, 3, 416, 416))
    boxes = 3 * (13 * 13 + 26 * 26)
    assert {name: tuple(each.shape) for name, each in outputs.items()} == {
        "boxes": (1, boxes, 4),
        "objectness": (1, boxes, 1),
        "scores": (1, boxes, 80),
    }
    assert model.feature_channels == {2: 32, 4: 64, 8: 128, 16: 256, 32: 128}  # of the last map of each stride
    ready = default_preprocessing("yolo_v3_tiny")
    assert (ready.mean, ready.std, ready.resize) == ((0, 0, 0), (255, 255, 255), "stretch")


def test_boxes_by_hand() -> None:
    """One cell: b_x = σ(t_x) + c_x, b_w = p_w · exp(t_w) (figure 2)."""
    model = create_model("yolo_v3_tiny", num_classes=2)
    cells = 13 * 13 * 3
    raw = {
        "boxes": torch.zeros(1, cells + 26 * 26 * 3, 4),
        "objectness": torch.full((1, cells + 26 * 26 * 3, 1), 1.0),
        "scores": torch.full((1, cells + 26 * 26 * 3, 2), -1.0),
    }
    row = cells + (5 * 26 + 7) * 3 + 1  # stride 16, sixth row, eighth column, second anchor: 23 × 27
    raw["boxes"][0, row] = torch.tensor([0.3, -0.2, 0.1, 0.4])
    found = model.predictions(raw, (416, 416))
    x, y = (7 + 1 / (1 + math.exp(-0.3))) * 16, (5 + 1 / (1 + math.exp(0.2))) * 16
    w, h = 23 * math.exp(0.1), 27 * math.exp(0.4)
    expected = torch.tensor([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    torch.testing.assert_close(found["boxes"][0, row], expected)
    assert float(found["scores"][0, row, 1]) == pytest.approx(1 / (1 + math.exp(-1)) / (1 + math.exp(1)))


def losses_by_loop(raw: dict[str, Tensor], boxes: Tensor, labels: Tensor, side: int) -> dict[str, float]:
    """Darknet's rules (forward_yolo_layer), box by box, for one image and the anchors of yolov3-tiny."""
    anchors = [(10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319)]
    sums = {"box": 0.0, "objectness": 0.0, "class": 0.0}
    boxes_of = {}
    truth = []
    for number, (box, label) in enumerate(zip(boxes.tolist(), labels.tolist(), strict=True)):
        w, h = box[2] - box[0], box[3] - box[1]
        shapes = [min(w, a) * min(h, b) / (w * h + a * b - min(w, a) * min(h, b)) for a, b in anchors]
        best = int(np.argmax(shapes))
        stride = 32 if best >= 3 else 16
        x, y = (box[0] + box[2]) / 2 / stride, (box[1] + box[3]) / 2 / stride
        boxes_of.setdefault((stride, int(y), int(x), best), []).append(number)
        truth.append((x, y, w, h, best, label))
    row = 0
    sigmoid = lambda t: 1 / (1 + math.exp(-t))  # noqa: E731
    for stride, mask in ((32, (3, 4, 5)), (16, (0, 1, 2))):
        for j in range(side // stride):
            for i in range(side // stride):
                for anchor in mask:
                    t = raw["boxes"][row].tolist()
                    w, h = anchors[anchor][0] * math.exp(t[2]), anchors[anchor][1] * math.exp(t[3])
                    x, y = (i + sigmoid(t[0])) * stride, (j + sigmoid(t[1])) * stride
                    mine = boxes_of.get((stride, j, i, anchor), [])
                    own = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
                    best = max((overlap(own, box) for box in boxes.tolist()), default=0)
                    obj = sigmoid(float(raw["objectness"][row]))
                    if mine:
                        sums["objectness"] -= math.log(obj)
                    elif best <= 0.7:
                        sums["objectness"] -= math.log(1 - obj)
                    for number in mine:
                        gx, gy, gw, gh, _, _ = truth[number]
                        scale = 2 - gw * gh / side**2
                        for given, target in ((t[0], gx - i), (t[1], gy - j)):
                            s = sigmoid(given)
                            sums["box"] -= scale * (target * math.log(s) + (1 - target) * math.log(1 - s))
                        for given, target in ((t[2], gw / anchors[anchor][0]), (t[3], gh / anchors[anchor][1])):
                            sums["box"] += scale * (given - math.log(target)) ** 2 / 2
                    if mine:
                        for k, score in enumerate(raw["scores"][row].tolist()):
                            s = sigmoid(score)
                            sums["class"] -= math.log(s if k in {truth[n][5] for n in mine} else 1 - s)
                    row += 1
    return sums


def test_the_loss_is_darknets_box_by_box() -> None:
    torch.manual_seed(0)
    model = create_model("yolo_v3_tiny", num_classes=3, image_size=96)
    raw = {name: torch.randn_like(each) for name, each in model.eval()(torch.zeros(3, 3, 96, 96)).items()}
    raw["boxes"] *= 0.3
    objects = [
        (torch.tensor([[10.0, 20, 70, 90], [12, 22, 72, 88], [40, 40, 52, 55]]), torch.tensor([0, 2, 1])),
        (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
        (torch.tensor([[0.0, 0, 96, 96]]), torch.tensor([1])),
    ]
    targets = DetectionTargets([ObjectTargets(*each) for each in objects], (96, 96))
    terms = model.losses(raw, targets)
    loops = [
        losses_by_loop({name: each[k] for name, each in raw.items()}, *objects[k], 96) for k in range(len(objects))
    ]
    for name in ("box", "objectness", "class"):
        assert float(terms[name]) == pytest.approx(np.mean([each[name] for each in loops]), rel=1e-4), name


def test_a_few_steps_learn_a_scene() -> None:
    torch.manual_seed(0)
    model = create_model("yolo_v3_tiny", num_classes=2, image_size=96)
    images = torch.zeros(2, 3, 96, 96)
    images[0, 0, 20:60, 30:70] = 1
    images[1, 2, 40:90, 10:60] = 1
    boxes = [torch.tensor([[30.0, 20, 70, 60]]), torch.tensor([[10.0, 40, 60, 90]])]
    targets = DetectionTargets([ObjectTargets(box, torch.tensor([k])) for k, box in enumerate(boxes)], (96, 96))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(60):
        optimizer.zero_grad()
        sum(model.losses(model(images), targets).values()).backward()
        optimizer.step()
    with torch.no_grad():  # statistics of training: two images settle no average in sixty steps
        found = model.predictions(model(images), (96, 96))
    for k, box in enumerate(boxes):
        best = int(found["scores"][k, :, k].argmax())
        assert float(found["scores"][k, best, k]) > 0.5
        assert overlap(found["boxes"][k, best].tolist(), box[0].tolist()) > 0.7


def test_what_is_wrong_with_a_file_is_reported(tmp_path: Path) -> None:
    for text, reason in (
        ("[convolutional]\nfilters=3\n", "begin with"),
        ("[net]\nwidth\n", "line 2"),
        ("[net]\n[lstm]\noutput=3\n", "lstm"),
    ):
        with pytest.raises(ModelError, match=reason):
            parse_cfg(text)
    with pytest.raises(ModelError, match="lstm"):
        create_model("yolo_v3_tiny", cfg="[net]\n[lstm]\n")
    short = tmp_path / "short.weights"
    short.write_bytes(np.array([0, 2, 0, 0, 0], "<i4").tobytes() + np.zeros(100, "<f4").tobytes())
    with pytest.raises(WeightsError, match=r"100 numbers, and the network 8,858,734"):
        create_model("yolo_v3_tiny", weights=short)
    short.write_bytes(b"\0" * 7)
    with pytest.raises(WeightsError, match="truncated"):
        create_model("yolo_v3_tiny", weights=short)
