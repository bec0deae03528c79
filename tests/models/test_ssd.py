"""SSD and SSDLite on torchvision's weights; the 512 px edition by the paper's sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.detection.image_list import ImageList

from hubel.errors import ModelError, WeightsError
from hubel.models import create_model, describe
from hubel.models.base import DetectionTargets, ObjectTargets
from hubel.models.detection import multibox, ssd
from hubel.tasks.decoding import Thresholds
from hubel.tasks.detection.decode import select_objects


def theirs(name: str, classes: int) -> nn.Module:
    torch.manual_seed(0)
    build = getattr(torchvision.models.detection, name)
    network = build(weights=None, weights_backbone=None, num_classes=classes + 1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return network.eval()


@pytest.mark.parametrize(("name", "side"), [("ssd300_vgg16", 300), ("ssdlite320_mobilenet_v3_large", 320)])
def test_scores_offsets_and_default_boxes_are_torchvision_s(name: str, side: int, tmp_path: Path):
    """By way of a file as torchvision publishes it."""
    network = theirs(name, 6)
    torch.save(network.state_dict(), tmp_path / "theirs.pth")
    ours = create_model(name, weights=tmp_path / "theirs.pth").eval()
    assert ours.num_classes == 6
    ready = describe(ours).preprocessing
    assert [*ready.mean, *ready.std] == pytest.approx(
        [255 * value for value in (*network.transform.image_mean, *network.transform.image_std)]
    )
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        features = list(network.backbone(images).values())
        expected = network.head(features)
        scores, offsets = ours(images).values()
        boxes = network.anchor_generator(ImageList(images, [(side, side)] * 2), features)[0]
    torch.testing.assert_close(scores, expected["cls_logits"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(offsets, expected["bbox_regression"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.anchors(side, side), boxes, atol=1e-3, rtol=1e-5)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in network.parameters())


def test_512_has_the_paper_s_maps_and_boxes():
    network = ssd.build_vgg(ssd._512, 20, 3, 512)
    assert network.grids(512, 512) == [(64, 64), (32, 32), (16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]
    assert len(network.anchors(512, 512)) == 24_564
    assert network._default_boxes.per_cell == (4, 6, 6, 6, 6, 4, 4)


def some_targets() -> list[ObjectTargets]:
    generator = torch.Generator().manual_seed(0)

    def boxes(count: int) -> ObjectTargets:
        corner = 200 * torch.rand(count, 2, generator=generator)
        sizes = 10 + 90 * torch.rand(count, 2, generator=generator)
        labels = torch.randint(0, 4, (count,), generator=generator)
        return ObjectTargets(torch.cat((corner, corner + sizes), 1), labels)

    return [boxes(5), boxes(0), boxes(2)]


def raw_outputs(anchors: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, anchors, 5, generator=generator), torch.randn(3, anchors, 4, generator=generator)


def test_loss_is_torchvision_s():
    network = theirs("ssd300_vgg16", 4)
    ours = ssd.build_vgg(ssd._300, 4, 3, 300)
    anchors = ours.anchors(300, 300)
    targets = some_targets()
    scores, offsets = raw_outputs(len(anchors))
    matched = [
        network.proposal_matcher(torchvision.ops.box_iou(each.boxes, anchors))
        if len(each.boxes)
        else torch.full((len(anchors),), -1)
        for each in targets
    ]
    labelled = [{"boxes": each.boxes, "labels": each.labels + 1} for each in targets]
    given = {"bbox_regression": offsets, "cls_logits": scores}
    expected = network.compute_loss(labelled, given, [anchors] * 3, matched)
    found = ours.losses({"scores": scores, "offsets": offsets}, DetectionTargets(targets, (300, 300)))
    torch.testing.assert_close(found["class"], expected["classification"])
    torch.testing.assert_close(found["box"], expected["bbox_regression"])
    ours.loss_weights = {"class": 0.0, "box": 2.0}
    weighted = ours.losses({"scores": scores, "offsets": offsets}, DetectionTargets(targets, (300, 300)))
    assert list(weighted) == ["box"]
    torch.testing.assert_close(weighted["box"], 2 * expected["bbox_regression"])
    nothing = multibox.multibox_loss(scores[:1], offsets[:1], anchors, [targets[1]])
    assert nothing["class"] == nothing["box"] == 0


@pytest.mark.parametrize("candidates", [400, 20])
def test_decoding_and_suppression_are_torchvision_s(candidates: int):
    network = theirs("ssd300_vgg16", 4)
    model = ssd.build_vgg(ssd._300, 4, 3, 300)
    anchors = model.anchors(300, 300)
    scores, offsets = raw_outputs(len(anchors))
    scores[..., 0] += 2
    network.score_thresh, network.nms_thresh, network.detections_per_img = 0.3, 0.45, 200
    network.topk_candidates = candidates
    given = {"bbox_regression": offsets, "cls_logits": scores}
    expected = network.postprocess_detections(given, [anchors] * 3, [(300, 300)] * 3)
    config = Thresholds(conf=0.3, iou=0.45, max_detections=200, topk_candidates=candidates)
    dense = model.predictions({"scores": scores, "offsets": offsets}, (300, 300))
    for theirs_, boxes, probabilities in zip(expected, dense["boxes"], dense["scores"], strict=True):
        ours = select_objects(boxes.numpy(), probabilities.numpy(), (300, 300), config)
        assert 10 < len(ours.scores) <= 200
        torch.testing.assert_close(torch.from_numpy(ours.boxes), theirs_["boxes"], atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(torch.from_numpy(ours.scores), theirs_["scores"])
        assert ours.labels.tolist() == (theirs_["labels"] - 1).tolist()


def test_light_form_stands_on_any_classifier_with_the_maps_it_needs():
    classifier = create_model("resnet18")
    network = ssd.build_on(ssd._LIGHT, 2, classifier).eval()
    images = torch.rand(1, 3, 128, 160, generator=torch.Generator().manual_seed(2))
    maps = classifier.eval().features(images)
    with torch.inference_mode():
        read = network.maps(images)
        for stride, own in zip((8, 16, 32), read, strict=False):
            torch.testing.assert_close(own, maps[stride])
        scores, offsets = network(images).values()
    assert network.grids(128, 160) == [(16, 20), (8, 10), (4, 5), (2, 3), (1, 2), (1, 1)]
    assert scores.shape[1] == offsets.shape[1] == len(network.anchors(128, 160)) == 6 * 429
    with pytest.raises(ModelError, match="stride 8, 16 and 32"):
        ssd.build_on(ssd._LIGHT, 2, create_model("lenet5"))


def test_a_file_of_torchvision_for_other_classes_keeps_all_but_what_tells_them_apart(tmp_path: Path):
    network = theirs("ssdlite320_mobilenet_v3_large", 90)
    torch.save(network.state_dict(), tmp_path / "theirs.pth")
    ours = create_model("ssdlite320_mobilenet_v3_large", 3, weights=tmp_path / "theirs.pth").eval()
    images = torch.rand(1, 3, 320, 320, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        scores, offsets = ours(images).values()
        expected = network.head(list(network.backbone(images).values()))["bbox_regression"]
    assert scores.shape == (1, 3234, 4)
    torch.testing.assert_close(offsets, expected, atol=1e-4, rtol=1e-4)


def test_a_file_of_torchvision_has_the_names_of_coco_s_classes(tmp_path: Path):
    with torch.device("meta"):
        network = torchvision.models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    torch.save({key: torch.zeros(tensor.shape) for key, tensor in network.state_dict().items()}, tmp_path / "it.pth")
    metadata = describe(create_model("ssdlite320_mobilenet_v3_large", weights=tmp_path / "it.pth"))
    assert metadata.classes[:3] == ["person", "bicycle", "car"] and metadata.classes[-1] == "toothbrush"
    with pytest.raises(WeightsError, match=r"weights of torchvision's SSDLite320, not of ssd300_vgg16"):
        create_model("ssd300_vgg16", weights=tmp_path / "it.pth")
