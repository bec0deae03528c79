"""Darknet's networks layer by layer, as OpenCV's dnn module and Debian's libdarknet compute them."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from darknet_judges import CFGS, by_libdarknet, by_opencv, images, random_weights, resized
from hubel.inference.fusion import fuse
from hubel.models import architecture, create_model, list_models
from hubel.models.darknet.graph import Graph
from hubel.models.darknet.layers import Ramp
from hubel.weights.darknet_cfg import Section, parse_cfg, read_cfg, to_text
from hubel.weights.darknet_layers import Shape, layers_of, net_size
from hubel.weights.darknet_weights import named, read_darknet

# Name, side of the images, layers that are left out at the end (a softmax of random numbers is 0 or 1).
CLASSIFIERS = (
    ("alexnet", 227, 1),
    ("darknet19", 64, 1),
    ("darknet53", 64, 1),
    ("darknet9000", 64, 2),
    ("densenet201", 64, 1),
    ("extraction", 64, 1),
    ("go", 19, 0),
    ("resnet50", 64, 1),
    ("resnext50", 64, 1),
    ("strided", 256, 1),
)
DETECTORS = (
    ("yolov1", 128, 1),
    ("yolov1-tiny", 128, 1),
    ("yolov2", 64, 1),
    ("yolov2-tiny-voc", 64, 1),
    ("yolo9000", 64, 1),
)
LARGE = (
    *("yolov1", "yolov2", "strided", "alexnet", "darknet53", "darknet9000"),
    *("densenet201", "extraction", "resnet50", "resnext50"),
)


def forward(sections: list[Section], folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (1, C, H, W), and what the last layer gives for them with random weights, which are in ``folder``."""
    layers = layers_of(sections, net_size(sections[0]))
    (folder / "net.cfg").write_text(to_text(sections))
    random_weights(layers, folder / "net.weights")
    graph = Graph(layers)
    backbone, head = graph.modules()
    model = torch.nn.ModuleDict({"backbone": backbone, "head": head}).eval()
    found = model.load_state_dict(named(read_darknet(folder / "net.weights"), layers, "net.weights"), strict=False)
    assert not found.unexpected_keys and all("num_batches_tracked" in key for key in found.missing_keys)
    given = images(layers[0])
    with torch.no_grad():
        last = len(layers) - 1
        return given, graph.run([torch.from_numpy(given)], backbone, head, [last])[last].numpy()


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal to a ten-thousandth of the largest number, which is neither 0 nor the same everywhere."""
    assert ours.std() > 0.01 * np.abs(ours).max() > 0
    assert np.abs(ours.ravel() - theirs.ravel()).max() <= 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize(
    ("name", "side", "without"),
    [pytest.param(*row, marks=pytest.mark.slow if row[0] in LARGE else []) for row in (*CLASSIFIERS, *DETECTORS)],
)
def test_layers_are_libdarknets(name: str, side: int, without: int, tmp_path: Path) -> None:
    """The layers before a head, and classifiers before their softmax, of Debian's cfgs."""
    if not CFGS.is_dir():
        pytest.skip("needs Debian's cfgs and libdarknet: apt-get install darknet")
    sections = resized(read_cfg(CFGS / f"{name}.cfg"), side)
    given, ours = forward(sections[: len(sections) - without], tmp_path)
    assert_close(ours, by_libdarknet(tmp_path / "net.cfg", tmp_path / "net.weights", given[0], ours.size))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if "tiny" in name or name == "yolo_v4_csp" else pytest.mark.slow)
        for name in list_models("detect", "yolo_v[234]*")
    ],
)
def test_boxes_and_scores_are_opencvs(name: str, tmp_path: Path) -> None:
    """Whole detectors: OpenCV gives centres and sizes as fractions of the image, objectness, scores."""
    sections = resized(parse_cfg(architecture(name).config.cfg), 64)
    layers = layers_of(sections, net_size(sections[0]))
    random_weights(layers, tmp_path / "net.weights", gain=0.8)
    text = to_text(sections)
    (tmp_path / "net.cfg").write_text(text)
    model: Any = create_model(name, cfg=text, weights=tmp_path / "net.weights").eval()
    given = images(layers[0])
    theirs = np.concatenate(
        [each.reshape(-1, 85) for each in by_opencv(tmp_path / "net.cfg", tmp_path / "net.weights", given, tmp_path)]
    )
    with torch.no_grad():
        for network in (model, fuse(model, torch.device("cpu"), torch.float32)):
            found = model.predictions(network(torch.from_numpy(given)), (64, 64))
            boxes, scores = found["boxes"][0].numpy(), found["scores"][0].numpy()
            x1, y1, x2, y2 = boxes.T / 64
            ours = np.stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), 1)
            sizes = ours[:, 2:] / theirs[:, 2:4]  # of all magnitudes
            assert np.abs(ours[:, :2] - theirs[:, :2]).max() < 1e-4 and np.abs(sizes - 1).max() < 1e-3
            kept = theirs[:, 5:] > 0  # of boxes in regions OpenCV suppresses some
            assert np.abs(scores - theirs[:, 5:])[kept].max() < 1e-4 and kept.mean() > (0.1 if "v2" in name else 0.99)
            assert ours[:, :2].std() > 0.1 and np.log(ours[:, 2:]).std() > 0.1 and scores.std() > 1e-3


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("yolo_v3", "yolov3"),
        ("yolo_v3_spp", "yolov3-spp"),
        ("yolo_v3_tiny", "yolov3-tiny"),
        ("yolo_9000", "yolo9000"),
    ],
)
def test_our_cfgs_are_the_published_ones(name: str, file: str) -> None:
    if not CFGS.is_dir():
        pytest.skip("needs Debian's cfgs: apt-get install darknet")
    ours, theirs = parse_cfg(architecture(name).config.cfg), read_cfg(CFGS / f"{file}.cfg")
    mine, others = (layers_of(each, net_size(each[0])) for each in (ours, theirs))
    facts = ("sources", "given", "output", "stride", "weights")
    assert [[getattr(each, fact) for fact in facts] for each in mine] == [
        [getattr(each, fact) for fact in facts] for each in others
    ]
    for one, other in zip(ours, theirs, strict=True):
        numbers = {"mask", "anchors", "ignore_thresh", "size", "stride", "width", "height"} & set(one.options)
        assert [one.numbers(option) for option in numbers] == [other.numbers(option) for option in numbers]
        words = {"activation"} & set(one.options)
        assert [one.options[option] for option in words] == [other.options[option] for option in words]


