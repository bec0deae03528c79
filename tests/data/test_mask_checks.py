"""The check before training of images with masks: what cannot be used is named and left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hubel.data.checks.training_checks import check_masks
from hubel.data.mask_file import MaskFile
from hubel.data.samples import Sample
from hubel.errors import DataError
from labelled_sets import write_image

CLASSES = ("background", "cat", "dog")


def _sample(root: Path, name: str, *labels: int, size: tuple[int, int] = (8, 6)) -> Sample:
    """An image of 8 × 6 pixels with a mask whose columns have these labels in turn; 255 is none."""
    image = write_image(root / "images" / f"{name}.png", 8, 6)
    mask = root / "masks" / f"{name}.png"
    mask.parent.mkdir(parents=True, exist_ok=True)
    columns = np.resize(np.array(labels, np.uint8), size[0])
    Image.fromarray(np.tile(columns, (size[1], 1))).save(mask)
    return Sample(image, width=8, height=6, class_map=MaskFile(mask))


def test_pixels_are_counted_and_absent_classes_named(tmp_path: Path) -> None:
    splits = {
        "train": [_sample(tmp_path, "a", 0, 1), _sample(tmp_path, "b", 2, 255)],
        "val": [_sample(tmp_path, "c", 1)],
    }
    findings = check_masks(splits, CLASSES)
    findings.raise_if_unusable(strict=True)
    assert {split: list(counts) for split, counts in findings.counts.items()} == {
        "train": [24, 24, 24],
        "val": [0, 48, 0],
    }
    assert findings.warnings() == [
        "no pixel of background, dog in the val masks",
        "masks have pixels of 255 (in 1 mask), which are not classes: these pixels do not count",
    ]


def test_what_cannot_be_used_is_left_out_or_refused(tmp_path: Path) -> None:
    good, broken, other_size, no_mask = (
        _sample(tmp_path, "good", 0, 1, 2),
        _sample(tmp_path, "broken", 0),
        _sample(tmp_path, "other", 0, size=(6, 8)),
        _sample(tmp_path, "none", 0),
    )
    broken.path.write_bytes(b"not an image")
    assert isinstance(no_mask.class_map, MaskFile)
    no_mask.class_map.path.write_bytes(b"not an image")
    findings = check_masks({"train": [good, broken, other_size, no_mask]}, CLASSES)
    assert findings.usable([good, broken, other_size, no_mask]) == (good,)
    first, second, third = findings.warnings()
    assert first.startswith(f"{broken.path} is ") and first.endswith(": left out")
    assert second == f"{other_size.class_map} is 6 × 8, its image 8 × 6: left out"
    assert third.startswith(f"{no_mask.class_map} cannot be read: ") and third.endswith(": left out")
    findings.raise_if_unusable()
    with pytest.raises(DataError, match="2 more cannot be read either"):
        findings.raise_if_unusable(strict=True)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_labelled_pixels_is_refused(split: str, tmp_path: Path) -> None:
    splits = {"train": [_sample(tmp_path, "a", 0, 1)], "val": [_sample(tmp_path, "b", 0, 1)]}
    splits[split] = [_sample(tmp_path, "c", 255)]
    findings = check_masks(splits, CLASSES)
    assert findings.warnings() == [
        f"{splits[split][0].class_map} has no labelled pixel: left out",
        *(f"no pixel of dog in the {name} masks" for name in ("train", "val") if name != split),
    ]
    with pytest.raises(DataError, match=f"no {split} image has a mask with labelled pixels"):
        findings.raise_if_unusable()
