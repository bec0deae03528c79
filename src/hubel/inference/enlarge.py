"""Images of any size through a network that enlarges: by tiles that overlap, joined without seams.

Each tile has the size of the network's input. On every side it begins by the network's ``margin`` before the part that
is kept: the pixels that this part depends on. Beyond the borders of the image the nearest pixels are repeated. So every
pixel of the enlarged image is what the network would have made of the whole image, bordered like that.

Rows of tiles are joined to strips, and the strips go into a file without a name once they are many: however large the
enlarged image is, memory holds the original and a strip.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from hubel.data.image_io import MAX_PIXELS
from hubel.data.preprocessing import Preprocessing
from hubel.data.sources import ImageSource
from hubel.errors import ImageError
from hubel.inference.pipeline import FailedImage, PreparedImage, decode_ahead
from hubel.png import block_height, write_png
from hubel.results import Enlarged, InMemory, Prediction

_AROUND = 3  # rows that interpolation needs above and below, and one more
_IN_MEMORY = 1 << 26  # bytes of an enlarged image; a larger one goes into a file


@dataclass(frozen=True, kw_only=True)
class Tile(PreparedImage):
    """A part of an image, with its surroundings.

    Attributes:
        kept: width and height of the part that is kept, in pixels of the original; it begins at the margin.
        alpha: uint8 (rows, columns) of the enlarged strip, with the first tile of a strip, where there is any.
        ends: it is the last of its strip, or of the image.
    """

    kept: tuple[int, int]
    alpha: np.ndarray | None
    is_first: bool
    ends_strip: bool
    ends_image: bool


def prepare_tiles(
    images: Iterable[ImageSource], preprocessing: Preprocessing
) -> Generator[Tile | FailedImage, None, None]:
    """The tiles of each image, row by row; one image is decoded ahead."""
    with closing(decode_ahead(images, _with_alpha)) as decoded:
        for each in decoded:
            if isinstance(each, FailedImage):
                yield each
            else:
                yield from _tiles(*each, preprocessing)


def _with_alpha(source: ImageSource) -> Image.Image:
    return (source.read_alpha or source.read)()


def _tiles(source: ImageSource, image: Image.Image, preprocessing: Preprocessing) -> Iterator[Tile]:
    margin, scale = preprocessing.margin, preprocessing.scale
    across, down = preprocessing.width - 2 * margin, preprocessing.height - 2 * margin
    width, height = image.size
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    mode = "L" if preprocessing.channels == 1 else "RGB"
    reader = source.reopen or InMemory(source.read)
    for y in range(0, height, down):
        rows = min(down, height - y)
        strip = image.crop((0, max(0, y - margin), width, min(height, y + down + margin))).convert(mode)
        pixels = np.asarray(strip).reshape(strip.height, width, -1)
        beyond = max(0, margin - y), max(0, y + down + margin - height)
        pixels = np.pad(pixels, (beyond, (margin, margin + across), (0, 0)), mode="edge")
        enlarged_alpha = None if alpha is None else _enlarged_rows(alpha, y, rows, scale)
        for x in range(0, width, across):
            columns = min(across, width - x)
            yield Tile(
                source.source,
                width,
                height,
                pixels[:, x : x + preprocessing.width],
                source.frame,
                source.time,
                reader,
                kept=(columns, rows),
                alpha=enlarged_alpha if x == 0 else None,
                is_first=x == y == 0,
                ends_strip=x + across >= width,
                ends_image=x + across >= width and y + down >= height,
            )


def _enlarged_rows(alpha: Image.Image, y: int, rows: int, scale: int) -> np.ndarray:
    """The alpha channel of a strip, by bicubic interpolation."""
    top, bottom = max(0, y - _AROUND), min(alpha.height, y + rows + _AROUND)
    part = alpha.crop((0, top, alpha.width, bottom))
    enlarged = part.resize((part.width * scale, part.height * scale), Image.Resampling.BICUBIC)
    return np.asarray(enlarged)[(y - top) * scale :][: rows * scale]


def join_tiles(
    outcomes: Iterable[tuple[Tile, Prediction] | FailedImage], preprocessing: Preprocessing
) -> Generator[Enlarged | FailedImage, None, None]:
    """The enlarged images from those of their tiles, which come in order."""
    margin, scale = preprocessing.margin, preprocessing.scale
    strip: list[np.ndarray] = []
    for outcome in outcomes:
        if isinstance(outcome, FailedImage):
            yield outcome
            continue
        tile, result = outcome
        if tile.is_first:
            rows = StoredRows(tile.width * scale, 3 if tile.alpha is None else 4)
        if tile.alpha is not None:
            alpha = tile.alpha
        assert isinstance(result, Enlarged)
        left, (columns, height) = margin * scale, tile.kept
        part = np.asarray(result.image)[left : left + height * scale, left : left + columns * scale]
        strip.append(part)
        if tile.ends_strip:
            joined = np.concatenate(strip, 1)
            rows.append(joined if rows.channels == 3 else np.dstack((joined, alpha)))
            strip = []
        if tile.ends_image:
            yield Enlarged(
                tile.source,
                tile.width,
                tile.height,
                scale,
                InMemory(rows.image),
                rows.write_png if rows.is_large else None,
                frame=tile.frame,
                time=tile.time,
                reader=tile.reader,
            )


class StoredRows:
    """The rows of an image, uint8, in memory, or in a file that is gone with it.

    Args:
        width: in pixels.
        channels: 3 for RGB, 4 for RGBA.
    """

    def __init__(self, width: int, channels: int) -> None:
        self.width, self.height, self.channels = width, 0, channels
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, prefix="hubel-")  # noqa: SIM115 – as long as this
        self._lock = threading.Lock()

    @property
    def is_large(self) -> bool:
        """The image is in a file."""
        return self.width * self.height * self.channels > _IN_MEMORY

    def append(self, rows: np.ndarray) -> None:
        """Add rows (N, width, channels)."""
        try:
            self._file.write(np.ascontiguousarray(rows).data)
        except OSError as error:
            message = f"no space for an enlarged image in {tempfile.gettempdir()}: {error.strerror or error}"
            raise ImageError(message, "free some, or set TMPDIR to a folder on a larger disk") from error
        self.height += len(rows)

    def image(self) -> Image.Image:
        """The whole image.

        Raises:
            ImageError: it has more pixels than any that is decoded here.
        """
        if self.width * self.height > 4 * MAX_PIXELS:
            size = f"{self.width} × {self.height} pixels"
            raise ImageError(f"an enlarged image of {size} does not fit into memory", "save it as a PNG file")
        with self._lock:
            self._file.seek(0)
            content = self._file.read()
        return Image.frombytes("RGB" if self.channels == 3 else "RGBA", (self.width, self.height), content)

    def write_png(self, path: Path) -> None:
        """Write a PNG file, a few rows at a time.

        Raises:
            DataError: the file cannot be written.
        """
        with self._lock:
            write_png(path, self.width, self.height, self.channels, self._blocks(), level=4)

    def _blocks(self) -> Iterator[np.ndarray]:
        """Rows (N, width · channels), from the top."""
        stride = self.width * self.channels
        block = block_height(stride)
        self._file.seek(0)
        for start in range(0, self.height, block):
            count = min(block, self.height - start)
            yield np.frombuffer(self._file.read(count * stride), np.uint8).reshape(count, stride)
