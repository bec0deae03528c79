"""LeNet-5 against the paper's figures and a forward pass in plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hubel.errors import ModelError
from hubel.layers.lenet import LENET5_C3
from hubel.models import create_model


def parameters_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_layers_have_the_papers_sizes_and_parameters() -> None:
    model = create_model("lenet5")
    # LeCun et al. 1998, section II.B: maps, side, trainable parameters.
    paper = {
        "c1": (6, 28, 156),
        "s2": (6, 14, 12),
        "c3": (16, 10, 1516),
        "s4": (16, 5, 32),
        "c5": (120, 1, 48120),
    }
    signal = torch.randn(1, 1, 32, 32)
    found = {}
    for name, part in model.backbone.named_children():
        signal = part(signal)
        found[name] = (signal.shape[1], signal.shape[2], parameters_of(part))
    assert found == paper
    assert parameters_of(model.head.f6) == 10164
    assert parameters_of(model.head.classifier) == 0
    assert parameters_of(model) == 60000


def numpy_lenet5(image: np.ndarray, state: dict[str, np.ndarray]) -> np.ndarray:
    """The paper's section II.B, written out once more: image (32, 32) to the ten distances."""
    from scipy.signal import correlate2d

    def squash(a: np.ndarray) -> np.ndarray:
        return 1.7159 * np.tanh(2 / 3 * a)

    def subsample(maps: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        total = maps[:, ::2, ::2] + maps[:, 1::2, ::2] + maps[:, ::2, 1::2] + maps[:, 1::2, 1::2]
        return squash(total * weight[:, None, None] + bias[:, None, None])

    kernels = state["backbone.c1.conv.weight"]
    maps = np.stack([correlate2d(image, kernel[0], "valid") for kernel in kernels])
    maps = squash(maps + state["backbone.c1.conv.bias"][:, None, None])
    maps = subsample(maps, state["backbone.s2.subsampling.weight"], state["backbone.s2.subsampling.bias"])
    ordered = iter(state["backbone.c3.conv.weight"])
    maps = np.stack([sum(correlate2d(maps[i], next(ordered), "valid") for i in sorted(seen)) for seen in LENET5_C3])
    maps = squash(maps + state["backbone.c3.conv.bias"][:, None, None])
    maps = subsample(maps, state["backbone.s4.subsampling.weight"], state["backbone.s4.subsampling.bias"])
    c5 = squash(state["backbone.c5.conv.weight"].reshape(120, -1) @ maps.ravel() + state["backbone.c5.conv.bias"])
    f6 = squash(state["head.f6.linear.weight"] @ c5 + state["head.f6.linear.bias"])
    return ((f6 - state["head.classifier.codes"]) ** 2).sum(1)


def test_scores_equal_the_papers_formulas_in_numpy() -> None:
    model = create_model("lenet5")
    with torch.no_grad():  # larger weights, so that squashing matters
        for parameter in model.parameters():
            parameter.mul_(4)
    state = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    images = torch.randn(3, 1, 32, 32)
    expected = [-numpy_lenet5(image[0].double().numpy(), state) for image in images]
    np.testing.assert_allclose(model(images).detach().numpy(), expected, rtol=1e-4)


def test_weights_start_uniformly_by_the_fan_in() -> None:
    torch.manual_seed(0)
    state = create_model("lenet5").state_dict()
    bounds = {
        "backbone.c1.conv": 2.4 / 25,
        "backbone.s2.subsampling": 2.4 / 4,
        "backbone.s4.subsampling": 2.4 / 4,
        "backbone.c5.conv": 2.4 / 400,
        "head.f6.linear": 2.4 / 120,
    }
    for name, bound in bounds.items():
        assert 0.6 < state[f"{name}.weight"].abs().max().item() / bound <= 1
        assert 0.6 < state[f"{name}.bias"].abs().max().item() / bound <= 1
    kernels = state["backbone.c3.conv.weight"]
    assert 0.9 < kernels[:3].abs().max().item() / (2.4 / 75) <= 1  # the first map sees three
    assert 0.9 < kernels[-6:].abs().max().item() / (2.4 / 150) <= 1  # the last map sees six


def test_modern_reading_equals_a_plain_stack_of_layers() -> None:
    model = create_model("lenet5_modern")
    plain = nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2)),
        *(nn.Conv2d(16, 120, 5), nn.Tanh(), nn.Flatten()),
        *(nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10)),
    )
    for theirs, ours in zip(plain.parameters(), model.parameters(), strict=True):
        theirs.data.copy_(ours.data)
    images = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(model(images), plain(images))
    assert parameters_of(model) == 61706


def test_readings_may_be_mixed() -> None:
    model = create_model("lenet5", subsampling="max", output="linear", activation="relu")
    # 60,000 without the 44 of the subsampling layers, with a linear output of 84 x 10 + 10.
    assert parameters_of(model) == 60000 - 44 + 850
    with pytest.raises(ModelError, match="subsampling='sum'"):
        create_model("lenet5", subsampling="sum")


def test_c5_spans_what_is_left_at_other_sizes() -> None:
    # At 28 pixels S4 has 4 × 4 maps: C5 has 120 × (16 × 16 + 1) parameters.
    model = create_model("lenet5", image_size=28)
    assert parameters_of(model.backbone.c5) == 120 * (16 * 16 + 1)
    assert model(torch.randn(2, 1, 28, 28)).shape == (2, 10)
    with pytest.raises(ModelError, match="15 pixels"):
        create_model("lenet5", image_size=15)


def test_it_learns_real_digits() -> None:
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    digits = load_digits()
    images = torch.from_numpy(digits.images[:600]).float()[:, None] / 8 - 1
    images = nn.functional.interpolate(images, size=(32, 32), mode="bilinear")
    labels = torch.from_numpy(digits.target[:600])
    model = create_model("lenet5")
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(8):
        for chunk in torch.randperm(500).split(50):
            loss = nn.functional.cross_entropy(model(images[chunk]), labels[chunk])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    held_back = model(images[500:]).argmax(1) == labels[500:]
    assert float(held_back.float().mean()) > 0.8
