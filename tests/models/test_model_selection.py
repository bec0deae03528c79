"""The choice of a network: the Pareto front, the limits, the plot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from torch import nn
from typer.testing import CliRunner, Result

from hubel.cli.main import app
from hubel.errors import UsageError
from hubel.models.selection import filter_by_limits, pareto_front, with_accuracy
from hubel.weights.key_mapping import rename


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["models", *arguments])


def test_front_holds_the_points_that_are_not_dominated() -> None:
    rng = np.random.default_rng(0)
    costs, values = rng.integers(1, 30, 200), rng.integers(0, 50, 200)

    def beaten(index: int) -> bool:  # the definition: nowhere worse, somewhere better
        nowhere_worse = (costs <= costs[index]) & (values >= values[index])
        return bool((nowhere_worse & ((costs < costs[index]) | (values > values[index]))).any())

    expected = {(costs[i], values[i]) for i in range(200) if not beaten(i)}
    front = pareto_front(costs.tolist(), values.tolist())
    assert {(costs[i], values[i]) for i in front} == expected
    assert len(front) == len(expected)
    assert [costs[i] for i in front] == sorted(costs[i] for i in front)


def test_limits() -> None:
    def row(name: str, top1: float | None, megabytes: float, gmacs: float, milliseconds: float) -> dict[str, Any]:
        costs = {"size_bytes": megabytes * 1e6, "macs": gmacs * 1e9, "ms": {"batch1": milliseconds}}
        weights = [{"top1": top1, "input": [3, 8, 8]}]
        return {"name": name, "task": "classify", "input": [3, 8, 8], "weights": weights, **costs}

    small, cheap_twin = row("small", 0.70, 10, 0.3, 5), row("cheap_twin", 0.80, 40, 2.0, 25)
    dear_twin, unknown = row("dear_twin", 0.80, 40, 4.0, 30), row("unknown", None, 5, 0.1, 1)
    everyone = [unknown, small, dear_twin, cheap_twin]
    assert filter_by_limits(everyone, 30, 40) == [cheap_twin, dear_twin, small, unknown]
    assert filter_by_limits(everyone, 24.9, None) == [small, unknown]
    assert filter_by_limits(everyone, None, 9) == [unknown]
    assert filter_by_limits(everyone, None, 4.9) == []


def test_largest_size_in_the_table() -> None:
    result = _run("--match", "resnet*", "--max-mb", "90", "--json")
    # torchvision's ResNet-34 has 83 MiB of weights and top-1 0.7331; ResNet-18 45 and 0.6976; ResNet-50 98.
    assert [row["name"] for row in json.loads(result.stdout)] == ["resnet34", "resnet18"]
    assert "Best within 90 MB: resnet34 (top-1 0.733, 87.3 MB)." in result.stderr
    nothing = _run("--match", "resnet*", "--max-mb", "1")
    assert nothing.exit_code == 0 and nothing.stdout == ""
    assert "raise the limit" in nothing.stderr


@pytest.mark.parametrize(("task", "megabytes"), [("detect", "15"), ("instances", "200")])
def test_detectors_are_ranked_by_their_published_map(task: str, megabytes: str) -> None:
    """Also where weights have settings of their backbone, as torchvision's on ResNet-50."""
    result = _run("--task", task, "--max-mb", megabytes, "--json")
    assert result.exit_code == 0, result.stderr
    found = [row["weights"][0]["mAP"] if row["weights"] else None for row in json.loads(result.stdout)]
    published = [value for value in found if value is not None]
    assert published and found[: len(published)] == sorted(published, reverse=True)
    assert "(mAP " in result.stderr


def test_accuracy_and_cost_are_of_the_same_images() -> None:
    """torchvision's EfficientNet-B2 takes 288 pixels, the paper's 260; its figure is for the former."""
    (row,) = json.loads(_run("--match", "efficientnet_b2", "--json").stdout)
    (candidate,) = with_accuracy([row])
    published = torchvision.models.EfficientNet_B2_Weights.IMAGENET1K_V1.meta
    assert candidate.accuracy == pytest.approx(published["_metrics"]["ImageNet-1K"]["acc@1"] / 100)
    assert candidate.gmacs == pytest.approx(published["_ops"], rel=0.01)
    assert row["input"] == [3, 260, 260] and row["macs"] / 1e9 < 0.95 * candidate.gmacs


def test_what_is_measured_is_the_network_whose_weights_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's SE-ResNet-101 strides in the first 1×1, where ours has the stride in the 3×3: fewer multiplications."""
    timed: list[nn.Module] = []

    def note(network: nn.Module, *_: object) -> float:
        timed.append(network)
        return 1.0

    monkeypatch.setattr("hubel.models.selection.milliseconds_an_image", note)
    monkeypatch.setattr("hubel.inference.fusion.fuse", lambda model, *_: model.eval())
    (row,) = json.loads(_run("--match", "se_resnet101", "--measure", "--json").stdout)
    assert row["weights"][0]["name"] == "se_resnet101:timm/in1k"
    theirs = timm.create_model("legacy_seresnet101").eval()
    (network, again) = timed
    assert network is again
    network.load_state_dict(rename(theirs.state_dict(), "se_resnet101").state)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(images), theirs(images), atol=1e-4, rtol=1e-4)
    (candidate,) = with_accuracy([row])
    assert candidate.gmacs < 0.98 * row["macs"] / 1e9


def test_longest_time_measures() -> None:
    result = _run("--match", "lenet5", "--max-ms", "60000", "--json")
    (row,) = json.loads(result.stdout)
    assert 0 < row["ms"]["batch1"] < 60_000
    assert set(row["ms"]) == {"batch1"}  # 32 images at a time would take 32 times as long
    assert "batch 1" in _run("--match", "lenet5", "--max-ms", "60000").stdout
    assert json.loads(_run("--match", "lenet5", "--max-ms", "0", "--json").stdout) == []


def test_plot(tmp_path: Path) -> None:
    path = tmp_path / "choice.png"
    result = _run("--match", "resnet*", "--plot", str(path), "--json")
    assert result.exit_code == 0, result.output
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    orange, blue = np.array((0xD5, 0x5E, 0x00)), np.array((0x00, 0x72, 0xB2))
    # All five ResNets lie on a front of their own: each is dearer and better than the last.
    assert (np.abs(pixels.astype(int) - orange).max(1) < 3).sum() > 500
    assert (np.abs(pixels.astype(int) - blue).max(1) < 3).sum() == 0
    without = _run("--match", "lenet*", "--plot", str(path))
    assert isinstance(without.exception, UsageError)
    missing = _run("--match", "resnet*", "--plot", str(tmp_path / "nowhere" / "choice.png"))
    assert "cannot be written" in str(missing.exception)
