"""Compound scaling: the paper's figures, the published sizes that follow, the grid search on a data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from typer.testing import CliRunner

from hubel.cli.main import app
from hubel.errors import ModelError, UsageError
from hubel.models import create_model
from hubel.training.compound_scaling import CompoundScaling, candidates, scale, search


def test_the_papers_coefficients_double_the_cost() -> None:
    # Tan and Le 2019, section 3.3: α = 1.2, β = 1.1, γ = 1.15 under α · β² · γ² ≈ 2.
    one, three = CompoundScaling(1), CompoundScaling(3)
    assert (one.depth, one.width, one.resolution) == pytest.approx((1.2, 1.1, 1.15))
    assert one.flops_factor == pytest.approx(1.2 * 1.21 * 1.3225, abs=1e-4)
    assert (three.depth, three.width, three.resolution) == pytest.approx((1.728, 1.331, 1.520875))


def test_scaled_networks_are_the_published_ones() -> None:
    # EfficientNet-Lite2 and 3 were published with the factors (1.1, 1.2) and (1.2, 1.4): 6.09 M and 8.20 M parameters.
    assert scale("efficientnet_lite0", CompoundScaling(1)).parameters == 6_092_072
    assert scale("efficientnet_lite0", CompoundScaling(2)).parameters == 8_197_096
    assert scale("efficientnet_lite0", CompoundScaling(0)).growth == 1


def test_image_size_and_real_growth() -> None:
    only_resolution = scale("efficientnet_lite0", CompoundScaling(1, alpha=1, beta=1, gamma=2**0.5))
    assert only_resolution.image_size == 317 and only_resolution.options == {}
    assert only_resolution.growth == pytest.approx(2, rel=0.05)
    only_width = scale("efficientnet_lite0", CompoundScaling(2, alpha=1, beta=2**0.5, gamma=1))
    assert only_width.options == {"width": pytest.approx(2)}
    # Four times where both sides of a product widen; stem and top do not.
    assert 3 < only_width.growth < 4


def test_depths_of_stages_are_rounded_up() -> None:
    deeper = scale("resnet18", CompoundScaling(1, alpha=1.5, beta=1, gamma=1))
    assert deeper.options == {"depths": (3, 3, 3, 3)}
    assert scale("densenet121", CompoundScaling(1, alpha=1, beta=1.5, gamma=1)).options == {"growth": 48}


def test_channels_stay_multiples_that_groups_divide() -> None:
    wider = scale("alexnet", CompoundScaling(1, alpha=1, beta=1.2, gamma=1))
    assert wider.options == {"channels": (112, 304, 464, 464, 304)}  # 115.2, 307.2, 460.8 to the nearest eight


def test_a_resnet_twice_as_wide() -> None:
    # Convolutions see and give twice the channels, but for the image's three; the dense layer sees 1024.
    wide = scale("resnet18", CompoundScaling(1, alpha=1, beta=2, gamma=1))
    convolutions, first, norms = 11_166_912, 7 * 7 * 3 * 64, 9_600
    assert wide.parameters == 4 * (convolutions - first) + 2 * first + 2 * norms + 1024 * 1000 + 1000


def parameters_of(name: str, **options: object) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in create_model(name, **options).parameters())


@pytest.mark.parametrize(("width", "depth"), [(1.0, 1.4), (1.1, 1.2), (1.4, 1.0)])
def test_a_scaled_mobilenet_is_timms(width: float, depth: float) -> None:
    with torch.device("meta"):
        theirs = timm.models.efficientnet._gen_mobilenet_v2("mobilenetv2_100", width, depth)
    expected = sum(parameter.numel() for parameter in theirs.parameters())
    assert parameters_of("mobilenet_v2", width=width, depth=depth) == expected


def counted_xception(factor: int, middle: int) -> int:
    """By the paper's figure 5: convolutions and two numbers of each normalization, and the classifier."""
    c32, c64, c128, c256, c728, c1024, c1536, c2048 = (
        factor * width for width in (32, 64, 128, 256, 728, 1024, 1536, 2048)
    )
    separable = [(c64, c128), (c128, c128), (c128, c256), (c256, c256), (c256, c728), (c728, c728)]
    separable += [(c728, c728)] * (3 * middle + 1) + [(c728, c1024), (c1024, c1536), (c1536, c2048)]
    shortcuts = [(c64, c128), (c128, c256), (c256, c728), (c728, c1024)]
    stem = 9 * 3 * c32 + 2 * c32 + 9 * c32 * c64 + 2 * c64
    mixed = sum(before * after + 2 * after for before, after in (*separable, *shortcuts))
    return stem + mixed + sum(9 * before for before, _ in separable) + c2048 * 1000 + 1000


def test_a_scaled_xception_by_hand() -> None:
    assert counted_xception(1, 8) == parameters_of("xception") == 22_855_952
    assert counted_xception(2, 12) == parameters_of("xception", width=2, depth=1.5)


def counted_darknet(width: float, depth: int) -> int:
    """By the table of CSPDarknet53, whose channels are all multiples of 8 at half the width too."""
    rows = [(1, 32, 64, 64), (2, 64, 64, 128), (8, 128, 128, 256), (8, 256, 256, 512), (4, 512, 512, 1024)]
    before = int(32 * width)
    total = 9 * 3 * before + 2 * before
    for units, *channels in rows:
        narrow, part, out = (int(width * each) for each in channels)
        total += 9 * before * out + 2 * out + out * 2 * part + 4 * part
        total += depth * units * (part * narrow + 2 * narrow + 9 * narrow * part + 2 * part)
        total += part * part + 2 * part + 2 * part * out + 2 * out
        before = out
    return total + before * 1000 + 1000


