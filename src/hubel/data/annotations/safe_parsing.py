"""Label files into text, JSON, XML or rows: byte order marks, encodings, and limits against forged ones."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from hubel.data.annotations.validators import InvalidAnnotation
from hubel.errors import DataError

LARGEST_FILE = 2 * 1024**3
"""Bytes of a file that tells of many pictures; COCO's train2017 has 450 MB."""

LARGEST_OF_ONE = 64 * 1024**2
"""Bytes of a file that tells of one picture, which it may carry along."""

_DEEPEST = 64
_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


def read_bytes(path: Path, largest: int = LARGEST_FILE) -> bytes:
    """The file, if it is one and not too large.

    Raises:
        DataError: it is not there, is no regular file, is too large, or cannot be read.
    """
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise DataError(f"{path} is no file.", "Name a label file.")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > largest:
                message = f"{path} has {size / 1e6:,.0f} MB, more than the {largest / 1e6:,.0f} MB that are read."
                raise DataError(message, "Split it, or leave it out.")
            return file.read(size + 1)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.", "Check the spelling and the folder.") from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}.", "Check the file and its rights."
        ) from error


def decoded(data: bytes) -> str:
    """Text in UTF-8, with or without a byte order mark, UTF-16 with one, or else Windows' Western letters."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data.decode(encoding, errors="replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def read_text(path: Path, largest: int = LARGEST_FILE) -> str:
    """The file as text; errors as :func:`read_bytes`."""
    return decoded(read_bytes(path, largest))


def read_json(path: Path, largest: int = LARGEST_FILE) -> Any:
    """The file's JSON value; errors as :func:`read_bytes`, and a DataError naming the line where it is no JSON."""
    return parsed_json(read_text(path, largest), str(path))


def parsed_json(text: str, where: str) -> Any:
    """A JSON value.

    Raises:
        DataError: it is none; the fault begins with ``where``.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        message = f"{where}: is no JSON (line {error.lineno}, column {error.colno}: {error.msg})."
    except (RecursionError, ValueError) as error:  # nested too deeply; a number of thousands of digits
        message = f"{where}: is no JSON of labels ({str(error)[:80]})."
    raise DataError(message, "Export it again, or leave it out.")


def read_xml(path: Path, largest: int = LARGEST_OF_ONE) -> Element:
    """The root of an XML file; errors as :func:`read_bytes`, and a DataError for broken or hostile XML."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        return fromstring(read_bytes(path, largest))
    except ParseError as error:
        raise DataError(f"{path}: is broken XML ({error}).", "Export it again, or leave it out.") from error
    except (DefusedXmlException, ValueError, LookupError) as error:
        raise _hostile(path, error) from error


def xml_elements(path: Path, *tags: str) -> Iterator[Element]:
    """The elements of these tags, one after another as they are complete; what was handed out is forgotten.

    So a file of any length needs the memory of one element. Errors as :func:`read_xml`.
    """
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import iterparse

    try:
        open_elements: list[Element] = []
        for event, element in iterparse(io.BytesIO(read_bytes(path)), events=("start", "end")):
            if event == "start":
                if len(open_elements) >= _DEEPEST:
                    raise InvalidAnnotation(f"XML nested more than {_DEEPEST} deep")
                open_elements.append(element)
                continue
            open_elements.pop()
            if element.tag in tags:
                yield element
                element.clear()
                if open_elements:
                    open_elements[-1].remove(element)
    except ParseError as error:
        raise DataError(f"{path}: is broken XML ({error}).", "Export it again, or leave it out.") from error
    except (DefusedXmlException, LookupError) as error:
        raise _hostile(path, error) from error


def _hostile(path: Path, error: Exception) -> DataError:
    what = str(error).split("\n")[0][:80] or type(error).__name__
    return DataError(
        f"{path}: holds what no label file has ({type(error).__name__}: {what}).",
        "Leave it out: it may be meant to do harm.",
    )


def csv_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV text with the line on which each ends, separated by commas or semicolons.

    Raises:
        InvalidAnnotation: a row is no CSV.
    """
    first = next((line for line in text.splitlines() if line.strip()), "")
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=";" if first.count(";") > first.count(",") else ",")
    csv.field_size_limit(LARGEST_OF_ONE)
    try:
        for row in rows:
            if row:
                yield rows.line_num, row
    except csv.Error as error:
        raise InvalidAnnotation(f"is no CSV at line {rows.line_num} ({error})") from error
