"""Darknet's cfgs and weights: bad ones get one line, in bounded memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hubel.errors import ModelError, WeightsError
from hubel.weights import read_state_dict
from hubel.weights.darknet_cfg import classes_of, parse_cfg, read_cfg, task_of, to_text, with_classes
from hubel.weights.darknet_layers import Layer, Shape, layers_of, net_size
from hubel.weights.darknet_weights import in_order, named, read_darknet, write_darknet

NET = "[net]\nwidth=32\nheight=32\nchannels=3\n"
CONV = "[convolutional]\nfilters=8\nsize=3\npad=1\nactivation=leaky\n"
LAST = "[convolutional]\nfilters=14\nactivation=linear\n"
YOLO = "[yolo]\nmask=0,1\nanchors=1,2, 3,4\nclasses=2\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "does not begin with"),
        (CONV, "does not begin with"),
        ("[net]\nwidth\n", "line 2 of the cfg is not NAME=VALUE"),
        (f"{NET}[lstm]\noutput=3\n", r"\[lstm\] in line 5: layers of this kind are unknown; known are conv"),
        (f"{NET}[convolutional]\nactivation=gelu\n", "line 5: activation=gelu is unknown"),
        (f"{NET}[convolutional]\nxnor=1\n", "line 5: xnor=1 is not supported"),
        (NET + 1100 * CONV, "more than 1,000 layers"),
    ],
)
def test_texts_that_are_not_cfgs(text: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        parse_cfg(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{NET}[convolutional]\nfilters=1000000000\n", "filters=1000000000 is not a whole number from 1 to 65,536"),
        (f"{NET}[convolutional]\nfilters=-3\n", "filters=-3 is not"),
        (f"{NET}[convolutional]\nsize=nan\n", "size=nan is not a whole number"),
        (f"{NET}[convolutional]\nfilters={'9' * 5000}\n", r"filters=9{40} is not"),
        (NET.replace("32", "-32") + CONV, "height=-32 is not a whole number from 1 to 8,192"),
        (NET.replace("32", "8192") + CONV, r"its output would have 536,870,912 numbers"),
        (f"{NET}[route]\nlayers=-1\n{CONV}", "layers=-1 are not layers before this one"),
        (f"{NET}{CONV}[route]\nlayers=2\n{CONV}", "layers=2 are not layers before this one"),
        (f"{NET}{CONV}[route]\nlayers=1\n{CONV}", "layers=1 are not layers before this one"),
        (f"{NET}[shortcut]\nfrom=-1\n{CONV}", "are not layers before this one"),
        (f"{NET}{CONV}[route]\nlayers=\n{CONV}", "layers is missing"),
        (f"{NET}{CONV}[maxpool]\nsize=2\nstride=2\n[route]\nlayers=-1,-2\n{CONV}", "different sizes: 16 × 16, 32 × 32"),
        (f"{NET}{CONV}[route]\nlayers=-1\ngroups=3\n{CONV}", "no group 0 of 3"),
        (f"{NET}{CONV}[upsample]\nstride=-2\n{CONV}", "stride=-2 is not"),
        (f"{NET}[convolutional]\nsize=99\n", "its maps would have no pixels"),
        (f"{NET}[convolutional]\ngroups=2\nfilters=4\n", "groups=2 does not divide 3 and 4"),
        (f"{NET}{CONV}[reorg]\nstride=3\n{CONV}", "stride=3 does not divide 8 maps of 32"),
        (f"{NET}[crop]\ncrop_width=33\ncrop_height=3\n{CONV}", "it cuts 33 × 3 out of images of 32 × 32"),
        (f"{NET}{LAST}{YOLO}".replace("14", "15"), "its 2 boxes of 2 classes need 14 channels, and it gets 15"),
        (f"{NET}{LAST}{YOLO}".replace("0,1", "0,2"), "2 anchors, and none of the number 2"),
        (f"{NET}{LAST}{YOLO}".replace("1,2, 3,4", "1,0, 3,4"), "anchors=0 is not a number from 1e-06"),
        (f"{NET}{LAST}{YOLO}".replace("3,4", "3"), "not pairs"),
        (f"{NET}{CONV}[maxpool]\n{YOLO}", "a layer with weights must stand before it"),
        (f"{NET}[connected]\noutput=60000\n[connected]\noutput=60000\n", "more than 1,073,741,824 weights"),
        (f"{NET}[maxpool]\n", "has no layer with weights"),
    ],
)
def test_networks_that_cannot_be(text: str, reason: str) -> None:
    sections = parse_cfg(text)
    with pytest.raises(ModelError, match=reason) as caught:
        layers_of(sections, net_size(sections[0]))
    assert len(caught.value.message) < 300 and caught.value.hint


def test_comments_spaces_and_repeated_options_are_read_as_darknet_reads_them() -> None:
    text = f"{NET}# one\n;two\n[ convolutional ]\n filters = 8 \nfilters=9\nsize=3 # three\n[softmax]"
    sections = parse_cfg(text)
    assert sections[1].options == {"filters": "8", "size": "3"}
    assert parse_cfg(to_text(sections))[1].options == sections[1].options
    assert task_of(sections) == "classify"


def test_another_number_of_classes() -> None:
    sections = with_classes(parse_cfg(f"{NET}{CONV}{LAST}{YOLO}"), 5)
    assert classes_of(sections) == 5 and layers_of(sections, Shape(3, 32, 32))[1].output.channels == 20
    connected = f"{NET}[connected]\noutput=637\n[detection]\nclasses=3\nside=7\nnum=2\n"
    sections = with_classes(parse_cfg(connected), 20)
    assert sections[1].options["output"] == str(7 * 7 * 30)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read as a Darknet cfg"):
        read_cfg(tmp_path / "none.cfg")
    (tmp_path / "binary.cfg").write_bytes(b"\xff\xfe" * 100)
    with pytest.raises(ModelError, match="is not UTF-8"):
        read_cfg(tmp_path / "binary.cfg")
    with (tmp_path / "large.cfg").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ModelError, match="more than the limit"):
        read_cfg(tmp_path / "large.cfg")


def test_headers(tmp_path: Path) -> None:
    """The number of images seen has 64 bits since version 0.2; a version of 1000 and more: dense weights transposed."""
    numbers = np.arange(5, dtype="<f4").tobytes()
    for version, seen, transposed in (((0, 2, 0), 1 << 40, False), ((0, 1, 0), 7, False), ((0, 2000, 0), 9, True)):
        width = "<u4" if version == (0, 1, 0) else "<u8"
        path = tmp_path / "net.weights"
        path.write_bytes(np.array(version, "<i4").tobytes() + np.array([seen], width).tobytes() + numbers)
        found = read_darknet(path)
        assert (found.numbers.tolist(), found.seen, found.transposed) == ([0, 1, 2, 3, 4], seen, transposed)
        assert read_state_dict(path)["flat"].tolist() == [0, 1, 2, 3, 4]


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.weights"
    for content in (b"", b"\0" * 7, b"\0" * 16, b"\0" * 22, b"a text, not numbers" * 9, b"\x89PNG\r\n\x1a\n" * 9):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="truncated or not a Darknet weights file"):
            read_darknet(path)


def test_the_order_of_the_numbers(tmp_path: Path) -> None:
    """pjreddie's parser.c: biases, scales, means, variances before a convolution's weights, after a dense layer's."""
    norm = "batch_normalize=1\n"
    text = (
        f"[net]\nwidth=2\nheight=2\nchannels=1\n[convolutional]\nfilters=2\n{norm}[local]\nfilters=1\nsize=1\n"
        f"[batchnorm]\n[connected]\noutput=2\n{norm}[connected]\noutput=1\n"
    )
    layers = layers_of(parse_cfg(text), Shape(1, 2, 2))
    count = sum(tensor.size for tensor in in_order(named_of_ones(layers), layers))
    write_darknet(tmp_path / "net.weights", [np.arange(count)])
    state = named(read_darknet(tmp_path / "net.weights"), layers, "net.weights")
    starts = {name: tensor.flatten()[0].item() for name, tensor in state.items()}
    conv = ("norm.bias", "norm.weight", "norm.running_mean", "norm.running_var", "conv.weight")
    dense = ("norm.bias", "linear.weight", "norm.weight", "norm.running_mean", "norm.running_var")
    expected = {f"backbone.000_convolutional.{name}": 2 * index for index, name in enumerate(conv)}
    expected |= {"backbone.001_local.bias": 10, "backbone.001_local.weight": 14}
    expected |= {f"backbone.002_batchnorm.{name}": 22 + k for k, name in enumerate(conv[1:4])}
    expected |= dict(zip((f"backbone.003_connected.{name}" for name in dense), (25, 27, 35, 37, 39), strict=True))
    expected |= {"head.004_connected.linear.bias": 41, "head.004_connected.linear.weight": 42}
    assert starts == expected and count == 44
    write_darknet(tmp_path / "again.weights", in_order(state, layers))
    assert (tmp_path / "again.weights").read_bytes() == (tmp_path / "net.weights").read_bytes()


