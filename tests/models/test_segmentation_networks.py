"""Networks for segmentation: judged by torchvision's, torchfcn's, and by what the papers' layers are."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score
from torch import nn
from torch.nn import functional

from hubel.errors import WeightsError
from hubel.layers.aspp import dilate
from hubel.layers.bilinear import BilinearUpsample2d
from hubel.models import architecture, create_model
from hubel.models.segmentation.fcn import FCNConfig, build_on
from hubel.models.segmentation.losses import dice, hardest_cross_entropy, lovasz_softmax
from hubel.models.stages import load_stage

PARAMETERS = {"fcn32s": 136_152_917, "fcn16s": 134_815_994, "fcn8s": 134_489_759}


@pytest.mark.parametrize("factor", [2, 3, 8, 16, 31, 32])
@pytest.mark.parametrize("grouped", [True, False])
def test_transposed_convolutions_begin_as_interpolation(factor: int, grouped: bool) -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 4, 5)
    layer = BilinearUpsample2d(3, factor, grouped)
    # Beside the maps there are zeros; interpolation repeats the border instead.
    with torch.no_grad():
        found = layer(functional.pad(maps, (1, 1, 1, 1), mode="replicate"))[:, :, factor:-factor, factor:-factor]
    expected = functional.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_papers_networks_have_the_published_parameters(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=21, backbone="vgg16")
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


def _torchfcn() -> Path:
    folder = Path(os.environ.get("HUBEL_TORCHFCN", "torchfcn-1.9.7"))
    if not (folder / "torchfcn" / "models" / "fcn8s.py").is_file():
        pytest.skip("HUBEL_TORCHFCN is not the folder of torchfcn 1.9.7's source distribution")
    return folder / "torchfcn"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "theirs", "at_once"),
    [
        ("fcn32s", "FCN32s", True),
        ("fcn16s", "FCN16s", False),
        ("fcn8s", "FCN8sAtOnce", True),
        ("fcn8s", "FCN8s", False),
    ],
)
def test_logits_are_torchfcns(
    name: str, theirs: str, at_once: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _torchfcn()
    packages = {"fcn": [], "torchfcn": [str(folder)], "torchfcn.models": [str(folder / "models")]}
    for package, paths in packages.items():  # without their downloader, and without running the packages' own imports
        module = types.ModuleType(package)
        module.__path__ = paths
        monkeypatch.setitem(sys.modules, package, module)
    network = getattr(__import__(f"torchfcn.models.{name}", fromlist=[theirs]), theirs)(21).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for key, tensor in network.named_parameters():
            if "up" not in key:
                nn.init.normal_(tensor, std=(2 / max(1, tensor[0].numel())) ** 0.5 if tensor.ndim > 1 else 0.01)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    ours = create_model(name, weights=tmp_path / "weights.pth", backbone="vgg16", at_once=at_once).eval()
    image = torch.randn(1, 3, 61, 90)
    with torch.no_grad():
        expected, found = network(image), ours(image)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def _beside_zeros(scores: torch.Tensor, factor: int, cropped: bool) -> torch.Tensor:
    """Bilinear interpolation, to where it fades into zeros beside the maps; ``cropped``: to the maps' own border."""
    larger = functional.interpolate(functional.pad(scores, (1,) * 4), scale_factor=factor, mode="bilinear")
    cut = factor if cropped else factor // 2
    return larger[:, :, cut:-cut, cut:-cut]


def test_a_stage_begins_with_the_enlarged_scores_of_the_one_before() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 96, 64)
    before = create_model("fcn32s", num_classes=3, backbone="resnet18", at_once=False).eval()
    for name in ("fcn16s", "fcn8s"):
        for key, tensor in before.named_parameters():
            if "classifier" in key:  # as if they had learned something
                nn.init.normal_(tensor)
        model = create_model(name, num_classes=3, backbone="resnet18", at_once=False).eval()
        load_stage(model, before.state_dict(), architecture(name).stages, "before")
        with torch.no_grad():
            scores, found = before(images), model(images)
        assert scores.abs().max() > 1
        torch.testing.assert_close(found, _beside_zeros(scores, 2, cropped=True), atol=1e-5, rtol=0)
        before = model


def test_a_stage_of_the_papers_network_begins_with_scores_that_are_enlarged_in_one_step_more() -> None:
    torch.manual_seed(0)
    images = torch.randn(1, 3, 40, 53)

    def built(stride: int) -> nn.Module:
        source = create_model("vgg11", num_classes=1, image_size=224, width=0.125)
        return build_on(FCNConfig(stride, at_once=False), 3, source).eval()

    models = [built(stride) for stride in (32, 16, 8)]
    nn.init.normal_(models[0].head.classifier.weight)
    # What the last upsampling has learned stays behind: the next one enlarges by less.
    nn.init.normal_(models[0].head.upsamplings[0].weight)
    for name, before, model in zip(("fcn16s", "fcn8s"), models, models[1:], strict=False):
        load_stage(model, before.state_dict(), architecture(name).stages, "before")
    head = models[0].head
    with torch.no_grad():
        # The padding of Long et al.'s published networks: 100 pixels, of which the first convolution adds one.
        coarse = head.classifier(head.layers(models[0].features(functional.pad(images, (99,) * 4))[32]))
        for model, factors, start in zip(models[1:], ((2, 16), (2, 2, 8)), (27, 31), strict=True):
            expected = coarse
            for factor in factors:
                expected = _beside_zeros(expected, factor, cropped=False)
            expected = expected[:, :, start : start + 40, start : start + 53]
            assert expected.abs().max() > 0.01
            torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=1e-5)


