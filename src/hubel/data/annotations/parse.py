"""Parse label files defensively: JSON, XML and CSV with limits against forged files; typed fields.

Functions that parse a field or a row raise :class:`InvalidAnnotation` where the value is not what they return.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring, iterparse

from hubel import bounded
from hubel.data.annotations.encodings import decode_file, xml_text
from hubel.errors import DataError
from hubel.masks import Polygon

MAX_FILE_BYTES = 2 * 1024**3
"""Size limit of a file with the labels of many images; COCO's train2017 has 450 MB."""

MAX_IMAGE_FILE_BYTES = 64 * 1024**2
"""Size limit of a file with the labels of one image, which it may embed."""

MAX_COORDINATE = 1e7
"""Limit of coordinates, in pixels; no image is larger."""

_MAX_DEPTH = 64
MAX_NAME = 1_000
"""Limit of the characters of a class name or an id."""

_AS_UTF8 = "save it as UTF-8"
_MAX_VALUES = 150_000_000  # of a JSON file; COCO's train2017 has about 60 million
_MAX_CONTAINERS = 20_000_000  # lists and objects, of 60 bytes and more each when they are empty
_MAX_ELEMENTS = 1_000_000  # of XML, in one image
_MAX_ROW = 16 * 1024**2  # characters of a row of CSV
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")
_EXPORT_AGAIN = "export it again, or leave it out"


class InvalidAnnotation(ValueError):
    """Part of a label file violates its format; the message completes the sentence ``FILE, ROW: …``."""


class UnknownClass(InvalidAnnotation):
    """An annotation refers to a class that the data set does not define."""


