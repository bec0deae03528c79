"""Box geometry against torchvision, by hand, and by counting pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torchvision

from hubel import boxes
from hubel.errors import UsageError


def some_boxes(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = 80 * torch.rand(count, 2, generator=generator)
    return torch.cat((corner, corner + 1 + 40 * torch.rand(count, 2, generator=generator)), 1)


def test_formats_by_hand():
    box = np.array([[10.0, 20.0, 40.0, 80.0]])
    assert boxes.convert(box, "xyxy", "xywh").tolist() == [[10, 20, 30, 60]]
    assert boxes.convert(box, "xyxy", "cxcywh").tolist() == [[25, 50, 30, 60]]
    assert boxes.convert(np.array([[25, 50, 30, 60]]), "cxcywh", "xyxy").tolist() == box.tolist()
    with pytest.raises(UsageError, match="yxyx"):
        boxes.convert(box, "yxyx", "xyxy")


def test_iou_equals_counted_pixels():
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 20, (12, 2))
    given = np.concatenate((corner, corner + rng.integers(0, 15, (12, 2))), 1)
    masks = np.zeros((12, 40, 40), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, given, strict=True):
        mask[y1:y2, x1:x2] = True
    shared = (masks[:, None] & masks[None]).sum((2, 3))
    union = (masks[:, None] | masks[None]).sum((2, 3))
    np.testing.assert_allclose(boxes.iou(given, given), shared / np.maximum(union, 1), atol=1e-6)
    own = np.maximum(masks.sum((1, 2)), 1)[:, None]
    np.testing.assert_allclose(boxes.ioa(given, given), shared / own, atol=1e-6)
    assert boxes.area(given).tolist() == masks.sum((1, 2)).tolist()


def test_a_box_without_area_overlaps_nothing():
    point = np.array([[5.0, 5.0, 5.0, 5.0]])
    assert boxes.iou(point, point).tolist() == [[0.0]]
    assert boxes.iou(np.zeros((0, 4)), point).shape == (0, 1)


def test_iou_is_torchvision_s():
    a, b = some_boxes(30, 0), some_boxes(20, 1)
    torch.testing.assert_close(boxes.iou(a, b), torchvision.ops.box_iou(a, b))


@pytest.mark.parametrize(
    ("name", "expected"),
    # Two squares of side 2, the second shifted by 1 to the right and down: shared 1, union 7, hull 3 × 3 = 9;
    # squared distance of centres 2, squared diagonal of the hull 18; equal aspect ratios.
    [("giou", 1 / 7 - 2 / 9), ("diou", 1 / 7 - 2 / 18), ("ciou", 1 / 7 - 2 / 18)],
)
def test_variants_of_iou_by_hand(name: str, expected: float):
    a, b = np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 1, 3, 3]])
    assert getattr(boxes, name)(a, b)[0, 0] == pytest.approx(expected, abs=1e-6)


def test_ciou_charges_for_the_aspect_ratio():
    # Same centre, 2 × 4 in 4 × 4: IoU 1/2, v = 4/π² (atan 1/2 - atan 1)², α = v / (1 - IoU + v).
    a, b = np.array([[-1.0, -2, 1, 2]]), np.array([[-2.0, -2, 2, 2]])
    v = 4 / math.pi**2 * (math.atan(0.5) - math.atan(1)) ** 2
    assert boxes.ciou(a, b)[0, 0] == pytest.approx(0.5 - v * v / (1 - 0.5 + v), abs=1e-6)


@pytest.mark.parametrize("variances", [(1.0, 1.0, 1.0, 1.0), (0.1, 0.1, 0.2, 0.2)])
def test_encoding_is_torchvision_s_box_coder(variances: tuple[float, ...]):
    from torchvision.models.detection._utils import BoxCoder

    coder = BoxCoder(weights=tuple(1 / v for v in variances))
    found, anchors = some_boxes(40, 2), some_boxes(40, 3)
    offsets = boxes.encode(found, anchors, variances)
    torch.testing.assert_close(offsets, coder.encode_single(found, anchors))
    wild = 9 * torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        boxes.decode(wild, anchors, variances), coder.decode_single(wild, anchors), atol=1e-4, rtol=1e-5
    )
    torch.testing.assert_close(boxes.decode(offsets, anchors, variances), found, atol=1e-3, rtol=1e-4)
    batch = boxes.decode(torch.stack((offsets, wild)), anchors, variances)
    torch.testing.assert_close(batch[1], boxes.decode(wild, anchors, variances))


def naive_nms(found: np.ndarray, scores: np.ndarray, labels: np.ndarray, threshold: float) -> list[int]:
    kept: list[int] = []
    for index in np.argsort(-scores):
        overlaps = [boxes.iou(found[index][None], found[k][None])[0, 0] for k in kept if labels[k] == labels[index]]
        if all(overlap <= threshold for overlap in overlaps):
            kept.append(int(index))
    return kept


@pytest.mark.parametrize("threshold", [0.2, 0.6])
def test_suppression_as_the_rule_says(threshold: float):
    rng = np.random.default_rng(1)
    found, scores, labels = some_boxes(150, 4).numpy(), rng.random(150).astype(np.float32), rng.integers(0, 3, 150)
    expected = naive_nms(found, scores, labels, threshold)
    assert 10 < len(expected) < 150
    assert boxes.nms(found, scores, labels, iou=threshold).tolist() == expected
    agnostic = naive_nms(found, scores, np.zeros_like(labels), threshold)
    assert boxes.nms(found, scores, iou=threshold).tolist() == agnostic != expected


def distance_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Equation 7 of Zheng et al. 2020, of two boxes."""
    width, height = (max(0.0, min(a[k + 2], b[k + 2]) - max(a[k], b[k])) for k in (0, 1))
    union = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b)) - width * height
    apart = sum(((a[k] + a[k + 2]) / 2 - (b[k] + b[k + 2]) / 2) ** 2 for k in (0, 1))
    diagonal = sum((max(a[k + 2], b[k + 2]) - min(a[k], b[k])) ** 2 for k in (0, 1))
    return float(width * height / union - apart / diagonal)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.6])