def test_a_stage_takes_all_weights_of_the_one_before_or_none() -> None:
    model, before = (create_model(name, num_classes=3, backbone="resnet18") for name in ("fcn16s", "fcn32s"))
    stages, state = architecture("fcn16s").stages, before.state_dict()
    for key in ("backbone.stem.conv.weight", "head.classifier.bias"):
        with pytest.raises(WeightsError, match=f"misses {key}"):
            load_stage(model, {name: tensor for name, tensor in state.items() if name != key}, stages, "before")
    with pytest.raises(WeightsError, match="unknown head.more"):
        load_stage(model, {**state, "head.more": torch.zeros(1)}, stages, "before")
    with pytest.raises(WeightsError, match=r"other shapes: head\.classifier"):
        load_stage(model, create_model("fcn32s", num_classes=4, backbone="resnet18").state_dict(), stages, "before")


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "fcn_resnet50", "deeplabv3_resnet50"])
def test_logits_are_torchvisions(name: str, tmp_path: Path) -> None:
    from torchvision.models import segmentation

    torch.manual_seed(0)
    extra = {} if name.startswith("lraspp") else {"aux_loss": True}
    theirs = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=21, **extra).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.6)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = create_model(name, weights=tmp_path / "weights.pth").eval()
    image = torch.randn(1, 3, 49, 72)
    with torch.no_grad():
        expected, outputs = theirs(image), ours.training_outputs(image)
    found = (
        {"out": outputs} if isinstance(outputs, torch.Tensor) else dict(out=outputs["scores"], aux=outputs["auxiliary"])
    )
    assert found.keys() == expected.keys()
    for key, scores in found.items():
        scores = functional.interpolate(scores, (49, 72), mode="bilinear", align_corners=False)
        torch.testing.assert_close(scores, expected[key], atol=1e-4, rtol=1e-5)


def test_without_strides_every_second_position_is_as_with_them() -> None:
    torch.manual_seed(0)
    plain, dense = (create_model("resnet18").eval() for _ in range(2))
    dense.load_state_dict(plain.state_dict())
    dilate([dense.backbone.stage4])
    images = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        coarse, fine = plain.features(images)[32], dense.features(images)[32]
    assert fine.shape[2:] == (6, 8) and coarse.shape[2:] == (3, 4)
    torch.testing.assert_close(fine[:, :, ::2, ::2], coarse)


@pytest.mark.parametrize("name", ["unet", "deeplabv3plus", "fcn8s"])
def test_any_backbone_and_any_size(name: str) -> None:
    model = create_model(name, num_classes=4, backbone="mobilenet_v2").eval()
    for size in ((64, 96), (65, 91)):
        with torch.no_grad():
            found = model.predictions(model(torch.randn(1, 3, *size)), size)["class_map"]
        assert found.shape == (1, *size) and found.max() < 4


def test_lovasz_of_decisions_is_the_complement_of_the_iou() -> None:
    rng = np.random.default_rng(0)
    truth, decided = rng.integers(0, 4, (2, 9, 11)), rng.integers(0, 4, (2, 9, 11))
    truth[:, 0] = 255
    scores = 1e4 * functional.one_hot(torch.from_numpy(decided), 4).permute(0, 3, 1, 2).float()
    counted = truth != 255
    iou = jaccard_score(truth[counted], decided[counted], average=None, labels=range(4))
    assert float(lovasz_softmax(scores, torch.from_numpy(truth), 255)) == pytest.approx(1 - iou.mean(), abs=1e-6)
    # Of decisions Σp² is the number of decided pixels: Dice is then 2 IoU / (1 + IoU).
    expected = 1 - (2 * iou / (1 + iou)).mean()
    assert float(dice(scores, torch.from_numpy(truth), 255)) == pytest.approx(expected, abs=1e-6)


def test_hard_pixels_are_those_of_small_probability_or_the_hardest_sixteenth() -> None:
    torch.manual_seed(0)
    truth = torch.randint(0, 3, (1, 8, 8))
    truth[:, :2] = 255
    for spread in (0.1, 40.0):  # nearly all pixels are hard; nearly none
        scores = spread * functional.one_hot(truth.clamp(max=2), 3).permute(0, 3, 1, 2) + torch.rand(1, 3, 8, 8)
        each = -scores.log_softmax(1).gather(1, truth.clamp(max=2)[:, None])[:, 0][truth != 255]
        hard = each[each > -np.log(0.7)]
        expected = hard.mean() if len(hard) > 3 else each.sort(descending=True).values[:3].mean()  # 48 pixels / 16
        torch.testing.assert_close(hardest_cross_entropy(scores, truth, 255), expected)


def test_nothing_that_counts_gives_no_loss() -> None:
    scores = torch.randn(1, 3, 4, 4, requires_grad=True)
    void = torch.full((1, 4, 4), 255)
    for loss in (dice, lovasz_softmax, hardest_cross_entropy):
        value = loss(scores, void, 255)
        value.backward()
        assert float(value.detach()) == 0
