"""Local files of libraries: whose they are is told by their keys, and so is how to prepare images for them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from hubel import create_model
from hubel.models.checkpoint import describe
from hubel.weights import class_names, find_entry
from hubel.weights.key_mapping import all_rules

timm = pytest.importorskip("timm")
models = pytest.importorskip("torchvision.models")
IMAGENET = (123.675, 116.28, 103.53)


def _saved(network: nn.Module, path: Path) -> Path:
    torch.save(network.state_dict(), path)
    return path


def test_preprocessing_and_names_are_the_librarys(tmp_path: Path) -> None:
    """torchvision's GoogLeNet turns ImageNet's mean and deviation into pixels from -1 to 1."""
    model = create_model("googlenet_bn", weights=_saved(models.googlenet(init_weights=False), tmp_path / "net.pth"))
    metadata = describe(model)
    assert metadata.weights == "net.pth"
    assert metadata.preprocessing == find_entry("googlenet_bn:torchvision/IMAGENET1K_V1").preprocessing
    assert metadata.classes == class_names()


def test_other_classes_have_numbers_and_the_librarys_preprocessing(tmp_path: Path) -> None:
    path = _saved(timm.create_model("mobilenetv1_100", num_classes=3), tmp_path / "net.pth")
    metadata = describe(create_model("mobilenet_v1", image_size=160, weights=path))
    assert metadata.classes == ["0", "1", "2"]
    theirs = find_entry("mobilenet_v1:timm/ra4_e3600_r224_in1k").preprocessing
    assert metadata.preprocessing == theirs.resized(160)
    assert metadata.preprocessing.mean == (127.5,) * 3


def test_where_the_librarys_weights_differ_imagenets_usual_is_taken(tmp_path: Path) -> None:
    """timm's EfficientNets want pixels in two ways, and their files are alike."""
    expected = {
        find_entry(f"efficientnet_b0:timm/{tag}").preprocessing.mean for tag in ("ra_in1k", "ra4_e3600_r224_in1k")
    }
    assert len(expected) == 2
    path = _saved(timm.create_model("efficientnet_b0"), tmp_path / "net.pth")
    assert describe(create_model("efficientnet_b0", weights=path)).preprocessing.mean == IMAGENET


def test_a_file_of_ours_has_the_usual_preprocessing(tmp_path: Path) -> None:
    model = create_model("googlenet_bn", weights=_saved(create_model("googlenet_bn"), tmp_path / "net.pth"))
    assert describe(model).preprocessing.mean == IMAGENET
    assert describe(model).classes[:2] == ["0", "1"]


def test_every_format_names_a_library_of_the_catalog() -> None:
    assert {known.source for known in all_rules()} == {
        "torchvision",
        "timm",
        "keras",
        "google",
        "darknet",
        "effdet",
        "torchfcn",
    }
