"""Validation errors in words of options: what is wrong with which, and a suggestion for a misspelled name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


def suggestion(name: str, names: Iterable[str]) -> str | None:
    """The most similar name: ``epochs`` for ``epoch``; ``None`` if none is similar."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return close[0] if close else None


def explain(error: ValidationError, names: Iterable[str], listed_at: str) -> tuple[str, str]:
    """Message and hint for the first error of a configuration with fields ``names``.

    ``listed_at`` is where a person finds the options, for the hint.
    """
    names = list(names)
    first = error.errors()[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] in _UNKNOWN:
        near = suggestion(field, names)
        return f"{field}: there is no such option", f"did you mean {near}?" if near else listed_at
    if first["type"] in _MISSING:
        return f"{field} is missing", listed_at
    name = ".".join(str(part) for part in first["loc"] if str(part) in (field, *_shown(first)))
    return f"{name} = {first.get('input')!r:.100}: {reason(first)}", listed_at


def _shown(first: ErrorDetails) -> tuple[str, ...]:
    """Parts of the location that a person has written: not the members of unions, which pydantic names by type."""
    return tuple(str(part) for part in first["loc"][1:] if isinstance(part, int))


def reason(first: ErrorDetails) -> str:
    """What is wrong with a value, as the end of a sentence."""
    context: dict[str, Any] = first.get("ctx", {})
    say = _REASONS.get(first["type"])
    if say is not None:
        return say(context)
    return first["msg"][:1].lower() + first["msg"][1:]


_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_MISSING = ("missing", "missing_argument", "missing_keyword_only_argument")

_REASONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "value_error": lambda context: str(context["error"]),
    "literal_error": lambda context: f"it is one of {context['expected'].replace(' or ', ', ')}",
    "greater_than_equal": lambda context: f"it is at least {context['ge']:g}",
    "greater_than": lambda context: f"it is greater than {context['gt']:g}",
    "less_than_equal": lambda context: f"it is at most {context['le']:g}",
    "less_than": lambda context: f"it is less than {context['lt']:g}",
    "finite_number": lambda context: "it is not a finite number",
    "int_type": lambda context: "it is not a whole number",
    "int_parsing": lambda context: "it is not a whole number",
    "int_from_float": lambda context: "it is not a whole number",
    "int_parsing_size": lambda context: "it is too large",
    "float_type": lambda context: "it is not a number",
    "float_parsing": lambda context: "it is not a number",
    "bool_type": lambda context: "it is neither true nor false",
    "bool_parsing": lambda context: "it is neither true nor false",
    "string_type": lambda context: "it is not text",
    "path_type": lambda context: "it is not a path",
    "dict_type": lambda context: "it is not a mapping of names to values",
    "tuple_type": lambda context: "it is not a list",
    "list_type": lambda context: "it is not a list",
    **{kind: lambda context: "it is missing" for kind in _MISSING},
    **{kind: lambda context: "it is unknown" for kind in _UNKNOWN},
    "too_short": lambda context: f"it has fewer than {context['min_length']} values",
    "too_long": lambda context: f"it has more than {context['max_length']} values",
}
