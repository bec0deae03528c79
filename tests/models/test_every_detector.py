"""One sweep: the same demands on every registered detector. SSD on torchvision's weights is in test_ssd.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from hubel.errors import ModelError
from hubel.models import ModelMetadata, architecture, create_model, describe, list_models, load_model, save_model
from hubel.models.base import Detector
from hubel.models.factory import build
from published_figures import PUBLISHED as CLASSIFIERS

# VGG-16 takes seconds for an image; YOLOs that are not tiny have sixty million parameters each;
# of EfficientDet the smallest is enough, of Faster and Mask R-CNN the default.
LARGE = (
    "*vgg*",
    "*rcnn_resnet50*",
    "fasterrcnn_mobilenet*",
    "yolo_v[34]",
    "yolo_v3_spp",
    "yolo_v4_csp",
    "efficientdet_d[1-7]",
)
ALL = (*list_models("detect"), *list_models("instances"))
NAMES = [
    pytest.param(name, marks=pytest.mark.slow if any(fnmatch(name, pattern) for pattern in LARGE) else [])
    for name in ALL
]


def _convolution(kernel: int, *channels: int) -> int:
    """Weights and biases of convolutions from one number of channels to the next."""
    return sum(kernel**2 * one * other + other for one, other in pairwise(channels))


def _light(kernel: int, before: int, after: int) -> int:
    """A 1×1 or depthwise convolution without biases, and its normalization."""
    return (kernel**2 if kernel > 1 else before) * after + 2 * after


def _ssd512_vgg16(scores: int) -> int:
    """Liu et al., section 3 and the layers of VGG-16 in table 1 of arXiv 1409.1556."""
    stages = ((3, 64, 64), (64, 128, 128), (128, 256, 256, 256), (256, *3 * (512,)), (512, *3 * (512,)))
    vgg = sum(_convolution(3, *stage) for stage in stages) + _convolution(3, 512, 1024) + _convolution(1, 1024, 1024)
    extras = _convolution(1, 1024, 256) + _convolution(3, 256, 512)
    for before, kernel in ((512, 3), (256, 3), (256, 3), (256, 4)):
        extras += _convolution(1, before, 128) + _convolution(kernel, 128, 256)
    maps = ((512, 4), (1024, 6), (512, 6), (256, 6), (256, 6), (256, 4), (256, 4))
    heads = sum(_convolution(3, channels, boxes * each) for channels, boxes in maps for each in (4, scores))
    return vgg + 512 + extras + heads


def _ssd_on_lite0(scores: int) -> int:
    """EfficientNet-Lite0 up to its last unit (320 maps), three extra maps, six boxes a cell."""
    lite0 = CLASSIFIERS["efficientnet_lite0"].parameters - _light(1, 320, 1280) - _convolution(1, 1280, 1000)
    extras = 0
    for before, after in ((320, 256), (256, 256), (256, 128)):
        extras += _light(1, before, after // 2) + _light(3, 1, after // 2) + _light(1, after // 2, after)
    maps = (40, 112, 320, 256, 256, 128)
    heads = sum(
        _light(3, 1, channels) + _convolution(1, channels, 6 * each) for channels in maps for each in (4, scores)
    )
    return lite0 + extras + heads


def _ssd300_mobilenet_v2(scores: int) -> int:
    """MobileNet-v2 without its dense layer, four extra maps; three boxes a cell of the first map, six of the others."""
    body = CLASSIFIERS["mobilenet_v2"].parameters - _convolution(1, 1280, 1000)
    for before, narrow, after in ((1280, 256, 512), (512, 128, 256), (256, 128, 256), (256, 64, 128)):
        body += _light(1, before, narrow) + _light(3, 1, narrow) + _light(1, narrow, after)
    maps = ((576, 3), (1280, 6), (512, 6), (256, 6), (256, 6), (128, 6))
    return body + sum(_convolution(3, channels, boxes * each) for channels, boxes in maps for each in (4, scores))


def _windows_on_lite0(scores: int) -> int:
    """EfficientNet-Lite0 without its dense layer; 128 maps, of which each window reads 4 × 4 places."""
    lite0 = CLASSIFIERS["efficientnet_lite0"].parameters - _convolution(1, 1280, 1000)
    return lite0 + _convolution(1, 1280, 128) + _convolution(4, 128, scores) + _convolution(4, 128, 4)


def _yolo_v3_tiny(classes: int) -> int:
    """The thirteen convolutions of Darknet's yolov3-tiny.cfg; each but the last two with normalization."""
    stages = (3, 16, 32, 64, 128, 256, 512, 1024)
    body = sum(9 * one * other + 2 * other for one, other in pairwise(stages))
    body += _light(1, 1024, 256) + 9 * 256 * 512 + 2 * 512 + _light(1, 256, 128) + 9 * (128 + 256) * 256 + 2 * 256
    return body + _convolution(1, 512, 3 * (5 + classes)) + _convolution(1, 256, 3 * (5 + classes))


