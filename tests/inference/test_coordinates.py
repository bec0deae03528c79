"""Two-stage detectors on OpenVINO: layers in bfloat16, and coordinates in float32 all the way."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import ops

import hubel
from hubel.errors import UsageError
from hubel.inference.engines.base import Precision, RunOptions
from hubel.inference.engines.coordinates import keep_coordinates
from hubel.inference.engines.openvino import OpenVinoBackend, OpenVinoEngine, core, openvino, to_openvino
from hubel.models.checkpoint import describe
from hubel.tasks.decoding import Thresholds
from hubel.tasks.detection.decode import select_objects
from two_stage_detector import two_stage_detector, two_stage_pixels

NEEDS_BFLOAT16 = pytest.mark.skipif(
    "BF16" not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"), reason="no bfloat16 instructions"
)


class Pooled(nn.Module):
    """Best regions of a map, between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = (nn.Conv2d(16, 16, 1, bias=False).requires_grad_(False) for _ in range(2))
        for layer in (self.before, self.after):
            layer.weight.copy_(torch.eye(16)[..., None, None])

    def forward(self, maps: Tensor, boxes: Tensor, scores: Tensor) -> Tensor:
        """Means of the best of boxes (N, 4) on maps (1, 16, H, W)."""
        best = boxes[ops.nms(boxes, scores, 0.5)]
        regions = torch.cat((torch.zeros_like(best[:, :1]), best), 1)
        squares = torch.ops.torchvision.roi_align(self.before(maps), regions, 1.0, 1, 1, 2, True)
        return self.after(squares)


@NEEDS_BFLOAT16
def test_regions_are_not_rounded_to_bfloat16() -> None:
    """On a ramp, a region's mean is its place; bfloat16 has steps of two pixels there. The judge is torch."""
    ramp = (torch.arange(500.0) - 300).expand(1, 16, 20, 500)
    left = torch.tensor([291.3, 294.7, 300.9, 303.1, 306.5])
    boxes = torch.stack((left, torch.full((5,), 2.0), left + 2, torch.full((5,), 9.0)), 1)
    inputs = ramp, boxes, torch.arange(5) / 8 + 0.125
    with torch.no_grad():
        expected = Pooled()(*inputs)[:, 0, 0, 0]
        model = openvino().convert_model(torch.jit.trace(Pooled(), inputs))
    for marks in (False, True):
        if marks:
            keep_coordinates(model, core())
        compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
        (found,) = compiled([each.numpy() for each in inputs]).values()
        assert (float(np.abs(found[:, 0, 0, 0] - expected.numpy()).max()) < 0.1) is marks


@pytest.fixture(scope="module")
def graph() -> Any:
    model = two_stage_detector()
    return to_openvino(model, describe(model).preprocessing)


@NEEDS_BFLOAT16
def test_layers_in_bfloat16_are_the_choice_and_find_nearly_the_same(graph: Any) -> None:
    """As plain torch finds in float32."""
    model, pixels = two_stage_detector(), two_stage_pixels()
    backend, ready = OpenVinoBackend(), describe(model).preprocessing
    engine = backend.engine(graph, ready, RunOptions())
    assert engine.precision.name == "bf16"
    (found,) = engine.run([pixels])
    with torch.inference_mode():
        expected = model.predictions(model(ready.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))), (96, 96))
    for index in (0, 1):
        ours, exact = (
            select_objects(np.asarray(each["boxes"][index]), np.asarray(each["scores"][index]), (96, 96), Thresholds())
            for each in (found, expected)
        )
        overlap = hubel.boxes.iou(exact.boxes, ours.boxes) * (exact.labels[:, None] == ours.labels)
        assert len(exact.boxes) > 5 and (overlap.max(1) > 0.8).mean() > 0.85


@NEEDS_BFLOAT16
def test_unmarked_graphs_are_computed_in_float32(monkeypatch: pytest.MonkeyPatch, graph: Any) -> None:
    """As those of versions of OpenVINO that do not know the mark."""
    monkeypatch.setattr("hubel.inference.engines.openvino.keeps_coordinates", lambda _: False)
    backend, ready = OpenVinoBackend(), describe(two_stage_detector()).preprocessing
    assert backend.engine(graph, ready, RunOptions()).precision.name == "fp32"
    with pytest.raises(UsageError, match="bf16 is too coarse for the regions"):
        backend.engine(graph, ready, RunOptions("bf16"))


def test_a_fresh_process_converts_two_stage_detectors() -> None:
    """torchvision cannot be imported for its operators while torch traces the network."""
    code = (
        "from hubel.models import create_model, describe; from hubel.inference.engines.openvino import to_openvino;"
        "m = create_model('faster_rcnn', 3, image_size=64, backbone='resnet18').eval();"
        "print(len(to_openvino(m, describe(m).preprocessing).outputs))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2\n"


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=NEEDS_BFLOAT16)])
def test_images_without_objects_beside_others(precision: str, graph: Any) -> None:
    """A batch gives what each image gives alone."""
    pixels = two_stage_pixels()
    alone = OpenVinoEngine(graph, Precision(precision), 1, 1)
    together = OpenVinoEngine(graph, Precision(precision), 1, 3)
    (one,), (three,) = (list(engine.run([pixels])) for engine in (alone, together))
    assert (one["scores"].max((1, 2)) > 0).tolist() == [True, True, False]
    np.testing.assert_allclose(three["scores"], one["scores"], atol=1e-4 if precision == "fp32" else 0.05)
