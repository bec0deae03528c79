"""Features of images that several trainings share: those of a search on a frozen backbone, which compute them once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from hubel.analysis.memory_advice import free_host_memory
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import Sample
from hubel.training.finetune import FrozenBackbone

_SHARE = 0.25
"""Fraction of the free memory that the features may take."""


class FeatureStore:
    """Features in memory, by what computed them and the image's file."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, Path], Tensor] = {}
        self._room = int(_SHARE * free_host_memory().free)

    def find(self, key: str, samples: Sequence[Sample]) -> Tensor | None:
        """Features (N, C, H, W) of the images, float32; ``None`` unless those of all are here."""
        rows = [self._rows.get((key, sample.path)) for sample in samples]
        found = [row for row in rows if row is not None]
        return torch.stack(found) if found and len(found) == len(rows) else None

    def add(self, key: str, samples: Sequence[Sample], indices: Tensor, maps: Tensor) -> None:
        """Keep the features (M, C, H, W) of the samples at ``indices`` (M,), as far as there is room."""
        for index, row in zip(indices.tolist(), maps, strict=True):
            place = key, samples[index].path
            size = row.numel() * row.element_size()
            if place not in self._rows and size <= self._room:
                self._rows[place] = row.clone()  # the memory that it is in belongs to one training
                self._room -= size


def features_key(lower: FrozenBackbone, preprocessing: Preprocessing, images: DataLoader[Any], precision: str) -> str:
    """A hash of all that the features of an image depend on: weights, structure, precision, how it is prepared."""
    digest = hashlib.blake2b(digest_size=16)
    transform = images.dataset.transform  # type: ignore[attr-defined]
    described = (str(lower.network), lower.parts, str(lower.dtype), precision, preprocessing, type(transform).__name__)
    digest.update(repr((*described, transform.crops)).encode())
    for name, tensor in lower.network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
