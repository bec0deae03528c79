"""Networks for super-resolution: the papers' counts, and the same outputs as plain functions of the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from hubel.errors import ModelError
from hubel.models import create_model, describe, list_models
from hubel.models.super_resolution.enlarger import EnlargedTargets, luma

NAMES = list_models("super-resolve")


def seeded(name: str, **options: Any) -> Any:
    """A network in which every weight counts."""
    torch.manual_seed(0)
    model = create_model(name, **options).eval()
    for key, tensor in model.state_dict().items():
        if key.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif key.startswith("head.") and tensor.ndim > 1:
            tensor.normal_(std=0.05)
        elif tensor.is_floating_point() and "activation" not in key and tensor.ndim == 1:
            tensor.normal_(std=0.1)
    return model


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_fsrcnn_has_the_weights_of_its_table(scale: int) -> None:
    model = create_model(f"fsrcnn_x{scale}")
    assert sum(p.numel() for p in model.parameters() if p.ndim > 1) == 12_464  # table 1: FSRCNN (56, 12, 4)
    small = create_model(f"fsrcnn_x{scale}", features=32, shrunk=5, mappings=1)
    assert sum(p.numel() for p in small.parameters() if p.ndim > 1) == 3_937  # FSRCNN-s (32, 5, 1)


def test_srresnet_has_the_layers_of_figure_4() -> None:
    stem, block = 81 * 3 * 64 + 64 + 1, 2 * (9 * 64 * 64 + 2 * 64) + 1
    after, enlarge, last = 9 * 64 * 64 + 2 * 64, 9 * 64 * 256 + 256 + 1, 81 * 64 * 3 + 3
    model = create_model("srresnet_x4")
    assert sum(p.numel() for p in model.parameters()) == stem + 16 * block + after + 2 * enlarge + last == 1_547_350


def fsrcnn(w: dict[str, Tensor], x: Tensor, scale: int) -> Tensor:
    for part in ("extract", "shrink", "map1", "map2", "map3", "map4", "expand"):
        weight = w[f"backbone.{part}.conv.weight"]
        x = F.conv2d(x, weight, w[f"backbone.{part}.conv.bias"], padding=weight.shape[2] // 2)
        x = F.prelu(x, w[f"backbone.{part}.activation.weight"])
    # A transposed convolution as its definition: s - 1 zeros between the pixels, then a convolution.
    stretched = torch.zeros(*x.shape[:2], scale * x.shape[2], scale * x.shape[3])
    stretched[:, :, ::scale, ::scale] = x
    return F.conv2d(stretched, w["head.weight"].transpose(0, 1).flip(2, 3), w["head.bias"], padding=4)


def espcn(w: dict[str, Tensor], x: Tensor, scale: int) -> Tensor:
    x = torch.tanh(F.conv2d(x, w["backbone.conv1.conv.weight"], w["backbone.conv1.conv.bias"], padding=2))
    x = torch.tanh(F.conv2d(x, w["backbone.conv2.conv.weight"], w["backbone.conv2.conv.bias"], padding=1))
    x = F.conv2d(x, w["head.conv.weight"], w["head.conv.bias"], padding=1)
    return F.pixel_shuffle(x, scale)


def srresnet(w: dict[str, Tensor], x: Tensor, scale: int) -> Tensor:
    def conv(key: str, x: Tensor) -> Tensor:
        norm = key.replace("conv.", "norm.")
        x = F.conv2d(x, w[f"{key}weight"], padding=1)
        stats = (w[f"{norm}running_mean"], w[f"{norm}running_var"], w[f"{norm}weight"], w[f"{norm}bias"])
        return F.batch_norm(x, *stats)

    stem = "backbone.stem."
    x = F.conv2d(x, w[f"{stem}conv.weight"], w[f"{stem}conv.bias"], padding=4)
    first = x = F.prelu(x, w[f"{stem}activation.weight"])
    for number in range(16):
        block = f"backbone.trunk.blocks.{number}."
        inner = F.prelu(conv(f"{block}conv1.conv.", x), w[f"{block}conv1.activation.weight"])
        x = x + conv(f"{block}conv2.conv.", inner)
    x = first + conv("backbone.trunk.last.conv.", x)
    for number in (1, 2):
        key = f"head.enlarge{number}.conv."
        x = F.pixel_shuffle(F.conv2d(x, w[f"{key}weight"], w[f"{key}bias"], padding=1), 2)
        x = F.prelu(x, w[f"head.activation{number}.weight"])
    return F.conv2d(x, w["head.last.weight"], w["head.last.bias"], padding=4)


BY_HAND = {"fsrcnn": fsrcnn, "espcn": espcn, "srresnet": srresnet}


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_those_of_plain_functions(name: str) -> None:
    family, scale = name.split("_x")[0], int(name[-1])
    paper, ours = seeded(name, residual=False), seeded(name)
    images = torch.rand(2, 3, 15, 18)
    seen = images if family == "srresnet" else luma(images)
    with torch.no_grad():
        expected = BY_HAND[family](paper.state_dict(), seen, scale)
        found, residual = paper(images), ours(images)
        # Luma networks are compared by their Y; the other channels are bicubic's.
        if family != "srresnet":
            assert expected.shape == (2, 1, 15 * scale, 18 * scale)
            torch.testing.assert_close(luma(found), expected, rtol=1e-4, atol=1e-4)
            found, residual = luma(found), luma(residual)
            images = luma(images)
        else:
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        inside = (..., slice(8, -8), slice(8, -8))
        for image, given, change in zip(images, residual, found, strict=True):
            size = (18 * scale, 15 * scale)
            pillow = [Image.fromarray(c.numpy()).resize(size, Image.Resampling.BICUBIC) for c in image]
            bicubic = torch.from_numpy(np.stack(list(map(np.asarray, pillow))))
            torch.testing.assert_close((given - change)[inside], bicubic[inside], rtol=1e-4, atol=1e-4)


def test_colours_of_luma_networks_are_interpolated() -> None:
    model = seeded("fsrcnn_x2")
    images = torch.rand(1, 3, 16, 16) * 0.5 + 0.25
    with torch.no_grad():
        enlarged = model(images)
    # Cb and Cr as Pillow computes them from pixels of 0..255, full range.
    for weights in ((-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312)):
        chroma = lambda x: sum(w * x[:, i] for i, w in enumerate(weights))  # noqa: B023, E731
        expected = Image.fromarray(chroma(images)[0].numpy()).resize((32, 32), Image.Resampling.BICUBIC)
        inside = slice(4, -4)
        found = chroma(enlarged)[0].numpy()[inside, inside]
        np.testing.assert_allclose(found, np.asarray(expected)[inside, inside], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_margin_is_what_a_pixel_depends_on(name: str) -> None:
    model, scale = seeded(name, **({"blocks": 1} if "srresnet" in name else {})).double(), int(name[-1])
    margin = describe(model).preprocessing.margin
    side = 2 * margin + 3
    images = torch.rand(1, 3, side, side, requires_grad=True, dtype=torch.float64)
    middle = margin + 1
    block = model(images)[0, :, middle * scale : (middle + 1) * scale, middle * scale : (middle + 1) * scale]
    (gradient,) = torch.autograd.grad(block.square().sum(), images)
    reached = gradient.abs().sum((0, 1)).nonzero()
    assert int((reached - middle).abs().max()) <= margin
    assert int((reached - middle).abs().max()) >= margin - 2  # no larger than needed, but for rounding


def test_losses_are_torchs_of_the_luma_within_the_border() -> None:
    model = seeded("fsrcnn_x3")
    outputs, truth = torch.rand(2, 3, 12, 15), torch.rand(2, 3, 12, 15)
    model.loss_weights = {"l1": 2.0, "charbonnier": 1.0, "mse": 3.0}
    found = model.losses(outputs, EnlargedTargets(truth))
    y = [
        16 / 255 + torch.einsum("nchw,c->nhw", x, torch.tensor([65.481, 128.553, 24.966]) / 255)
        for x in (outputs, truth)
    ]
    one, other = (each[:, 3:-3, 3:-3] for each in y)
    torch.testing.assert_close(found["l1"], 2 * F.l1_loss(one, other))
    torch.testing.assert_close(found["mse"], 3 * F.mse_loss(one, other))
    torch.testing.assert_close(found["charbonnier"], F.l1_loss(one, other), rtol=1e-3, atol=1e-4)


def test_it_starts_as_bicubic_interpolation() -> None:
    for name in ("fsrcnn_x2", "espcn_x3", "srresnet_x4"):
        torch.manual_seed(0)
        model = create_model(name).eval()
        images = torch.rand(1, 3, 20, 20)
        with torch.no_grad():
            assert (model(images) - model.bicubic(images)).abs().max() < 0.1


def test_other_channels_are_refused() -> None:
    assert create_model("fsrcnn_x2", in_channels=1)(torch.rand(1, 1, 9, 9)).shape == (1, 1, 18, 18)
    with pytest.raises(ModelError, match="images of 4 channels"):
        create_model("srresnet_x4", in_channels=4)
