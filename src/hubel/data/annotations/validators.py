"""Values from label files, of the kind that has to be there, or an error that says what is there instead."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from hubel.data.annotations.records import Box, Polygon

MAX_COORDINATE = 1e7
"""Coordinates beyond are no pixels of any picture."""


class InvalidAnnotation(ValueError):
    """Something in a label file is not as the format has it; the message ends the sentence ``FILE (row): …``."""


def number(value: Any, what: str = "a coordinate") -> float:
    """A coordinate or length in pixels from JSON or text.

    Raises:
        InvalidAnnotation: it is no number, not finite, or beyond :data:`MAX_COORDINATE`.
    """
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        result = float("nan")
    if not -MAX_COORDINATE <= result <= MAX_COORDINATE or isinstance(value, bool):
        raise InvalidAnnotation(f"{what} is {_shown(value)}, not a number of pixels")
    return result


def whole(value: Any, what: str) -> int:
    """A whole number of any sign, from JSON or text such as ``"3"`` or ``"3.0"``.

    Raises:
        InvalidAnnotation: it is none.
    """
    try:
        result = float(value)
        if result == int(result) and abs(result) < 2**63 and not isinstance(value, bool):
            return int(value) if isinstance(value, int | str) and "." not in str(value) else int(result)
    except (TypeError, ValueError, OverflowError):
        pass
    raise InvalidAnnotation(f"{what} is {_shown(value)}, not a whole number")


def text(value: Any, what: str) -> str:
    """A name; numbers become their digits, surrounding blanks go.

    Raises:
        InvalidAnnotation: it is neither text nor a number, or empty.
    """
    if isinstance(value, str | int | float) and not isinstance(value, bool) and (name := str(value).strip()):
        return name
    raise InvalidAnnotation(f"{what} is {_shown(value)}, not a name")


def truth(value: Any) -> bool:
    """``1``, ``true``, ``yes`` in any writing."""
    return value is True or str(value).strip().casefold() in {"1", "true", "yes", "1.0"}


def ring(points: Iterable[Any], what: str = "a polygon") -> Polygon:
    """A polygon from pairs of coordinates.

    Raises:
        InvalidAnnotation: there are less than three points, or one is no pair of numbers.
    """
    flat: list[float] = []
    for point in points:
        if not isinstance(point, Sequence) or isinstance(point, str) or len(point) < 2:
            raise InvalidAnnotation(f"{what} has the point {_shown(point)}, not x and y")
        flat += number(point[0]), number(point[1])
    if len(flat) < 6:
        raise InvalidAnnotation(f"{what} has {len(flat) // 2} points, not three or more")
    return tuple(flat)


def around(rings: Iterable[Polygon]) -> Box:
    """The box around polygons."""
    every = tuple(itertools.chain.from_iterable(rings))
    return min(every[::2]), min(every[1::2]), max(every[::2]), max(every[1::2])


def expect_list(value: Any, what: str) -> list[Any]:
    """A JSON list, where a list has to be.

    Raises:
        InvalidAnnotation: it is something else.
    """
    if not isinstance(value, list):
        raise InvalidAnnotation(f"{what} is {_shown(value)}, not a list")
    return value


def expect_object(value: Any, what: str) -> dict[str, Any]:
    """A JSON object, where one has to be.

    Raises:
        InvalidAnnotation: it is something else.
    """
    if not isinstance(value, dict):
        raise InvalidAnnotation(f"{what} is {_shown(value)}, not an object with named fields")
    return value


def _shown(value: Any) -> str:
    if isinstance(value, list | dict):
        return f"a {'list' if isinstance(value, list) else 'group of fields'} of {len(value)}"
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a number of more than 40 digits"
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}…"
