"""Mask R-CNN on torchvision's weights, and what it does where there is nothing, or very much, to find."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hubel.models import create_model
from hubel.models.base import DetectionTargets, ObjectTargets
from hubel.models.detection.mask_rcnn import MaskRCNN
from torchvision_detectors import (
    SIDE,
    losses_of_both,
    padded,
    photographs,
    reference,
    some_objects,
    with_its_weights,
)

EDITIONS = ("maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2")


@pytest.mark.parametrize("name", (EDITIONS[0], pytest.param(EDITIONS[1], marks=pytest.mark.slow)))
def test_objects_and_masks_are_torchvision_s(name: str, tmp_path: Path) -> None:
    """By way of a file as torchvision publishes it, on photographs of two shapes with padding."""
    network = reference(name)
    ours = with_its_weights(network, name, tmp_path)
    batch = padded(network.transform.normalize(photographs()))
    inputs = batch.tensors
    with torch.inference_mode():
        features = network.backbone(inputs)
        proposals, _ = network.rpn(batch, features)
        expected, _ = network.roi_heads(features, proposals, batch.image_sizes)
        found = ours.predictions(ours(inputs), (SIDE, SIDE))
    for wanted, boxes, scores, masks in zip(expected, *found.values(), strict=True):
        count = len(wanted["scores"])
        assert count > 20 and wanted["masks"].std() > 0.1
        best, labels = scores.max(1)
        torch.testing.assert_close(boxes[:count], wanted["boxes"], atol=1e-3, rtol=0)
        torch.testing.assert_close(best[:count], wanted["scores"], atol=1e-5, rtol=0)
        torch.testing.assert_close(masks[:count], wanted["masks"][:, 0], atol=1e-4, rtol=0)
        assert labels[:count].tolist() == (wanted["labels"] - 1).tolist()
        assert not scores[count:].any() and not masks[count:].any()


def with_masks(objects: list[ObjectTargets], side: int = SIDE) -> list[ObjectTargets]:
    """Ellipses in the boxes."""
    y, x = torch.meshgrid(2 * [torch.arange(side) + 0.5], indexing="ij")
    found = []
    for each in objects:
        left, top, right, bottom = (edge.view(-1, 1, 1) for edge in each.boxes.unbind(1))
        radii = (right - left) / 2, (bottom - top) / 2
        inside = ((x - left) / radii[0] - 1) ** 2 + ((y - top) / radii[1] - 1) ** 2 < 1
        found.append(each._replace(masks=inside.to(torch.uint8)))
    return found


@pytest.mark.parametrize("name", (pytest.param(EDITIONS[0], marks=pytest.mark.slow), EDITIONS[1]))
def test_losses_are_torchvision_s(name: str, tmp_path: Path) -> None:
    network = reference(name)
    ours = with_its_weights(network, name, tmp_path)
    wanted, found = losses_of_both(network, ours, with_masks(some_objects()))
    assert list(found) == ["objectness", "proposal_box", "class", "box", "mask"]
    names = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask")
    for ours_, theirs in zip(found.values(), names, strict=True):
        assert wanted[theirs] > 1e-3
        torch.testing.assert_close(ours_, wanted[theirs], atol=1e-5, rtol=1e-5)


def test_nothing_and_very_much_are_no_error() -> None:
    """No object in the batch; 300 in an image; no proposals, as all lie beside the image."""
    torch.manual_seed(0)
    model = create_model("mask_rcnn", 3, backbone="resnet18", pyramid_channels=16, features=16, mask_features=16)
    assert isinstance(model, MaskRCNN)
    images, corners = torch.randn(2, 3, 128, 128), 100 * torch.rand(300, 2)
    many = ObjectTargets(torch.cat((corners, corners + 4 + 20 * torch.rand(300, 2)), 1), torch.arange(300) % 3)
    none = ObjectTargets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    unknown = none._replace(boxes=torch.tensor([[20.0, 20, 90, 80]]), labels=torch.tensor([2]))
    for without_proposals in (False, True):
        if without_proposals:
            model.first_stage.offsets.bias.data[:] = torch.tensor([1e4, 0.0, 0.0, 0.0]).repeat(3)
        for objects in ([none, none], with_masks([many, none], 128), [unknown, none]):
            targets = DetectionTargets(objects, (128, 128))
            losses = model.train().losses(model.training_outputs(images, targets), targets)
            assert bool(losses["mask"] > 0) is (objects[0].masks is not None)
            total = sum(losses.values())
            assert bool(torch.isfinite(total))
            total.backward()
        with torch.inference_mode():
            outputs = model.eval()(images)
            found = model.predictions(outputs, (128, 128))
        assert bool(found["scores"].any()) is not without_proposals
        assert all(bool(each.isfinite().all()) for each in (*outputs.values(), *found.values()))


def test_normalizations_of_the_mask_head_see_objects_alone() -> None:
    """No squares of images without an object; and a batch without any leaves the averages as they are."""
    torch.manual_seed(0)
    small = {"pyramid_channels": 8, "features": 8, "mask_features": 8, "regions": 16, "mask_norm": True}
    model = create_model("mask_rcnn", 3, backbone="resnet18", **small).train()
    assert isinstance(model, MaskRCNN)
    seen: list[torch.Tensor] = []
    model.mask_head.convs[0].conv.register_forward_hook(lambda _, __, maps: seen.append(maps.detach()))
    some = ObjectTargets(torch.tensor([[20.0, 20, 90, 80], [40, 8, 70, 60]]), torch.tensor([2, 0]))
    none = ObjectTargets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    norm, images = model.mask_head.convs[0].norm, torch.randn(3, 3, 128, 128)
    outputs = model.training_outputs(images, DetectionTargets(with_masks([none, some, none], 128), (128, 128)))
    assert len(seen[0]) == int((outputs["mask_boxes"][1, :, 2] > 0).sum()) >= 2
    averages = norm.running_mean.clone()
    torch.testing.assert_close(averages, norm.momentum * seen[0].mean((0, 2, 3)))
    model.training_outputs(images, DetectionTargets([none] * 3, (128, 128)))
    assert len(seen) == 2 and torch.equal(norm.running_mean, averages) and norm.num_batches_tracked == 1
    assert model.mask_head.training
