"""Decode label files: UTF-8, UTF-16 and UTF-32 with or without a mark, what XML declares, else a guess."""

from __future__ import annotations

import codecs
import re

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
# Label files begin with ASCII: where its zero bytes are tells what wrote it.
_ZEROS = ((b"\0\0\0", "utf-32-be"), (b"\0", "utf-16-be"))
_DECLARATION = re.compile(
    rb"""<\?xml[^>]{0,200}?encoding\s{0,9}=\s{0,9}["']([A-Za-z][\w.\-]{0,40})["'][^>]{0,100}\?>"""
)


GUESSES = {"cp1252": "Windows-1252", "gb18030": "GB 18030", "cp932": "Shift JIS", "cp1251": "Windows-1251"}
"""Encodings that text is taken to be in where nothing tells, and what they are called."""

_KANA = re.compile(rb"\x82[\x9f-\xf1]|\x83[\x40-\x96]")  # of Shift JIS
_FREQUENT = re.compile(rb"[\xb0-\xd7][\xa1-\xfe]")  # characters of GB 2312, which sorts the rare ones behind these
_CYRILLIC = re.compile(rb"[\xc0-\xff\xa8\xb8]+")  # letters of Windows-1251
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]+")
_JUDGED = 1 << 20  # bytes from the first beyond ASCII, whose letters tell what text is in


def decode_text(data: bytes) -> str:
    """Text of a file, or of its beginning, to recognize its format; what cannot be decoded is replaced."""
    encoding = _unicode_encoding(data) or "utf-8"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        is_cut = error.end >= len(data) - 4 or encoding != "utf-8"
        return data.decode(encoding if is_cut else guess_encoding(data), errors="replace")


def decode_file(data: bytes) -> tuple[str, str]:
    """Text of a whole file, and its encoding in words if that is a guess, else nothing.

    Raises :class:`UnicodeError` if it is in no encoding that can be told.
    """
    if encoding := _unicode_encoding(data):
        return data.decode(encoding), ""
    try:
        return data.decode("utf-8"), ""
    except UnicodeDecodeError:
        encoding = guess_encoding(data)
        return data.decode(encoding), GUESSES[encoding]


def guess_encoding(data: bytes) -> str:
    """The encoding of text that is not UTF-8: a key of :data:`GUESSES`.

    Japanese has kana, which hardly anything else is read as; Chinese consists of the frequent characters in the first
    half of GB 2312; Cyrillic words consist of bytes beyond ASCII, which stand alone in Western languages.
    """
    first = _BEYOND_ASCII.search(data)
    judged = data[first.start() : first.start() + _JUDGED] if first else b""
    if _KANA.search(judged) and _is(data, "cp932"):
        return "cp932"
    if _is(data, "gb18030"):
        characters = [letter for letter in judged.decode("gb18030", "ignore") if letter > "\x7f"]
        frequent = sum(bool(_FREQUENT.match(letter.encode("gb2312", "replace"))) for letter in characters)
        if 3 * frequent >= 2 * len(characters):
            return "gb18030"
    words = _BEYOND_ASCII.findall(judged)
    if all(map(_CYRILLIC.fullmatch, words)) and sum(map(len, words)) >= 3 * len(words):
        return "cp1251"
    return "cp1252"


def _unicode_encoding(data: bytes) -> str | None:
    """The encoding that a byte order mark or the zeros of the first character show."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding
    for zeros, encoding in _ZEROS:
        if data.startswith(zeros) and data[len(zeros) : len(zeros) + 1] not in (b"", b"\0"):
            return encoding
    if data[1:4] == b"\0\0\0" and data[:1] != b"\0":
        return "utf-32-le"
    if data[1:2] == b"\0" and data[:1] != b"\0":
        return "utf-16-le"
    return None


def xml_text(data: bytes) -> str | None:
    """Text of an XML file that its parser cannot decode by itself; ``None`` where it can (UTF-8).

    The parser knows no encoding of several bytes but Unicode's, such as GB 2312 or Shift JIS, and takes a declaration
    over the bytes. Here a byte order mark, or what UTF-16 looks like, comes first, then the declaration; where that is
    wrong, UTF-8.

    Raises :class:`UnicodeError` if it is in neither.
    """
    encoding = _unicode_encoding(data)
    if encoding is None:
        declared = _DECLARATION.match(data[:400].lstrip())
        name = declared[1].decode("ascii") if declared else "utf-8"
        encoding = _text_encoding(name)
        if encoding == "utf-8":
            if _is(data, "utf-8"):
                return None if name.casefold() in ("utf-8", "utf8") else data.decode("utf-8")
            which = f"it declares, {name}" if declared else "XML has without a declaration, UTF-8"
            raise UnicodeError(f"is not in the encoding that {which}")
        if encoding is None or encoding.startswith(("utf-16", "utf-32")) or not _is(data, encoding):
            if not _is(data, "utf-8"):
                raise UnicodeError(
                    f"declares the encoding {name}, {'which it is not in' if encoding else 'which is unknown'}"
                )
            encoding = "utf-8"
    # The parser takes text for text, whatever it declares.
    return data.decode(encoding).lstrip("\ufeff")


def _text_encoding(name: str) -> str | None:
    """Python's name of an encoding of text; ``None`` for unknown ones, and codecs that are not encodings of text."""
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        return None
    # A file cannot choose codecs that interpret what they decode: escapes, punycode, UTF-7.
    if not getattr(found, "_is_text_encoding", True) or found.name in ("idna", "punycode", "utf-7", "undefined"):
        return None
    # GB 18030 contains GB 2312 and GBK: tools declare the older name and write newer characters.
    return {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "ascii": "utf-8"}.get(
        found.name, None if "escape" in found.name else found.name
    )


def _is(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeError:
        return False
    return True