def _yolo_v1(classes: int) -> int:
    """Figure 3 of the paper, whose convolutions have no normalization."""
    body = 49 * 3 * 64 + 64 + _convolution(3, 64, 192)
    pairs = [(192, 128, 256), (256, 256, 512), *4 * [(512, 256, 512)], (512, 512, 1024), *2 * [(1024, 512, 1024)]]
    body += sum(_convolution(1, before, narrow) + _convolution(3, narrow, after) for before, narrow, after in pairs)
    head = _convolution(3, *5 * (1024,))
    return body + head + _convolution(7, 1024, 4096) + _convolution(1, 4096, 49 * (10 + classes))


def _yolo_v1_tiny(classes: int) -> int:
    """The layers of Darknet's yolov1-tiny.cfg: eight convolutions with normalization, one dense layer."""
    channels = (3, 16, 32, 64, 128, 256, 512, 1024, 256)
    body = sum(9 * one * other + 2 * other for one, other in pairwise(channels))
    return body + _convolution(7, 256, 49 * (10 + classes))


def _yolo_v2(classes: int) -> int:
    """Darknet-19 (table 6 of the paper) without its last layer, two 3×3, the passthrough, one 3×3 and five boxes."""
    body = _normalized(3, 3, 32, 64) + sum(_pair(2 * narrow) for narrow in (64, 128))
    body += _normalized(3, 64, 128) + _normalized(3, 128, 256) + _normalized(3, 256, 512) + 2 * _pair(512)
    body += _normalized(3, 512, 1024) + 2 * _pair(1024) + 2 * _normalized(3, 1024, 1024) + _normalized(1, 512, 64)
    return body + _normalized(3, 1024 + 4 * 64, 1024) + _convolution(1, 1024, 5 * (5 + classes))


def _normalized(kernel: int, *channels: int) -> int:
    """Convolutions without biases, each with its normalization."""
    return sum(kernel**2 * one * other + 2 * other for one, other in pairwise(channels))


