"""Objects with masks: translucent fills, outlines and labels, readable where objects overlap."""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image

from hubel.drawing.boxes import BoxLabel, Layout, colour_of
from hubel.drawing.canvas import DARK, Colour
from hubel.masks import RunLengthMask, decode_part

_OPACITY = 0.45
_LINE = 1 / 12  # of the side of a square of as many pixels, at most: lines must not cover small objects
_SHADES = (0.0, -0.16, 0.14, -0.08)  # added to the lightness: neighbours of a class look different


def draw_instances(image: Image.Image, labels: Sequence[BoxLabel], masks: Sequence[RunLengthMask]) -> Image.Image:
    """Draw objects on an image: their pixels translucent, with an outline between dark lines, and their labels.

    Small objects are drawn over large ones. Objects of a colour get different shades of it, in turn. Where there is no
    room for all labels, a part of those of each colour is drawn. ``masks`` are in pixels of the image, in the order of
    the labels, whose boxes say where labels go and are not drawn. The result is as that of
    :func:`~hubel.drawing.draw_boxes`.
    """
    layout = Layout.of(image, labels)
    shown = np.array(layout.image)
    seen: Counter[int | Colour] = Counter()
    shades = []
    for label in labels:
        shades.append(_shade(label.colour, seen[label.colour]))
        seen[label.colour] += 1
    for index in layout.order:
        part, x, y = _scaled(masks[index], layout)
        paint_mask(shown, part, x, y, shades[index], layout.line)
    layout.image.paste(Image.fromarray(shown))
    layout.draw_labels(thin_out=True)
    return layout.image


def _shade(colour: int | Colour, number: int) -> Colour:
    """The colour of an object, of which there are a ``number`` of the same colour before it."""
    red, green, blue = (channel / 255 for channel in colour_of(colour))
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    lightness = min(0.85, max(0.3, lightness + _SHADES[number % len(_SHADES)]))
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, saturation)
    return round(255 * red), round(255 * green), round(255 * blue)


def _scaled(mask: RunLengthMask, layout: Layout) -> tuple[np.ndarray, int, int]:
    """The part of a mask that has pixels, (h, w) bool, on the upscaled image, and where it begins: x and y."""
    part, x, y = decode_part(mask)
    if layout.scale == 1 or not part.size:
        return part, x + round(layout.shift[0]), y + round(layout.shift[1])
    height, width = part.shape
    size = (max(1, round(width * layout.scale)), max(1, round(height * layout.scale)))
    smooth = Image.fromarray(part.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
    left, top = (round(at * layout.scale + shift) for at, shift in zip((x, y), layout.shift, strict=True))
    return np.asarray(smooth) > 127, left, top


def paint_mask(shown: np.ndarray, part: np.ndarray, x: int, y: int, colour: Colour, line: int) -> None:
    """Draw an object, bool (h, w), at ``x, y`` on pixels, uint8 (H, W, 3), in place; what is outside is left out.

    The outline is ``line`` pixels wide, or less around small objects.
    """
    from scipy.ndimage import maximum_filter, minimum_filter

    if not part.size:
        return
    line = min(line, max(1, round(np.sqrt(part.sum()) * _LINE)))
    around = 1  # for the dark line outside
    mask = np.pad(part, around).astype(np.uint8)
    x, y = x - around, y - around
    rows, columns = (slice(max(0, at), at + size) for at, size in ((y, mask.shape[0]), (x, mask.shape[1])))
    below = shown[rows, columns]
    mask = mask[max(0, -y) :, max(0, -x) :][: below.shape[0], : below.shape[1]]
    # Beyond the image's edge an object goes on: no line is drawn along it.
    inner = minimum_filter(mask, 2 * line + 1, mode="nearest")
    dark = minimum_filter(mask, 2 * line + 3, mode="nearest")
    outer = maximum_filter(mask, 3, mode="nearest")
    inside = mask.astype(bool)
    for channel, value in enumerate(colour):  # one at a time: an object may be as large as the largest image
        plane = below[..., channel]
        plane[inside] = plane[inside] * np.float32(1 - _OPACITY) + np.float32(value * _OPACITY)
    below[(mask != inner)] = colour
    below[(inner != dark) | (outer != mask)] = DARK
