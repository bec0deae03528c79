"""A detector of torchvision's whose answers differ from place to place, and its weights as a model of ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image

from hubel.data.sample_images import sample_photographs
from hubel.models import create_model, describe, save_model

NAME = "ssdlite320_mobilenet_v3_large"
CLASSES = ["cat", "dog", "bird"]


def torchvision_detector() -> torch.nn.Module:
    """SSDLite with random weights and the statistics of photographs, so that it finds dozens of objects in one."""
    torch.manual_seed(0)
    network = getattr(torchvision.models.detection, NAME)(weights=None, weights_backbone=None, num_classes=4)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    crops = [Image.open(path).crop((left, 0, left + 427, 427)) for path in sample_photographs() for left in (0, 200)]
    pixels = np.stack([np.asarray(crop.resize((320, 320))) for crop in crops])
    with torch.no_grad():
        network.head(list(network.backbone(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1).values()))
    return network.eval()


def saved_detector(network: torch.nn.Module, folder: Path) -> Path:
    """Write it below a folder as a saved model; gives where."""
    torch.save(network.state_dict(), folder / "theirs.pth")
    model = create_model(NAME, weights=folder / "theirs.pth").eval()
    save_model(folder / "saved", model, replace(describe(model), classes=CLASSES))
    return folder / "saved"