def _pair(channels: int) -> int:
    """1×1 to half the channels, and back by 3×3."""
    return _normalized(1, channels, channels // 2) + _normalized(3, channels // 2, channels)


def _yolo_9000(classes: int) -> int:
    """Darknet-19 without its last layer, and three boxes."""
    body = _normalized(3, 3, 32, 64) + sum(_pair(2 * narrow) for narrow in (64, 128))
    body += _normalized(3, 64, 128) + _normalized(3, 128, 256) + _normalized(3, 256, 512) + 2 * _pair(512)
    return body + _normalized(3, 512, 1024) + 2 * _pair(1024) + _convolution(1, 1024, 3 * (5 + classes))


def _yolo_v2_tiny(classes: int) -> int:
    """The layers of Darknet's yolov2-tiny.cfg."""
    return _normalized(3, 3, 16, 32, 64, 128, 256, 512, 1024, 512) + _convolution(1, 512, 5 * (5 + classes))


def _one_stage_on_lite0(classes: int) -> int:
    """EfficientNet-Lite0 as for SSD; all else has 96 maps, and depthwise convolutions without normalization."""
    lite0 = CLASSIFIERS["efficientnet_lite0"].parameters - _light(1, 320, 1280) - _convolution(1, 1280, 1000)
    separable = {kernel: kernel**2 * 96 + _light(1, 96, 96) for kernel in (3, 5)}
    neck = sum(_light(1, channels, 96) for channels in (40, 112, 320))
    neck += 2 * separable[5] + 4 * (_light(1, 2 * 96, 96) + separable[5])
    heads = 3 * (2 * 2 * separable[3] + _convolution(1, 96, classes) + _convolution(1, 96, 4 * 17))
    return lite0 + neck + heads


def _faster_rcnn_on_lite0(classes: int) -> int:
    """EfficientNet-Lite0 as for SSD; a pyramid of 128 maps, the first stage, two dense layers of 512 and the last."""
    body = CLASSIFIERS["efficientnet_lite0"].parameters - _light(1, 320, 1280) - _convolution(1, 1280, 1000)
    pyramid = sum(_convolution(1, channels, 128) + _convolution(3, 128, 128) for channels in (40, 112, 320))
    first = _convolution(3, 128, 128) + _convolution(1, 128, 3) + _convolution(1, 128, 3 * 4)
    second = _convolution(7, 128, 512) + _convolution(1, 512, 512)
    return body + pyramid + first + second + _convolution(1, 512, 1 + classes) + _convolution(1, 512, 4 * classes)


def _faster_rcnn_of_the_paper(channels: int, backbone: int) -> int:
    """Up to the proposals: the first stage has nine anchors a cell."""
    return backbone + _convolution(3, channels, channels) + _convolution(1, channels, 9 * 5)


def _mask_head(channels: int, classes: int) -> int:
    """Section 3 of arXiv 1703.06870: four convolutions, a transposed one of 2 × 2, and one of 1 × 1."""
    return _convolution(3, *5 * [channels]) + _convolution(2, channels, channels) + _convolution(1, channels, classes)


def _torchvision_rcnn(published: int, uncounted: int = 0) -> int:
    """``meta["num_params"]`` of its weights: without frozen normalizations, and with offsets for background."""
    return published + uncounted - _convolution(1, 1024, 4)


def _darknet(file_bytes: int, normalized: int, *read: int) -> int:
    """Of a published ``.weights`` file for 80 classes: without its header and the normalized maps' running averages.

    The last layers read ``read`` maps, and have three boxes of ten more classes each.
    """
    return (file_bytes - 20) // 4 - 2 * normalized + sum(30 * (maps + 1) for maps in read)


# effdet's tf_efficientdet_d0 to d7, without the biases in front of normalizations (test_efficientdet.py).
_EFFICIENTDET = (3_877_763, 6_622_026, 8_091_215, 12_022_376, 20_707_995, 33_633_155, 51_841_062, 51_841_062)

PARAMETERS = {
    **{f"efficientdet_d{number}": count for number, count in enumerate(_EFFICIENTDET)},
    "faster_rcnn": _faster_rcnn_on_lite0(90),
    "fasterrcnn_vgg16": _faster_rcnn_of_the_paper(512, 14_714_688)
    + _convolution(7, 512, 4096)
    + _convolution(1, 4096, 4096)
    + _convolution(1, 4096, 91 + 4 * 90),
    # ResNet-50 without its dense layer
    "fasterrcnn_resnet50_c4": _faster_rcnn_of_the_paper(1024, 23_508_032) + _convolution(1, 2048, 91 + 4 * 90),
    "fasterrcnn_resnet50_fpn": _torchvision_rcnn(41_755_286, 53_120),
    "fasterrcnn_resnet50_fpn_v2": _torchvision_rcnn(43_712_278),
    "fasterrcnn_mobilenet_v3_large_fpn": _torchvision_rcnn(19_386_354, 24_400),
    "fasterrcnn_mobilenet_v3_large_320_fpn": _torchvision_rcnn(19_386_354, 24_400),
    "mask_rcnn": _faster_rcnn_on_lite0(90) + _mask_head(128, 90),
    # torchvision has a mask of background, too
    "maskrcnn_resnet50_fpn": _torchvision_rcnn(44_401_393, 53_120) - _convolution(1, 256, 1),
    "maskrcnn_resnet50_fpn_v2": _torchvision_rcnn(46_359_409) - _convolution(1, 256, 1),
    "one_stage": _one_stage_on_lite0(90),
    "sliding_window": _windows_on_lite0(91),
    "ssd": _ssd_on_lite0(91),
    "ssd300_mobilenet_v2": _ssd300_mobilenet_v2(91),
    "ssd300_vgg16": 35_641_826,  # torchvision, SSD300_VGG16_Weights.COCO_V1.meta["num_params"]
    "ssd512_vgg16": _ssd512_vgg16(91),
    "ssdlite320_mobilenet_v3_large": 3_440_060,  # torchvision, likewise
    "yolo_v1": _yolo_v1(90),
    "yolo_v1_tiny": _yolo_v1_tiny(90),
    "yolo_9000": _yolo_9000(90),
    "yolo_v2": _yolo_v2(90),
    "yolo_v2_tiny": _yolo_v2_tiny(90),
    "yolo_v3": _darknet(248_007_048, 26_304, 1024, 512, 256),
    "yolo_v3_spp": _darknet(252_209_544, 26_816, 1024, 512, 256),
    "yolo_v3_tiny": _yolo_v3_tiny(90),
    "yolo_v4": _darknet(257_717_640, 33_152, 1024, 512, 256),
    "yolo_v4_csp": _darknet(211_944_840, 32_384, 1024, 512, 256),
    "yolo_v4_tiny": _darknet(24_251_276, 3_104, 512, 256),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def side(name: str) -> int:
    """Of the smallest images that the sweep gives it: the last maps of SSD on VGG have no padding."""
    return architecture(name).input[1] if fnmatch(name, "ssd*vgg*") else 128 if "yolo_v1" in name else 96


def larger_by(name: str) -> int:
    """Pixels that images may be larger than those that it was made for; 0 where dense layers fix their size."""
    if "yolo_v1" in name:
        return 0
    return 64 if "yolo" in name else 37  # YOLO: multiples of its largest stride


def detector(name: str, **given: int) -> Detector:
    torch.manual_seed(0)
    model = create_model(name, **{"num_classes": 7, "image_size": side(name), **given})
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as if it had been trained
            module.running_var.uniform_(0.5, 2)
            if "efficientdet" in name:
                module.momentum = 1.0
    if "efficientdet" in name:  # its first weights are so small that signals need statistics that fit
        with torch.no_grad():
            model.train()(images(name, 8, given.get("in_channels", 3)))
    return model


def images(name: str, count: int = 2, channels: int = 3, larger: int = 0) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(count, channels, side(name) + larger, side(name) + larger)


def test_parameters_are_as_published() -> None:
    assert set(PARAMETERS) == set(ALL)
    for name, published in PARAMETERS.items():
        row = architecture(name)
        with torch.device("meta"):
            model = build(row, 90, *row.input[:2], {}, for_loading=True)
        assert sum(parameter.numel() for parameter in model.parameters()) == published, name


def test_depth_counts_the_layers_on_the_longest_path() -> None:
    for name in ALL:
        row = architecture(name)
        with torch.device("meta"):
            model = build(row, 1, *row.input[:2], {}, for_loading=True)
        body = [
            key
            for key, module in model.named_modules()
            if isinstance(module, nn.Conv2d) and not key.startswith("head.") and ".squeeze." not in key
        ]
        head = model.head
        if "yolo" in name:  # the layers of the cfg with weights, those beside the longest path among them
            layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
            assert row.depth == len(layers), name
            continue
        if "rcnn" in name:  # one convolution to the pyramid, if there is one, and one in it, both stages, masks
            pyramid = 0 if isinstance(model.pyramid, nn.Identity) else 2
            own = [key for key in body if key.startswith("backbone.") and ".shortcut." not in key]
            both = len(model.first_stage.convs) + 1 + len(head.convs) + len(head.dense) + 1
            masks = len(model.mask_head.convs) + 2 if row.task == "instances" else 0
            assert row.depth == len(own) + pyramid + both + masks, name
            continue
        if name == "sliding_window":
            predictors = (head.reader, head.classifier)
        elif "efficientdet" in name:
            predictors = (head.classifier,)
            # A layer of the pyramid leads from P6 to P3 and back to P7; projections of finer maps enter on the way.
            body = [key for key in body if not (key.startswith("pyramid.") and ".project." in key)]
        else:
            predictors = (head.classifiers[0],)
        if name == "one_stage":
            predictors = (head.class_towers[0], *predictors)
        predictor = [module for each in predictors for module in each.modules() if isinstance(module, nn.Conv2d)]
        beside = 2 if name == "one_stage" else 0  # maps of stride 8 and 16 enter the neck further on
        assert row.depth == len(body) - beside + len(predictor), name


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_alike_in_training_and_evaluation(name: str) -> None:
    model = detector(name)
    for larger in {0, larger_by(name)}:
        batch = images(name, larger=larger)
        size = (batch.shape[2], batch.shape[3])
        with torch.no_grad():
            shapes = []
            for mode in (True, False):
                outputs = model.train(mode)(batch)
                shapes.append({key: output.shape for key, output in outputs.items()})
                assert all(bool(output.isfinite().all()) for output in outputs.values())
            assert shapes[0] == shapes[1]
            found, alone = model.predictions(outputs, size), model(batch[:1])
        anchors = found["boxes"].shape[1]
        assert (found["boxes"].shape, found["scores"].shape) == ((2, anchors, 4), (2, anchors, 7))
        rows = {anchors}
        if "proposals" in outputs:
            rows |= {len(model.anchors(*size)), outputs["proposals"].shape[1]}
            assert all(area.tolist() == [0, 0, *size] for area in outputs.get("areas", ()))
        assert all(len(output) == 2 and output.shape[1] in rows for key, output in outputs.items() if key != "areas")
        if "masks" in found:
            assert found["masks"].shape == (2, anchors, 28, 28)
            assert 0 <= float(found["masks"].min()) < float(found["masks"].max()) <= 1
        assert float(found["scores"].min()) >= 0 and float(found["scores"].max()) <= 1
        for key, output in alone.items():
            # Untrained, the maps of a hundred layers grow; so do their rounding errors.
            rounding = max(1e-4, 1e-5 * float(output.abs().max()))
            torch.testing.assert_close(output[0], outputs[key][0], rtol=1e-3, atol=rounding)
        assert not torch.allclose(outputs["scores"][0], outputs["scores"][1])


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("name", NAMES)
def test_other_numbers_of_channels(name: str, channels: int) -> None:
    model = detector(name, in_channels=channels).eval()
    batch = images(name, 1, channels).repeat(channels + 1, 1, 1, 1)
    for channel in range(channels):
        batch[channel + 1, channel] += 1
    with torch.no_grad():
        scores = model(batch)["scores"]
    # Each channel counts, and each in its own way.
    assert len({tuple(row.flatten().tolist()) for row in scores}) == channels + 1


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name: str) -> None:
    model = detector(name).train()
    outputs = model(images(name, 3, larger=0 if "vgg" in name or not larger_by(name) else 64))
    floats = [output for output in outputs.values() if output.is_floating_point()]
    sum((output * torch.randn_like(output)).sum() for output in floats).backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_model_gives_the_same_outputs(name: str, tmp_path: Path) -> None:
    model = detector(name).eval()
    metadata = replace(describe(model), classes=[f"class {number}" for number in range(7)])
    save_model(tmp_path / "saved", model, metadata)
    again, card_again = load_model(tmp_path / "saved")
    assert (card_again, metadata.task, again.training) == (metadata, architecture(name).task, False)
    batch = images(name, 1)
    with torch.no_grad():
        ours, expected = again(batch), model(batch)
    assert ours.keys() == expected.keys() and all(torch.equal(ours[name], expected[name]) for name in ours)


@pytest.mark.parametrize("name", NAMES)
def test_exported_graph_equals_the_model(name: str) -> None:
    model, batch = detector(name).eval(), images(name)
    dynamic = ({0: torch.export.Dim("batch", min=1, max=64)},)
    exported = torch.export.export(model, (batch,), dynamic_shapes=dynamic).module()
    with torch.no_grad():
        for given in (batch, images(name, 3)):
            torch.testing.assert_close(exported(given), model(given), rtol=1e-4, atol=1e-5)


def test_any_classifier_with_the_maps_is_a_backbone(tmp_path: Path) -> None:
    """Its options are those that its weights need, and a saved model is built with them again."""
    torch.manual_seed(0)
    classifier = create_model("mobilenet_v2", norm_eps=1e-5)
    torch.save(classifier.state_dict(), tmp_path / "own.pth")
    model = create_model("ssd", 2, in_channels=1, backbone=f"mobilenet_v2:{tmp_path / 'own.pth'}").eval()
    kernel = classifier.backbone.stem.conv.weight
    torch.testing.assert_close(model.backbone.stem.conv.weight, kernel.sum(1, keepdim=True))
    for name, tensor in model.backbone.state_dict().items():
        if name != "stem.conv.weight":
            assert torch.equal(tensor, classifier.backbone.state_dict()[name]), name
    save_model(tmp_path / "saved", model, describe(model))
    again, metadata = load_model(tmp_path / "saved")
    assert metadata.backbone is not None and metadata.backbone.architecture == "mobilenet_v2"
    batch = torch.rand(1, 1, 96, 96)
    assert torch.equal(again(batch)["scores"], model(batch)["scores"])


def test_pretrained_backbones_bring_their_preprocessing_and_settings() -> None:
    model = create_model("ssd", 3, backbone="efficientnet_lite0:default")
    lite0 = create_model("efficientnet_lite0", weights="default")
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, lite0.backbone.state_dict()[name]), name
    metadata = describe(model)
    ready = metadata.preprocessing
    assert (ready.height, ready.resize, ready.mean, ready.std) == (320, "stretch", (127.0,) * 3, (128.0,) * 3)
    assert metadata.backbone is not None and metadata.backbone.weights == "efficientnet_lite0:google/IMAGENET1K"