def test_suppression_by_distance_as_the_rule_says(threshold: float) -> None:
    rng = np.random.default_rng(1)
    found, scores, labels = some_boxes(300, 4).numpy(), rng.random(300).astype(np.float32), rng.integers(0, 3, 300)
    for classes in (labels, None):
        expected: list[int] = []
        for index in np.argsort(-scores).tolist():
            rivals = [k for k in expected if classes is None or classes[k] == classes[index]]
            if all(distance_iou(found[index], found[k]) <= threshold for k in rivals):
                expected.append(index)
        assert boxes.nms(found, scores, classes, iou=threshold, distance=True).tolist() == expected
        tensors = (torch.from_numpy(found), torch.from_numpy(scores))
        given = None if classes is None else torch.from_numpy(classes)
        assert boxes.nms(*tensors, given, iou=threshold, limit=9, distance=True).tolist() == expected[:9]
        plain = boxes.nms(found, scores, classes, iou=threshold)
        assert len(plain) < len(expected) < 300


@pytest.mark.parametrize("library", ["numpy", "torch float16", "torch bfloat16"])
def test_halves_are_as_good_as_floats(library: str) -> None:
    """As mixed precision gives them; the areas of large boxes overflow in 16 bits."""
    corners = torch.tensor([[0.0, 0, 600, 600], [8, 8, 600, 600], [0, 0, 16, 16], [500, 500, 900, 900]])
    scores, labels = torch.tensor([0.5, 0.75, 0.25, 0.125]), torch.tensor([0, 0, 1, 0])
    if library == "numpy":
        halves, half_scores = corners.numpy().astype(np.float16), scores.numpy().astype(np.float16)
        labels = labels.numpy()
    else:
        dtype = torch.bfloat16 if "b" in library else torch.float16
        halves, half_scores = corners.to(dtype), scores.to(dtype)
    floats = halves.astype(np.float32) if library == "numpy" else halves.float()
    assert boxes.nms(halves, half_scores).tolist() == boxes.nms(floats, half_scores).tolist() == [1, 2, 3]
    assert boxes.nms(halves, half_scores, labels).tolist() == [1, 2, 3]
    assert np.allclose(np.asarray(boxes.iou(halves, halves)), np.asarray(boxes.iou(floats, floats)))


def test_soft_suppression_as_the_paper_s_algorithm():
    rng = np.random.default_rng(2)
    found, scores, labels = some_boxes(60, 5).numpy(), rng.random(60), rng.integers(0, 2, 60)
    # Figure 2 of the paper, written out.
    left, decayed, expected = list(range(60)), scores.astype(float).copy(), []
    while left:
        best = max(left, key=lambda index: decayed[index])
        left.remove(best)
        if decayed[best] < 0.001:
            break
        expected.append(best)
        for other in left:
            if labels[other] == labels[best]:
                overlap = float(boxes.iou(found[best][None], found[other][None])[0, 0])
                decayed[other] *= math.exp(-(overlap**2) / 0.5)
    kept, kept_scores = boxes.soft_nms(found, scores, labels)
    assert kept.tolist() == expected
    np.testing.assert_allclose(kept_scores, decayed[expected], rtol=1e-5)
    assert (np.diff(kept_scores) <= 0).all()
    nothing, none = boxes.soft_nms(found[:0], scores[:0])
    assert nothing.shape == none.shape == (0,)


@pytest.mark.parametrize(("decay", "iou"), [("GAUSSIAN", None), ("LINEAR", 0.3)])
def test_soft_suppression_is_opencvs(decay: str, iou: float | None) -> None:
    """OpenCV takes whole pixels."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    rng = np.random.default_rng(3)
    found, scores = some_boxes(200, 7).numpy().round(), rng.random(200).astype(np.float32)
    rectangles = boxes.convert(found, "xyxy", "xywh").astype(int).tolist()
    method = getattr(cv2.dnn, f"SoftNMSMethod_SOFTNMS_{decay}")
    for threshold in (0.001, 0.25):
        theirs, kept = cv2.dnn.softNMSBoxes(rectangles, scores.tolist(), threshold, iou or 0.0, 0, 0.5, method)
        ours, decayed = boxes.soft_nms(found, scores, iou=iou, threshold=threshold)
        assert ours.tolist() == np.ravel(kept).tolist()
        np.testing.assert_allclose(decayed, np.ravel(theirs), rtol=1e-4)
        assert (decayed < scores[ours] - 0.01).any() and len(ours) < 200
        first, of_first = boxes.soft_nms(
            torch.from_numpy(found), torch.from_numpy(scores), None, iou, 0.5, threshold, 7
        )
        assert isinstance(first, torch.Tensor) and first.tolist() == ours[:7].tolist()
        np.testing.assert_array_equal(of_first.numpy(), decayed[:7])


def test_arrays_give_arrays_and_tensors_tensors():
    found = some_boxes(3, 6)
    assert isinstance(boxes.iou(found, found), torch.Tensor)
    assert isinstance(boxes.nms(found.numpy(), np.ones(3, np.float32)), np.ndarray)
    np.testing.assert_array_equal(boxes.clip(found.numpy(), 10, 20), found.numpy().clip(0, [10, 20, 10, 20]))
