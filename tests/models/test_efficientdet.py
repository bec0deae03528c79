"""EfficientDet on the weights of the package effdet, and its loss, anchors and boxes against effdet's."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from hubel.errors import ModelError, WeightsError
from hubel.models import architecture, create_model, describe, load_model, save_model
from hubel.models.base import DetectionTargets, ObjectTargets
from hubel.models.detection.efficientdet import EfficientDet
from hubel.models.detection.focal_loss import focal_loss
from hubel.models.factory import build_on_meta

effdet = pytest.importorskip("effdet")

SMALL = (128, 128)
PAPER = (3.9, 6.6, 8.1, 12, 21, 34, 52, 52)  # millions of parameters, Tan et al., table 2


def theirs(name: str, size: tuple[int, int] = SMALL, classes: int = 90, **config: Any) -> nn.Module:
    """Their network with random weights, and with the statistics of random images, so that signals reach its end."""
    torch.manual_seed(0)
    settings = effdet.get_efficientdet_config(name)
    settings.update(image_size=size, num_classes=classes, **config)
    network: nn.Module = effdet.EfficientDet(settings, pretrained_backbone=False)
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            if key.endswith("edge_weights"):
                parameter.uniform_(-0.3, 1)  # some below 0
            elif key.endswith("bias"):
                parameter.normal_(0, 0.1)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1)
                module.momentum = 1.0
        network.train()(torch.randn(8, 3, *size))
    return network.eval()


def rows(levels: list[Tensor], values: int) -> Tensor:
    """Their maps of each level (N, anchors · values, H, W) as (N, A, values)."""
    return torch.cat([each.permute(0, 2, 3, 1).reshape(len(each), -1, values) for each in levels], 1)


def compare(network: nn.Module, ours: nn.Module, size: tuple[int, int], classes: int = 90) -> None:
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, boxes = network(images)
        found = ours(images)
    scores = rows(expected, classes)
    assert float((scores[0] - scores[1]).std()) > 0.01  # the images are told apart
    torch.testing.assert_close(found["scores"], scores, atol=1e-4, rtol=0)
    torch.testing.assert_close(found["offsets"], rows(boxes, 4)[..., [1, 0, 3, 2]], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("tf_efficientdet_d0", SMALL),
        ("tf_efficientdet_d0", (200, 266)),  # sides that are not halved evenly
        ("tf_efficientdet_d1", SMALL),
        ("tf_efficientdet_d2", SMALL),
        ("tf_efficientdet_d3", SMALL),
        ("efficientdet_d0", (200, 266)),  # PyTorch's padding, no biases before normalizations
    ],
)
def test_outputs_are_effdet_s_by_way_of_its_file(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    network = theirs(name, size)
    torch.save(network.state_dict(), tmp_path / "theirs.pth")
    ours = create_model(name.removeprefix("tf_"), weights=tmp_path / "theirs.pth").eval()
    assert describe(ours).classes[:3] == ["person", "bicycle", "car"]
    compare(network, ours, size)


def test_plain_sums_are_effdet_s(tmp_path: Path) -> None:
    """D6's and D7's fusion, in the size of D0."""
    network = theirs("tf_efficientdet_d0", fpn_name="bifpn_sum", classes=3)
    torch.save(network.state_dict(), tmp_path / "theirs.pth")
    compare(network, create_model("efficientdet_d0", weights=tmp_path / "theirs.pth", fusion="sum").eval(), SMALL, 3)
    assert [architecture(f"efficientdet_d{number}").config.fusion for number in range(8)] == [
        *6 * ["fast"],
        "sum",
        "sum",
    ]


def test_a_saved_model_keeps_what_the_weights_need_of_the_backbone(tmp_path: Path) -> None:
    network = theirs("tf_efficientdet_d0", classes=5)
    torch.save(network.state_dict(), tmp_path / "theirs.pth")
    ours = create_model("efficientdet_d0", weights=tmp_path / "theirs.pth")
    save_model(tmp_path / "saved", ours, describe(ours))
    again, metadata = load_model(tmp_path / "saved")
    assert metadata.backbone is not None and metadata.backbone.options == {"same": True, "norm_eps": 1e-3}
    compare(network, again, SMALL, 5)


def test_other_classes_leave_the_last_convolution_of_the_scores_fresh(tmp_path: Path) -> None:
    torch.save(theirs("tf_efficientdet_d0").state_dict(), tmp_path / "theirs.pth")
    first, second = (create_model("efficientdet_d0", n, weights=tmp_path / "theirs.pth") for n in (None, 2))
    state = first.state_dict()
    fresh = {key for key, tensor in second.state_dict().items() if not torch.equal(tensor, state[key])}
    assert fresh == {f"head.classifier.predictor.pointwise.conv.{part}" for part in ("weight", "bias")}
    # A new class is as rare as one in a hundred (Lin et al., section 4.1).
    bias = second.state_dict()["head.classifier.predictor.pointwise.conv.bias"]
    torch.testing.assert_close(bias.sigmoid(), torch.full((18,), 0.01))


def test_a_file_without_the_boxes_is_refused(tmp_path: Path) -> None:
    state = {key: each for key, each in theirs("tf_efficientdet_d0").state_dict().items() if "box_net" not in key}
    torch.save(state, tmp_path / "theirs.pth")
    with pytest.raises(WeightsError, match="looks like effdet's EfficientDets of Google"):
        create_model("efficientdet_d0", weights=tmp_path / "theirs.pth")
    with pytest.raises(WeightsError, match="weights of effdet's EfficientDets of Google, not of ssd"):
        create_model("ssd", weights=tmp_path / "theirs.pth")


@pytest.mark.parametrize("number", range(8))
def test_parameters_are_as_many_as_effdet_s_and_round_to_the_paper_s(number: int) -> None:
    with torch.device("meta"):
        settings = effdet.get_efficientdet_config(f"tf_efficientdet_d{number}")
        settings.update(redundant_bias=False, num_classes=80, image_size=SMALL)
        expected = effdet.EfficientDet(settings, pretrained_backbone=False)
    row = architecture(f"efficientdet_d{number}")
    ours = sum(parameter.numel() for parameter in build_on_meta(row).parameters())
    assert ours == sum(parameter.numel() for parameter in expected.parameters())
    published = effdet.get_efficientdet_config(f"tf_efficientdet_d{number}")
    assert row.input[1:] == tuple(published.image_size)
    assert ours / 1e6 == pytest.approx(PAPER[number], abs=0.05 if PAPER[number] < 10 else 0.5)
    assert row.config.anchor == published.anchor_scale


@pytest.mark.parametrize(("name", "size"), [("d0", (512, 512)), ("d0", (200, 266)), ("d7", (384, 256))])
def test_anchors_and_boxes_are_effdet_s(name: str, size: tuple[int, int]) -> None:
    settings = effdet.get_efficientdet_config(f"tf_efficientdet_{name}")
    settings.image_size = size
    expected = effdet.anchors.Anchors.from_config(settings).boxes
    model = build_on_meta(architecture(f"efficientdet_{name}"))
    assert isinstance(model, EfficientDet)
    torch.testing.assert_close(model.anchors(*size), expected[:, [1, 0, 3, 2]], atol=1e-3, rtol=1e-6)
    generator = torch.Generator().manual_seed(2)
    codes = torch.randn(len(expected), 4, generator=generator).clamp(-4, 4)  # ours limits sizes beyond 4.1
    boxes = effdet.anchors.decode_box_outputs(codes, expected, output_xyxy=True)
    scores = torch.randn(1, len(expected), 3, generator=generator)
    found = model.predictions({"scores": scores, "offsets": codes[None][..., [1, 0, 3, 2]]}, size)
    torch.testing.assert_close(found["boxes"][0], boxes, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(found["scores"], scores.sigmoid())


def some_objects(side: int) -> list[ObjectTargets]:
    """Objects of three images: the last two of the first have the same best anchor, the second image has none."""
    generator = torch.Generator().manual_seed(3)
    corners, sizes = side * torch.rand(7, 2, generator=generator), 4 + 60 * torch.rand(7, 2, generator=generator)
    boxes = torch.cat((corners, corners + sizes), 1)
    boxes[4] = torch.tensor([40.3, 41.1, 70.2, 75.4])
    boxes[5] = boxes[4] + torch.tensor([0.2, -0.3, 0.5, 0.1])
    labels = torch.tensor([0, 2, 1, 3, 0, 3, 2])
    return [
        ObjectTargets(boxes[:6], labels[:6]),
        ObjectTargets(boxes[:0], labels[:0]),
        ObjectTargets(boxes[6:], labels[6:]),
    ]


def test_loss_and_its_gradient_are_effdet_s() -> None:
    settings = effdet.get_efficientdet_config("tf_efficientdet_d0")
    settings.update(image_size=SMALL, num_classes=4)
    anchors = effdet.anchors.Anchors.from_config(settings)
    labeler = effdet.anchors.AnchorLabeler(anchors, 4, match_threshold=0.5)
    objects = some_objects(128)
    labels = labeler.batch_label_anchors(
        [each.boxes[:, [1, 0, 3, 2]] for each in objects], [1.0 + each.labels for each in objects]
    )
    generator = torch.Generator().manual_seed(4)
    grids = [(each.shape[1], each.shape[2]) for each in labels[0]]
    assert grids == [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]
    scores = [(3 * torch.randn(3, 36, *grid, generator=generator)).requires_grad_() for grid in grids]
    offsets = [torch.randn(3, 36, *grid, generator=generator).requires_grad_() for grid in grids]
    total, classes, box = effdet.loss.DetectionLoss(settings)(scores, offsets, *labels)
    total.backward()

    model = build_on_meta(architecture("efficientdet_d0"), num_classes=4)
    outputs = {"scores": rows(scores, 4).detach(), "offsets": rows(offsets, 4)[..., [1, 0, 3, 2]].detach()}
    for each in outputs.values():
        each.requires_grad_()
    found = model.losses(outputs, DetectionTargets(objects, SMALL))
    torch.testing.assert_close(found["class"], classes)
    torch.testing.assert_close(found["box"], 50 * box)
    sum(found.values()).backward()
    torch.testing.assert_close(outputs["scores"].grad, rows([each.grad for each in scores], 4), atol=1e-7, rtol=1e-4)
    gradient = rows([each.grad for each in offsets], 4)[..., [1, 0, 3, 2]]
    torch.testing.assert_close(outputs["offsets"].grad, gradient, atol=1e-6, rtol=1e-4)

    nothing = model.losses({key: each[1:2] for key, each in outputs.items()}, DetectionTargets(objects[1:2], SMALL))
    assert nothing["box"] == 0 and nothing["class"] > 0


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.25, 1.5), (0.75, 0.5)])
def test_focal_loss_is_torchvision_s(alpha: float, gamma: float) -> None:
    generator = torch.Generator().manual_seed(5)
    scores = 4 * torch.randn(2, 30, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(-1, 6, (2, 30), generator=generator)
    wanted = nn.functional.one_hot(labels.clamp(min=0), 6) * (labels >= 0)[..., None]
    ours, their = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    found = focal_loss(ours, labels, alpha, gamma)
    expected = torchvision.ops.sigmoid_focal_loss(their, wanted.double(), alpha, gamma, reduction="sum")
    torch.testing.assert_close(found, expected)
    found.backward(), expected.backward()
    torch.testing.assert_close(ours.grad, their.grad)


def test_focal_loss_is_finite_for_scores_of_any_size() -> None:
    scores = torch.tensor([[-1e4, -200.0, 0.0, 200.0, 1e4]] * 2, requires_grad=True)
    found = focal_loss(scores, torch.tensor([0, -1]), 0.25, 0.5)
    # Certain and wrong costs the score: 1e4 of the object's class, 200 and 1e4 of others; 0 costs 0.5^γ log 2.
    expected = 0.25 * 1e4 + 0.75 * 2 * (200 + 1e4 + 0.5**0.5 * 0.693147)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-6)
    found.backward()
    assert scores.grad is not None and bool(scores.grad.isfinite().all())


@pytest.mark.parametrize("backbone", ["resnet18", "vgg11", "efficientnet_lite0"])
def test_any_classifier_with_the_maps_is_a_backbone(backbone: str) -> None:
    """VGG halves odd sides down, the others up: 100 → 50, 25, 13 or 12, …"""
    torch.manual_seed(0)
    model = create_model("efficientdet_d0", 2, backbone=backbone).eval()
    images = torch.rand(1, 3, 100, 148, generator=torch.Generator().manual_seed(6))
    with torch.inference_mode():
        features = model.features(images)
        maps = model.maps(images)
        found = model(images)
    assert [each.shape[2:] for each in maps[:3]] == [features[stride].shape[2:] for stride in (8, 16, 32)]
    for larger, smaller in pairwise(maps[2:]):
        assert smaller.shape[2:] == tuple((side + 1) // 2 for side in larger.shape[2:])
    assert {each.shape[1] for each in maps} == {64}
    assert found["scores"].shape[1] == len(model.anchors(100, 148))


def test_a_backbone_without_the_maps_is_refused() -> None:
    with pytest.raises(ModelError, match="efficientdet needs maps of stride 8, 16 and 32"):
        create_model("efficientdet_d0", backbone="lenet5")