def test_another_number_of_classes_leaves_the_class_scores_of_one_stage_fresh(tmp_path: Path) -> None:
    first = detector("one_stage")
    torch.save(first.state_dict(), tmp_path / "own.pth")
    assert create_model("one_stage", weights=tmp_path / "own.pth").num_classes == 7
    second = create_model("one_stage", 2, weights=tmp_path / "own.pth")
    fresh = {key for key, tensor in second.state_dict().items() if not torch.equal(tensor, first.state_dict()[key])}
    assert fresh == {f"head.classifiers.{n}.{part}" for n in range(3) for part in ("weight", "bias")}


@pytest.mark.parametrize("name", ["ssd", "ssdlite320_mobilenet_v3_large"])
def test_another_number_of_classes_leaves_what_tells_them_apart_fresh(name: str, tmp_path: Path) -> None:
    first = detector(name)
    torch.save(first.state_dict(), tmp_path / "own.pth")
    assert create_model(name, weights=tmp_path / "own.pth").num_classes == 7
    second = create_model(name, 2, weights=tmp_path / "own.pth")
    fresh = {key for key, tensor in second.state_dict().items() if not torch.equal(tensor, first.state_dict()[key])}
    maps = len(second.head.classifiers)
    # Biases begin at 0 in both, but there are fewer of them.
    expected = {f"head.classifiers.{n}.pointwise.{part}" for n in range(maps) for part in ("weight", "bias")}
    assert fresh == expected
    assert second.head.classifiers[0].pointwise.weight.std().item() == pytest.approx(0.03, rel=0.1)


