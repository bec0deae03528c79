"""Options of architectures: which values they may have, and configurations with some of them replaced.

The annotation of a configuration's field defines its values: ``bool``, ``Literal``, one of the kinds of numbers below,
a tuple of these, or a row of a table (a named tuple or dataclass of these). Nothing else checks values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from hubel.errors import ModelError
from hubel.models.base import Architecture
from hubel.validation import suggestion

COMMON_OPTIONS = ("num_classes", "in_channels", "image_size", "weights", "backbone")
"""What :func:`~hubel.models.factory.create_model` takes for every architecture, beside its own options."""
_LONGEST_SHOWN = 200  # letters of an option's own value


@dataclass(frozen=True)
class Range:
    """The allowed numbers, in words and as a predicate."""

    words: str
    contains: Callable[[Any], bool]


Count = Annotated[int, Range("a whole number of at least 1", lambda value: value >= 1)]
Natural = Annotated[int, Range("a whole number of at least 0", lambda value: value >= 0)]
_DIVISOR = "a whole number of at least 1 that divides the channels of all grouped convolutions"
Groups = Annotated[int, Range(_DIVISOR, lambda value: value >= 1)]
OddSide = Annotated[int, Range("an odd whole number of at least 1", lambda value: value >= 1 and value % 2 == 1)]
Factor = Annotated[float, Range("a number above 0", lambda value: value > 0)]
PositiveShare = Annotated[float, Range("a number above 0, at most 1", lambda value: 0 < value <= 1)]
ShareBelowOne = Annotated[float, Range("a number of at least 0, below 1", lambda value: 0 <= value < 1)]


def with_options(arch: Architecture, options: Mapping[str, Any]) -> Any:
    """The architecture's configuration with some of its values replaced.

    Raises:
        ModelError: an unknown option, or an impossible value; the hint lists the possible ones.
    """
    aliases = getattr(arch.config, "ALIASES", {})
    options = {aliases.get(option, option): value for option, value in options.items()}
    known = [field.name for field in fields(arch.config)]
    unknown = [option for option in options if option not in known]
    if unknown:
        near = suggestion(unknown[0], (*known, *aliases, *COMMON_OPTIONS))
        offer = f"did you mean {near}?" if near else f"choose from {', '.join(known)}" if known else "pass no options"
        raise ModelError(f"{arch.name} has no option {unknown[0]!r}", offer)
    annotations = _annotations(arch.config.__class__)
    values = {option: _read(value, annotations[option]) for option, value in options.items()}
    for option, value in values.items():
        if not _matches(value, annotations[option]):
            raise ModelError(f"{arch.name} cannot be built with {option}={value!r}", describe_options(arch, [option]))
    return replace(arch.config, **values)


def describe_options(arch: Architecture, options: Iterable[str]) -> str:
    """Of each option its possible values, and the architecture's own."""
    aliases = getattr(arch.config, "ALIASES", {})
    annotations = _annotations(arch.config.__class__)
    return "; ".join(
        f"{option} is {_words(annotations[option])}; the network's own is {option}={_shown(arch.config, option)}"
        for option in (aliases.get(option, option) for option in options)
    )


def _shown(config: Any, option: str) -> str:
    text = repr(getattr(config, option))
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _annotations(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _is_row(annotation: Any) -> bool:
    return isinstance(annotation, type) and bool(getattr(annotation, "__annotations__", None))


def _read(value: Any, annotation: Any) -> Any:
    """Options from JSON or YAML are lists where the configuration has tuples and rows of tables."""
    if isinstance(value, list):
        value = tuple(value)
    if type(value) is not tuple:
        return value
    if _is_row(annotation):
        return annotation(*value) if len(value) == len(_annotations(annotation)) else value
    each = get_args(annotation)[0] if get_origin(annotation) is tuple else None
    return tuple(_read(entry, each) for entry in value)


def _matches(value: Any, annotation: Any) -> bool:
    kind, arguments = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        return _matches(value, arguments[0]) and bool(arguments[1].contains(value))
    if kind is Literal:  # 1 == True, which no option means
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if kind in (Union, UnionType):
        return any(_matches(value, choice) for choice in arguments)
    if kind is tuple:
        count = None if arguments[-1] is Ellipsis else len(arguments)
        same_length = isinstance(value, tuple) and len(value) > 0 and count in (None, len(value))
        return same_length and all(_matches(entry, arguments[0]) for entry in value)
    if _is_row(annotation):
        return isinstance(value, annotation) and all(
            _matches(getattr(value, name), of_field) for name, of_field in _annotations(annotation).items()
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
