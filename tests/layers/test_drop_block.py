"""DropBlock against torchvision's, equation 1 of its paper, and its place in YOLOv4 and in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.ops import drop_block2d

import hubel
from hubel import create_model
from hubel.layers.drop_block import DropBlock, block_probability, set_progress
from hubel.models.darknet.layers import module_of
from hubel.weights.darknet_cfg import parse_cfg
from hubel.weights.darknet_layers import layers_of, net_size
from synthetic_shapes import painted


@pytest.mark.parametrize("shape", [(2, 3, 19, 19), (1, 8, 38, 20), (4, 2, 5, 9)])
@pytest.mark.parametrize("side", [1, 3, 7])
def test_it_is_torchvisions_under_the_same_seed(shape: tuple[int, ...], side: int) -> None:
    block = DropBlock(0.1, side)
    maps = torch.rand(shape) + 0.5
    torch.manual_seed(3)
    ours = block(maps)
    torch.manual_seed(3)
    theirs = drop_block2d(maps, 0.1, side)
    assert 0 < float((theirs == 0).float().mean()) < 0.5
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    assert torch.equal(block.eval()(maps), maps)


def test_even_blocks_lie_inside_and_are_whole() -> None:
    torch.manual_seed(0)
    dropped = DropBlock(0.02, 4)(torch.ones(200, 1, 11, 11)) == 0
    # Every zero is in a block of 4 × 4 zeros that lies inside.
    windows = dropped.float().unfold(2, 4, 1).unfold(3, 4, 1).amin((-1, -2))
    covered = nn.functional.max_pool2d(nn.functional.pad(windows, [3, 3, 3, 3]), 4, 1)
    assert dropped.any() and torch.equal(covered > 0, dropped)


def test_its_probability_is_equation_1() -> None:
    """γ = (1 - keep_prob) / block_size² · feat_size² / (feat_size - block_size + 1)²."""
    assert block_probability(0.1, 7, 28, 28) == pytest.approx(0.1 / 49 * 28**2 / 22**2)
    assert block_probability(0.1, 1, 5, 9) == pytest.approx(0.1)  # dropout
    torch.manual_seed(1)
    share = float((DropBlock(0.1, 7)(torch.ones(64, 64, 28, 28)) == 0).float().mean())
    assert 0.085 < share < 0.1  # blocks overlap


def test_it_begins_without_drops_and_keeps_the_mean() -> None:
    block, maps = DropBlock(0.3, 3), torch.rand(8, 16, 20, 20)
    set_progress([block, nn.ReLU()], 0.0)
    assert torch.equal(block(maps), maps)
    shares = []
    for progress in (0.5, 1.0):
        set_progress([block], progress)
        changed = block(maps)
        shares.append(float((changed == 0).float().mean()))
        assert float(changed.mean()) == pytest.approx(float(maps.mean()), rel=0.01)
        assert float(block(maps.bfloat16()).float().mean()) == pytest.approx(float(maps.mean()), rel=0.02)
    assert 0.12 < shares[0] < 0.16 and 0.24 < shares[1] < 0.3


@pytest.mark.parametrize("name", ["yolo_v4_tiny", "yolo_v4"])
def test_it_changes_what_the_scales_of_yolo_v4_learn_from(name: str) -> None:
    """Nothing in evaluation; in training the maps that a scale's last two convolutions read, and the next scale."""
    on = {"backbone": "resnet18", "image_size": 64} if name == "yolo_v4" else {"image_size": 64}
    plain: Any = create_model(name, 2, **on)
    dropping: Any = create_model(name, 2, drop_block=0.5, **on)
    dropping.load_state_dict(plain.state_dict())  # no keys of its own
    images = torch.rand(2, 3, 64, 64)
    plain.eval(), dropping.eval()
    with torch.no_grad():
        assert all(torch.equal(value, dropping(images)[key]) for key, value in plain(images).items())
    seen = []
    for block in dropping.drop_blocks.values():
        block.train().register_forward_hook(lambda *each: seen.append(float((each[2] == 0).float().mean())))
    with torch.no_grad():
        changed = dropping(images)["boxes"]
    assert len(seen) == (2 if name == "yolo_v4_tiny" else 3) and min(seen) > 0.1
    assert not torch.allclose(changed, plain(images)["boxes"], atol=1e-3)


def test_cfgs_can_have_it() -> None:
    text = "[net]\nwidth=40\nheight=20\nchannels=3\n[dropout]\ndropblock=1\nprobability=.2\n{}[convolutional]\n"
    found = []
    for option in ("", "dropblock_size_abs=3\n", "dropblock_size_rel=.25\n"):
        sections = parse_cfg(text.format(option))
        block = module_of(layers_of(sections, net_size(sections[0]))[0])
        assert isinstance(block, DropBlock)
        found.append((block.drop_prob, block.block_size))
    assert found == [(0.2, 7), (0.2, 3), (0.2, 5)]
    plain = parse_cfg("[net]\nwidth=4\nheight=4\n[dropout]\nprobability=.2\n[convolutional]\n")
    assert isinstance(module_of(layers_of(plain, net_size(plain[0]))[0]), nn.Dropout)


def test_training_raises_its_probability_from_step_to_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    painted(tmp_path / "shapes", {"train": 8, "val": 2})
    seen: list[float] = []
    forward = DropBlock.forward

    def watched(self: DropBlock, maps: torch.Tensor) -> torch.Tensor:
        seen.extend([self.progress] * self.training)
        return forward(self, maps)

    monkeypatch.setattr(DropBlock, "forward", watched)
    options: Any = {"model": "yolo_v4_tiny", "weights": None, "options": {"drop_block": 0.1}, "precision": "float32"}
    hubel.train(tmp_path / "shapes", out=tmp_path / "run", image_size=64, batch=4, epochs=2, workers=0, **options)
    assert seen == [0, 0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]  # two maps in each of four steps