def test_what_cannot_be_a_backbone_is_refused() -> None:
    with pytest.raises(ModelError, match="ssd300_vgg16 does not accept a backbone: it has its own"):
        create_model("ssd300_vgg16", backbone="resnet18")
    with pytest.raises(ModelError, match="ssd300_vgg16 cannot be a backbone"):
        create_model("ssd", backbone="ssd300_vgg16")
    for name in ("ssd", "one_stage"):
        with pytest.raises(ModelError, match=f"{name} needs maps of stride 8, 16 and 32"):
            create_model(name, backbone="lenet5")
    with pytest.raises(ModelError, match="unknown architecture 'resnet'"):
        create_model("ssd", backbone="resnet")


def test_cards_without_a_backbone_are_as_earlier_versions_write_them(tmp_path: Path) -> None:
    metadata = describe(create_model("simple_cnn"))
    assert "backbone" not in metadata.to_json()
    assert ModelMetadata.from_json(metadata.to_json()) == metadata
    row = describe(detector("ssd")).to_json()
    for damaged in ("resnet18", {"name": "resnet18"}, {"architecture": "resnet18", "size": 3}):
        with pytest.raises(ModelError, match="backbone"):
            ModelMetadata.from_json({**json.loads(json.dumps(row)), "backbone": damaged})
