"""Photographs in a report: thumbnails of mistakes and the sheet of augmented samples."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from hubel.data.checks.findings import Finding
from hubel.data.image_io import read_image
from hubel.drawing import BoxLabel, draw_boxes
from hubel.errors import ImageError
from hubel.reports.report_data import AugmentationSample, DetectionMistake, Mistake

SAMPLE_SIDE = 160
"""Side of an augmented sample's cell in pixels."""


def read_mistakes(
    mistakes: Sequence[Mistake] | Sequence[DetectionMistake], side: int
) -> tuple[list[tuple[Mistake | DetectionMistake, bytes]], list[str]]:
    """Read the pictures of mistakes.

    Args:
        mistakes: which.
        side: longest of a thumbnail, in pixels.

    Returns:
        Each mistake with its thumbnail as a JPEG file, and the names of pictures that cannot be read (any more).
    """
    from hubel.data.image_io import read_image

    pictured: list[tuple[Mistake | DetectionMistake, bytes]] = []
    unreadable: list[str] = []
    for mistake in mistakes:
        try:
            picture = read_image(mistake.path)
        except ImageError:
            unreadable.append(mistake.path.name)
            continue
        if mistake.boxes:
            picture = draw_boxes(picture, mistake.boxes)
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        pictured.append((mistake, to_jpeg(picture)))
    return pictured, unreadable


def sample_rows(samples: Sequence[AugmentationSample]) -> list[list[Image.Image]]:
    """The original and its augmented versions of each sample, scaled to fit a cell of the sheet."""
    return [[_cell(pixels) for pixels in (sample.original, *sample.augmented)] for sample in samples]


def augmentation_sheet(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """All samples in one picture: a row an image, the original first and set apart."""
    gap, apart = 6, 18
    columns = max(len(row) for row in rows)
    width = columns * (SAMPLE_SIDE + gap) + gap + apart
    sheet = Image.new("RGB", (width, len(rows) * (SAMPLE_SIDE + gap) + gap), "white")
    for y, row in enumerate(rows):
        for x, cell in enumerate(row):
            left = gap + x * (SAMPLE_SIDE + gap) + (apart if x else 0) + (SAMPLE_SIDE - cell.width) // 2
            sheet.paste(cell, (left, gap + y * (SAMPLE_SIDE + gap) + (SAMPLE_SIDE - cell.height) // 2))
    return sheet


def to_jpeg(picture: Image.Image) -> bytes:
    """A JPEG file for embedding."""
    return _encoded(picture, format="JPEG", quality=82)


def to_png(picture: Image.Image) -> bytes:
    """A PNG file."""
    return _encoded(picture, format="PNG", optimize=True)


def _encoded(picture: Image.Image, **settings: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, **settings)  # type: ignore[arg-type]
    return file.getvalue()


def _cell(pixels: np.ndarray) -> Image.Image:
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    scale = SAMPLE_SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BICUBIC)


SIDE = 420
"""Longest side of a finding's picture, or of each of two, in pixels."""

_GROUND = (120, 124, 132)
_FARTHEST = 0.6
_CLOSE_UP = 0.06

View = tuple[float, float, float, float]


def finding_image(finding: Finding, boxes: tuple[BoxLabel, ...] = ()) -> Image.Image | None:
    """The picture of a finding with its box, or its two pictures side by side; ``None`` if there is none to show.

    A box that leaves the picture is shown on a grey ground as far as it makes sense; of a small one the surroundings.

    Args:
        finding: what to show.
        boxes: of the other objects, for findings that concern all of them.
    """
    if finding.image is None or finding.kind in ("missing", "unreadable"):
        return None
    if finding.other is not None:
        return _side_by_side(finding.image, finding.other)
    picture = _read(finding.image)
    if picture is None:
        return None
    if finding.box is not None:
        boxes = (BoxLabel(finding.box, finding.name or "", 0),)
    return _drawn(picture, boxes, _view(picture.size, finding.box, boxes))


def _read(path: Path) -> Image.Image | None:
    try:
        return read_image(path)
    except ImageError:
        return None


def _view(size: tuple[int, int], box: View | None, boxes: tuple[BoxLabel, ...]) -> View:
    """The part of the plane to show, in the picture's pixels."""
    width, height = size
    if box is not None and max((box[2] - box[0]) / width, (box[3] - box[1]) / height) < _CLOSE_UP:
        x, y = (min(max((box[at] + box[at + 2]) / 2, 0), size[at]) for at in (0, 1))
        half = 1.5 * _CLOSE_UP * max(size)
        return x - half, y - half, x + half, y + half
    view = [0.0, 0.0, float(width), float(height)]
    for label in boxes:
        for at, value in enumerate(label.box):
            axis = at % 2
            value = min(max(value, -_FARTHEST * size[axis]), (1 + _FARTHEST) * size[axis])
            view[axis], view[axis + 2] = min(view[axis], value), max(view[axis + 2], value)
    return view[0], view[1], view[2], view[3]


def _drawn(picture: Image.Image, boxes: tuple[BoxLabel, ...], view: View) -> Image.Image:
    scale = SIDE / max(view[2] - view[0], view[3] - view[1])
    size = (max(1, round((view[2] - view[0]) * scale)), max(1, round((view[3] - view[1]) * scale)))
    ground = Image.new("RGB", size, _GROUND)
    # Only what is seen is scaled: a close-up of a large scan would else take gigabytes.
    seen = (max(0, int(view[0])), max(0, int(view[1])), min(picture.width, -int(-view[2] // 1)), 0)
    seen = (*seen[:3], min(picture.height, -int(-view[3] // 1)))
    if seen[0] < seen[2] and seen[1] < seen[3]:
        part = picture.crop(seen)
        part = part.resize((max(1, round(part.width * scale)), max(1, round(part.height * scale))))
        ground.paste(part, (round((seen[0] - view[0]) * scale), round((seen[1] - view[1]) * scale)))
    moved = [
        BoxLabel(
            (
                (min(label.box[0], label.box[2]) - view[0]) * scale,
                (min(label.box[1], label.box[3]) - view[1]) * scale,
                (max(label.box[0], label.box[2]) - view[0]) * scale,
                (max(label.box[1], label.box[3]) - view[1]) * scale,
            ),
            label.text,
            label.colour,
        )
        for label in boxes
    ]
    return draw_boxes(ground, moved)


def _side_by_side(one: Path, other: Path) -> Image.Image | None:
    pictures = [picture for path in (one, other) if (picture := _read(path)) is not None]
    if len(pictures) < 2:
        return None
    for picture in pictures:
        picture.thumbnail((SIDE, SIDE))
    gap = 6
    size = (sum(picture.width for picture in pictures) + gap, max(picture.height for picture in pictures))
    sheet = Image.new("RGB", size, "white")
    sheet.paste(pictures[0], (0, 0))
    sheet.paste(pictures[1], (pictures[0].width + gap, 0))
    return sheet