def named_of_ones(layers: list[Layer]) -> dict[str, torch.Tensor]:
    return {f"{layer.part}.{layer.name}.{name}": torch.ones(shape) for layer in layers for name, shape in layer.weights}


def test_transposed_weights(tmp_path: Path) -> None:
    layers = layers_of(parse_cfg("[net]\nwidth=1\nheight=1\nchannels=3\n[connected]\noutput=2\n"), Shape(3, 1, 1))
    path = tmp_path / "net.weights"
    path.write_bytes(np.array([0, 1001, 0, 0, 0], "<i4").tobytes() + np.arange(8, dtype="<f4").tobytes())
    state = named(read_darknet(path), layers, "net.weights")
    assert state["head.000_connected.linear.weight"].tolist() == [[2, 4, 6], [3, 5, 7]]
    flipped = "[net]\nwidth=1\nheight=1\nchannels=3\n[convolutional]\nfilters=2\nflipped=1\n"
    layers = layers_of(parse_cfg(flipped), Shape(3, 1, 1))
    write_darknet(path, [np.arange(8)])
    state = named(read_darknet(path), layers, "net.weights")
    assert state["head.000_convolutional.conv.weight"].flatten(1).tolist() == [[2, 4, 6], [3, 5, 7]]
    write_darknet(tmp_path / "again.weights", in_order(state, layers))
    assert (tmp_path / "again.weights").read_bytes() == path.read_bytes()


def test_weights_of_another_cfg_and_damaged_ones(tmp_path: Path) -> None:
    layers = layers_of(parse_cfg(f"{NET}{CONV}"), Shape(3, 32, 32))
    path = tmp_path / "net.weights"
    for count in (223, 225):
        write_darknet(path, [np.zeros(count)])
        with pytest.raises(WeightsError, match=rf"net.weights has {count} numbers, and the network 224"):
            named(read_darknet(path), layers, str(path))
    write_darknet(path, [np.full(224, np.nan)])
    with pytest.raises(WeightsError, match="not finite, in layer 0"):
        named(read_darknet(path), layers, str(path))
