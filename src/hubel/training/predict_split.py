"""What a model says of labelled images, kept to be scored."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hubel.data.image_io import read_image
from hubel.data.loader import BatchDataset, EpochSampler, default_workers, make_dataloader
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import Sample
from hubel.data.splits import Splittable
from hubel.data.transforms.image_transform import ImageTransform
from hubel.errors import DataError, ImageError
from hubel.inference.fusion import fuse
from hubel.training.distributed import DistributedContext


@dataclass(frozen=True)
class Answers:
    """What a model says of labelled images.

    Attributes:
        samples: those that could be read, in order.
        values: float32 (N, …), what the task keeps of the network's output for each: see ``Task.answer``.
        failures: a fault for each image that could not be read.
    """

    samples: tuple[Any, ...]
    values: np.ndarray
    failures: tuple[ImageError, ...]


@dataclass(frozen=True)
class SplitPredictor:
    """A network made to answer.

    Attributes:
        network: what is asked; it is left as it is.
        preprocessing: the network's.
        answer: the network's raw output of N images → float32 (N, ``width``).
        width: numbers that are kept of an image.
        batch: images at a time, in each process.
        device: where it runs.
    """

    network: nn.Module
    preprocessing: Preprocessing
    answer: Callable[[Any], np.ndarray]
    width: int
    batch: int
    device: torch.device

    def of(self, samples: Sequence[Splittable], workers: int | None = None) -> Answers:
        """The answers to all samples, in their order, in float32.

        Raises:
            DataError: not one image could be read.
        """
        size = self.preprocessing
        images = BatchDataset([Sample(sample.path) for sample in samples], ImageTransform(size), 0)
        sampler = EpochSampler(len(samples), 0, shuffle=False)
        loader = make_dataloader(images, sampler, self.batch, default_workers() if workers is None else workers)
        fused = fuse(self.network.eval(), self.device, torch.float32)
        values, read = [], []
        with torch.inference_mode():
            for loaded in loader:
                if len(loaded.indices):
                    values.append(self.answer(fused(size.normalize(loaded.pixels.to(self.device)))))
                    read.extend(loaded.indices.tolist())
        return _answers(samples, read, np.concatenate(values) if values else np.zeros((0, self.width), np.float32))

    def together(self, processes: DistributedContext, samples: Sequence[Splittable]) -> Answers:
        """The same, divided among processes that all call it with the same samples; each gets the answers of all.

        Raises:
            DataError: not one image could be read.
        """
        if processes.alone:
            return self.of(samples)
        place = {samples[index].path: index for index in range(processes.rank, len(samples), processes.count)}
        rows = np.zeros((0, 1 + self.width))
        with contextlib.suppress(DataError):  # not one of this process's can be read: perhaps one of the others'
            own = tuple(samples[index] for index in place.values())
            if own:
                answers = self.of(own)
                indices = np.array([place[sample.path] for sample in answers.samples], dtype=np.float64)
                rows = np.concatenate([indices[:, None], answers.values], axis=1)
        rows = processes.all_gather(rows)
        rows = rows[np.argsort(rows[:, 0])]
        return _answers(samples, rows[:, 0].astype(int).tolist(), rows[:, 1:].astype(np.float32))


def _answers(samples: Sequence[Splittable], read: list[int], values: np.ndarray) -> Answers:
    failures = tuple(fault_of(samples[index].path) for index in sorted(set(range(len(samples))) - set(read)))
    if not read:
        raise DataError(f"none of {len(samples)} images could be read: {failures[0].message}", failures[0].hint)
    return Answers(tuple(samples[index] for index in read), values, failures)


def fault_of(path: Path) -> ImageError:
    """What is wrong with an image that could not be read."""
    try:
        read_image(path)
    except ImageError as error:
        return error
    return ImageError(f"{path} could not be read", "try again: it can be read now")