def test_the_reference_network_has_the_parameters_of_its_layers() -> None:
    channels = (3, 16, 32, 64, 128, 256, 512, 1024)
    body = sum(9 * one * other + 2 * other for one, other in pairwise(channels))
    model = create_model("darknet_classifier")
    assert sum(parameter.numel() for parameter in model.parameters()) == body + 1025 * 1000


def test_reorg_by_hand() -> None:
    """Four maps of 2 × 2 read as one of 4 × 4, which is taken apart into every second row and column."""
    layers = layers_of(
        parse_cfg("[net]\nwidth=2\nheight=2\nchannels=4\n[reorg]\nstride=2\n[connected]\n"), Shape(4, 2, 2)
    )
    backbone, head = Graph(layers[:1]).modules()
    maps = torch.arange(16.0).view(1, 4, 2, 2)
    assert backbone[0](maps).flatten().tolist() == [0, 2, 8, 10, 1, 3, 9, 11, 4, 6, 12, 14, 5, 7, 13, 15]
    assert len(head) == 0


def test_sums_of_maps_of_other_shapes_by_hand() -> None:
    """As many channels as both have; larger maps give every second pixel, smaller ones are added to every second."""
    first = "[net]\nwidth=4\nheight=4\nchannels=2\n[convolutional]\nfilters=3\nactivation=linear\n"
    pooled = f"{first}[maxpool]\nsize=2\nstride=2\n[route]\nlayers=0\n[shortcut]\nfrom=-2\nactivation=linear\n"
    larger = f"{first}[maxpool]\nsize=2\nstride=2\n[shortcut]\nfrom=-2\nactivation=leaky\n"
    big = torch.arange(48.0).view(1, 3, 4, 4)
    small = torch.full((1, 3, 2, 2), -100.0)
    for text, index, own, other in ((pooled, 3, big, small), (larger, 2, small, big)):
        layers = layers_of([*parse_cfg(text), *parse_cfg("[net]\n[connected]\n")[1:]], Shape(2, 4, 4))
        backbone, _ = Graph(layers).modules()
        given = backbone.get_submodule(layers[index].name)(own, other)
        expected = own.clone()
        if own is big:
            expected[:, :, ::2, ::2] += other
        else:
            expected = torch.nn.functional.leaky_relu(own + other[:, :, ::2, ::2], 0.1)
        assert torch.equal(given, expected)


def test_activations_by_hand() -> None:
    x = torch.tensor([-2.0, -0.5, 0.0, 3.0])
    assert Ramp()(x).tolist() == pytest.approx([-0.2, -0.05, 0, 3.3])
    text = "[net]\nwidth=1\nheight=1\nchannels=1\n" + "".join(
        f"[convolutional]\nactivation={name}\n" for name in ("mish", "swish", "logistic")
    )
    backbone, head = Graph(layers_of(parse_cfg(text), Shape(1, 1, 1))).modules()
    found = [float(unit.get_submodule("activation")(x)[3]) for unit in (*backbone, *head.values())]
    assert found == pytest.approx(
        [3 * math.tanh(math.log1p(math.exp(3))), 3 / (1 + math.exp(-3)), 1 / (1 + math.exp(-3))]
    )
