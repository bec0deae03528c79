"""Weights inside checkpoints of training scripts and behind the prefixes of wrappers are those of the bare file."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import pathlib
import random
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hubel import create_model
from hubel.errors import WeightsError
from hubel.models.checkpoint import describe
from hubel.weights import read_state_dict

models = pytest.importorskip("torchvision.models")

# torchvision's MobileNet-v2 is told by the second of these names.
PLAIN = {
    "features.0.0.weight": torch.arange(4.0),
    "features.1.conv.0.0.weight": torch.arange(3.0),
    "classifier.1.bias": torch.arange(2.0),
}
AVERAGED = {name: tensor + 1 for name, tensor in PLAIN.items()}
OURS = {"backbone.stem.conv.weight": torch.arange(4.0), "head.classifier.weight": torch.arange(2.0)}
State = dict[str, torch.Tensor]


def _prefixed(prefix: str, state: State = PLAIN) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def _assert_reads(content: Any, path: Path, expected: State = PLAIN, architecture: str | None = "mobilenet_v2") -> None:
    torch.save(content, path)
    read = read_state_dict(path, architecture)
    assert list(read) == list(expected)
    assert all(torch.equal(read[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "model.",
        "net.",
        "backbone.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "model.model.",
        "model._orig_mod.",
        "_forward_module.model.module.",
        "student.encoder.backbone.",
        "_fsdp_wrapped_module.",
    ],
)
@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "net", "checkpoint"])
def test_prefixes_of_wrappers_in_any_order(prefix: str, key: str | None, tmp_path: Path) -> None:
    for state in (PLAIN, OURS):
        content = _prefixed(prefix, state)
        _assert_reads({key: content, "epoch": 3} if key else content, tmp_path / "net.pth", state)


def test_wrappers_within_names(tmp_path: Path) -> None:
    """PyTorch's example of ImageNet wraps the features of AlexNet and VGG alone; single blocks are compiled."""
    inside = {"features.module.0.0.weight": 0, "features.1._orig_mod.conv.0.0.weight": 1, "classifier.1.bias": 2}
    _assert_reads(dict(zip(inside, PLAIN.values(), strict=True)), tmp_path / "net.pth")


