"""Damage inside of containers that check themselves, where a changed byte alone would only meet their checksums."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from random import Random

Damage = Callable[[bytes, Random], bytes]

_PNG = b"\x89PNG\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
_LARGEST = 1 << 20


def damage_for(data: bytes) -> Callable[[bytes, Random, Damage], bytes] | None:
    """What damages the inside of a sound container of this kind by another damage; None for other files."""
    if data.startswith(_PNG):
        return _png
    if data.startswith(_ZIP):
        return _zip
    return _safetensors if _header_length(data) else None


def _png(data: bytes, random: Random, damage: Damage) -> bytes:
    """A chunk is damaged, pixels before they are compressed; its length and checksum are right."""
    chunks, at = [], len(_PNG)
    while at + 12 <= len(data):
        length = min(struct.unpack_from(">I", data, at)[0], len(data) - at - 12)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return damage(data, random)
    index = random.randint(0, len(chunks) - 1)
    kind, content = chunks[index]
    if kind == b"IDAT" and random.randint(0, 1):
        try:
            content = zlib.compress(damage(zlib.decompressobj().decompress(content, _LARGEST), random))
        except zlib.error:
            content = damage(content, random)
    else:
        content = damage(content, random)
    chunks[index] = kind, content
    return _PNG + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def _zip(data: bytes, random: Random, damage: Damage) -> bytes:
    """A member is damaged, or left out; the archive is whole."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(part, archive.read(part)) for part in archive.infolist() if part.file_size <= _LARGEST]
    except Exception:  # zipfile raises anything for what was damaged before
        return damage(data, random)
    if not members:
        return damage(data, random)
    # Small members describe the others: without a preference most damage would hit the tensors.
    chosen = random.choice(sorted(members, key=lambda member: len(member[1]))[: random.choice((3, len(members)))])
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for part, content in members:
            if part is not chosen[0]:
                archive.writestr(part.filename, content)
            elif random.randint(0, 15):
                archive.writestr(part.filename, damage(content, random))
    return written.getvalue()


def _header_length(data: bytes) -> int:
    if len(data) < 10 or data[8:9] != b"{":
        return 0
    length = int(struct.unpack_from("<Q", data)[0])
    return length if length <= len(data) - 8 else 0


def _safetensors(data: bytes, random: Random, damage: Damage) -> bytes:
    """The JSON header is damaged, or the numbers behind it; its length is right."""
    length = _header_length(data)
    if not length:
        return damage(data, random)
    header, numbers = data[8 : 8 + length], data[8 + length :]
    if random.randint(0, 3):
        header = damage(header, random)
    else:
        at = random.randint(0, max(0, len(numbers) - 4)) & ~3
        value = random.choice((float("nan"), float("inf"), float("-inf"), 3e38, -3e38, 1e-45, 0.0))
        numbers = numbers[:at] + struct.pack("<f", value) + numbers[at + 4 :]
    return struct.pack("<Q", len(header)) + header + numbers
