"""Activations recomputed instead of kept: the same gradients and statistics, less memory, told."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from test_train import QUICK, learned
from torch import nn

from hubel.analysis.memory_advice import Memory
from hubel.models import create_model
from hubel.models.base import ClassificationHead, Classifier
from hubel.training.activation_checkpointing import needs_checkpointing, step_memory
from hubel.training.finetune import TrainableTop, enter_training_mode, freeze_below
from hubel.training.train import train


@pytest.mark.parametrize(
    ("name", "batch_norm"), [("resnet18", "train"), ("resnet18", "frozen"), ("googlenet_bn", "train")]
)
def test_gradients_and_statistics_are_the_same(name: str, batch_norm: str) -> None:
    """Two steps, with dropout; the second would see what a doubled update of the statistics had left."""
    torch.manual_seed(0)
    models = [create_model(name, num_classes=3, image_size=64, dropout=0.3)]
    models.append(copy.deepcopy(models[0]))
    for model, recompute in zip(models, (False, True), strict=True):
        assert isinstance(model, Classifier)
        freeze_below(model, "0.8")
        upper = TrainableTop(model, 0, recompute)
        enter_training_mode(upper, batch_norm)
        torch.manual_seed(1)
        images = torch.randn(4, 3, 64, 64)
        for _ in range(2):
            outputs = upper(images)
            outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs.values()
            sum(scores.square().sum() for scores in outputs).backward()
    for (key, plain), again in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        assert (plain.grad is None) == (again.grad is None), key
        assert plain.grad is None or torch.equal(plain.grad, again.grad), key
    for (key, buffer), again in zip(models[0].named_buffers(), models[1].buffers(), strict=True):
        assert torch.equal(buffer, again), key


def test_less_is_kept_for_the_backward_pass() -> None:
    """Bytes that torch itself keeps, each piece of memory once."""
    model = create_model("resnet18", num_classes=3, image_size=64)
    assert isinstance(model, Classifier)
    kept: dict[bool, int] = {}
    own = {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    for recompute in (False, True):
        pieces: dict[int, torch.Tensor] = {}

        def note(tensor: torch.Tensor, pieces: dict[int, torch.Tensor] = pieces) -> torch.Tensor:
            if tensor.data_ptr() not in own:
                pieces[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            TrainableTop(model, 0, recompute).train()(torch.randn(8, 3, 64, 64))
        kept[recompute] = sum(tensor.untyped_storage().nbytes() for tensor in pieces.values())
    assert kept[True] < 0.4 * kept[False]
    numbers = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    weights = sum(parameter.numel() for parameter in model.parameters())
    stated = step_memory(model, (8, 3, 64, 64), "float32")
    assert stated.plain == pytest.approx(4 * (2 * numbers + 3 * weights) + kept[False], rel=0.02)
    assert stated.checkpointed < stated.plain


def test_memory_of_a_chain_by_hand() -> None:
    backbone = nn.Sequential()
    for name, channels in (("one", 3), ("two", 8)):
        backbone.add_module(name, nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.Sigmoid()))
    model = Classifier(backbone, ClassificationHead(8, 2), {1: ("two", 8)})
    weights = 3 * 8 * 9 + 8 + 8 * 8 * 9 + 8 + 8 * 2 + 2
    image, maps, means = 5 * 3 * 100 * 4, 5 * 8 * 100 * 4, 5 * 8 * 4
    stated = step_memory(model, (5, 3, 10, 10), "float32")
    # The input of each convolution, what each sigmoid gives, what the dense layer sees.
    assert stated.plain == 20 * weights + image + 2 * maps + means
    # Between the parts: image and the first maps. Within one: its input, already there, and its output.
    assert stated.checkpointed == 20 * weights + (image + maps) + (image + maps) + means


def test_it_is_done_where_memory_is_short_and_reported() -> None:
    model = create_model("resnet18", num_classes=3, image_size=64)
    assert isinstance(model, Classifier)
    batch = (32, 3, 64, 64)
    need = step_memory(model, batch, "float32")
    messages: list[str] = []
    assert not needs_checkpointing(model, batch, "float32", messages.append, Memory(2 * need.plain, "this machine"))
    assert not messages
    enough = Memory(int(1.5 * need.checkpointed) + 2, "this machine")
    assert needs_checkpointing(model, batch, "float32", messages.append, enough)
    assert len(messages) == 1 and "activations are recomputed" in messages[0] and "free" in messages[0]
    assert needs_checkpointing(model, batch, "float32", messages.append, Memory(need.checkpointed // 2, "this machine"))
    assert any("may not fit" in line for line in messages) and any("smaller batch" in line for line in messages)


def test_a_run_short_of_memory_ends_with_the_same_weights(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hubel.training.train.finish", lambda training, *rest: training)  # no reports
    settings = {**QUICK, "model": "resnet18", "image_size": 32, "epochs": 2, "batch": 32, "weights": None}
    plain = train(shapes, out=tmp_path / "plain", **settings)
    assert "activations are recomputed" not in capsys.readouterr().err
    model = create_model("resnet18", num_classes=3, image_size=32)
    assert isinstance(model, Classifier)
    short_of = Memory(int(1.5 * step_memory(model, (32, 3, 32, 32), "float32").plain) - 2, "this machine")
    monkeypatch.setattr("hubel.training.activation_checkpointing.free_memory", lambda: short_of)
    short = train(shapes, out=tmp_path / "short", **settings)
    assert "activations are recomputed" in capsys.readouterr().err
    assert learned(plain.folder) == learned(short.folder)
