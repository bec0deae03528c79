"""The paper's editions of Faster R-CNN against one that is composed of torchvision's parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection, resnet50, vgg16
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign, RoIPool, roi_pool

from hubel.boxes import decode
from hubel.errors import ModelError
from hubel.models import create_model
from hubel.models.detection.faster_rcnn import FasterRCNN
from hubel.models.detection.two_stage.box_head import VARIANCES
from hubel.models.detection.two_stage.roi_pool import pooled
from hubel.weights.key_mapping import rename
from torchvision_detectors import SIDE, losses_of_both, photographs, some_objects, spread_out

# So that tests take seconds.
FEATURES = 32  # of VGG's dense layers
COUNTS = {"proposals": 100, "training_proposals": 200, "regions": 32}
EDITIONS = ("fasterrcnn_vgg16", "fasterrcnn_resnet50_c4")


class _Named(nn.Sequential):
    """Its output under a name, as torchvision's pyramids give theirs."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"0": super().forward(images)}


class _Pool(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool = RoIPool(7, 1 / 16)

    def forward(self, maps: dict[str, Tensor], proposals: list[Tensor], sizes: object) -> Tensor:
        return self.pool(maps["0"], proposals)


class _LastStage(nn.Module):
    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, squares: Tensor) -> Tensor:
        return self.stage(squares).mean((2, 3))


def composed(name: str, classes: int, features: int) -> tuple[nn.Module, nn.Module]:
    """torchvision's Faster R-CNN of the paper, and the classifier that it is made of."""
    if "vgg" in name:
        source: nn.Module = vgg16(weights=None, init_weights=False)
        body, channels = _Named(*list(source.features)[:-1]), 512
        head, width = TwoMLPHead(512 * 7**2, features), features
    else:
        source = resnet50(weights=None)
        body, channels = _Named(*list(source.children())[:-3]), 1024
        head, width = _LastStage(source.layer4), 2048
    body.out_channels = channels
    network = detection.FasterRCNN(
        body,
        rpn_anchor_generator=AnchorGenerator(((128, 256, 512),), ((0.5, 1.0, 2.0),)),
        rpn_pre_nms_top_n_test=6000,
        rpn_post_nms_top_n_test=COUNTS["proposals"],
        rpn_pre_nms_top_n_train=12000,
        rpn_post_nms_top_n_train=COUNTS["training_proposals"],
        box_batch_size_per_image=COUNTS["regions"],
        box_roi_pool=MultiScaleRoIAlign(["0"], 14, 2),
        box_head=head,
        box_predictor=FastRCNNPredictor(width, classes + 1),
    )
    if "vgg" in name:
        network.roi_heads.box_roi_pool = _Pool()
    return network, source


def test_parameters_are_those_of_torchvision_s_parts() -> None:
    for name, millions in zip(EDITIONS, (138.5, 33.9), strict=True):
        with torch.device("meta"):
            network, _ = composed(name, 90, 4096)
            ours = create_model(name, 90)
        _, width = network.roi_heads.box_predictor.bbox_pred.weight.shape
        theirs = sum(parameter.numel() for parameter in network.parameters())
        assert sum(parameter.numel() for parameter in ours.parameters()) == theirs - 4 * (width + 1)
        assert theirs / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.fixture(scope="module", params=EDITIONS)
def both(request: pytest.FixtureRequest) -> tuple[nn.Module, FasterRCNN]:
    """The composed one and ours, with the same weights."""
    name: str = request.param
    torch.manual_seed(0)
    network, source = composed(name, 5, FEATURES)
    spread_out(network)
    ours = create_model(name, 5, **COUNTS, **({"features": FEATURES} if "vgg" in name else {}))
    assert isinstance(ours, FasterRCNN)
    state = ours.state_dict()
    state |= {
        key: value for key, value in rename(source.state_dict(), name.split("_")[1]).state.items() if key in state
    }
    state = {key: value for key, value in state.items() if not key.startswith(("head.", "first_stage."))}
    theirs, rpn = network.roi_heads, network.rpn.head
    parts = {"first_stage.convs.0": rpn.conv[0][0], "first_stage.objectness": rpn.cls_logits}
    parts |= {"first_stage.offsets": rpn.bbox_pred, "head.classifier": theirs.box_predictor.cls_score}
    if "vgg" in name:
        parts |= {"head.dense.0": theirs.box_head.fc6, "head.dense.1": theirs.box_head.fc7}
    for key, layer in parts.items():
        state |= {f"{key}.weight": layer.weight, f"{key}.bias": layer.bias}
    regressor = theirs.box_predictor.bbox_pred
    state |= {"head.regressor.weight": regressor.weight[4:], "head.regressor.bias": regressor.bias[4:]}
    ours.load_state_dict(state)
    return network, ours


