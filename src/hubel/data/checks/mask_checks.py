"""What is wrong with images and masks, found before the first epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hubel.data.checks.image_scan import left_out, refuse_unreadable, verify_images
from hubel.data.image_folder import read_class_map
from hubel.data.samples import Sample
from hubel.errors import DataError, ImageError


@dataclass(frozen=True)
class MaskFindings:
    """What a check of masks found.

    Attributes:
        classes: names.
        pixels: by split, the pixels of each class.
        unusable: by path of the image, the sentence that says why it or its mask cannot be used.
    """

    classes: tuple[str, ...]
    pixels: dict[str, np.ndarray]
    unusable: dict[Path, str]

    def usable(self, samples: Iterable[Sample]) -> tuple[Sample, ...]:
        """The samples whose image and mask can be used."""
        return tuple(sample for sample in samples if sample.path not in self.unusable)

    def warnings(self) -> list[str]:
        """What a person should know before training, one line each."""
        lines = left_out(list(self.unusable.values()))
        for split, counts in self.pixels.items():
            absent = [name for name, count in zip(self.classes, counts, strict=True) if not count]
            if absent and counts.any():
                lines.append(f"no pixel of {', '.join(absent)} in the {split} masks.")
        return lines

    def raise_if_unusable(self, strict: bool = False) -> None:
        """Stop where training could not give anything sensible.

        Args:
            strict: unusable images stop too, instead of being left out.

        Raises:
            DataError: no labelled pixel to train on, or to validate on; or, if ``strict``, an image cannot be used.
        """
        if strict:
            refuse_unreadable(list(self.unusable.values()))
        for split in ("train", "val"):
            if split in self.pixels and not self.pixels[split].any():
                raise DataError(f"no {split} image has a mask with labelled pixels.", "Label some.")


def check_masks(
    splits: Mapping[str, Sequence[Sample]],
    classes: Sequence[str],
    progress: Callable[[int, int], None] | None = None,
) -> MaskFindings:
    """Open every image and its mask; nothing is raised for what is found."""
    samples = [sample for each in splits.values() for sample in each]
    tried = verify_images([sample.path for sample in samples], progress, None)
    unusable = {path: found for path, found in tried.items() if isinstance(found, str)}
    pixels = {split: np.zeros(len(classes), np.int64) for split in splits}
    for split, each in splits.items():
        for sample in each:
            assert sample.class_map is not None
            if sample.path in unusable:
                continue
            try:
                class_map = read_class_map(sample.class_map)
            except ImageError as error:
                unusable[sample.path] = error.message
                continue
            if class_map.shape != (sample.height, sample.width):
                size = f"{class_map.shape[1]} × {class_map.shape[0]}"
                unusable[sample.path] = f"{sample.class_map} is {size}, its image {sample.width} × {sample.height}."
                continue
            pixels[split] += np.bincount(class_map.ravel(), minlength=256)[: len(classes)]
    return MaskFindings(tuple(classes), pixels, unusable)
