"""Frozen TensorFlow graphs as Google's ``protobuf`` writes them: values, layout, and what is refused."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from hubel.errors import WeightsError
from hubel.weights import read_state_dict
from hubel.weights.tensorflow_graph import read_graph

pytest.importorskip("google.protobuf", reason="protobuf, which comes with onnx, writes the graphs")
from tensorflow_graphs import graph_of, tensor_of


def written(content: bytes, folder: Path) -> Path:
    (folder / "frozen_inference_graph.pb").write_bytes(content)
    return folder / "frozen_inference_graph.pb"


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def test_variables_have_torch_s_names_and_layout(tmp_path: Path) -> None:
    kernel, depthwise, scale = numbers(3, 5, 4, 6), numbers(3, 3, 4, 2), numbers(6)
    tensors = {
        "Net/Conv/weights": kernel,
        "Net/Conv/BatchNorm/gamma": tensor_of(scale, one_by_one=True),
        "Net/Conv/BatchNorm/moving_variance": tensor_of(np.full(1, 0.25, np.float32), one_by_one=True),
        "Net/Conv/BatchNorm/batchnorm/add/y": np.float32(1e-3).reshape(()),
        "Net/Conv_depthwise/depthwise_weights": depthwise.astype(np.float64),
        "Net/Conv_depthwise/biases": tensor_of(numbers(8).astype(np.float64), one_by_one=True),
        "Anchors/weights": numbers(4, 4),  # not a kernel
        "Shapes/weights": np.arange(16, dtype=np.int32).reshape(1, 2, 2, 4),
    }
    variance = tensors["Net/Conv/BatchNorm/moving_variance"]
    variance.tensor_shape.dim[0].size = 6  # one number stands for all
    state = read_state_dict(written(graph_of(tensors), tmp_path))
    assert list(state) == [
        "Net/Conv.weight",
        "Net/Conv/BatchNorm.weight",
        "Net/Conv/BatchNorm.running_var",
        "Net/Conv_depthwise.weight",
        "Net/Conv_depthwise.bias",
    ]
    assert all(tensor.dtype == torch.float32 and tensor.is_contiguous() for tensor in state.values())
    assert torch.equal(state["Net/Conv/BatchNorm.weight"], torch.from_numpy(scale))
    assert state["Net/Conv/BatchNorm.running_var"].tolist() == [0.25] * 6
    assert state["Net/Conv_depthwise.bias"].tolist() == numbers(8).tolist()
    # As TensorFlow defines both convolutions: sums over (height, width, in) of the kernel and of the multiplier.
    images = numbers(2, 4, 3, 5)
    expected = np.einsum("nchw,hwco->no", images, kernel)
    found = functional.conv2d(torch.from_numpy(images), state["Net/Conv.weight"])[..., 0, 0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
    images = images[..., :3]
    expected = np.einsum("nchw,hwcm->ncm", images, depthwise).reshape(2, 8)
    found = functional.conv2d(torch.from_numpy(images), state["Net/Conv_depthwise.weight"], groups=4)[..., 0, 0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


SOUND = graph_of({"Net/Conv/weights": numbers(3, 3, 4, 6), "Net/Conv/biases": numbers(6)})


def _with_shape(*shape: int) -> bytes:
    tensor = tensor_of(np.ones(1, np.float32), one_by_one=True)
    tensor.tensor_shape.ClearField("dim")
    for side in shape:
        tensor.tensor_shape.dim.add(size=side)
    return graph_of({"Net/Conv/weights": tensor})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (SOUND[:-200], "is truncated"),
        (b"", "contains no variables"),
        (graph_of({"Anchors/scales": numbers(6)}), "contains no variables"),
        (b"\x0a" + b"\xff" * 12, "is truncated"),  # a length of more than ten bytes
        (b"\x0b\x0c", "is damaged"),  # a group, which no message has had since 2008
        (b"\x0a\x02\x08\x01", "is damaged"),  # a node whose name is a number
        (b"PK\x03\x04" + bytes(40), "is truncated|is damaged"),
        (SOUND + SOUND, "has 'Net/Conv/weights' twice"),
        (_with_shape(3, 3, -1, 4), "no possible shape"),
        (_with_shape(1 << 40, 1), "no possible shape"),
        (_with_shape(30_000, 30_000, 3, 3), "far larger than the file"),
        (_with_shape(*[1] * 9), "far larger than the file"),
        (graph_of({"Net/Conv/weights": tensor_of(numbers(2, 2, 2, 2)[..., :1])}) + b"\x28\x01", ""),
        (b"\x28\x01" * 400_001, "more than 400,000 fields"),
    ],
)
def test_forged_graphs_are_refused_in_bounded_memory(content: bytes, message: str, tmp_path: Path) -> None:
    path = written(content, tmp_path)
    if not message:  # fields that no version of TensorFlow has are skipped
        assert read_graph(path)["Net/Conv.weight"].shape == (1, 2, 2, 2)
        return
    tracemalloc.start()
    with pytest.raises(WeightsError, match=message) as caught:
        read_state_dict(path)
    assert tracemalloc.get_traced_memory()[1] < 60e6
    tracemalloc.stop()
    assert str(path) in caught.value.message and "frozen_inference_graph.pb" in caught.value.hint


def test_a_tensor_of_too_few_bytes_is_refused(tmp_path: Path) -> None:
    tensor = tensor_of(numbers(3, 3, 4, 6))
    tensor.tensor_content = tensor.tensor_content[:-4]
    with pytest.raises(WeightsError, match="a tensor of 216 numbers has 860 bytes"):
        read_graph(written(graph_of({"Net/Conv/weights": tensor}), tmp_path))
    many = {f"Net/Conv_{n}/weights": tensor for n, tensor in enumerate([_filled(4 << 20)] * 5)}
    with pytest.raises(WeightsError, match="far larger than the file"):  # together, not one by one
        read_graph(written(graph_of(many), tmp_path))


def _filled(count: int):
    tensor = tensor_of(np.ones(1, np.float32), one_by_one=True)
    tensor.tensor_shape.dim[0].size = count // 4
    for _ in range(3):
        tensor.tensor_shape.dim.add(size=1)
    return tensor
