"""Gradients of YOLOv3's loss against the ``delta`` that Debian's libdarknet trains with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from darknet_judges import gradient_by_libdarknet
from hubel.boxes import convert
from hubel.models.base import ObjectTargets
from hubel.models.darknet.heads import YoloHead, head_of
from hubel.models.darknet.yolo_loss import yolo_losses
from hubel.weights.darknet_cfg import Section
from hubel.weights.darknet_layers import Shape, layers_of

HEIGHT, WIDTH, CLASSES, CHANNELS = 9, 7, 3, 16
# Of the second, the best anchor is another scale's.
OBJECTS = np.array([[0.21, 0.33, 0.4, 0.5, 2], [0.7, 0.62, 0.2, 0.2, 0], [0.5, 0.9, 0.55, 0.35, 1]], np.float32)
OPTIONS = {"mask": "1,2", "anchors": "2,2, 3,4, 6,3", "num": "3", "ignore_thresh": "0.3", "classes": str(CLASSES)}


def test_gradients_of_yolo_v3_are_darknet_s(tmp_path: Path) -> None:
    section = Section("yolo", OPTIONS, "cfg")
    maps = np.random.default_rng(0).normal(0, 0.7, (CHANNELS, HEIGHT, WIDTH)).astype(np.float32)
    expected = gradient_by_libdarknet(section, maps, OBJECTS, tmp_path)

    reads = Section("net", {}, "cfg"), Section("convolutional", {"filters": str(CHANNELS), "size": "1"}, "cfg")
    head = head_of(layers_of([*reads, section], Shape(1, HEIGHT, WIDTH))[-1])
    assert isinstance(head, YoloHead)
    given = torch.from_numpy(maps).requires_grad_()
    pixels = torch.from_numpy(OBJECTS[:, :4]) * torch.tensor([WIDTH, HEIGHT] * 2)
    truth = ObjectTargets(convert(pixels, "cxcywh", "xyxy"), torch.from_numpy(OBJECTS[:, 4]).long())
    terms = yolo_losses(head, head.rows(given[None])[0], truth, (HEIGHT, WIDTH))
    torch.stack(list(terms.values())).sum().backward()
    assert given.grad is not None
    rows = head.rows(torch.from_numpy(expected)[None])[0]
    assert [int((part != 0).any(1).sum()) for part in rows.split((4, 1, CLASSES), 1)][::2] == [2, 2]  # two objects
    assert 0 < int((rows[:, 4] == 0).sum()) < len(rows) / 2  # some are ignored
    # What Darknet trains is the difference of two float32 numbers.
    np.testing.assert_allclose(given.grad.numpy(), expected, atol=2e-6)
