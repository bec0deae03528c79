"""What a file holds, told by its first bytes: names lie, or have no suffix."""

from __future__ import annotations

import re
from pathlib import Path

from hubel.data.file_listing import IMAGE_SUFFIXES

PREFIX_BYTES = 2048
"""Number of bytes at a file's beginning that tell its kind: enough for packets of a transport stream."""

_PREFIXES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"8BPS": "Photoshop",
    b"%PDF-": "PDF",
    b"\0\0\1\0": "icon",
    b"v/1\1": "OpenEXR",
    b"SIMPLE  =": "FITS",
    b"FUJIFILMCCD-RAW": "Fujifilm raw",
    b"IIRO": "Olympus raw",
    b"MMOR": "Olympus raw",
    b"IIRS": "Olympus raw",
    b"IIU\0": "Panasonic raw",
    b"FOVb": "Sigma raw",
    b"II\xbc\1": "JPEG XR",
    b"#?RADIANCE": "Radiance HDR",
    b"#?RGBE": "Radiance HDR",
    b"qoif": "QOI",
    b"DDS ": "DDS",
    b"icns": "Apple icon",
    b"\1\xda\0": "SGI",
    b"\1\xda\1": "SGI",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"\xd7\xcd\xc6\x9a": "Windows metafile",
    b"P7\n": "PAM",
    b"PF\n": "PFM",
    b"gimp xcf": "GIMP",
    b"AT&TFORM": "DjVu",
}
# What is found under an image's name, and what to do.
_OTHER_KINDS = {
    rb"\s*<(?i:!doctype html|html|head|body)": ("a web page", "download the file itself"),
    rb"version https://git-lfs": ("a pointer of Git LFS", "fetch the file: git lfs pull"),
    rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|BZh[1-9]|\xfd7zXZ": ("an archive", "unpack it first"),
    rb"\x93NUMPY": ("a NumPy array", "load it, and pass the array"),
    rb"(?s:.{128})DICM": ("a DICOM file", "export it as PNG"),
    rb"\x89HDF\r\n\x1a\n|CDF[\x01\x02]": ("a file of scientific data (HDF5 or netCDF)", "export it as PNG"),
    rb"\x00{64}": ("zeros, as an unfinished copy has", "copy or download it again"),
    rb"\s*[{\[][\s\"'{\[\]}\w]": ("JSON", "leave it out"),
    rb"\s*<\?xml": ("XML", "leave it out"),
}
_HEIF_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1", b"miaf"}
)
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
# Boxes that QuickTime files without a brand, and damaged ones, begin with.
_QUICKTIME_BOXES = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
_MOST_BOXES = 10_000
_VIDEO_PREFIXES = (
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"\0\0\1\xba",  # MPEG program stream
    b"\0\0\1\xb3",  # MPEG video
    b"FLV\1",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF, WMV
    b"OggS",
    b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02",  # MXF
    b"DKIF",  # IVF
    b"YUV4MPEG2",
    b".RMF",
    b"nut/multimedia container\0",
)
# Bare H.264 and H.265 begin with a delimiter or parameter sets behind a start code.
_BARE_VIDEO = re.compile(rb"\x00{2,3}\x01(?:[\x09\x27\x47\x67]|[\x40\x42\x44\x46]\x01)")
_NETPBM = re.compile(rb"P[1-6][\s#]")
# A comment ends at its first "-->": where it may end at any, a file of comments takes for ever.
_SVG = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--(?:[^-]|-(?!->))*-->\s*|<!DOCTYPE svg[^>]*>\s*)*<(?:svg:)?svg[\s>/]")
_READ = frozenset({"JPEG", "PNG", "GIF", "WebP", "BMP", "TIFF", "JPEG 2000", "AVIF", "HEIC", "Netpbm"})


def prefix_of(path: Path) -> bytes:
    """The first bytes of a regular file; empty if it cannot be read."""
    try:
        if not path.is_file():  # opening a pipe would wait
            return b""
        with path.open("rb") as file:
            return file.read(PREFIX_BYTES)
    except (OSError, ValueError):
        return b""


def image_kind(prefix: bytes) -> str | None:
    """The name of the image format that a file begins like, also of formats that are not read; ``None`` for others."""
    for start, kind in _PREFIXES.items():
        if prefix.startswith(start):
            return kind
    if prefix[:4] == b"RIFF" and prefix[8:12] == b"WEBP":
        return "WebP"
    if prefix[:2] == b"BM" and prefix[6:10] == bytes(4):
        return "BMP"
    if prefix[4:8] == b"ftyp":
        return _by_brand(prefix)
    if _NETPBM.match(prefix):
        return "Netpbm"
    return "SVG" if _SVG.match(prefix) else None


def other_kind(prefix: bytes) -> tuple[str, str] | None:
    """What a file that is neither an image nor a video begins like, and what to do; ``None`` if that is not known."""
    return next((kind for pattern, kind in _OTHER_KINDS.items() if re.match(pattern, prefix)), None)


def is_image(prefix: bytes) -> bool:
    """True if a file begins like an image of a format that is read."""
    return image_kind(prefix) in _READ