def read_bytes(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """Read a file; raises DataError if it is missing, unreadable, not a regular file, or over ``limit`` bytes."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait forever
            raise DataError(f"{path} is not a file", "pass a label file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                message = f"{path} has {size / 1e6:,.0f} MB, more than the limit of {limit / 1e6:,.0f} MB"
                raise DataError(message, "split it, or leave it out")
            return file.read(size + 1)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist", "check the spelling and the folder") from error
    except OSError as error:
        hint = "check the file and its permissions"
        raise DataError(f"{path} cannot be read: {error.strerror or error}", hint) from error


def read_text(path: Path, limit: int = MAX_FILE_BYTES, on_guess: Callable[[Path, str], None] | None = None) -> str:
    """Read a text file; ``on_guess`` is told of a file whose encoding is a guess, and what it is.

    Raises as :func:`read_bytes`, and a DataError for a file in no known encoding.
    """
    try:
        text, guessed = decode_file(read_bytes(path, limit))
    except UnicodeError as error:
        raise DataError(f"{path}: is not text in an encoding that can be told", _AS_UTF8) from error
    if guessed and on_guess is not None:
        on_guess(path, guessed)
    return text


def json_text(text: str, where: str) -> Any:
    """Parse a JSON value; the DataError about invalid JSON begins with ``where`` and names the line."""
    if text.count("[") + text.count("{") > _MAX_CONTAINERS:
        raise DataError(f"{where}: has more than {_MAX_CONTAINERS:,} lists and objects", "split it, or leave it out")
    try:
        return bounded.load_json(text, _MAX_VALUES)
    except bounded.BoundError as error:
        raise DataError(f"{where}: {error}", _EXPORT_AGAIN) from error


def read_xml(path: Path) -> Element:
    """Root of the XML file of an image; raises as :func:`read_bytes`, and a DataError for broken or malicious XML."""
    try:
        data = _without_space(read_bytes(path, MAX_IMAGE_FILE_BYTES))
        text = xml_text(data)
        if (data.count(b"<") if text is None else text.count("<")) > 2 * _MAX_ELEMENTS:
            raise InvalidAnnotation(f"has more than {_MAX_ELEMENTS:,} XML elements")
        root: Element = fromstring(data if text is None else text)
        for element in root.iter():
            _drop_namespace(element)
        return root
    except UnicodeError as error:
        raise DataError(f"{path}: {error}", _AS_UTF8) from error
    except InvalidAnnotation:
        raise
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise _xml_error(path, error) from error


def _drop_namespace(element: Element) -> None:
    """Name an element without the namespace that some tools declare: labels are told by their names alone."""
    element.tag = element.tag.rpartition("}")[2]


def _without_space(data: bytes) -> bytes:
    """Bytes of an XML file without space before its declaration, which parsers refuse."""
    return data.lstrip() if data[:1].isspace() and data[1:2] != b"\0" else data


def iterate_xml(path: Path, *tags: str) -> Iterator[Element]:
    """Elements with these tags, each as soon as it is complete; it is discarded afterwards, like those around it.

    A file of any length needs the memory of one element. Raises as :func:`read_xml`.
    """
    try:
        data = _without_space(read_bytes(path))
        text = xml_text(data)
        open_elements: list[Element] = []
        wanted = parts = 0  # open elements with these tags, and what is in the outermost
        stream = io.BytesIO(data) if text is None else io.StringIO(text)
        for event, element in iterparse(stream, events=("start", "end")):
            if event == "start":
                _drop_namespace(element)
                if len(open_elements) >= _MAX_DEPTH:
                    raise InvalidAnnotation(f"XML nested more than {_MAX_DEPTH} deep")
                open_elements.append(element)
                wanted += element.tag in tags
                parts = parts + 1 if wanted else 0
                if parts > _MAX_ELEMENTS:
                    raise InvalidAnnotation(f"has more than {_MAX_ELEMENTS:,} XML elements in <{element.tag}>")
                continue
            open_elements.pop()
            if element.tag in tags:
                yield element
                wanted -= 1
            if not wanted:
                element.clear()
                if open_elements:
                    open_elements[-1].remove(element)
    except UnicodeError as error:
        raise DataError(f"{path}: {error}", _AS_UTF8) from error
    except (ParseError, DefusedXmlException, LookupError) as error:
        raise _xml_error(path, error) from error


def _xml_error(path: Path, error: Exception) -> DataError:
    if isinstance(error, ParseError):
        return DataError(f"{path}: is broken XML ({error})", _EXPORT_AGAIN)
    detail = str(error).split("\n")[0][:80] or type(error).__name__
    message = f"{path}: contains XML that no label file has ({type(error).__name__}: {detail})"
    return DataError(message, "leave it out: it may be malicious")


def csv_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Rows of a CSV text, separated by commas or semicolons, each with the number of its last line."""
    first = next((line for line in _lines(text) if line.strip()), "")
    taken = 0  # characters since the last row: a quoted cell may have line breaks

    def lines() -> Iterator[str]:
        nonlocal taken
        for line in _lines(text):
            taken += len(line)
            if taken > _MAX_ROW:
                raise csv.Error(f"a row of more than {_MAX_ROW:,} characters")
            yield line

    rows = csv.reader(lines(), delimiter=";" if first.count(";") > first.count(",") else ",")
    csv.field_size_limit(_MAX_ROW)
    try:
        for row in rows:
            taken = 0
            if row:
                yield rows.line_num, row
    except csv.Error as error:
        raise InvalidAnnotation(f"is not valid CSV at line {rows.line_num} ({error})") from error


def _lines(text: str) -> Iterator[str]:
    """The lines of a text with their ends, one at a time."""
    return (match[0] for match in _LINE.finditer(text))


def csv_table(text: str) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """Columns of a CSV text, from its first row, and the other rows as :func:`csv_rows`, by column."""
    rows = csv_rows(text)
    header = [name.strip().lstrip("\ufeff#").strip() for name in next(rows, (0, []))[1]]
    return header, ((line, dict(zip(header, cells, strict=False))) for line, cells in rows)


def number(value: Any, name: str = "a coordinate") -> float:
    """A coordinate or length in pixels, within :data:`MAX_COORDINATE`, from JSON or text."""
    try:
        result = float(value) if is_plain(value) else math.nan
    except (TypeError, ValueError, OverflowError):
        result = math.nan
    if not -MAX_COORDINATE <= result <= MAX_COORDINATE:
        raise InvalidAnnotation(f"{name} is {_describe(value)}, not a number of pixels")
    return result


def is_plain(value: Any) -> bool:
    """True for a number, and for text without what only Python takes for one: ``1_12``, digits of other scripts."""
    return not isinstance(value, bool) and not (isinstance(value, str) and ("_" in value or not value.isascii()))


def numbers(fields: Any, *names: str) -> list[float]:
    """Coordinates from the fields of a JSON object or the attributes of an XML element."""
    return [number(fields.get(name), name) for name in names]


def integer(value: Any, name: str) -> int:
    """An integer of at most 64 bits from JSON or from text such as ``"3"`` or ``"3.0"``."""
    try:
        result = float(value) if is_plain(value) else math.nan
        if result == int(result) and abs(result) < 2**63:
            return int(value) if isinstance(value, int | str) and "." not in str(value) else int(result)
    except (TypeError, ValueError, OverflowError):
        pass
    raise InvalidAnnotation(f"{name} is {_describe(value)}, not a whole number")


def key(value: Any, name: str) -> str:
    """An id, which only has to equal others: text as it is, or a number as text, so that ``1`` equals ``"1"``."""
    if isinstance(value, str) and value and len(value) <= MAX_NAME:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else repr(value)
    raise InvalidAnnotation(f"{name} is {_describe(value)}, not an id")


def key_number(key: str) -> int | None:
    """The whole number of at most 64 bits that an id is; ``None`` for text, and for ``"01"``, which is not ``"1"``."""
    return int(key) if re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", key) else None


def key_order(key: str) -> tuple[bool, int, str]:
    """Sort key of ids: numbers by size, then text."""
    number = key_number(key)
    return number is None, number or 0, key


def size(fields: Any, width: str = "width", height: str = "height") -> tuple[int, int]:
    """Width and height in pixels from a mapping or an XML element; 0 where they are not given, or not a size."""
    sides = []
    for side in (width, height):
        try:
            sides.append(round(number(fields.get(side) or 0)))
        except InvalidAnnotation:
            sides.append(0)
    return (sides[0], sides[1]) if min(sides) > 0 else (0, 0)


def name(value: Any, name: str) -> str:
    """A name, not empty, without surrounding white space; numbers are converted."""
    is_name = isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
    if is_name and not isinstance(value, bool) and (text := str(value).strip()):
        return text
    raise InvalidAnnotation(f"{name} is {_describe(value)}, not a name")


def flag(value: Any) -> bool:
    """True for ``1``, ``true`` and ``yes`` in any case."""
    return value is True or str(value).strip().casefold() in {"1", "true", "yes", "1.0"}


def point(value: Any) -> tuple[float, float]:
    """The coordinates of a point, which is a pair; numbers after them are passed over."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) < 2:
        raise InvalidAnnotation(f"a point is {_describe(value)}, not x and y")
    return number(value[0]), number(value[1])


def polygon(points: Iterable[Any]) -> Polygon:
    """A polygon from three or more pairs of coordinates."""
    flat = [coordinate for each in points for coordinate in point(each)]
    if len(flat) < 6:
        raise InvalidAnnotation(f"a polygon has {len(flat) // 2} points, not three or more")
    return tuple(flat)


def items(value: Any, name: str) -> list[Any]:
    """The value, which must be a JSON list."""
    if not isinstance(value, list):
        raise InvalidAnnotation(f"{name} is {_describe(value)}, not a list")
    return value


def fields(value: Any, name: str) -> dict[str, Any]:
    """The value, which must be a JSON object."""
    if not isinstance(value, dict):
        raise InvalidAnnotation(f"{name} is {_describe(value)}, not an object with named fields")
    return value


def _describe(value: Any) -> str:
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a number of more than 40 digits"
    shown = repr(value[:61] if isinstance(value, str) else value)
    return shown if len(shown) <= 60 else f"{shown[:60]}…"
