"""Mask R-CNN in exported files: both stages, suppression and masks, for any number of images and objects."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from hubel.errors import ModelError
from hubel.exporters.export import example
from hubel.exporters.parity import check_masks
from hubel.inference.engines.normalized_model import NormalizedModel
from hubel.inference.engines.selection import BACKENDS
from hubel.masks import decode
from hubel.models import create_model
from hubel.models.checkpoint import describe
from hubel.tasks.instances.paste import paste_masks
from two_stage_detector import two_stage_detector, two_stage_pixels


@pytest.mark.parametrize(
    "format", ["openvino", pytest.param("onnx", marks=pytest.mark.slow), pytest.param("torch", marks=pytest.mark.slow)]
)
def test_masks_are_those_of_torch(format: str, tmp_path: Path) -> None:
    """Alone and in a batch, of an image with padding, which boxes do not reach into, and of one with nothing in it."""
    model = two_stage_detector("mask_rcnn", mask_features=16, least_score=0.05, origin="corner")
    ready, backend = describe(model).preprocessing, BACKENDS[format]
    pixels = two_stage_pixels()
    pixels[1, 80:] = ready.background
    graph = NormalizedModel(model, ready)
    assert graph.output_names == ("boxes", "scores", "masks")
    facts = {"classes": ["a", "b", "c"], "outputs": list(graph.output_names), "inference_precision": "f32"}
    backend.save(backend.convert(graph), tmp_path, facts, half=False)
    _, run = backend.open_file(tmp_path / backend.export_file)
    with torch.inference_mode():
        outputs = model(ready.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2)))
        expected = {name: each.numpy() for name, each in model.predictions(outputs, (96, 96)).items()}
    counts = (expected["scores"].max(2) > 0).sum(1)
    assert counts[2] == 0 and counts[:2].min() > 10
    assert [float(of_image[..., 3].max()) for of_image in expected["boxes"][:2]] == [96, 80]
    for images in (slice(0, 1), slice(2, 3), slice(0, 3)):
        found = run(np.ascontiguousarray(pixels[images]))
        np.testing.assert_allclose(found["boxes"], expected["boxes"][images], atol=0.1)
        np.testing.assert_allclose(found["scores"], expected["scores"][images], atol=1e-4)
        for index in range(3)[images]:
            ours = found["masks"][index - images.start, : counts[index]] > 0.5
            wanted = expected["masks"][index, : counts[index]] > 0.5
            union = (ours | wanted).sum((1, 2))
            assert index == 2 or 0.1 < wanted.mean() < 0.9
            assert (((ours & wanted).sum((1, 2)) + 1e-9) / (union + 1e-9) > 0.99).all()


@pytest.mark.parametrize("name", ["mask_rcnn", "maskrcnn_resnet50_fpn"])
def test_the_program_beside_the_file_pastes_the_same_masks(name: str, tmp_path: Path) -> None:
    """Also those of boxes that reach over the image's edges, or are smaller than a pixel."""
    model = create_model(name, 3)
    program = example(BACKENDS["onnx"], describe(model), NormalizedModel(model, describe(model).preprocessing))
    assert 'outputs["masks"]' in program
    (function,) = (part for part in ast.parse(program).body if getattr(part, "name", "") == "paste")
    (tmp_path / "paste.py").write_text(f"import numpy as np\n\n\n{ast.unparse(function)}\n")
    paste = runpy.run_path(str(tmp_path / "paste.py"))["paste"]
    rng = np.random.default_rng(0)
    coarse = rng.random((40, 7, 7), np.float32)
    masks = coarse.repeat(4, 1).repeat(4, 2)
    corner, side = rng.uniform(-20, 60, (40, 2)), rng.uniform(0.2, 50, (40, 2))
    boxes = np.concatenate((corner, corner + side), 1)
    expected = paste_masks(masks, boxes, 50, 70, whole_pixels=name != "mask_rcnn")
    found = [paste(mask, box, 70, 50) for mask, box in zip(masks, boxes, strict=True)]
    assert sum(each.sum() for each in found) > 3000
    assert sum((pixels != decode(mask)).sum() for pixels, mask in zip(found, expected, strict=True)) <= 2  # rounding


def test_a_file_with_other_masks_is_refused() -> None:
    boxes = np.array([[[10.0, 10, 60, 60], [20, 20, 90, 90]]], np.float32)
    scores, masks = np.array([[[0.9, 0], [0, 0.8]]], np.float32), np.zeros((1, 2, 28, 28), np.float32)
    masks[..., :14] = 0.9
    expected = {"boxes": boxes, "scores": scores, "masks": masks}
    pixels = np.zeros((1, 96, 96, 3), np.uint8)
    near = {**expected, "boxes": boxes[:, ::-1], "scores": scores[:, ::-1], "masks": masks[:, ::-1] * 0.99}
    assert check_masks(lambda _: near, pixels, expected, "fp32", "it") == pytest.approx(0.009, abs=1e-5)
    other = {**expected, "masks": masks * np.array([[1, 0.5]])[..., None, None]}
    for one, two in ((other, expected), (expected, other)):  # pixels that are missing, and those where there are none
        with pytest.raises(ModelError, match=r"it \(fp32\) gives other masks for 1 of 2 objects"):
            check_masks(lambda _, found=one: found, pixels, two, "fp32", "it")