def test_losses_are_torchvision_s(both: tuple[nn.Module, FasterRCNN]) -> None:
    wanted, found = losses_of_both(*both, some_objects())
    assert list(found) == ["objectness", "proposal_box", "class", "box"]
    for ours, theirs in zip(found.values(), wanted.values(), strict=True):
        assert theirs > 1e-3
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_proposals_boxes_and_scores_are_torchvision_s(both: tuple[nn.Module, FasterRCNN]) -> None:
    network, ours = (model.eval() for model in both)
    theirs = network.roi_heads
    inputs = network.transform.normalize(photographs())
    batch = ImageList(inputs, [(SIDE, SIDE)] * 2)
    with torch.inference_mode():
        maps = network.backbone(inputs)
        proposals, _ = network.rpn(batch, maps)
        logits, offsets = theirs.box_predictor(theirs.box_head(theirs.box_roi_pool(maps, proposals, batch.image_sizes)))
        found = ours(inputs)
    # Regions that RoIPool rounds alike have equal scores: which of two suppresses the other is chance. So before that.
    first = 0
    for index, regions in enumerate(proposals):
        count = len(regions)
        rows = slice(first, first + count)
        first += count
        assert count == COUNTS["proposals"]
        torch.testing.assert_close(found["proposals"][index, :count], regions, atol=1e-3, rtol=0)
        scores = found["scores"][index, :count].softmax(1)
        torch.testing.assert_close(scores, logits[rows].softmax(1), atol=1e-5, rtol=0)
        assert scores.std() > 0.05
        wanted = theirs.box_coder.decode(offsets[rows], [regions])[:, 1:]
        moved = found["offsets"][index, :count].flatten(0, 1)
        decoded = decode(moved, found["proposals"][index, :count].repeat_interleave(5, 0), VARIANCES)
        torch.testing.assert_close(decoded.view(count, 5, 4), wanted, atol=1e-3, rtol=0)
        assert not found["proposals"][index, count:].any()


@pytest.mark.parametrize(
    ("name", "backbone", "message"),
    [
        (EDITIONS[0], "lenet5", "needs maps of stride 8, 16 and 32; the backbone has 1, 2, 4"),
        (EDITIONS[1], "lenet5", "needs maps of stride 8, 16 and 32; the backbone has 1, 2, 4"),
        (EDITIONS[1], "mobilenet_v2", "needs one part from stride 16 to 32; the backbone has more, up to stage7"),
    ],
)
def test_a_backbone_without_its_parts_is_refused(name: str, backbone: str, message: str) -> None:
    with torch.device("meta"), pytest.raises(ModelError, match=f"{name} {message}"):
        create_model(name, 3, backbone=backbone)


@pytest.mark.parametrize("size", [(20, 30), (3, 4), (6, 60)])
def test_pooling_in_exported_graphs_is_torchvision_s(size: tuple[int, int]) -> None:
    """Value for value, of regions of one pixel, of all of the map, and of bins that are empty."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 4, *size, generator=generator)
    height, width = (16.0 * side for side in size)
    ends = torch.rand(2, 200, 2, generator=generator) * torch.tensor([width, height])
    boxes = torch.cat((ends.min(0).values, ends.max(0).values), 1)
    boxes[:3] = torch.tensor([[0, 0, width, height], [width - 1, height - 1, width, height], [8, 8, 24, 24]])
    regions = torch.cat((torch.arange(200.0)[:, None] % 2, boxes), 1)
    assert torch.equal(pooled(maps, regions, 16, 7), roi_pool(maps, regions, 7, 1 / 16))
