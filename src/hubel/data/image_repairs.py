"""Image files that Pillow refuses although all their pixels are there: odd metadata in a PNG, a JPEG without end."""

from __future__ import annotations

import io
import random
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image

MAX_BYTES = 2**28
"""Size of the largest file that a repair is tried on."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
# Texts in which the orientation may stand; see hubel.data.image_io.
_EXIF_KEYWORD, _XMP_KEYWORD = b"Raw profile type exif", b"XML:com.adobe.xmp"
_MAX_TEXT = 2**20

_END, _SCAN, _RESTART_INTERVAL, _HUFFMAN_TABLES = 0xD9, 0xDA, 0xDD, 0xC4
_JPEG_END = bytes((0xFF, _END))
_JPEG_SEGMENTS = frozenset({0x01, 0xFE, *range(0xC0, 0xD0), *range(0xD8, 0xF0)})
_NOT_CODED = bytes(64)  # with the usual Huffman tables, no image has so many
_PADDING = 16
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1, 0xC9), (0xC2, 0xCA)
_FILLINGS = 4
_FILLING_BYTES = 4096


def without_damage(data: bytes) -> bytes | None:
    """The bytes of an image file without the damage that costs no pixel; ``None`` if there is no such damage.

    - Of a PNG everything is left out that is not needed for its pixels and its orientation: profiles and texts may be
      of any size and have wrong checksums, as for every other program.
    - A JPEG without its end marker gets one, if its coded pixels are complete.
    """
    if data.startswith(_PNG_SIGNATURE):
        return _png_of_pixels(data)
    if data.startswith(b"\xff\xd8"):
        return _ended_jpeg(data)
    return None


def is_cut_and_padded(file: BinaryIO) -> bool:
    """True if a JPEG lacks coded pixels that zeros stand in place of, which the decoder takes for pixels.

    So do downloads end that were broken off, and files recovered from a disk.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _PADDING))
    if any(file.read(_PADDING)) or size > MAX_BYTES:
        return False
    file.seek(0)
    data = file.read(size)
    return all(marker != _END for marker, *_ in _segments(data)) and _ended_jpeg(data) is None


def is_whole(data: bytes) -> bool:
    """True if a JPEG ends, and its coded pixels are interrupted by nothing that cannot be among them."""
    has_pixels = may_be_zeros = False
    known = 2  # bytes of segments and scans; between them is nothing
    for marker, content, scan in _segments(data):
        if marker == _END:
            return has_pixels and data.rfind(_JPEG_END) - known < len(_NOT_CODED)
        has_pixels = has_pixels or marker == _SCAN
        may_be_zeros = may_be_zeros or (marker == _HUFFMAN_TABLES and _has_code_of_one_bit(content))
        known += 4 + len(content) + len(scan)
        if marker not in _JPEG_SEGMENTS or (_NOT_CODED in scan and not may_be_zeros):
            return False
    return False


def _has_code_of_one_bit(tables: bytes) -> bool:
    """True if a Huffman table has the code 0, as those that are made for one plain image."""
    at = 0
    while at + 17 <= len(tables):
        if tables[at + 1]:
            return True
        at += 17 + sum(tables[at + 1 : at + 17])
    return False


