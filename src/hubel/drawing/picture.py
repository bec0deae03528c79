"""The picture that is drawn on: large enough to read, with smooth corners, saved whole."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from hubel.errors import ImageError
from hubel.fileio import replacing

MINIMUM_SIDE = 240
"""Pictures with a shorter side in pixels are enlarged before anything is written on them."""

LARGEST_ENLARGED_SIDE = 4096
"""How far an enlarged picture's longer side may grow; what is still too narrow gets a dark ground."""

GROUND = (16, 18, 24)
WHITE = (255, 255, 255)


def save_annotated(path: str | Path, image: Image.Image) -> None:
    """Write an image in the format of the path's suffix, beside the path first and renamed when complete.

    Args:
        path: where to; the folder exists.
        image: what to write.

    Raises:
        ImageError: a suffix that Pillow cannot write.
        DataError: the folder cannot be written, or the disk is full; an older file is then as it was.
    """
    path = Path(path)
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise ImageError(f"{path}: no picture format is called {path.suffix!r}.", "Use .jpg, .png or .webp.")
    settings: dict[str, int] = {"JPEG": {"quality": 92, "subsampling": 0}, "WEBP": {"quality": 90}}.get(kind, {})
    with replacing(path) as partial:
        image.save(partial, format=kind, **settings)


def large_enough(picture: Image.Image) -> Image.Image:
    """The picture itself, or one enlarged so that both sides have :data:`MINIMUM_SIDE` pixels."""
    width, height = picture.size
    if min(width, height) >= MINIMUM_SIDE:
        return picture
    scale = max(1.0, min(MINIMUM_SIDE / min(width, height), LARGEST_ENLARGED_SIDE / max(width, height)))
    # A picture of a few pixels is to be seen as such, not as a blur.
    smoothing = Image.Resampling.NEAREST if scale > 8 else Image.Resampling.BICUBIC
    scaled = picture.resize((max(1, round(width * scale)), max(1, round(height * scale))), smoothing)
    size = (max(MINIMUM_SIDE, scaled.width), max(MINIMUM_SIDE, scaled.height))
    if size == scaled.size:
        return scaled
    ground = Image.new("RGB", size, GROUND)
    ground.paste(scaled, ((size[0] - scaled.width) // 2, (size[1] - scaled.height) // 2))
    return ground


def rounded_mask(size: tuple[int, int], radius: int) -> Image.Image:
    """A mask (mode L) of a rectangle with smooth round corners."""
    mask = Image.new("L", size, 255)
    radius = min(radius, size[0] // 2, size[1] // 2)
    if radius < 1:
        return mask
    fine = Image.new("L", (8 * radius, 8 * radius))
    ImageDraw.Draw(fine).ellipse((0, 0, 8 * radius - 1, 8 * radius - 1), fill=255)
    disc = fine.resize((2 * radius, 2 * radius), Image.Resampling.BOX)
    for x, from_x in ((0, 0), (size[0] - radius, radius)):
        for y, from_y in ((0, 0), (size[1] - radius, radius)):
            mask.paste(disc.crop((from_x, from_y, from_x + radius, from_y + radius)), (x, y))
    return mask