@pytest.mark.parametrize(
    "keys",
    [("model",), ("network",), ("weights",), ("model_state",), ("checkpoint", "state_dict"), ("a", "b", "c", "model")],
)
def test_keys_of_training_scripts(keys: tuple[str, ...], tmp_path: Path) -> None:
    content: Any = PLAIN
    for key in reversed(keys):
        moments = {"state": {0: {"exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 0.1}]}
        content = {"epoch": torch.tensor(3), key: content, "optimizer_state_dict": moments, "loss": 0.5}
    _assert_reads(content, tmp_path / "net.pth")
    _assert_reads([content, {"step": 4}], tmp_path / "net.pth")


def test_a_classifier_beside_its_backbone(tmp_path: Path) -> None:
    """As OpenMMLab writes them."""
    state = models.resnet18(num_classes=3).state_dict()
    parts = {("head." if name.startswith("fc.") else "backbone.") + name: tensor for name, tensor in state.items()}
    torch.save({"meta": {"epoch": 1}, "state_dict": parts}, tmp_path / "a.pth")
    read = read_state_dict(tmp_path / "a.pth", "resnet18")
    assert read.keys() == state.keys()
    assert torch.equal(read["fc.weight"], state["fc.weight"])


def test_a_mapping_for_each_part(tmp_path: Path) -> None:
    _assert_reads(
        {
            "backbone": {"stem.conv.weight": OURS["backbone.stem.conv.weight"]},
            "head": {"classifier.weight": OURS["head.classifier.weight"]},
        },
        tmp_path / "net.pth",
        OURS,
    )


@pytest.mark.parametrize(
    "content",
    [
        {"model": PLAIN, "model_ema": _prefixed("module.", AVERAGED)},
        {"state_dict": PLAIN, "state_dict_ema": AVERAGED},
        {"model": PLAIN, "ema": {"model": AVERAGED, "decay": 0.99}},
        {"model_ema_state_dict": AVERAGED, "model_state_dict": PLAIN},
        {"state_dict": {**_prefixed("model."), **_prefixed("ema_model.module.", AVERAGED)}},
        {"state_dict": {**_prefixed("net."), **_prefixed("net.ema.", AVERAGED)}},
        {"model": PLAIN, "swa_model": _prefixed("module.", AVERAGED) | {"n_averaged": torch.tensor(3)}},
        {"state_dict": _prefixed("model.", AVERAGED), "current_model_state": _prefixed("model.")},  # Lightning
    ],
)
def test_averaged_weights_are_preferred(content: dict[str, Any], tmp_path: Path) -> None:
    _assert_reads(content, tmp_path / "net.pth", AVERAGED)


def test_averaged_weights_alone_are_read(tmp_path: Path) -> None:
    inner = nn.Sequential(nn.Linear(2, 2))
    torch.save(torch.optim.swa_utils.AveragedModel(inner).state_dict(), tmp_path / "net.pth")
    assert list(read_state_dict(tmp_path / "net.pth")) == list(inner.state_dict())
    _assert_reads(_prefixed("module.") | {"n_averaged": torch.tensor(3)}, tmp_path / "net.pth")
    _assert_reads(_prefixed("module.") | {"n_averaged": torch.tensor(3)}, tmp_path / "net.pth", architecture=None)


def test_two_that_fit_equally_are_a_question(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"student": PLAIN, "teacher": AVERAGED}, path)
    with pytest.raises(WeightsError, match="2 sets of weights that fit: student, teacher") as caught:
        read_state_dict(path, "mobilenet_v2")
    assert "torch.load(FILE)['teacher']" in caught.value.hint
    _assert_reads({"student": PLAIN, "teacher": {name: each.clone() for name, each in PLAIN.items()}}, path)
    shared = OrderedDict(PLAIN)
    _assert_reads({"model": shared, "best": shared}, path)


def test_what_was_taken_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = models.mobilenet_v2(num_classes=3, width_mult=0.25).eval()
    state = network.state_dict()
    averaged = {
        f"module.{name}": tensor * 2 if tensor.is_floating_point() else tensor for name, tensor in state.items()
    }
    torch.save({"model": state, "model_ema": averaged}, tmp_path / "net.pth")
    model = create_model("mobilenet_v2", weights=tmp_path / "net.pth", width=0.25)
    assert capsys.readouterr().err == "net.pth: took the averaged weights, model_ema, not model\n"
    assert describe(model).weights == "net.pth (model_ema)"
    bias = state["classifier.1.bias"]
    assert torch.equal(model.state_dict()["head.classifier.bias"], bias * 2)


def test_profilers_counters_are_left_out(tmp_path: Path) -> None:
    counted = dict(PLAIN)
    for layer in ("features.0.0", "classifier.1"):
        counted |= {f"{layer}.total_ops": torch.zeros(1), f"{layer}.total_params": torch.zeros(1)}
    counted |= {"total_ops": torch.zeros(1), "total_params": torch.zeros(1), "epoch": torch.tensor(3)}
    _assert_reads(counted, tmp_path / "net.pth")


def test_a_lightning_checkpoint_computes_what_the_network_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = models.mobilenet_v2(num_classes=3, width_mult=0.25).eval()
    state = {f"net._orig_mod.{name}": tensor for name, tensor in theirs.state_dict().items()}
    torch.save(
        {
            "epoch": 3,
            "pytorch-lightning_version": "2.5.0",
            "state_dict": {**state, "criterion.weight": torch.ones(3), "val_acc.tp": torch.zeros(3)},
            "hyper_parameters": argparse.Namespace(lr=np.float64(0.1), data=Path("/data"), sizes=np.ones(3)),
            "optimizer_states": [torch.optim.AdamW(theirs.parameters()).state_dict()],
            "callbacks": {"EarlyStopping": {"best_score": torch.tensor(0.5)}},
        },
        tmp_path / "epoch=3.ckpt",
    )
    ours = create_model("mobilenet_v2", weights=tmp_path / "epoch=3.ckpt", width=0.25).eval()
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(ours(image), theirs(image), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_and_old_files_without_counters(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = models.mobilenet_v2(num_classes=3, width_mult=0.25).to(dtype)
    state = {name: each for name, each in theirs.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save({"model": state}, tmp_path / "net.pth")
    ours = create_model("mobilenet_v2", weights=tmp_path / "net.pth", width=0.25).state_dict()
    assert torch.equal(ours["head.classifier.weight"], theirs.classifier[1].weight.detach().float())
    assert ours["head.classifier.weight"].dtype == torch.float32


def test_counters_in_lists_of_one(tmp_path: Path) -> None:
    theirs = models.mobilenet_v2(num_classes=3, width_mult=0.25).state_dict()
    state = {name: each.reshape(-1) if each.ndim == 0 else each for name, each in theirs.items()}
    torch.save(state, tmp_path / "net.pth")
    ours = create_model("mobilenet_v2", weights=tmp_path / "net.pth", width=0.25).state_dict()
    assert torch.equal(ours["head.classifier.weight"], theirs["classifier.1.weight"])


def test_tied_tensors_and_views(tmp_path: Path) -> None:
    both = torch.arange(8.0)
    _assert_reads({**PLAIN, "features.0.0.weight": both[:4]}, tmp_path / "net.pth")
    tied = {**PLAIN, "features.0.0.weight": both, "features.1.conv.0.0.weight": both}
    _assert_reads(tied, tmp_path / "net.pth", tied)


class _Options(dict[str, Any]):
    """As Lightning's AttributeDict, yacs's CfgNode and others are dictionaries."""


class _Phase(enum.Enum):
    HEAD = 1


@dataclass
class _Settings:
    lr: float = 0.1


class _WithSlots:
    __slots__ = ("lr",)

    def __init__(self) -> None:
        self.lr = 0.1


BESIDE: dict[str, Callable[[], Any]] = {
    "namespace": lambda: argparse.Namespace(lr=0.1, model="mobilenet_v2", inner=argparse.Namespace(a=1)),
    "simple namespace": lambda: types.SimpleNamespace(lr=0.1),
    "float64": lambda: np.float64(0.7),
    "float32": lambda: np.float32(0.7),
    "int64": lambda: np.int64(7),
    "bool_": lambda: np.bool_(True),
    "str_": lambda: np.str_("net"),
    "array": lambda: np.arange(6).reshape(2, 3),
    "path": lambda: Path("runs/1"),
    "pure path": lambda: pathlib.PurePosixPath("a"),
    "date": lambda: datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
    "counts": lambda: collections.defaultdict(list, a=[1]),
    "counter": lambda: collections.Counter("aab"),
    "deque": lambda: collections.deque([1, 2], maxlen=3),
    "dictionary": lambda: _Options(lr=0.1, inner=_Options(a=1)),
    # Python 3.11.0 to 3.11.3 write members of enumerations as calls of getattr, which are refused.
    **({"enum": lambda: _Phase.HEAD} if sys.version_info >= (3, 11, 4) else {}),
    "dataclass": _Settings,
    "slots": _WithSlots,
    "random state": lambda: [random.getstate(), np.random.get_state(), torch.get_rng_state()],
    "set": lambda: {1, 2},
    "frozenset": lambda: frozenset({1, 2}),
    "dtype": lambda: [torch.float32, np.dtype("f4"), torch.device("cpu"), torch.Size([1])],
    "scheduler": lambda: torch.optim.lr_scheduler.StepLR(torch.optim.SGD([torch.ones(1)], 0.1), 3).state_dict(),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before-1.6"])
@pytest.mark.parametrize("what", BESIDE)
def test_data_beside_the_weights_is_no_hindrance(what: str, zipped: bool, tmp_path: Path) -> None:
    content = {"args": BESIDE[what](), "model": PLAIN, "best": [BESIDE[what]()]}
    torch.save(content, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    read = read_state_dict(tmp_path / "net.pth", "mobilenet_v2")
    assert all(torch.equal(read[name], tensor) for name, tensor in PLAIN.items()) and len(read) == len(PLAIN)


def test_a_whole_module_gives_its_state_dict(tmp_path: Path) -> None:
    theirs = models.mobilenet_v2(num_classes=3, width_mult=0.25)
    for content in (theirs, {"model": theirs, "epoch": 3}):
        torch.save(content, tmp_path / "net.pth")
        read = read_state_dict(tmp_path / "net.pth", "mobilenet_v2")
        assert read.keys() == theirs.state_dict().keys()
        assert all(torch.equal(read[name], tensor) for name, tensor in theirs.state_dict().items())


def test_a_file_without_the_classifier_is_refused_unless_classes_are_given(tmp_path: Path) -> None:
    state = models.mobilenet_v2(width_mult=0.25).state_dict()
    headless = {name: each for name, each in state.items() if not name.startswith("classifier")}
    torch.save(headless, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"misses head\.classifier\.weight"):
        create_model("mobilenet_v2", weights=tmp_path / "net.pth", width=0.25)
    model = create_model("mobilenet_v2", weights=tmp_path / "net.pth", width=0.25, num_classes=3)
    assert model.state_dict()["head.classifier.bias"].shape == (3,)