def _png_of_pixels(data: bytes) -> bytes | None:
    kept = [_PNG_SIGNATURE]
    at = len(_PNG_SIGNATURE)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 12 + length
        kind, content = data[at + 4 : at + 8], data[at + 8 : end - 4]
        intact = end <= len(data) and zlib.crc32(data[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")
        if kind in _PIXEL_CHUNKS or (intact and _may_tell_orientation(kind, content)):
            kept.append(data[at:end])
        at = end
    rest = b"".join(kept)
    return rest if len(rest) < len(data) else None


def _may_tell_orientation(kind: bytes, content: bytes) -> bool:
    keyword, _, text = content.partition(b"\0")
    if kind == b"eXIf":
        return True
    if kind == b"zTXt" and keyword == _EXIF_KEYWORD:
        inflater = zlib.decompressobj()
        try:
            inflater.decompress(text[1:], _MAX_TEXT)
        except zlib.error:
            return False
        return not inflater.unconsumed_tail
    return kind in (b"tEXt", b"iTXt") and keyword in (_EXIF_KEYWORD, _XMP_KEYWORD) and text[:1] != b"\1"


def _ended_jpeg(data: bytes) -> bytes | None:
    """The file with an end marker, if all that it lacks is one."""
    body = data.rstrip(b"\0")  # recovered files are padded to whole sectors
    if body.endswith(b"\xff"):  # half an end marker, or a coded 255, which a zero follows
        body += b"\0" if len(body) < len(data) else b""
        body = body.rstrip(b"\xff")
    scans = _open_scans(body)
    if scans is None:
        return None
    # The decoder fills in what is missing, and does not say so. But then it also takes any bits that follow for the
    # missing ones, and other bits give other pixels; behind complete data they are passed over.
    ended = body + _JPEG_END
    pixels = _jpeg_pixels(ended)
    if pixels is None:
        return None
    for seed in range(_FILLINGS):
        other = _jpeg_pixels(body + _filling(seed, *scans) + _JPEG_END)
        if other is None or not np.array_equal(pixels, other):
            return None
    return ended


def _jpeg_pixels(data: bytes) -> np.ndarray | None:
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return np.asarray(image)
    except Exception:  # hostile bytes may raise anything
        return None


def _filling(seed: int, restarts: bool, next_restart: int) -> bytes:
    """Bytes that stand for coded pixels, in as many intervals as there are restart markers."""
    generator = random.Random(seed)
    intervals = 9 if restarts else 1
    parts = [bytes(generator.randrange(255) for _ in range(_FILLING_BYTES // intervals)) for _ in range(intervals)]
    joined = parts[0]
    for index, part in enumerate(parts[1:]):
        joined += bytes((0xFF, 0xD0 + (next_restart + index) % 8)) + part
    return joined


def _open_scans(data: bytes) -> tuple[bool, int] | None:
    """``None`` unless a JPEG has all its scans and no end marker.

    Else whether it has restart markers, and the number of the one that would follow, 0..7.
    """
    missing: dict[int, list[int]] = {}  # by component, the bits that each coefficient still lacks
    progressive = restarts = False
    last = 0
    for marker, content, scan in _segments(data):
        if marker == _END:
            return None
        if marker in _SEQUENTIAL or marker in _PROGRESSIVE:
            progressive = marker in _PROGRESSIVE
            missing = {content[at]: [1] * 64 for at in range(6, len(content) - 2, 3)}
        elif marker == _RESTART_INTERVAL:
            restarts = content[:2] != b"\0\0"
        elif marker == _SCAN:
            found = _RESTART.findall(scan)
            last = (found[-1][0] - 0xD0 + 1) % 8 if found else 0
            count = content[0] if content else 0
            if len(content) < 4 + 2 * count:
                return None
            first, final, bits = content[1 + 2 * count : 4 + 2 * count]
            for at in range(count):
                coefficients = missing.get(content[1 + 2 * at])
                if coefficients is None:
                    return None
                for index in range(first, min(final, 63) + 1) if progressive else range(64):
                    coefficients[index] = bits & 15 if progressive else 0
    complete = bool(missing) and not any(any(coefficients) for coefficients in missing.values())
    return (restarts, last) if complete else None


def _segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Marker, content, and for scans the coded pixels behind it, of each segment, up to the end marker."""
    at = 2
    while match := _JPEG_MARKER.search(data, at):
        marker = match[1][0]
        at = match.end()
        if marker in (_END, 0x01, 0xD8):
            yield marker, b"", b""
            if marker == _END:
                return
            continue
        end = at + int.from_bytes(data[at : at + 2], "big")
        content = data[at + 2 : end]
        following = _JPEG_MARKER.search(data, end) if marker == _SCAN else None
        at = following.start() if following else (len(data) if marker == _SCAN else end)
        yield marker, content, data[end:at] if marker == _SCAN else b""
