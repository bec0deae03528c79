"""Super-resolution, from any images: data, evaluation, report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from hubel.config import DEFAULT_NETWORK, TrainingConfig
from hubel.data.checks.images import verify_images
from hubel.data.checks.training_checks import Findings
from hubel.data.image_io import read_image
from hubel.data.photographs import read_photographs, reduced, whole_blocks
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import Batch, ImageDataset, Sample
from hubel.data.sources import ImageSource
from hubel.data.transforms.small_and_large import PAIR_AUGMENTATIONS, PairTransform, check_pair_augmentations
from hubel.errors import ModelError, UsageError
from hubel.metrics.image_quality import EnlargingScores
from hubel.models import architecture
from hubel.models.base import Model
from hubel.models.metadata import ModelMetadata
from hubel.models.super_resolution.enlarger import EnlargedTargets, Enlarger
from hubel.reports import figures
from hubel.reports.report_data import AugmentationSample, TaskReport
from hubel.results import Enlarged
from hubel.tasks.base import ProgressCallback, Task, TaskData
from hubel.tasks.super_resolution.evaluator import SuperResolutionEvaluator

DEFAULT_ENLARGER = "fsrcnn_x2"

SMALLEST_SIDE = 64
"""Pixels of images that are trained on, on the shorter side."""


class SuperResolutionData(TaskData):
    """See :class:`~hubel.tasks.base.TaskData`: pairs of a small and a large part of an image."""

    transform = PairTransform

    def __init__(self, config: TrainingConfig, metadata: ModelMetadata, side: int, samples: Sequence[Sample]) -> None:
        super().__init__(config, metadata, side, samples)
        parts = metadata.preprocessing.resized(side)
        self.plain = PairTransform(parts)
        self.augmented = PairTransform(parts, config.augmentation, random=True)

    def targets(self, batch: Batch, device: torch.device, train: bool = True) -> EnlargedTargets:
        """The large parts."""
        images = np.stack([target.image for target in batch.targets if target.image is not None])
        return EnlargedTargets(torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255)

    def augmentation_preview(self, samples: Sequence[Sample]) -> list[AugmentationSample]:
        """None: the small parts tell nothing."""
        return []

    def describe_augmentations(self) -> list[str]:
        """Those of pairs."""
        return [PAIR_AUGMENTATIONS[name] for name in self.config.augmentation]


def _charts(scores: EnlargingScores) -> Iterator[tuple[str, Figure]]:
    yield "gain", figures.gain_curve(scores.gains)


def _sentences(scores: EnlargingScores, split: str) -> Iterator[str]:
    psnr, bicubic = scores.mean("psnr"), scores.mean("bicubic_psnr")
    assert psnr is not None and bicubic is not None
    worse = int((scores.gains < 0).sum())
    yield (
        f"The {scores.images:,} images of the {split}, reduced and enlarged again, come {psnr - bicubic:+.2f} dB "
        f"closer to the originals than by bicubic interpolation ({bicubic:.2f} dB); {worse:,} of them are worse."
    )
    yield (
        "PSNR compares squared differences of brightness with the square of the greatest: 3 dB more is half the "
        "squared error. It and SSIM are those of the luma (Y of ITU-R BT.601), without a border of the scale's pixels."
    )


def _of_split(scores: EnlargingScores) -> dict[str, Any]:
    return {name: f"{value:.4f}" if (value := scores.mean(name)) else "–" for name in ("ssim", "bicubic_ssim")}


class SuperResolution(Task):
    """More pixels than there were."""

    name = "super-resolve"
    result = Enlarged
    monitor = ("psnr", "-loss")
    logged_metrics: ClassVar[Mapping[str, str]] = {"psnr": "PSNR"}
    scores_results = True
    data = SuperResolutionData
    evaluator = SuperResolutionEvaluator
    report = TaskReport(
        package="hubel.tasks.super_resolution",
        curves={
            "loss": ("Loss per epoch", "Loss: lower is better."),
            "psnr": ("PSNR per epoch", "PSNR of parts of the validation images: higher is better."),
        },
        charts=_charts,
        sentences=_sentences,
        of_split=_of_split,
        mistakes="The images that gain least",
        mistakes_key="Of each image the part is shown in which bicubic interpolation differs most from the original.",
    )

    def resolve_config(self, config: TrainingConfig) -> TrainingConfig:
        """Refuse what is for labelled images."""
        refused = {
            "--balance": config.balance not in ("auto", "none"),
            "--label-smoothing": bool(config.label_smoothing),
            "--cache-features": config.cache_features,
            "--close-mosaic": bool(config.close_mosaic),
        }
        for option, is_set in refused.items():
            if is_set:
                raise UsageError(f"{option} is for labelled images, not for --task {self.name}", "omit it")
        config = replace(config, augmentation=check_pair_augmentations(config.augmentation))
        if config.backbone is not None:
            raise UsageError(f"--backbone {config.backbone}: networks that enlarge have none", "omit it")
        model = DEFAULT_ENLARGER if config.model == DEFAULT_NETWORK else config.model
        if architecture(model).task != self.name:
            raise UsageError(f"--model {model} does not enlarge images", "see hubel models --task super-resolve")
        return replace(config, model=model)

    def read(self, data: Path, strict: bool = False) -> ImageDataset:
        """All images of a folder."""
        return read_photographs(data)

    def check(
        self, splits: Mapping[str, Sequence[Sample]], classes: Sequence[str], progress: ProgressCallback
    ) -> Findings:
        """Unreadable and tiny images are left out."""
        found = verify_images([sample.path for samples in splits.values() for sample in samples], progress)
        unusable = {path: size for path, size in found.items() if isinstance(size, str)}
        for path, size in found.items():
            if not isinstance(size, str) and min(size) < SMALLEST_SIDE:
                pixels = f"{size[0]} × {size[1]} pixels"
                unusable[path] = f"{path} has {pixels}, of which nothing can be learnt (less than {SMALLEST_SIDE})"
        counts: dict[str, tuple[int, ...]] = {
            name: (sum(s.path not in unusable for s in samples),) for name, samples in splits.items()
        }
        empty = next((name for name in ("train", "val") if counts.get(name) == (0,)), None)
        hint = f"they have to be readable, and at least {SMALLEST_SIDE} pixels wide and high"
        refusal = (f"none of the {len(splits[empty])} {empty} images can be used", hint) if empty else None
        return Findings(counts, unusable, (), refusal)

    def prepare_model(
        self, config: TrainingConfig, model: Model, metadata: ModelMetadata, samples: Sequence[Sample]
    ) -> ModelMetadata:
        """The networks are trained as they are made."""
        if not isinstance(model, Enlarger):
            raise ModelError(f"{config.model} does not enlarge images", "see hubel models --task super-resolve")
        return metadata

    def source(self, sample: Sample, preprocessing: Preprocessing) -> ImageSource:
        """The image reduced by the scale."""
        return ImageSource(str(sample.path), partial(small_image, sample.path, preprocessing.scale))

    def scores_table(self, scores: EnlargingScores) -> str:
        """PSNR in decibels and SSIM, with bicubic interpolation beside."""
        means = {name: scores.mean(name) for name in ("psnr", "ssim", "bicubic_psnr", "bicubic_ssim")}
        psnr, ssim, bicubic_psnr, bicubic_ssim = (math.nan if value is None else value for value in means.values())
        return (
            f"           PSNR (dB)    SSIM\n"
            f"network    {psnr:>9.2f}  {ssim:.4f}\n"
            f"bicubic    {bicubic_psnr:>9.2f}  {bicubic_ssim:.4f}\n"
            f"gain       {psnr - bicubic_psnr:>+9.2f}"
        )


def small_image(path: Path, scale: int) -> Image.Image:
    """An image reduced by the scale, of its whole blocks; raises :class:`~hubel.errors.ImageError`."""
    pixels = whole_blocks(np.asarray(read_image(path)), scale)
    return Image.fromarray(reduced(pixels, scale))