def test_a_scaled_darknet_by_hand() -> None:
    assert counted_darknet(1, 1) == parameters_of("cspdarknet53") == 27_642_184
    assert counted_darknet(0.5, 2) == parameters_of("cspdarknet53", width=0.5, depth=2)


def test_deeper_mobilenets_by_hand() -> None:
    first = [(64, 1), (128, 2), (256, 2), (512, 6), (1024, 2)]  # channels and units of each stage of the first
    more = sum(units * (9 * c + 2 * c + c * c + 2 * c) for c, units in first)
    assert parameters_of("mobilenet_v1", depth=2) == parameters_of("mobilenet_v1") + more
    # Table 2 of the third: kernel, channels within and out, those of squeeze and excitation, units of each stage.
    third = [(3, 16, 16, 8, 1), (3, 88, 24, 0, 2), (5, 240, 40, 64, 3), (5, 144, 48, 40, 2), (5, 576, 96, 144, 3)]
    more = 0
    for kernel, wide, out, squeezed, units in third:
        widens = out * wide + 2 * wide if wide != out else 0
        gate = 2 * wide * squeezed + squeezed + wide if squeezed else 0
        more += units * (widens + kernel**2 * wide + 2 * wide + gate + wide * out + 2 * out)
    assert parameters_of("mobilenet_v3_small", depth=2) == parameters_of("mobilenet_v3_small") + more
    with torch.device("meta"):  # what comes on top keeps the size
        model = create_model("mobilenet_v3_small", depth=2)
        assert model.features(torch.zeros(1, 3, 64, 64))[32].shape == (1, 576, 2, 2)


def test_what_cannot_be_scaled_is_reported() -> None:
    with pytest.raises(ModelError, match="lenet5 cannot be scaled in width") as caught:
        scale("lenet5", CompoundScaling(1))
    assert "efficientnet_lite0" in caught.value.hint
    with pytest.raises(UsageError, match="would be infinite"):
        candidates(step=0)
    with pytest.raises(UsageError, match="smaller step"):
        candidates(step=0.7, tolerance=0.001)


def test_the_grid_holds_the_papers_point_and_keeps_the_constraint() -> None:
    grid = candidates(step=0.05)
    assert (1.2, 1.1, 1.15) in {(point.alpha, point.beta, point.gamma) for point in grid}
    assert all(1.9 <= point.alpha * point.beta**2 * point.gamma**2 <= 2.1 for point in grid)
    assert len(candidates(step=0.1, tolerance=0.02)) == len(
        [
            1
            for a in range(10, 21)
            for b in range(10, 21)
            for c in range(10, 21)
            if abs(a * b * b * c * c - 200_000) <= 2_000
        ]
    )


def test_what_cannot_be_scaled_stays_in_the_grid() -> None:
    for name, deeper, wider in (("alexnet", False, True), ("lenet5", False, False), ("resnet18", True, True)):
        grid = candidates(step=0.1, baseline=name)
        assert any(point.alpha > 1 for point in grid) is deeper
        assert any(point.beta > 1 for point in grid) is wider
        assert any(point.gamma > 1 for point in grid)
        assert all(scale(name, point).growth > 1 for point in grid[:3])


def test_scaling_of_other_images_than_the_papers() -> None:
    small = scale("efficientnet_lite0", CompoundScaling(1), image_size=96)
    assert small.image_size == 110 and small.parameters == 6_092_072
    assert small.multiplications < scale("efficientnet_lite0", CompoundScaling(1)).multiplications / 4


@pytest.mark.slow
def test_search_trains_ranks_and_resumes(shapes: Path, tmp_path: Path) -> None:
    grid = (CompoundScaling(1, 1.0, 1.0, 1.4), CompoundScaling(1, 2.0, 1.0, 1.0))
    settings = {"epochs": 1, "workers": 0, "batch": 64}
    seen = []
    trials = search("efficientnet_lite0", shapes, grid, tmp_path, 32, seen.append, **settings)
    assert len(trials) == len(seen) == 2
    assert trials[0].top1 >= trials[1].top1
    for trial in trials:
        metrics = (trial.folder / "metrics.csv").read_text().splitlines()
        assert len(metrics) == 2
    sizes = {
        trial.network.scaling.gamma: json.loads((trial.folder / "best" / "model.json").read_text()) for trial in trials
    }
    assert sizes[1.4]["image_size"] == 45 and sizes[1.0]["image_size"] == 32
    assert sizes[1.0]["options"] == {"depth": 2.0}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/checkpoint.pt")}
    again = search("efficientnet_lite0", shapes, grid, tmp_path, 32, **settings)
    assert [trial.top1 for trial in again] == [trial.top1 for trial in trials]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/checkpoint.pt")} == before


def test_command() -> None:
    shown = CliRunner().invoke(app, ["scale", "efficientnet_lite0", "--phi", "1", "--json"])
    assert shown.exit_code == 0, shown.output
    (row,) = json.loads(shown.stdout)
    assert row["parameters"] == 6_092_072 and row["options"]["depth"] == pytest.approx(1.2)
    table = CliRunner().invoke(app, ["scale", "efficientnet_lite0"])
    assert table.exit_code == 0 and "6.09" in table.stdout
    refused = CliRunner().invoke(app, ["scale", "efficientnet_lite0", "--search", "flowers", "--alpha", "1"])
    assert refused.exit_code == 2 and "--alpha" in refused.stderr