def is_image_file(path: Path) -> bool:
    """True if a file is an image by its suffix, or by its content where the suffix tells nothing.

    ``rose.jpg`` is one whatever it holds, so that reading it says what is wrong; ``rose``, ``rose.0001``, and
    ``rose.jpg_large`` are if they begin like one.
    """
    suffix = path.suffix.lower()
    return suffix in IMAGE_SUFFIXES or (tells_nothing(suffix) and is_image(prefix_of(path)))


def tells_nothing(suffix: str) -> bool:
    """True for a suffix, in lower case, that is none, or none of a file format: ``.0001``, ``.jpg_large``."""
    return re.fullmatch(r"\.[a-z]+\d?", suffix) is None


def _by_brand(prefix: bytes) -> str | None:
    """HEIC, AVIF or Canon's CR3 by the brands of an ISO base media file, the first the major one; else ``None``."""
    size = min(int.from_bytes(prefix[:4], "big"), len(prefix))
    if prefix[8:12] == b"crx ":
        return "Canon raw"
    brands = [prefix[8:12], *(prefix[at : at + 4] for at in range(16, size - 3, 4))]
    if brands[0] not in _HEIF_BRANDS | _AVIF_BRANDS:
        return None
    return "AVIF" if not _AVIF_BRANDS.isdisjoint(brands) else "HEIC"


def is_video(prefix: bytes) -> bool:
    """True if a file begins like a video, or like sound in a container of videos."""
    if image_kind(prefix) is not None:
        return False
    if prefix[:4] == b"RIFF":
        return prefix[8:12] in (b"AVI ", b"AVIX", b"AMV ")
    if prefix[4:8] == b"ftyp":
        return True
    if prefix[4:8] in _QUICKTIME_BOXES or prefix.startswith(_VIDEO_PREFIXES):
        return True
    return _BARE_VIDEO.match(prefix) is not None or is_transport_stream(prefix)


def is_sound(prefix: bytes) -> bool:
    """True if a file begins like sound in a format that holds nothing else."""
    if prefix[8:12] in (b"WAVE", b"AIFF", b"AIFC"):
        return prefix[:4] in (b"RIFF", b"RF64", b"FORM")
    # MPEG audio and ADTS begin with eleven bits of ones, and neither with a JPEG's marker.
    return prefix.startswith((b"ID3", b"fLaC", b"#!AMR")) or (
        prefix[:1] == b"\xff"
        and len(prefix) > 1
        and prefix[1] >= 0xE0
        and image_kind(prefix) is None
        and not (prefix[:2] == b"\xff\xfe" and b"\0" in prefix[3:4])  # text in UTF-16
    )


_GIF_PADDING = 16
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def lacks_index(path: Path) -> bool:
    """True if a file is an MP4 or QuickTime movie without the whole of its index, which recorders write at the end."""
    prefix = prefix_of(path)
    if prefix[4:8] != b"ftyp" and prefix[4:8] not in _QUICKTIME_BOXES:
        return False
    with path.open("rb") as file:
        size, at = file.seek(0, 2), 0
        for _ in range(_MOST_BOXES):
            file.seek(at)
            header = file.read(16)
            length = int.from_bytes(header[:4], "big")
            length = int.from_bytes(header[8:], "big") if length == 1 else length or size - at
            if header[4:8] == b"moov":
                return at + length > size
            at += max(length, 8)
            if at >= size:
                return True
    return False


def is_transport_stream(prefix: bytes) -> bool:
    """True if four packets of MPEG-TS follow each other: 188 bytes, with a time code before (M2TS) or parity behind.

    A recording may begin within a packet.
    """
    return _packets(prefix) is not None


def is_cut_off(path: Path) -> bool:
    """True if a video's file ends before its content: within a packet or a frame, or before the size that it states."""
    prefix = prefix_of(path)
    size = path.stat().st_size
    if prefix.startswith(b"GIF8"):
        with path.open("rb") as file:
            file.seek(-min(size, _GIF_PADDING), 2)
            return b";" not in file.read()
    if (at := prefix.find(_ASF_PROPERTIES)) >= 0 and len(prefix) >= at + 92:
        stated = int.from_bytes(prefix[at + 40 : at + 48], "little")
        is_broadcast = prefix[at + 88] & 1
        return not is_broadcast and size < stated
    packets = _packets(prefix)
    return packets is not None and (size - packets[0]) % packets[1] > 0


def _packets(prefix: bytes) -> tuple[int, int] | None:
    """Where the first whole packet of a transport stream begins, and the size of each; ``None`` for other files."""
    if b"\0" not in prefix:  # text
        return None
    for size in (188, 192, 204):
        for start in range(min(size, len(prefix))):
            headers = [prefix[at : at + 4] for at in range(start, len(prefix) - 3, size)]
            # The sync byte; no error; a payload, an adaptation field, or both.
            if len(headers) >= 4 and all(h[0] == 0x47 and not h[1] & 0x80 and h[3] & 0x30 for h in headers):
                return start - (4 if size == 192 else 0), size
    return None
