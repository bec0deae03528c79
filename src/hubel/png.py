"""Writes PNG files, a few rows at a time."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hubel.fileio import atomic_write

_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}  # by channels: grey, RGB, RGBA
_UP = 2


def block_height(row_bytes: int) -> int:
    """The number of rows that make a block of at most 4 MB, at least 1."""
    return max(1, (1 << 22) // row_bytes)


def write_png(path: Path, width: int, height: int, channels: int, blocks: Iterable[np.ndarray], level: int = 1) -> None:
    """Write an image of 8 bits a channel (the PNG specification, sections 9 to 11).

    Each row is stored as its difference from the one above. Pillow tries five such filters on every row, which takes
    longer than the compression.

    Args:
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        blocks: uint8 (N, width · channels), together ``height`` rows, from the top.
        level: of the compression; 1 takes the least time.

    Raises:
        DataError: the file cannot be written.
    """
    with atomic_write(path) as partial_file, partial_file.open("wb") as file:

        def chunk(kind: bytes, content: bytes) -> None:
            check = zlib.crc32(content, zlib.crc32(kind))
            file.write(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check))

        file.write(b"\x89PNG\r\n\x1a\n")
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0))
        compress = zlib.compressobj(level)
        above = np.zeros((1, width * channels), np.uint8)
        for rows in blocks:
            filtered = np.empty((len(rows), 1 + width * channels), np.uint8)
            filtered[:, 0] = _UP
            np.subtract(rows[:1], above, out=filtered[:1, 1:])
            np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
            above = rows[-1:]
            if packed := compress.compress(filtered.data):
                chunk(b"IDAT", packed)
        chunk(b"IDAT", compress.flush())
        chunk(b"IEND", b"")
