"""What the options of an architecture may be, and configurations with some of them replaced.

The annotation of a configuration's field says what it may be: ``bool``, ``Literal``, one of the kinds of numbers below,
a tuple of such, or a row of a table (a named tuple or dataclass of such). Nothing else checks values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from hubel.errors import ModelError
from hubel.models.base import Architecture


@dataclass(frozen=True)
class Range:
    """Which numbers are allowed: in words, and as a test."""

    words: str
    holds: Callable[[Any], bool]


Count = Annotated[int, Range("a whole number of at least 1", lambda value: value >= 1)]
Natural = Annotated[int, Range("a whole number of at least 0", lambda value: value >= 0)]
Groups = Annotated[
    int,
    Range(
        "a whole number of at least 1 that divides the channels of all grouped convolutions", lambda value: value >= 1
    ),
]
OddSide = Annotated[int, Range("an odd whole number of at least 1", lambda value: value >= 1 and value % 2 == 1)]
Factor = Annotated[float, Range("a number above 0", lambda value: value > 0)]
PositiveShare = Annotated[float, Range("a number above 0, at most 1", lambda value: 0 < value <= 1)]
ShareBelowOne = Annotated[float, Range("a number of at least 0, below 1", lambda value: 0 <= value < 1)]


def with_options(row: Architecture, options: Mapping[str, Any]) -> Any:
    """The row's configuration with the options in place of its own values.

    Raises:
        ModelError: an option that there is not, or a value that it cannot have; names what it can.
    """
    known = [field.name for field in fields(row.config)]
    unknown = [option for option in options if option not in known]
    if unknown:
        offer = f"It has {', '.join(known)}." if known else "It has none."
        raise ModelError(f"{row.name} has no option {unknown[0]!r}.", offer)
    annotations = _annotations(row.config.__class__)
    values = {option: _read(value, annotations[option]) for option, value in options.items()}
    for option, value in values.items():
        if not _fits(value, annotations[option]):
            raise ModelError(f"{row.name} cannot be built with {option}={value!r}.", allowed(row, [option]))
    return replace(row.config, **values)


def allowed(row: Architecture, options: Iterable[str]) -> str:
    """One sentence an option: what it may be, and what it is in the row."""
    annotations = _annotations(row.config.__class__)
    return " ".join(
        f"{option} is {_words(annotations[option])}; the network's own is {option}={getattr(row.config, option)!r}."
        for option in options
    )


def _annotations(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _is_row(annotation: Any) -> bool:
    return isinstance(annotation, type) and bool(getattr(annotation, "__annotations__", None))


def _read(value: Any, annotation: Any) -> Any:
    """Options that come from JSON or YAML are lists where the configuration has tuples and rows of tables."""
    if isinstance(value, list):
        value = tuple(value)
    if type(value) is not tuple:
        return value
    if _is_row(annotation):
        return annotation(*value) if len(value) == len(_annotations(annotation)) else value
    each = get_args(annotation)[0] if get_origin(annotation) is tuple else None
    return tuple(_read(entry, each) for entry in value)


def _fits(value: Any, annotation: Any) -> bool:
    kind, arguments = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        return _fits(value, arguments[0]) and bool(arguments[1].holds(value))
    if kind is Literal:  # 1 == True, which no option means
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if kind in (Union, UnionType):
        return any(_fits(value, choice) for choice in arguments)
    if kind is tuple:
        count = None if arguments[-1] is Ellipsis else len(arguments)
        right_length = isinstance(value, tuple) and len(value) > 0 and count in (None, len(value))
        return right_length and all(_fits(entry, arguments[0]) for entry in value)
    if _is_row(annotation):
        return isinstance(value, annotation) and all(
            _fits(getattr(value, name), of_field) for name, of_field in _annotations(annotation).items()
        )
    if annotation in (int, float):
        numbers = int if annotation is int else int | float
        return isinstance(value, numbers) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, annotation)


def _words(annotation: Any) -> str:
    kind, arguments = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        return str(arguments[1].words)
    if kind is Literal:
        return " or ".join(repr(choice) for choice in arguments)
    if kind in (Union, UnionType):
        return " or ".join(_words(choice) for choice in arguments)
    if kind is tuple:
        count = "one or more values" if arguments[-1] is Ellipsis else f"{len(arguments)} values"
        return f"{count}, each {_words(arguments[0])}"
    if _is_row(annotation):
        of_fields = (f"{name} ({_words(of_field)})" for name, of_field in _annotations(annotation).items())
        return f"a row of {', '.join(of_fields)}"
    return {bool: "true or false", NoneType: "nothing"}.get(annotation, f"of type {annotation.__name__}")
